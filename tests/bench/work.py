"""What it costs to hand a unit to the executor, and to have many small ones verified by three peers."""

import asyncio
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor

from sparkle_p2p.api.client import LocalClient
from sparkle_p2p.cli.swarm import Swarm
from sparkle_worker.executor import Executor
from sparkle_worker.kernels.registry import get_kernel
from tests.bench.processes import pause
from tests.bench.rows import Row, median_row

PEERS = 3
UNITS = 600
RANGE = 600_000  # a thousand numbers each: microseconds of arithmetic, so that the rest is what is measured
JOB_LIMIT_S = 120.0
POLL_S = 0.05
ENDED = ("done", "failed", "cancelled")


def count_primes(start: int, stop: int) -> bytes:
    """A unit in a pool's process."""
    return get_kernel("prime_count").compute({"start": start, "stop": stop}, lambda _share: None)


def executor(repeat: int) -> list[Row]:
    """One tiny unit to the worker process and back, against a process pool of the standard library."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        ours, bare = asyncio.run(_round_trips(pool, repeat))
    return [median_row("executor_round_trip", "ms", ours, bare, against="ProcessPoolExecutor")]


async def _round_trips(pool: ProcessPoolExecutor, repeat: int) -> tuple[list[float], list[float]]:
    loop = asyncio.get_running_loop()
    ours, bare = [], []
    child = Executor()
    version = get_kernel("prime_count").version
    unit = {"start": 1000, "stop": 2000}
    try:
        for round_ in range(repeat + 5):
            began = time.perf_counter()
            await child.run("prime_count", version, unit, lambda _share: None)
            between = time.perf_counter()
            await loop.run_in_executor(pool, count_primes, 1000, 2000)
            if round_ >= 5:
                ours.append((between - began) * 1e3)
                bare.append((time.perf_counter() - between) * 1e3)
    finally:
        await child.stop()
    return ours, bare


def units(repeat: int) -> list[Row]:
    """Tiny units per second through three peers, each agreed on by two, against an unchecked process pool."""
    ours = asyncio.run(_verified_per_s(repeat))
    with ProcessPoolExecutor(PEERS, mp_context=multiprocessing.get_context("spawn")) as pool:
        _pooled_s(pool)  # starts the processes
        bare = [UNITS / _pooled_s(pool) for _ in range(repeat)]
    return [median_row("verified_units", "units/s", ours, bare, against="ProcessPoolExecutor, unchecked")]


def _pooled_s(pool: ProcessPoolExecutor) -> float:
    size = RANGE // UNITS
    began = time.perf_counter()
    list(pool.map(count_primes, range(0, RANGE, size), range(size, RANGE + size, size)))
    return time.perf_counter() - began


async def _verified_per_s(repeat: int) -> list[float]:
    rates = []
    async with Swarm("bench-units", PEERS, 0) as swarm:
        await swarm.start()
        client = LocalClient(swarm.peers[0].home)
        for round_ in range(repeat + 1):
            took = await asyncio.to_thread(_job_s, client)
            if round_ >= 1:  # the first job starts the worker processes
                rates.append(UNITS / took)
    return rates


def _job_s(client: LocalClient) -> float:
    began = time.perf_counter()
    document = client.job(client.submit("prime_count", {"start": 0, "stop": RANGE}, units=UNITS))
    while document["state"] not in ENDED and time.perf_counter() - began < JOB_LIMIT_S:
        pause(POLL_S)
        document = client.job(document["job"])
    took = time.perf_counter() - began
    if document["state"] != "done":
        raise RuntimeError(f"the job is {document['state']} after {took:.0f} s: {document['units']}")
    return took
