"""One worker process: what it was given, what it answers, and how it ends."""

import asyncio
import logging
import os
import signal
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from sparkle_protocol.errors import ComputeError, ExecutorCrashed, LocalProtocolError
from sparkle_worker import frames

PIPE_BYTES = 2**18  # requests without an answer; what goes beyond waits here (one alone may be longer)
READ_BYTES = 2**16  # of replies at a time: what a pipe holds
FORGOTTEN_SECONDS = 1.0  # how long the process may compute what was cancelled before its turn came
_DRAIN_SECONDS = 1.0  # how long output is awaited after the process ended
_STDERR_KEPT = 4096  # bytes; older output is dropped

_log = logging.getLogger(__name__)


class NotBegun(Exception):
    """The process ended before it came to this unit."""


@dataclass(slots=True, eq=False)
class _Run:
    """One unit that a process was given."""

    number: int
    request: bytes
    answer: asyncio.Future[bytes]
    on_progress: Callable[[float], None]
    on_begin: Callable[[], None]
    on_resume: Callable[[float], None]


class WorkerProcess(asyncio.SubprocessProtocol):
    """One worker process, from its start to its end. Driven by the event loop; has no task of its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop, present: "set[WorkerProcess]") -> None:
        self.ready: asyncio.Future[tuple[str, ...]] = loop.create_future()
        self.ready.add_done_callback(_mark_seen)
        self.gone = asyncio.Event()
        self.pid = -1
        self._loop = loop
        self._present = present  # holds us from our start to our end
        self._transport: asyncio.SubprocessTransport | None = None
        self._pidfd: int | None = None
        self._frames = frames.FrameBuffer(frames.REPLY_LIMIT)
        self._stderr = b""
        self._ended = False  # the process has exited
        self._reason: str | None = None  # why we killed it
        self._run = 0
        # Together at most MAX_RUNS. A cancelled run stays in the pipe's list until the process has answered it.
        self._waiting: deque[_Run] = deque()
        self._in_pipe: deque[_Run] = deque()  # the first is being computed
        self._pipe_bytes = 0
        self._flushing = False

    @property
    def alive(self) -> bool:
        """Whether it may be given work."""
        return not self._ended and self._reason is None

    async def ask(
        self,
        message: list[Any],
        on_progress: Callable[[float], None],
        on_begin: Callable[[], None],
        on_resume: Callable[[float], None],
    ) -> bytes:
        """The bytes that answer a request of kernel, version, unit and more (``frames``), its number left out.

        Raises:
            NotBegun: this was no part of how the process ended.
            ComputeError: as ``Executor.run``.
        """
        kind, kernel, *rest = message
        self._run += 1
        try:
            request = frames.encode([kind, self._run, kernel, *rest], frames.REQUEST_LIMIT)
        except LocalProtocolError as error:
            raise ComputeError(f"the unit of {kernel} cannot be handed to the worker process: {error}") from error
        run = _Run(self._run, request, self._loop.create_future(), on_progress, on_begin, on_resume)
        self._waiting.append(run)
        if self._in_pipe:
            self._flush_soon()
        else:
            self._flush()  # nothing is computed meanwhile: do not wait for others
        try:
            return await run.answer
        except (ComputeError, NotBegun):
            raise
        except BaseException:  # cancelled, or a callback failed
            self._forget(run)
            raise

    def _flush_soon(self) -> None:
        """Write what waits, with all that this turn of the loop still brings."""
        if self._waiting and not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if not self.alive or self._transport is None:
            return  # whoever ended it, or _finish, sees to those that wait
        fresh = not self._in_pipe
        requests = []
        while self._waiting:
            size = len(self._waiting[0].request)
            if self._in_pipe and self._pipe_bytes + size > PIPE_BYTES:
                break
            run = self._waiting.popleft()
            self._in_pipe.append(run)
            self._pipe_bytes += size
            requests.append(run.request)
        if requests:
            cast(asyncio.WriteTransport, self._transport.get_pipe_transport(0)).write(b"".join(requests))
        if fresh:
            self._begin_next()

    def _begin_next(self) -> None:
        """The process comes to the first of the units in its pipe."""
        if not self._in_pipe:
            return
        run = self._in_pipe[0]
        if run.answer.done():  # it was cancelled, and is mostly too short to be worth the process
            self._loop.call_later(FORGOTTEN_SECONDS, self._end_forgotten, run)
            return
        try:
            run.on_begin()
        except Exception as error:  # noqa: BLE001 - handed to the caller of run, whose callback it is
            run.answer.set_exception(error)

    def _end_forgotten(self, run: _Run) -> None:
        if self._in_pipe and self._in_pipe[0] is run:
            self.kill("its unit was cancelled")

    def _forget(self, run: _Run) -> None:
        """Nobody waits for a unit any more. Where it is being computed, only the process can be ended."""
        if self._in_pipe and self._in_pipe[0] is run:
            self.kill("its unit was cancelled")
        elif run in self._waiting:
            self._waiting.remove(run)

    def _release(self) -> None:
        """Let those units go that the process has not come to."""
        rest = [*list(self._in_pipe)[1:], *self._waiting]
        self._waiting.clear()
        while len(self._in_pipe) > 1:
            self._in_pipe.pop()
        for run in rest:
            if not run.answer.done():
                run.answer.set_exception(NotBegun())

    def signal(self, number: int) -> None:
        """Send a signal, if there is still somebody to get it."""
        if self._ended:
            return
        try:
            if self._pidfd is not None:
                signal.pidfd_send_signal(self._pidfd, number)
            else:
                os.kill(self.pid, number)
        except ProcessLookupError:
            pass  # it just ended; the loop will tell

    def kill(self, reason: str, *, with_all: bool = False) -> None:
        """End it now; ``reason`` is what the unit is told that it computes, or all that it was given."""
        if self._reason is None:
            self._reason = reason
        self.signal(getattr(signal, "SIGKILL", signal.SIGTERM))
        if with_all:
            for run in (*self._in_pipe, *self._waiting):
                if not run.answer.done():
                    run.answer.set_exception(self._obituary())
        self._release()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The process has been started."""
        self._present.add(self)
        self._transport = cast(asyncio.SubprocessTransport, transport)
        self.pid = self._transport.get_pid()
        replies = self._transport.get_pipe_transport(1)
        if replies is not None:
            # Its own quarter of a MiB is memory that the system is asked for anew at each read, which takes longer
            # than the reading.
            cast(Any, replies).max_size = READ_BYTES
            replies.set_protocol(_Replies(self, replies.get_protocol()))
        if hasattr(os, "pidfd_open"):  # signals by descriptor cannot hit another process with a reused id
            try:
                self._pidfd = os.pidfd_open(self.pid)
            except OSError:
                self._pidfd = None

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """It wrote frames (1) or free text (2)."""
        if fd == 2:
            self._stderr = (self._stderr + data)[-_STDERR_KEPT:]
            return
        if self._reason is not None:
            return
        try:
            for message in self._frames.feed(data):
                self._receive(message)
        except (LocalProtocolError, ValueError, TypeError, IndexError) as error:
            self.kill(f"it broke its protocol ({error})")

    def process_exited(self) -> None:
        """It ended; the pipes may still hold its last words."""
        self._ended = True
        self._loop.call_later(_DRAIN_SECONDS, self._finish)  # a process it left behind may keep them open

    def connection_lost(self, exc: Exception | None) -> None:
        """It ended and everything it wrote has been read."""
        self._finish()

    def _receive(self, message: list[Any]) -> None:
        """Act on one message; a malformed one raises what ``pipe_data_received`` catches."""
        kind, *fields = message
        if kind == "ready" and not self.ready.done():
            version, missing = fields
            if version != frames.FORMAT:
                raise LocalProtocolError(f"its message format is {version}, not {frames.FORMAT}")
            self.ready.set_result(tuple(map(str, missing)))
            return
        number, *rest = fields
        run = self._in_pipe[0] if self._in_pipe else None
        if run is None or number != run.number:
            raise LocalProtocolError(f"nobody waits for its '{kind}'")
        if kind == "progress":
            self._report(run, run.on_progress, float(rest[0]))
        elif kind == "resumed":
            self._report(run, run.on_resume, float(rest[0]))
        elif kind == "result":
            if type(rest[0]) is not bytes:
                raise LocalProtocolError("its result is not bytes")
            if not run.answer.done():
                run.answer.set_result(rest[0])
            self._answered(run)
        elif kind == "error":
            sentence, trace = rest
            if trace:
                _log.warning("a unit failed in the worker process: %s\n%s", sentence, trace)
            if not run.answer.done():
                run.answer.set_exception(ComputeError(str(sentence)))
            self._answered(run)
        else:
            raise LocalProtocolError(f"it sent an unknown '{kind}'")

    def _answered(self, run: _Run) -> None:
        self._in_pipe.popleft()
        self._pipe_bytes -= len(run.request)
        self._flush_soon()
        self._begin_next()

    def _report(self, run: _Run, tell: Callable[[float], None], share: float) -> None:
        """Pass progress on; a failing callback fails the run that brought it."""
        if run.answer.done():
            return
        try:
            tell(share)
        except Exception as error:  # noqa: BLE001 - handed to the caller of run, whose callback it is
            run.answer.set_exception(error)

    def _finish(self) -> None:
        """Release everything and tell who waits; only the first call counts."""
        if self.gone.is_set():
            return
        self._ended = True
        failure = self._obituary()
        if not self.ready.done():
            self.ready.set_exception(failure)
        if self._waiting and not self._in_pipe and self._reason is None:
            self._in_pipe.append(self._waiting.popleft())  # or a process that ends at once would be tried for ever
        self._release()
        if self._in_pipe and not self._in_pipe[0].answer.done():
            self._in_pipe[0].answer.set_exception(failure)
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
        if self._transport is not None:
            self._transport.close()
        self.gone.set()
        self._present.discard(self)

    def _obituary(self) -> ExecutorCrashed:
        """How it ended, as one sentence; what it wrote to stderr goes to the log."""
        text = self._stderr.decode("utf-8", "replace").strip()
        if self._reason is not None:
            return ExecutorCrashed(f"the worker process was ended: {self._reason}")
        code = self._transport.get_returncode() if self._transport is not None else None
        if code is not None and code < 0:
            how = f"was killed by {_signal_name(-code)}"
        else:
            how = f"ended with code {code}" + (f" ({text.splitlines()[-1][:200]})" if text else "")
        _log.warning("worker process %d %s; its last output:\n%s", self.pid, how, text)
        return ExecutorCrashed(f"the worker process {how}; its unit can be computed again")


class _Replies(asyncio.Protocol):
    """Brings what the process writes to us in the turn of the loop in which it is read.

    asyncio's own protocol, which we take the place of, does that one turn later. It learns of the end only.
    """

    def __init__(self, process: WorkerProcess, own: asyncio.BaseProtocol) -> None:
        self._process = process
        self._own = own

    def data_received(self, data: bytes) -> None:
        self._process.pipe_data_received(1, data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._own.connection_lost(exc)


def _signal_name(number: int) -> str:
    """The signal's name, with what mostly causes it."""
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    return f"{name} (out of memory, or ended by someone)" if name == "SIGKILL" else name


def _mark_seen(future: "asyncio.Future[Any]") -> None:
    """Keep asyncio from reporting a failure that nobody happened to wait for."""
    if not future.cancelled():
        future.exception()
