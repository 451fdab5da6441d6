"""Whether disk and memory are enough for what the configuration allows."""

import shutil
from pathlib import Path

from sparkle_p2p.config import NodeConfig
from sparkle_p2p.view import Finding, Reason

LEAST_FREE = 256 << 20  # below that a node soon cannot keep what it must


def check_disk(home: Path, config: NodeConfig) -> Finding:
    """There is room."""
    place = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    numbers = {"free_bytes": free, "blobs_mb": config.blobs_mb}
    said = f"{gigabytes(free)} are free where {home} is; arrays may take {gigabytes(config.blobs_mb << 20)} of it."
    if free < LEAST_FREE:
        return Finding("disk", "fail", Reason("disk_full", said, numbers), "Free some space.")
    if free < config.blobs_mb << 20:
        fix = "Free some space, or allow less with --blobs-mb."
        return Finding("disk", "warn", Reason("disk_small", said, numbers), fix)
    return Finding("disk", "ok", Reason("disk_room", said, numbers))


def check_memory(config: NodeConfig, total: int) -> Finding:
    """Units that may run at once fit into the machine."""
    allowed = (config.memory_mb << 20) * config.slots
    numbers = {"allowed_bytes": allowed, "total_bytes": total}
    said = f"Units may use {gigabytes(allowed)} of the {gigabytes(total)} of memory here."
    if allowed > total:
        fix = "Allow less with --memory-mb, or fewer units at once with --slots."
        return Finding("memory", "warn", Reason("memory_overcommitted", said, numbers), fix)
    return Finding("memory", "ok", Reason("memory_fits", said, numbers))


def gigabytes(count: int) -> str:
    """In words: "21.5 GB"."""
    return f"{count / 1e9:.1f} GB"
