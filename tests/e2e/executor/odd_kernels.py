"""Kernels that misbehave, given to real worker processes by their --kernels option."""

import os
import resource
import signal
import sys
from types import SimpleNamespace

import msgpack


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
            "memory": resource.getrlimit(resource.RLIMIT_AS)[1],
            "core": resource.getrlimit(resource.RLIMIT_CORE)[1],
            "blas_threads": os.environ["OPENBLAS_NUM_THREADS"],
            "threads": len(os.listdir("/proc/self/task")),
            "numpy": numpy.__version__,
            "path": sys.path,
            "group": os.getpgid(0) == os.getpid(),
        }
    )


ODD = {
    function.__name__: SimpleNamespace(name=function.__name__, version=1, compute=function)
    for function in (echo, spin, explode, leave, crash, greedy, chatty, wrong_type, forge, surroundings)
}
