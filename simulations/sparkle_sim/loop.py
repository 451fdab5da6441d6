"""An asyncio event loop on virtual time: what is ready happens at the present instant, timers at theirs.

Every callback is an event of the kernel, so that programs written with ``async`` and simulated peers take turns in
one order, that of the kernel. There are no threads, sockets, processes and signals here; asking for them is refused.

asyncio keeps tasks in sets, and what goes through a set comes in the order of hashes, of objects that is: of their
addresses. Tasks and futures of this loop have their numbers as hashes, so that ``TaskGroup``, ``wait`` and
``all_tasks`` have an order that is the same in every process. (``as_completed`` has it for tasks, not coroutines.)

A simulation may end at any time: tasks that are pending then are not told. An exception that nobody took from its
task is raised by whoever lets time pass: that of a callback at once, that of a task by ``finish``, since until then
somebody might still await it.
"""

import asyncio
import contextvars
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from itertools import count
from typing import Any, NoReturn, TypeVar, TypeVarTuple

from sparkle_protocol.errors import LocalProtocolError
from sparkle_sim.kernel import SECOND, Kernel

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

MAX_UNSEEN = 64  # tasks that failed and that nobody asked; with more the first one's error is raised at once

_OUTSIDE = {
    "threads": ("run_in_executor", "set_default_executor"),
    "names of hosts": ("getaddrinfo", "getnameinfo"),
    "sockets": (
        "create_connection", "create_server", "create_unix_connection", "create_unix_server", "start_tls",
        "connect_accepted_socket", "create_datagram_endpoint", "sendfile", "sock_recv", "sock_recv_into",
        "sock_recvfrom", "sock_recvfrom_into", "sock_sendall", "sock_sendto", "sock_connect", "sock_accept",
        "sock_sendfile", "add_reader", "remove_reader", "add_writer", "remove_writer",
    ),
    "pipes": ("connect_read_pipe", "connect_write_pipe"),
    "processes": ("subprocess_shell", "subprocess_exec"),
    "signals": ("add_signal_handler", "remove_signal_handler"),
}  # fmt: skip


class _Future(asyncio.Future[T]):
    """One with a hash that is the same in every process."""

    def __init__(self, number: int, loop: "VirtualLoop") -> None:
        self._number = number
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self._number


class _Task(asyncio.Task[T]):
    """One with a hash that is the same in every process."""

    def __init__(self, number: int, coro: Any, loop: "VirtualLoop", **options: Any) -> None:
        self._number = number
        super().__init__(coro, loop=loop, **options)
        self._log_destroy_pending = False  # a simulation may be over before

    def __hash__(self) -> int:
        return self._number


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs coroutines on a kernel's time, either within ``Kernel.run`` or as its driver.

    Whoever calls ``Kernel.run`` asks ``raise_failure`` afterwards. As an ordinary loop (``run_until_complete``,
    ``asyncio.Runner``) it lets time pass itself, and raises a LocalProtocolError if nothing would ever happen any
    more.
    """

    def __init__(self, kernel: Kernel) -> None:
        super().__init__()
        self.kernel = kernel
        self._numbers = count(1)
        self._failure: BaseException | None = None
        self._unseen: list[asyncio.Task[Any]] = []  # tasks that failed; whether somebody looks is seen later
        self._driving = self._halted = False

    def __del__(self) -> None:
        """Nothing is open."""

    # --- time -------------------------------------------------------------------------------------------------

    def time(self) -> float:
        """Virtual seconds since the beginning of the run."""
        return self.kernel.now / SECOND

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Call at the present instant, after what is due already."""
        handle = asyncio.Handle(callback, args, self, context)
        self.kernel.at(self.kernel.now, self._run, handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """As ``call_soon``: there is one thread. A handler of Ctrl-C calls this."""
        return self.call_soon(callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """Call at a time, to the nearest nanosecond; at one that is not over yet, time passes."""
        now = self.kernel.now
        when_ns = max(round(when * SECOND), now + 1) if when > self.time() else now
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self.kernel.at(when_ns, self._run, handle)
        return handle

    # --- futures and tasks ------------------------------------------------------------------------------------

    def create_future(self) -> asyncio.Future[Any]:
        """A future of this loop."""
        return _Future(next(self._numbers), self)

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: object = None,
        context: contextvars.Context | None = None,
        **options: Any,
    ) -> asyncio.Task[T]:
        """A task that begins at the present instant; by a task factory, if there is one."""
        if self.get_task_factory() is not None:
            return super().create_task(coro, name=name, context=context, **options)
        number = next(self._numbers)
        task: _Task[T] = _Task(number, coro, self, name=name or f"Task-{number}", context=context, **options)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        """Remember a task whose exception nobody has taken yet."""
        if not _is_unseen(task):
            return
        self._unseen = [one for one in self._unseen if _is_unseen(one)]
        self._unseen.append(task)
        if len(self._unseen) > MAX_UNSEEN:
            self._fail(self._unseen[0].exception())

    # --- running ----------------------------------------------------------------------------------------------

    def is_running(self) -> bool:
        """Whether what runs now is one of its callbacks, or all that happens is."""
        return asyncio._get_running_loop() is self

    def _run(self, handle: asyncio.Handle) -> None:
        """A callback's turn."""
        if handle.cancelled():
            return
        if self._driving:
            handle._run()
            return
        outer, hooks = self._enter()
        try:
            handle._run()
        finally:
            self._leave(outer, hooks)

    def _enter(self) -> tuple[asyncio.AbstractEventLoop | None, Any]:
        outer, hooks = asyncio._get_running_loop(), sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=None, finalizer=self._finalize)
        asyncio._set_running_loop(self)
        return outer, hooks

    @staticmethod
    def _leave(outer: asyncio.AbstractEventLoop | None, hooks: Any) -> None:
        asyncio._set_running_loop(outer)
        sys.set_asyncgen_hooks(*hooks)

    def _finalize(self, generator: AsyncGenerator[Any, Any]) -> None:
        """Let an async generator that nobody iterates any more clean up."""
        if not self.is_closed():
            self.call_soon(self.create_task, generator.aclose())

    def run_forever(self) -> None:
        """Let time pass until ``stop``.

        Raises:
            LocalProtocolError: everything waits, and nothing more will happen.
        """
        if self.is_closed() or asyncio._get_running_loop() is not None:
            raise RuntimeError("this event loop is closed, or one is running already")
        kernel, (outer, hooks) = self.kernel, self._enter()
        self._driving, self._halted = True, False
        try:
            while not self._halted:
                due_ns = kernel.next_ns
                if due_ns is None:
                    raise LocalProtocolError("all tasks of the simulation wait, and nothing will ever wake them")
                kernel.run(due_ns)
                self.raise_failure()
        finally:
            self._driving = False
            self._leave(outer, hooks)

    def stop(self) -> None:
        """Let ``run_forever`` return after the present event."""
        self._halted = True
        self.kernel.stop()

    # --- failures ---------------------------------------------------------------------------------------------

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Stop time: an error that nobody handles is raised by whoever lets it pass."""
        self._fail(context.get("exception") or LocalProtocolError(str(context.get("message"))))

    def _fail(self, error: BaseException | None) -> None:
        if self._failure is None:
            self._failure = error
        self.kernel.stop()

    def raise_failure(self) -> None:
        """Raise what went wrong in a callback."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def finish(self) -> None:
        """Time is over: raise what went wrong in a callback, or in a task whose exception nobody took."""
        self.raise_failure()
        unseen, self._unseen = [one for one in self._unseen if _is_unseen(one)], []
        errors = [one.exception() for one in unseen]  # from now on they are seen
        if errors and errors[0] is not None:
            raise errors[0]


def _is_unseen(task: asyncio.Task[Any]) -> bool:
    """Whether it failed, and nobody has asked for its exception."""
    return bool(task._log_traceback)


def _refused(name: str, what: str) -> Callable[..., NoReturn]:
    def refuse(self: VirtualLoop, *_: Any, **__: Any) -> NoReturn:
        raise LocalProtocolError(f"a simulation has no {what} ({name}): keep to what asyncio does by itself")

    return refuse


for _what, _names in _OUTSIDE.items():
    for _name in _names:
        setattr(VirtualLoop, _name, _refused(_name, _what))
