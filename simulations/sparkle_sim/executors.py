"""Where the runs of a sweep are made: on this machine's cores, or on a Dask cluster.

Both are ``concurrent.futures`` executors, and any other would do: what crosses to a worker is the scenario and the
seed, what comes back the figures, both as JSON.
"""

import importlib
import multiprocessing
import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

from sparkle_protocol.errors import ConfigError

CONNECT_S = 10.0


@contextmanager
def executor(where: str, workers: int | None = None) -> Iterator[Executor]:
    """The executor that ``local`` or ``dask://HOST:PORT`` names; what still runs on it is given up in the end.

    Raises:
        ConfigError: it names neither, Dask is not installed, or no scheduler answers.
    """
    if where == "local":
        with _local(workers or len(os.sched_getaffinity(0))) as pool:
            yield pool
        return
    if re.fullmatch(r"dask://[\w.:\[\]-]+:\d{1,5}", where) is None:
        raise ConfigError(f"--executor takes local or dask://HOST:PORT, not '{where}'")
    with _dask(where.removeprefix("dask://"), workers) as pool:
        yield pool


@contextmanager
def _local(workers: int) -> Iterator[Executor]:
    """A process for each run at a time. The terminal's Ctrl-C is for the process that started them."""
    context = multiprocessing.get_context("spawn")  # what a fork copies would be in their way
    pool = ProcessPoolExecutor(workers, context, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN))
    mine = multiprocessing.active_children()
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            if process not in mine:
                process.terminate()


@contextmanager
def _dask(address: str, workers: int | None) -> Iterator[Executor]:
    try:
        distributed: Any = importlib.import_module("distributed")
    except ImportError as error:
        raise ConfigError("--executor dask:// needs Dask: install it with 'pip install distributed'") from error
    try:
        client = distributed.Client(f"tcp://{address}", timeout=CONNECT_S)
    except (OSError, TimeoutError) as error:
        raise ConfigError(
            f"no Dask scheduler answers at {address}: {error}; start one with 'dask scheduler'"
        ) from error
    with client:
        pool: Executor = client.get_executor(pure=False)
        try:
            yield pool
        finally:
            pool.shutdown(wait=False)
