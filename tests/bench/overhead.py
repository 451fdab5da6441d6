"""Units worth a second of computing: how much processor time the network adds to them."""

import asyncio
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

from sparkle_worker.kernels.registry import get_kernel
from tests.bench.jobs import Peers, check_quorum, local_peers, run_job
from tests.bench.processes import cpu_s
from tests.bench.rows import Row, median_row

PEERS = 3
COPIES = 2  # workers that compute each unit
UNITS = 32
AT_MOST = 3  # repetitions: one takes most of a minute
KERNEL = "collatz"
NUMBERS = 40_000_000  # of one unit: a second or more on any processor of these years
JOB = {"start": 1, "stop": UNITS * NUMBERS + 1}
WARM_UP = {"start": 1, "stop": 200_001}
AGAINST = f"two processes in a plain loop, the same {COPIES * UNITS} executions"


def overhead(repeat: int) -> list[Row]:
    """Processor seconds of all peers for a job of such units, over those of the bare computation.

    The first row tells no more than that: the same arithmetic takes a fifth more or less processor time from one
    minute to the next on a shared machine, in the plain loop and in the workers alike. The second one has the bar. It
    counts what the nodes take beside their workers, which is all but what one hand-over per execution costs those.
    """
    ours, nodes, bare = asyncio.run(_cpu_s(min(repeat, AT_MOST)))
    return [
        median_row("overhead", "CPU s", ours, bare, judged="ratio", against=AGAINST),
        median_row("overhead_nodes", "CPU s", nodes, bare, bar=0.02, stretch=0.01, judged="ratio", against=AGAINST),
    ]


async def _cpu_s(repeat: int) -> tuple[list[float], list[float], list[float]]:
    """For each job those of all peers with their workers, of the peers without them, and of the plain loop."""
    ours, nodes, bare = [], [], []
    with ProcessPoolExecutor(COPIES, mp_context=multiprocessing.get_context("spawn")) as pool:
        async with local_peers("bench-overhead", PEERS, submitter_computes=False) as peers:
            await asyncio.to_thread(run_job, peers.client, KERNEL, WARM_UP, 4)
            _in_processes(pool, WARM_UP, 1)
            for _ in range(repeat):
                all_s, nodes_s = await asyncio.to_thread(_job_cpu_s, peers)
                ours.append(all_s)
                nodes.append(nodes_s)
                before = cpu_s(os.getpid()) - peers.cpu_s()
                await asyncio.to_thread(_in_processes, pool, JOB, UNITS)
                bare.append(cpu_s(os.getpid()) - peers.cpu_s() - before)
    return ours, nodes, bare


def _job_cpu_s(peers: Peers) -> tuple[float, float]:
    before, nodes_before = peers.cpu_s(), peers.own_cpu_s()
    ran = run_job(peers.client, KERNEL, JOB, UNITS)
    took, nodes_took = peers.cpu_s() - before, peers.own_cpu_s() - nodes_before
    check_quorum(ran, UNITS, COPIES)
    return took, nodes_took


def _in_processes(pool: ProcessPoolExecutor, params: dict[str, int], units: int) -> None:
    list(pool.map(compute_all, [params] * COPIES, [units] * COPIES))


def compute_all(params: dict[str, int], units: int) -> None:
    """Every unit of a job, one after the other."""
    kernel = get_kernel(KERNEL)
    for index in range(units):
        kernel.compute(kernel.unit(params, units, index), lambda _share: None)
