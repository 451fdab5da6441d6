"""What it costs to hand a unit of arrays to the worker process, over what the kernel itself takes."""

import asyncio
import multiprocessing
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from sparkle_worker.executor import Executor
from tests.bench import timed_kernels
from tests.bench.processes import scratch
from tests.bench.rows import Row, median_row
from tests.bench.timed_kernels import SIZE, TIMED

MEMORY = Path("/dev/shm")  # files that are never on a disk, where the system has such
WARM = 3  # units of a block, until caches hold what the units need
BLOCK = 20  # units in a row, as a busy worker computes them
AGAINST = "ProcessPoolExecutor, the arrays pickled"

Array = np.ndarray[Any, Any]


def handover(repeat: int) -> list[Row]:
    """Two tiles and a result of 4 MiB each: the whole round trip without the kernel's own time."""
    spawn = multiprocessing.get_context("spawn")
    with scratch(MEMORY if MEMORY.is_dir() else None) as folder, ProcessPoolExecutor(1, mp_context=spawn) as pool:
        same, fresh, bare = asyncio.run(_measured(folder, pool, repeat))
    return [
        median_row("handover_arrays", "µs", same, bare, bar=150.0, stretch=80.0, against=AGAINST),
        median_row("handover_arrays_fresh", "µs", fresh, bare, against=AGAINST),
    ]


def add(a: Array, b: Array) -> Array:
    """A unit in a pool's process."""
    out = np.empty_like(a)
    TIMED["timed_sum"].compute_into({}, (a, b), out, lambda _share: None)
    return out


async def _measured(
    folder: Path, pool: ProcessPoolExecutor, repeat: int
) -> tuple[list[float], list[float], list[float]]:
    """In turn blocks of: files that were there before, as in a job most tiles were; all three new; and the pool."""
    loop = asyncio.get_running_loop()
    draw = np.random.default_rng(1)
    a, b = (draw.standard_normal((SIZE, SIZE), dtype=np.float32) for _ in range(2))
    child = Executor(kernels=f"{timed_kernels.__file__}:TIMED", idle_priority=False)
    kept = _files(folder / "kept", a, b)

    async def same() -> float:
        return await _run(child, *kept)

    async def fresh() -> float:
        return await _run(child, *_files(folder / "fresh", a, b))

    async def bare() -> float:
        began = time.perf_counter()
        result = await loop.run_in_executor(pool, add, a, b)
        return (time.perf_counter() - began) * 1e6 - float(result[0, 0])

    found: dict[Callable[[], Awaitable[float]], list[float]] = {same: [], fresh: [], bare: []}
    try:
        for _ in range(repeat):
            for measure, times in found.items():
                times += [await measure() for _ in range(WARM + BLOCK)][WARM:]
    finally:
        await child.stop()
    return found[same], found[fresh], found[bare]


def _files(folder: Path, a: Array, b: Array) -> tuple[list[Path], Path]:
    """Tiles, and a file for the result; none of them is an earlier one."""
    folder.mkdir(exist_ok=True)
    tiles, result = [folder / "a", folder / "b"], folder / "c"
    for path in (*tiles, result):
        path.unlink(missing_ok=True)
    a.tofile(tiles[0])
    b.tofile(tiles[1])
    result.touch()
    return tiles, result


async def _run(child: Executor, tiles: list[Path], result: Path) -> float:
    """Microseconds without the kernel's."""
    began = time.perf_counter()
    await child.run_arrays("timed_sum", 1, {}, tiles, result, lambda _share: None)
    took = time.perf_counter() - began
    return took * 1e6 - float(np.fromfile(result, np.float32, 1)[0])
