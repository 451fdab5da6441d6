"""Kernels that misbehave, given to real worker processes by their --kernels option."""

import os
import resource
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import msgpack

from sparkle_protocol.errors import ConfigError
from sparkle_worker.kernels.arrays import ArrayType
from sparkle_worker.kernels.base import Cost
from sparkle_worker.kernels.nbody import NBody


def echo(unit, _progress):
    return msgpack.packb(dict(unit))


def spin(_unit, progress):
    while True:
        progress(0.5)


def explode(_unit, _progress):
    raise RuntimeError("the kernel\n\x1b[31mfailed")


def leave(_unit, _progress):
    sys.exit(3)


def crash(_unit, _progress):
    os.kill(os.getpid(), signal.SIGSEGV)


def greedy(_unit, _progress):
    return bytes(2**34)


def chatty(unit, _progress):
    print("hello from a kernel")
    os.write(1, b"\xff" * 100_000)
    os.write(2, b"more\n" * 100_000)
    return sys.stdin.buffer.read() + bytes(unit["size"])


def takes_plain(unit, _progress):
    return b"done" if bytearray(unit["takes"]) else b""


def wrong_type(_unit, _progress):
    return "text"


def forge(_unit, _progress):
    """Writes to every descriptor it finds, among them the one for replies."""
    for descriptor in range(3, 20):
        try:
            os.write(descriptor, b"\x00\x00\x00\x02\xc1\xc1")
        except OSError:
            continue
    return b""


def surroundings(_unit, _progress):
    import numpy

    return msgpack.packb(
        {
            "nice": os.nice(0),
            "policy": os.sched_getscheduler(0),
            "present": os.sysconf("SC_PAGE_SIZE") * int(Path("/proc/self/statm").read_text().split()[0]),
            "memory": resource.getrlimit(resource.RLIMIT_AS)[1],
            "core": resource.getrlimit(resource.RLIMIT_CORE)[1],
            "blas_threads": os.environ["OPENBLAS_NUM_THREADS"],
            "threads": len(os.listdir("/proc/self/task")),
            "numpy": numpy.__version__,
            "path": sys.path,
            "group": os.getpgid(0) == os.getpid(),
        }
    )


class Arrays:
    """A kernel of arrays from a function; every array has ``unit["size"]`` numbers."""

    version = 1
    verification = "exact"

    def __init__(self, compute, tiles=0):
        self.name = compute.__name__
        self.compute_into = compute
        self._tiles = tiles

    def input_types(self, unit):
        return (self.result_type(unit),) * self._tiles

    def result_type(self, unit):
        return ArrayType("float64", (unit["size"],))

    def cost(self, unit):
        return Cost(1.0, 1.0, unit.get("memory", 0))


def copy(_unit, arrays, out, _progress):
    out[:] = arrays[0]


def takes(unit, _arrays, out, _progress):
    """Takes as much memory as it is said to, result included."""
    taken = bytearray(unit["takes"] - out.nbytes)
    out[:] = len(taken)


def state(_unit, _arrays, out, _progress):
    """What a unit of arrays finds in its process."""
    out[0] = len(os.listdir("/proc/self/task"))
    out[1] = sum("/tile" in line for line in Path("/proc/self/maps").read_text().splitlines())


def disturb(_unit, arrays, _out, _progress):
    arrays[0][0] = 1.0


def dies(_unit, _arrays, out, _progress):
    out[:] = 1.0
    os.kill(os.getpid(), signal.SIGKILL)


class Counts(NBody):
    """Counts to ``unit["count"]``, and dies at ``unit["dies"]`` if it did not go on from there.

    The result is where it began, and where it ended.
    """

    name = "counts"

    def input_types(self, _unit):
        return ()

    def result_type(self, _unit):
        return ArrayType("float64", (2,))

    def cost(self, _unit):
        return Cost(1.0, 1.0, 0)

    def compute_into(self, unit, arrays, out, progress):
        self.resume_into(unit, arrays, out, progress, None, lambda _: None)

    def resume_into(self, unit, _arrays, out, progress, checkpoint, save):
        if checkpoint == b"refused":
            raise ConfigError("this is no checkpoint")
        out[0] = at = int(checkpoint or 0)
        while at < unit["count"]:
            at += 1
            progress(at / unit["count"])
            save(b"refused" if unit.get("refused") else str(at).encode())
            if at == unit["dies"]:
                os.kill(os.getpid(), signal.SIGKILL)
        out[1] = at


ODD = {
    function.__name__: SimpleNamespace(name=function.__name__, version=1, compute=function)
    for function in (echo, spin, explode, leave, crash, greedy, takes_plain, chatty, wrong_type, forge, surroundings)
}
ODD |= {kernel.name: kernel for kernel in (Arrays(copy, 1), Arrays(takes), Arrays(state, 1), Arrays(disturb, 1))}
ODD |= {kernel.name: kernel for kernel in (Arrays(dies), Counts())}
