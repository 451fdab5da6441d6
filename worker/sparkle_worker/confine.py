"""What a worker process takes away from itself before it computes anything.

Each step is best effort: where the system lacks it, the answer is a sentence that the node shows to its
owner, never a crash. Nothing here may be undone by the process later.
"""

import os
import signal
import sys

SPARE_BYTES = 2**26  # modules that a kernel imports, and room that the allocator takes but does not hand out
_UNKNOWN_BYTES = 2**27  # Python with NumPy takes 0.1 GB of address space on Linux

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with(parent: int) -> list[str]:
    """End this process when the thread that started it ends, however that happens.

    The kernel sends the signal when the *thread* ends that started us: the node starts its executors
    from the thread of its event loop, which lives as long as they are wanted.
    """
    if sys.platform != "linux":
        return ["a worker process may finish its unit after the node was killed: this system cannot tell it"]
    import ctypes

    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        return [f"a worker process may outlive a killed node: {os.strerror(ctypes.get_errno())}"]
    if os.getppid() != parent:  # it died before the call above: no signal will come any more
        os._exit(1)
    return []


def lower_priority() -> list[str]:
    """Run only when nothing else wants the processor.

    Linux derives the disk priority from this as well: SCHED_IDLE counts as the idle class (ioprio_set(2)).
    """
    if not hasattr(os, "nice"):
        return ["worker processes run at normal priority: this system has no nice values"]
    os.nice(19)
    if not hasattr(os, "SCHED_IDLE"):
        return ["worker processes run at nice 19: this system has no idle scheduling class"]
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except OSError as error:
        return [f"worker processes run at nice 19 only: the idle scheduling class is refused ({error.strerror})"]
    return []


def limit_memory(memory_mb: int) -> list[str]:
    """Bound what a unit may add to the address space, so that a greedy one gets a MemoryError; write no core files.

    The limit counts mapped files as well, and what the process takes before it has computed anything, which is not
    the unit's fault: call this when that is loaded.
    """
    try:
        import resource
    except ImportError:
        return ["the memory of worker processes is not limited: this system has no resource limits"]
    missing = []
    for what, kind, wanted in (
        ("memory", resource.RLIMIT_AS, _present_bytes() + SPARE_BYTES + memory_mb * 2**20),
        ("core files", resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        try:
            resource.setrlimit(kind, (value, value))
        except (ValueError, OSError) as error:
            missing.append(f"the {what} of worker processes cannot be limited: {error}")
    return missing


def _present_bytes() -> int:
    """The address space that this process has taken so far."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return _UNKNOWN_BYTES
