"""What a unit costs in small jobs and in large ones: it should be the same."""

import asyncio
import statistics
from dataclasses import replace

import psutil

from tests.bench.jobs import TINY, local_peers, run_job, tiny
from tests.bench.processes import module, scratch
from tests.bench.rows import Row, median_row

PEERS = 3
WARM_UP = 300
NODE_SIZES = {100: 5, 1_000: 3, 10_000: 1}  # units -> jobs, fewer of the long ones
CORE_SIZES = (10_000, 100_000, 1_000_000)
FEWER = 3  # repetitions below which the largest size is left out
REFERENCE = 1_000
CORE_LIMIT_S = 900.0  # for the largest
MEMORY_SHARE = 0.5  # of what is free: a job that needs more is not measured, and the bar is missed
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
    reference = statistics.median(_core(REFERENCE)["us"] for _ in range(3))
    against, lacking = f"a job of {REFERENCE} units", ""
    found: dict[int, dict[str, float]] = {}
    for units in sizes:
        lacking = _too_much(found[max(found)], units) if found else ""
        if lacking:
            break
        found[units] = _core(units)
    largest = max(found)
    rows = [
        Row(f"core_unit_{units}", found[units]["us"], "CPU µs/unit", reference, judged="ratio", against=against)
        for units in found
    ]
    rows[-1] = replace(rows[-1], bar=BAR, lacking=lacking)
    smaller = sorted(found)[-2:][0]
    memory, before, against = found[largest]["bytes"], found[smaller]["bytes"], f"a job of {smaller} units"
    return [*rows, Row(f"core_memory_{largest}", memory, "B/unit", before, BAR, judged="ratio", against=against)]


def _too_much(smaller: dict[str, float], units: int) -> str:
    """Why a job of so many units cannot be measured, going by a smaller one; empty if it can."""
    gigabytes, seconds = smaller["bytes"] * units / 1e9, smaller["us"] * units / 1e6
    if gigabytes * 1e9 > MEMORY_SHARE * psutil.virtual_memory().available:
        return f"{units} units would take {gigabytes:.0f} GB"
    return f"{units} units would take {seconds:.0f} s" if seconds > CORE_LIMIT_S else ""


def _core(units: int) -> dict[str, float]:
    """In a process of its own, so that nothing of an earlier job is in its memory."""
    with scratch() as directory, module("core", directory / "core.log", str(units)) as child:
        return child.read(2 * CORE_LIMIT_S)
