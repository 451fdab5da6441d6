"""While a simulation runs, whoever asks the real clock, the system's randomness or for a thread is told off.

Otherwise a run would differ from the next one without anybody knowing why.
"""

import os
import random
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import ParamSpec, TypeVar
from unittest.mock import patch

from sparkle_protocol.errors import LocalProtocolError

_CLOCKS = (
    "time",
    "time_ns",
    "monotonic",
    "monotonic_ns",
    "perf_counter",
    "perf_counter_ns",
    "clock_gettime",
    "sleep",
)
_RANDOM = ("random", "randint", "randrange", "uniform", "choice", "shuffle", "sample", "getrandbits", "randbytes")
_SECRETS = ("token_bytes", "token_hex", "randbits", "randbelow", "choice")


P = ParamSpec("P")
R = TypeVar("R")


@contextmanager
def no_outside() -> Iterator[None]:
    """Refuse real time, randomness that no seed decides, and threads, with a LocalProtocolError.

    For code that the run calls: what looks at the real clock between its slices of time does so outside. Other
    threads of the process, as a library's own, are not part of the run and go on as ever.
    """
    with ExitStack() as patches:
        for module, names in ((time, _CLOCKS), (random, _RANDOM), (secrets, _SECRETS), (os, ("urandom",))):
            for name in names:
                refuse = _refused_here(f"{module.__name__}.{name}", getattr(module, name))
                patches.enter_context(patch.object(module, name, refuse))
        start = _refused_here("threading.Thread", threading.Thread.start)
        patches.enter_context(patch.object(threading.Thread, "start", start))
        yield


def _refused_here(what: str, real: Callable[P, R]) -> Callable[P, R]:
    running = threading.get_ident()

    def refuse(*args: P.args, **named: P.kwargs) -> R:
        if threading.get_ident() == running:
            raise LocalProtocolError(f"the simulation asked for {what}; runs would differ from each other")
        return real(*args, **named)

    return refuse
