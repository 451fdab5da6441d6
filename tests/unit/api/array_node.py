"""A served node without a network that takes arrays, in a thread of this process: tests look at what it was given."""

import asyncio
import contextlib
import dataclasses
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparkle_p2p.home import HomeDir
from sparkle_p2p.view import JobResult, JobView, KernelView, NodeView, SubmitRequest
from sparkle_p2p.web.server import ApiServer
from sparkle_protocol.errors import ConfigError
from tests.web.fake_node import FakeControl

START_S = 20.0


class ArrayNode(FakeControl):
    """Computes ``a @ b`` for gemm and hands any other single array back; the rest is the fake node's."""

    def __init__(self, home: Path) -> None:
        super().__init__()
        self.home = home
        self.given: dict[str, NDArray[Any]] = {}
        self.modes: set[int] = set()  # of the files and directories that the inputs came in
        self.results: dict[str, NDArray[Any]] = {}
        self.on_submit: Callable[[], object] = lambda: None
        self.on_look: Callable[[], object] = lambda: None
        self.refuses_arrays = False
        self.keeps_results = True
        self.at_first: list[dict[str, Any]] = []  # how its view differs in the first looks at it

    def view(self) -> NodeView:
        shown = super().view()
        return dataclasses.replace(shown, **self.at_first.pop(0)) if self.at_first else shown

    async def submit(self, request: SubmitRequest) -> str:
        self.on_submit()
        if not request.inputs:
            return await super().submit(request)
        if self.refuses_arrays:
            raise ConfigError("'a' has 3 columns, but 'b' has 4 rows")
        self.given = {name: np.load(path) for name, path in request.inputs.items()}
        for path in map(Path, request.inputs.values()):
            self.modes |= {stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(path.parent.stat().st_mode)}
        job = await super().submit(dataclasses.replace(request, kernel="prime_count"))
        self.records[job] = dataclasses.replace(self.records[job], kernel=request.kernel)
        self.submitted[-1] = request
        (first, *rest) = self.given.values()
        self.results[job] = first @ rest[0] if rest and request.kernel == "gemm" else first
        return job

    async def job(self, job: str) -> JobView:
        self.on_look()
        return await super().job(job)

    async def kernels(self) -> tuple[KernelView, ...]:
        example = "sparkle submit gemm --input a=a.npy --input b=b.npy --wait -o c.npy"
        inputs = {"a": "m x k", "b": "k x n"}
        gemm = KernelView("gemm", 1, "Multiplies.", {}, "algebraic", "2 m k n", example, inputs, "k u / (1 - k u)")
        return (*await super().kernels(), gemm)

    async def result(self, job: str) -> JobResult:
        found = await super().result(job)
        if found.job not in self.results:
            return found
        array = self.results[found.job]
        path = self.home / "results" / f"{found.job[:16]}.npy"
        path.parent.mkdir(exist_ok=True)
        np.save(path, array)
        if not self.keeps_results:
            path.unlink()
        value = {"dtype": array.dtype.name, "shape": list(array.shape), "path": str(path)}
        return JobResult(found.job, found.kernel, value, "application/x-npy")


@contextlib.contextmanager
def serving(home: Path) -> Iterator[ArrayNode]:
    """The node with its API, answering until the block ends."""
    node = ArrayNode(home)
    ready, leave = threading.Event(), threading.Event()

    async def serve() -> None:
        with HomeDir.open(home) as directory:
            server = ApiServer(node, token=directory.token, bind="127.0.0.1:0")
            directory.announce(await server.start())
            ready.set()
            await asyncio.to_thread(leave.wait)
            await server.stop()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert ready.wait(START_S)
    try:
        yield node
    finally:
        leave.set()
        thread.join(START_S)


def interrupt() -> None:
    """Ctrl-C for this process."""
    os.kill(os.getpid(), 2)
