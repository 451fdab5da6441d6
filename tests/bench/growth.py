"""What a unit costs in small jobs and in large ones: it should be the same."""

import asyncio
import statistics

from tests.bench.jobs import TINY, local_peers, run_job, tiny
from tests.bench.processes import module, scratch
from tests.bench.rows import Row, median_row

PEERS = 3
WARM_UP = 300
NODE_SIZES = {100: 5, 1_000: 3, 10_000: 1}  # units -> jobs, fewer of the long ones
CORE_SIZES = (1_000, 10_000, 100_000, 1_000_000)
FEWER = 3  # repetitions below which the largest size is left out
REFERENCE = 1_000
CORE_LIMIT_S = 900.0
BAR = 1.5


def growth(repeat: int) -> list[Row]:
    """Cost per unit of the submitting node and of the cores alone, over the size of the job."""
    return [*_rows_of_node(), *_rows_of_core(CORE_SIZES if repeat >= FEWER else CORE_SIZES[:-1])]


def _rows_of_node() -> list[Row]:
    costs = asyncio.run(_node_ms())
    against = f"jobs of {REFERENCE} units"
    fixed = median_row("node_unit_100", "CPU ms/unit", costs[100], costs[REFERENCE], against=against)
    largest = max(costs)
    name = f"node_unit_{largest}"
    flat = median_row(name, "CPU ms/unit", costs[largest], costs[REFERENCE], bar=BAR, judged="ratio", against=against)
    return [fixed, flat]


async def _node_ms() -> dict[int, list[float]]:
    """Processor milliseconds of the submitting node, which does not compute, per verified unit."""
    costs: dict[int, list[float]] = {}
    async with local_peers("bench-growth", PEERS, submitter_computes=False) as peers:
        await asyncio.to_thread(run_job, peers.client, TINY, tiny(WARM_UP), WARM_UP)
        for units, jobs in NODE_SIZES.items():
            for _ in range(jobs):
                before = peers.node_cpu_s(0)
                await asyncio.to_thread(run_job, peers.client, TINY, tiny(units), units)
                costs.setdefault(units, []).append((peers.node_cpu_s(0) - before) / units * 1e3)
    return costs


def _rows_of_core(sizes: tuple[int, ...]) -> list[Row]:
    found = {units: _core(units) for units in sizes}
    reference = statistics.median([found[REFERENCE]["us"], *(_core(REFERENCE)["us"] for _ in range(2))])
    rows = []
    for units in sizes[1:]:
        bar = BAR if units == sizes[-1] else None
        against = f"a job of {REFERENCE} units"
        us = found[units]["us"]
        rows.append(Row(f"core_unit_{units}", us, "CPU µs/unit", reference, bar, None, "ratio", against))
    largest, before = sizes[-1], sizes[-2]
    memory = found[largest]["bytes"], found[before]["bytes"]
    name = f"core_memory_{largest}"
    rows.append(Row(name, memory[0], "B/unit", memory[1], BAR, None, "ratio", f"a job of {before} units"))
    return rows


def _core(units: int) -> dict[str, float]:
    """In a process of its own, so that nothing of an earlier job is in its memory."""
    with scratch() as directory, module("core", directory / "core.log", str(units)) as child:
        return child.read(CORE_LIMIT_S)
