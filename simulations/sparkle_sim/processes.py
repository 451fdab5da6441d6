"""Work of a simulated node that takes several steps, written as a coroutine on virtual time.

A coroutine waits for a ``Promise``, and for nothing else. It goes on as an event of its node: when the event loop
gets to it, and not while the process is suspended. Who waits for one thing goes on in the order of the waiting.
"""

from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterable
from typing import Any, Generic, TypeVar

from sparkle_sim.kernel import SECOND, Kernel

T = TypeVar("T")


class Promise(Generic[T]):
    """A value that is there once, or an error instead."""

    __slots__ = ("_error", "_then", "_value", "done")

    def __init__(self) -> None:
        self.done = False
        self._value: T | None = None
        self._error: Exception | None = None
        self._then: list[Callable[[], None]] = []

    def set(self, value: T) -> None:
        """Here it is; what comes after the first time has no effect."""
        self._settle(value, None)

    def fail(self, error: Exception) -> None:
        """It will never be there."""
        self._settle(None, error)

    def _settle(self, value: T | None, error: Exception | None) -> None:
        if self.done:
            return
        self.done, self._value, self._error = True, value, error
        then, self._then = self._then, []
        for call in then:
            call()

    def then(self, call: Callable[[], None]) -> None:
        """Call as soon as it is there."""
        if self.done:
            call()
        else:
            self._then.append(call)

    @property
    def error(self) -> Exception | None:
        """Why it is not there."""
        return self._error

    def __await__(self) -> "Generator[Promise[T], None, T]":
        if not self.done:
            yield self
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # None is a value only where T allows it


class Process:
    """A coroutine under way; ``ended`` is there when it has come to its end, or failed."""

    __slots__ = ("_loop", "_running", "_work", "ended", "over")

    def __init__(self, loop: "Loop", work: Coroutine["Promise[Any]", None, None]) -> None:
        self._loop = loop
        self._work = work
        self._running = False
        self.over = False
        self.ended: Promise[None] = Promise()

    def step(self) -> None:
        """Go on to the next thing that is not there yet."""
        if self.over:
            return
        self._running = True
        try:
            waited = self._work.send(None)
        except StopIteration:
            self._end()
            self.ended.set(None)
            return
        except self._loop.expected as error:
            self._end()
            self.ended.fail(error)
            return
        finally:
            self._running = False
        if self.over:  # it was cancelled by what it did itself
            self._work.close()
        else:
            waited.then(self._wake)

    def _wake(self) -> None:
        self._loop.soon(self.step)

    def _end(self) -> None:
        self.over = True
        self._loop.running.pop(self, None)

    def cancel(self) -> None:
        """End it where it stands; what it has behind ``finally`` is done at once, and ``ended`` never comes."""
        if not self.over:
            self._end()
            if not self._running:
                self._work.close()


class Loop:
    """What a node's coroutines need of it, for as long as its process lives.

    Args:
        kernel: the clock.
        soon: has the node's event loop do something as soon as it gets to that.
        expected: errors by which a coroutine may end; any other ends the run.
    """

    def __init__(
        self,
        kernel: Kernel,
        soon: Callable[[Callable[[], None]], None],
        expected: tuple[type[Exception], ...],
    ) -> None:
        self.soon = soon
        self.expected = expected
        self.running: dict[Process, None] = {}
        self._kernel = kernel

    def begin(self, work: Coroutine["Promise[Any]", None, None]) -> Process:
        """Have a coroutine run; its first step is taken at once."""
        process = Process(self, work)
        self.running[process] = None
        process.step()
        return process

    def sleep(self, seconds: float) -> Promise[None]:
        """There after this time."""
        promise: Promise[None] = Promise()
        self._kernel.after(int(seconds * SECOND), promise.set, None)
        return promise

    async def gather(self, works: Iterable[Coroutine["Promise[Any]", None, None]]) -> None:
        """Run these at a time; with the first failure all of them end."""
        processes = [self.begin(work) for work in works]
        all_: Promise[None] = Promise()
        left = len(processes)

        def ended(process: Process) -> None:
            nonlocal left
            left -= 1
            if process.ended.error is not None:
                all_.fail(process.ended.error)
            elif not left:
                all_.set(None)

        for process in processes:
            process.ended.then(lambda process=process: ended(process))  # type: ignore[misc]
        try:
            if processes:
                await all_
        finally:
            for process in processes:
                process.cancel()

    def stop(self) -> None:
        """The node's process is gone."""
        for process in list(self.running):
            process.cancel()


class Places:
    """So many at a time, the others in the order in which they came."""

    __slots__ = ("_free", "_waiting")

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: deque[Promise[None]] = deque()

    async def __aenter__(self) -> None:
        if self._free:
            self._free -= 1
            return
        turn: Promise[None] = Promise()
        self._waiting.append(turn)
        taken = False
        try:
            await turn
            taken = True
        finally:
            if not taken:  # given up
                if turn.done:
                    self._give_back()
                else:
                    self._waiting.remove(turn)

    async def __aexit__(self, *_: object) -> None:
        self._give_back()

    def _give_back(self) -> None:
        if self._waiting:
            self._waiting.popleft().set(None)
        else:
            self._free += 1
