"""What a run came to, in words and aligned figures."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sparkle_p2p.api.words import duration

if TYPE_CHECKING:
    from sparkle_sim.running import Outcome

_FIGURES = (
    ("units final", "units_final", ""),
    ("of units", "units", ""),
    ("makespan", "makespan_s", " s"),
    ("throughput", "units_per_s", " units/s"),
    ("replicas per unit", "replicas_per_unit", ""),
    ("wrong results accepted", "wrong_finals", ""),
    ("results rejected", "rejected", ""),
    ("messages per unit", "messages_per_unit", ""),
    ("bytes per unit", "bytes_per_unit", ""),
)


def told(outcome: "Outcome") -> list[str]:
    """Lines for a person."""
    manifest, summary = outcome.manifest, outcome.summary
    wall_s = manifest["wall_seconds"] or 0.0
    factor = f", {manifest['virtual_seconds'] / wall_s:.3g} × real time" if wall_s else ""
    rows = [
        ("scenario", f"{manifest['name']}, seed {manifest['seed']}, {manifest['peers']} peers, {manifest['engine']}"),
        ("ran", f"{duration(manifest['virtual_seconds'])} of virtual time in {duration(wall_s)}{factor}"),
        *((label, f"{_figure(summary[key])}{unit}") for label, key, unit in _FIGURES if summary.get(key) is not None),
    ]
    if isinstance(latency := summary.get("latency_s"), dict) and latency.get("p50") is not None:
        rows.append(
            ("submitted to final", ", ".join(f"{name} {_figure(value)} s" for name, value in latency.items()))
        )
    if manifest["trace_hash"]:
        happened = "events" if manifest["engine"] == "full" else "steps"
        rows.append(("trace", f"{manifest['trace_hash'][:32]}… of {manifest['events']} {happened}"))
    return aligned(rows)


def aligned(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Two columns."""
    width = max(len(label) for label, _ in rows)
    return [f"{label.ljust(width)}  {value}" for label, value in rows]


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table with columns as wide as their widest cell."""
    widths = [max(len(line[column]) for line in (heads, *rows)) for column in range(len(heads))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (heads, *rows)
    ]


def _figure(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
