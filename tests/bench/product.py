"""One large product end to end through two local peers, against NumPy with two threads.

The clock runs from the request that submits the job (two ``.npy`` files on the submitter's disk) until a program can
map the ``.npy`` file of the result: cutting, hashing, storing, moving, computing, checking and putting together.
NumPy finds its factors in memory and leaves the result there.
"""

import asyncio
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sparkle_p2p.api.client import LocalClient
from tests.bench.jobs import ENDED, LIMIT_S, Peers, local_peers
from tests.bench.processes import ROOT, Child, environment, pause, scratch, warm_memory
from tests.bench.rows import Row, median_row

PEERS = 2
SIZE = 4096
WARM_UP = 1024
THREADS = "2"
POLL_S = 0.02
POLL_SHARE = 0.02  # of the time that has passed
GIGA = 1e9
AGAINST = "NumPy with two threads, in memory"
SAMPLED_ROWS = 4
PAGES_BYTES = 1 << 30  # what both peers write to files while the clock runs, and more

Array = np.ndarray[Any, Any]


def product(repeat: int) -> list[Row]:
    """gemm 4096² in float32: rate over all, and processor seconds of both nodes with their workers."""
    with scratch() as folder:
        paths = save(folder, SIZE, SIZE, SIZE)
        threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), THREADS)
        command = [sys.executable, "-P", "-m", "tests.bench.numpy_product", *paths.values()]
        env = environment(PYTHONPATH=str(ROOT), **threads)
        with Child(command, folder / "numpy.log", env) as numpy:
            numpy.ask("warm up")
            ours, cpu, bare, bare_cpu = asyncio.run(_repeated(folder, numpy, repeat))
    flops = 2.0 * SIZE**3
    return [
        median_row(
            f"gemm_{SIZE}", "GFLOP/s", [flops / took / GIGA for took in ours], [flops / took / GIGA for took in bare],
            bar=0.47, stretch=0.7, judged="ratio", against=AGAINST, at_least=True,
        ),
        median_row(f"gemm_{SIZE}_cpu", "CPU s", cpu, bare_cpu, against=AGAINST),
    ]  # fmt: skip


async def _repeated(
    folder: Path, numpy: Child, repeat: int
) -> tuple[list[float], list[float], list[float], list[float]]:
    """Seconds and processor seconds of ours, and of NumPy's."""
    ours, cpu, bare, bare_cpu = [], [], [], []
    async with local_peers("bench-product", PEERS) as peers:
        small = save(folder, WARM_UP, WARM_UP, WARM_UP)
        await asyncio.to_thread(run_product, peers.client, small, 8)  # starts the worker processes
        for _ in range(repeat):
            theirs = await asyncio.to_thread(numpy.ask, "next")
            bare.append(theirs["took_s"])
            bare_cpu.append(theirs["cpu_s"])
            paths = save(folder, SIZE, SIZE, SIZE)
            warm_memory(folder, PAGES_BYTES)
            took, used = await asyncio.to_thread(_timed, peers, paths)
            ours.append(took)
            cpu.append(used)
    return ours, cpu, bare, bare_cpu


def _timed(peers: Peers, paths: Mapping[str, str]) -> tuple[float, float]:
    before = peers.cpu_s()
    took, result = run_product(peers.client, paths)
    used = peers.cpu_s() - before
    check_rows(paths, result)
    result.unlink()
    return took, used


def save(folder: Path, m: int, k: int, n: int) -> dict[str, str]:
    """Two factors in files, by the name of the input. New ones each time: peers fetch no blob twice."""
    draw = np.random.default_rng()
    paths = {}
    for key, shape in (("a", (m, k)), ("b", (k, n))):
        path = folder / f"{key}-{m}x{k}x{n}.npy"
        with path.open("wb") as file:
            np.save(file, draw.standard_normal(shape, dtype=np.float32))
            file.flush()
            os.fsync(file.fileno())  # or the disk would be busy with it while the clock runs
        paths[key] = str(path)
    return paths


def run_product(client: LocalClient, paths: Mapping[str, str], units: int | None = None) -> tuple[float, Path]:
    """Seconds until a product's file could be read, and where it is. Raises RuntimeError: it failed."""
    began = time.perf_counter()
    document = client.job(client.submit("gemm", {}, units=units, inputs=paths))
    while document["state"] not in ENDED and time.perf_counter() - began < LIMIT_S:
        pause(max(POLL_S, (time.perf_counter() - began) * POLL_SHARE))  # asking costs the node something too
        document = client.job(document["job"])
    if document["state"] != "done":
        raise RuntimeError(f"the job is {document['state']}: {document['units']}")
    path = Path(document["result"]["path"])
    np.load(path, mmap_mode="r", allow_pickle=False)
    return time.perf_counter() - began, path


def check_rows(paths: Mapping[str, str], result: Path) -> None:
    """Raises RuntimeError unless some rows are those of the product: else the figure would flatter us."""
    a, b, c = (np.load(path, mmap_mode="r", allow_pickle=False) for path in (paths["a"], paths["b"], result))
    rows = slice(None, None, len(a) // SAMPLED_ROWS)
    exact = a[rows].astype(np.float64) @ b.astype(np.float64)
    if not np.allclose(c[rows], exact, rtol=0, atol=1e-5 * a.shape[1] ** 0.5 * 4):
        raise RuntimeError("the result is not the product")
