"""An asyncio loop on virtual time: when nothing is left to do, the time of the next thing to do has come.

Work for threads is done by the loop itself, a while after it was handed over, so that a run has one order. Whoever
cancels it before that has lost it, as a crash loses what was on its way to the disk.
"""

import asyncio
import selectors
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVar

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    """Waits for nothing but passes the waiting time on."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready at once; else time passes."""
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("nothing is left to happen, and somebody still waits")
        if not ready and timeout is not None and timeout > 0:
            self.now_s += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose clock begins at 0.

    Args:
        thread_s: how long what is handed to a thread takes.
    """

    def __init__(self, thread_s: float) -> None:
        self._virtual = _Selector()
        self._thread_s = thread_s
        super().__init__(self._virtual)

    def time(self) -> float:
        """Seconds that have passed."""
        return self._virtual.now_s

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Call it later."""
        done: asyncio.Future[T] = self.create_future()

        def run() -> None:
            if done.done():
                return
            try:
                done.set_result(func(*args))
            except Exception as error:  # it is whoever waits that it concerns
                done.set_exception(error)

        self.call_later(self._thread_s, run)
        return done
