"""The worker process: reads one unit at a time from its pipe, computes it, answers.

    python -P -m sparkle_worker.child --parent PID [--memory-mb N] [--normal-priority] [--kernels SOURCE:NAME]
        [--checkpoint-seconds S] [--checks]

Started by ``executor.Executor`` only. ``--kernels`` is the plug-in hook: ``NAME`` is a mapping of names to
kernels in a module (``package.module:NAME``) or a file (``path/file.py:NAME``), added to the built-in ones;
what has ``compute_into`` is a kernel of arrays. It comes from the node's own command line, never from the network.
"""

import argparse
import faulthandler
import importlib
import importlib.util
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, cast

from sparkle_protocol.errors import ComputeError, ConfigError, LocalProtocolError, SparkleError
from sparkle_worker import blas, confine, frames
from sparkle_worker.array_units import ArrayUnits
from sparkle_worker.kernels.arrays import ArrayKernel
from sparkle_worker.kernels.base import Description, Kernel
from sparkle_worker.kernels.registry import ARRAY_KERNELS, KERNELS, get_kernel

PROGRESS_SECONDS = 1.0  # what people watch; each message wakes the node, which costs as much as 0.1 % of a core does
KEEP_SECONDS = 2.0  # without a unit until mapped files are let go of; the next unit of a job comes sooner
READ_BYTES = 2**16  # what a pipe holds


def main() -> None:
    """Serve units until the executor closes the pipe."""
    arguments = _arguments()
    missing = confine.die_with(arguments.parent)
    requests, replies = _take_pipes()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the node, which then ends us
    blas.set_up(os.environ, thin=arguments.checks)
    more = load_kernels(arguments.kernels) if arguments.kernels else {}
    _warm_up()
    if not arguments.normal_priority:
        missing += confine.lower_priority()
    missing += confine.limit_memory(arguments.memory_mb)
    worker = _Worker(replies, more, arguments.memory_mb, arguments.checkpoint_seconds)
    worker.send(["ready", frames.FORMAT, missing])
    worker.serve(requests)


def _warm_up() -> None:
    """Load NumPy, and have BLAS take its buffers: the first unit shall cost no more than the others.

    They also are larger than a small unit, and must not count as its memory.
    """
    numpy = importlib.import_module("numpy")
    for dtype in ("float32", "float64"):
        square = numpy.ones((128, 128), dtype)  # smaller ones are multiplied without the buffers
        numpy.matmul(square, square)


def load_kernels(source: str) -> Mapping[str, Description]:
    """The mapping of kernels that ``source`` names.

    Raises:
        ConfigError: there is no such module, file or mapping.
    """
    place, _, name = source.rpartition(":")
    try:
        if place.endswith(".py"):
            spec = importlib.util.spec_from_file_location("sparkle_extra_kernels", place)
            if spec is None or spec.loader is None:
                raise ImportError(place)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(place)
        kernels = getattr(module, name)
    except (ImportError, OSError, AttributeError, ValueError) as error:
        raise ConfigError(f"no kernels could be loaded from '{source}' (MODULE:NAME or FILE.py:NAME)") from error
    if not isinstance(kernels, Mapping):
        raise ConfigError(f"'{source}' is not a mapping of names to kernels")
    return kernels


class _Worker:
    """Computes units and writes the answers."""

    def __init__(
        self, replies: BinaryIO, more: Mapping[str, Description], memory_mb: int, checkpoint_s: float
    ) -> None:
        arrays = {name: cast(ArrayKernel, kernel) for name, kernel in more.items() if hasattr(kernel, "compute_into")}
        self._replies = replies
        self._kernels = {**KERNELS, **{n: cast(Kernel, kernel) for n, kernel in more.items() if n not in arrays}}
        self._arrays = ArrayUnits({**ARRAY_KERNELS, **arrays}, memory_mb, checkpoint_s)
        self._memory_mb = memory_mb
        self._kinds: dict[str, Callable[..., bytes]] = {
            "run": self._compute,
            "arrays": self._compute_arrays,
            "check": self._check,
        }

    def serve(self, requests: int) -> None:
        """Answer what comes from a descriptor, until it ends."""
        buffer = frames.FrameBuffer(frames.REQUEST_LIMIT)
        while True:
            if self._arrays.files and not _comes_soon(requests):
                self._arrays.files.release()
            data = os.read(requests, READ_BYTES)
            if not data:
                return
            for request in buffer.feed(data):
                self.answer(request)
                self._arrays.make_room()

    def send(self, message: list[Any]) -> None:
        """Write one frame; without a reader there is nothing left to live for."""
        try:
            self._replies.write(frames.encode(message, frames.REPLY_LIMIT))
            self._replies.flush()
        except OSError:
            os._exit(1)

    def answer(self, request: list[Any]) -> None:
        """Compute what was asked; every failure of the kernel becomes an ``error`` message."""
        kind, run, name, *rest = request
        try:
            if kind not in self._kinds:
                raise LocalProtocolError(f"the worker process knows no '{kind}'")
            self.send(["result", run, self._kinds[kind](run, name, *rest)])
        except SparkleError as error:
            self.send(["error", run, _sentence(str(error)), ""])
        except MemoryError:
            text = f"the unit needs more memory than the {self._memory_mb} MB that this node allows"
            self.send(["error", run, text, traceback.format_exc()[-frames.TEXT_LIMIT :]])
        except (Exception, SystemExit) as error:  # noqa: BLE001 - supervision boundary, logged by the executor
            text = _sentence(f"{name} failed: {type(error).__name__}: {error}")
            self.send(["error", run, text, traceback.format_exc()[-frames.TEXT_LIMIT :]])

    def _compute(self, run: int, name: str, version: int, unit: Mapping[str, Any]) -> bytes:
        kernel = get_kernel(name, version, self._kernels)
        self._arrays.files.release()  # what is mapped would count as this unit's memory
        result = kernel.compute(unit, self._progress(run))
        if type(result) is not bytes:
            raise ComputeError(f"{name} returned {type(result).__name__} instead of bytes")
        if len(result) > frames.RESULT_LIMIT:
            raise ComputeError(f"{name} returned {len(result)} bytes; at most {frames.RESULT_LIMIT} can be sent")
        return result

    def _compute_arrays(self, run: int, *request: Any) -> bytes:
        def resumed(share: float) -> None:
            self.send(["resumed", run, float(share)])

        self._arrays.compute(self._progress(run), resumed, *request)
        return b""

    def _check(self, _run: int, *request: Any) -> bytes:
        return _sentence(self._arrays.check(*request)).encode()

    def _progress(self, run: int) -> Callable[[float], None]:
        """A callback that sends a message every ``PROGRESS_SECONDS``, however often the kernel calls it."""
        due = time.monotonic() + PROGRESS_SECONDS

        def report(share: float) -> None:
            nonlocal due
            now = time.monotonic()
            if now >= due and 0.0 <= share <= 1.0:
                due = now + PROGRESS_SECONDS
                self.send(["progress", run, float(share)])

        return report


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sparkle_worker.child", description="Sparkle worker process")
    parser.add_argument("--parent", type=int, required=True, help="process id of the node")
    parser.add_argument("--memory-mb", type=int, default=4096, help="address space that a unit may use")
    parser.add_argument("--normal-priority", action="store_true", help="compete with the machine's other work")
    parser.add_argument("--checkpoint-seconds", type=float, default=30.0, help="least time between two checkpoints")
    parser.add_argument("--checks", action="store_true", help="check results rather than compute them")
    parser.add_argument("--kernels", help="more kernels: MODULE:NAME or FILE.py:NAME")
    return parser.parse_args()


def _take_pipes() -> tuple[int, BinaryIO]:
    """Our pipes on private descriptors; what a kernel prints goes to stderr, what it reads is empty."""
    requests, replies = os.dup(0), os.fdopen(os.dup(1), "wb")
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    os.dup2(2, 1)
    faulthandler.enable()  # a crash in native code leaves its stack on stderr
    return requests, replies


def _comes_soon(requests: int) -> bool:
    """Whether there is something to read, or its end, within ``KEEP_SECONDS``."""
    if os.name != "posix":
        return False  # it cannot be asked there
    return bool(select.select([requests], [], [], KEEP_SECONDS)[0])


def _sentence(text: str) -> str:
    """One short printable line."""
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else "?" for c in line)[:500]


if __name__ == "__main__":
    try:
        main()
    except SparkleError as failure:
        sys.exit(str(failure))
