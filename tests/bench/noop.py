"""Units that have nothing to compute: what remains is our own cost, held against dask.distributed's and Ray's.

Ours are signed, committed to, computed by two peers each, compared and decided by a verdict that is on disk. A task
of theirs is computed once and believed. Theirs stay out of our environment: they have one of their own
(``alternatives.py``), and each repetition starts its cluster anew, so that nothing idles beside what is measured.
"""

import asyncio

from tests.bench import alternatives
from tests.bench.alternatives import NotAvailable
from tests.bench.jobs import TINY, check_quorum, local_peers, run_job, tiny
from tests.bench.rows import Row, median_row

PEERS = 3
UNITS = 3000
WARM_UP = 500
DASK, RAY = "dask.distributed, unsigned, 3 workers", "Ray, unsigned, 3 workers"


def noop_units(repeat: int) -> list[Row]:
    """Verified no-op units per second through three peers; every unit agreed on by two that did not submit it."""
    ours: list[float] = []
    others: dict[str, list[float]] = {"dask": [], "ray": []}
    lacking: dict[str, str] = {}
    for _ in range(repeat):
        ours.append(asyncio.run(_verified_per_s()))
        for name, rates in others.items():
            if name not in lacking:
                try:
                    rates.append(alternatives.tasks_per_s(name, UNITS, WARM_UP))
                except NotAvailable as error:
                    lacking[name] = str(error)
    return [
        median_row(
            "noop_units", "units/s", ours, others["dask"], bar=1, judged="ratio", against=DASK, at_least=True,
            lacking=lacking.get("dask", ""),
        ),
        median_row(
            "noop_units_ray", "units/s", ours, others["ray"], stretch=2, judged="ratio", against=RAY, at_least=True,
            lacking=lacking.get("ray", ""),
        ),
    ]  # fmt: skip


async def _verified_per_s() -> float:
    async with local_peers("bench-noop", PEERS, submitter_computes=False) as peers:
        await asyncio.to_thread(run_job, peers.client, TINY, tiny(WARM_UP), WARM_UP)
        ran = await asyncio.to_thread(run_job, peers.client, TINY, tiny(UNITS), UNITS)
        check_quorum(ran, UNITS)
        return UNITS / ran.took_s
