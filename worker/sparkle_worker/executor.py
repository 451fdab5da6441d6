"""Runs kernels in a worker process that can be paused, killed and replaced without harm to the node.

One ``Executor`` owns one process slot. Rules:

- The process is started by the first run, is reused by later ones, and is replaced after it died.
- It is never asked to end, it is killed: it has no state that could be lost.
- Only the thread of the event loop may call an executor, and must outlive it (see ``confine.die_with``).
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any, cast

from sparkle_protocol.errors import ComputeError, ConfigError, ExecutorCrashed, LocalProtocolError
from sparkle_worker import frames

STARTUP_SECONDS = 60.0  # 0.2 s on an idle machine; a loaded one with a cold disk was seen to need 20
EXIT_SECONDS = 10.0  # a killed process ends at once unless the kernel is stuck in a disk wait
_DRAIN_SECONDS = 1.0  # how long output is awaited after the process ended
_STDERR_KEPT = 4096  # bytes; older output is dropped

_log = logging.getLogger(__name__)


class Executor:
    """Computes one unit at a time in its own process.

    Args:
        memory_mb: address space that a unit may use.
        idle_priority: compute only when nothing else wants the processor; otherwise like any process.
        kernels: more kernels for the process, ``MODULE:NAME`` or ``FILE.py:NAME`` (see ``child``).
        startup_seconds: how long the process may take until it can compute, not counting pauses.
    """

    def __init__(
        self,
        *,
        memory_mb: int = 4096,
        idle_priority: bool = True,
        kernels: str | None = None,
        startup_seconds: float = STARTUP_SECONDS,
    ) -> None:
        self._options = ["--memory-mb", str(memory_mb)]
        self._options += [] if idle_priority else ["--normal-priority"]
        self._options += ["--kernels", kernels] if kernels else []
        self._startup_seconds = startup_seconds
        self._child: _Child | None = None
        self._present: set[_Child] = set()  # all that are not yet gone; several only just after a kill
        self._starting = asyncio.Lock()
        self._startup: asyncio.Timeout | None = None
        self._stops = 0  # counts stop() calls, so that a start in progress notices one
        self._running = False
        self._allowed = asyncio.Event()  # not paused
        self._allowed.set()
        self._missing: tuple[str, ...] = ()

    @property
    def pid(self) -> int | None:
        """Process id of the worker process, or None while there is none."""
        return self._child.pid if self._child is not None and self._child.alive else None

    @property
    def running(self) -> bool:
        """Whether a unit is being computed (or waits for the end of a pause)."""
        return self._running

    @property
    def paused(self) -> bool:
        """Whether ``pause`` was called last."""
        return not self._allowed.is_set()

    @property
    def missing_protections(self) -> tuple[str, ...]:
        """What this system cannot enforce, one sentence each; known once the process has been started."""
        return self._missing

    async def start(self) -> None:
        """Have a process ready to compute. ``run`` does this by itself.

        Raises:
            ExecutorCrashed: the process could not be started or did not get ready.
        """
        await self._ready_child()

    async def run(
        self, kernel: str, version: int, unit: Mapping[str, Any], on_progress: Callable[[float], None]
    ) -> bytes:
        """Compute one unit and return its result bytes; ``on_progress`` is called with 0..1 now and then.

        Waits while the executor is paused. If cancelled, the process is killed; the next run gets a new one.

        Raises:
            ComputeError: the kernel refused or failed; the text says why.
            ExecutorCrashed: the process died, or ``stop`` was called.
            LocalProtocolError: a unit is being computed already.
        """
        if self._running:
            raise LocalProtocolError("an executor computes one unit at a time")
        self._running = True
        try:
            await self._allowed.wait()
            child = await self._ready_child()
            return await child.compute(kernel, version, unit, on_progress)
        finally:
            self._running = False

    def pause(self) -> None:
        """Take the process off the processor at once, in mid-unit too; does nothing if paused already.

        Raises:
            ConfigError: this system cannot stop processes.
        """
        if os.name != "posix":
            raise ConfigError("this system cannot pause a worker process; stop it instead")
        self._allowed.clear()
        if self._startup is not None:
            self._startup.reschedule(None)
        if self._child is not None:
            self._child.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let the process go on where it was; does nothing if it is not paused."""
        if not self.paused:
            return
        if self._child is not None:
            self._child.signal(signal.SIGCONT)
        if self._startup is not None:
            self._startup.reschedule(asyncio.get_running_loop().time() + self._startup_seconds)
        self._allowed.set()

    async def stop(self) -> None:
        """End the process at once, paused or not, and wait until it is gone; a running unit fails.

        The executor can be used again.
        """
        self._stops += 1
        if self._child is not None:
            self._child.kill("the executor was stopped")
        waiting = [child.gone.wait() for child in tuple(self._present)]
        try:
            async with asyncio.timeout(EXIT_SECONDS):
                await asyncio.gather(*waiting)
        except TimeoutError:
            _log.warning("a worker process was killed but has not ended within %.0f s", EXIT_SECONDS)

    async def _ready_child(self) -> "_Child":
        """The process that answers, started if there is none."""
        async with self._starting:
            if self._child is not None and self._child.alive:
                return self._child
            stops = self._stops
            child = await self._spawn()
            self._child = child
            if stops != self._stops:
                child.kill("the executor was stopped")
            if self.paused:
                child.signal(signal.SIGSTOP)
            try:
                async with asyncio.timeout(None if self.paused else self._startup_seconds) as self._startup:
                    self._missing = await asyncio.shield(child.ready)
            except TimeoutError:
                text = f"the worker process did not get ready within {self._startup_seconds:.0f} s"
                child.kill(text)
                raise ExecutorCrashed(f"{text}; the machine may be overloaded") from None
            except asyncio.CancelledError:
                child.kill("its start was cancelled")
                raise
            finally:
                self._startup = None
            return child

    async def _spawn(self) -> "_Child":
        """A new process, not ready yet."""
        if not sys.executable:
            raise ExecutorCrashed("there is no Python interpreter to start worker processes with")
        # -P: a numpy.py beside the user's script must not be taken for NumPy.
        command = [sys.executable, "-P", "-m", "sparkle_worker.child", "--parent", str(os.getpid())]
        # A group of its own: the shell's fg and Ctrl-Z must not resume or stop it, pause() alone does.
        group = 0 if os.name == "posix" else None
        loop = asyncio.get_running_loop()
        try:
            _, child = await loop.subprocess_exec(
                lambda: _Child(loop, self._present), *command, *self._options, process_group=group
            )
        except OSError as error:
            raise ExecutorCrashed(f"the worker process could not be started: {error.strerror}") from error
        return child


class _Child(asyncio.SubprocessProtocol):
    """One worker process, from its start to its end. Driven by the event loop; has no task of its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop, present: "set[_Child]") -> None:
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
        self._answer: asyncio.Future[bytes] | None = None
        self._on_progress: Callable[[float], None] = _nothing

    @property
    def alive(self) -> bool:
        """Whether it may be given work."""
        return not self._ended and self._reason is None

    async def compute(
        self, kernel: str, version: int, unit: Mapping[str, Any], on_progress: Callable[[float], None]
    ) -> bytes:
        """One unit's result; see ``Executor.run``."""
        self._run += 1
        try:
            request = frames.encode(["run", self._run, kernel, version, dict(unit)], frames.REQUEST_LIMIT)
        except LocalProtocolError as error:
            raise ComputeError(f"the unit of {kernel} cannot be handed to the worker process: {error}") from error
        if not self.alive or self._transport is None:
            raise ExecutorCrashed("the worker process ended before it could compute")
        answer: asyncio.Future[bytes] = self._loop.create_future()
        self._answer = answer
        self._on_progress = on_progress
        pipe = cast(asyncio.WriteTransport, self._transport.get_pipe_transport(0))
        pipe.write(request)
        try:
            return await answer
        except ComputeError:
            raise
        except BaseException:  # cancelled, or on_progress failed: the process still computes for nobody
            self.kill("its unit was cancelled")
            raise
        finally:
            self._answer = None

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

    def kill(self, reason: str) -> None:
        """End it now; ``reason`` is what a waiting run is told."""
        if self._reason is None:
            self._reason = reason
        self.signal(getattr(signal, "SIGKILL", signal.SIGTERM))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The process has been started."""
        self._present.add(self)
        self._transport = cast(asyncio.SubprocessTransport, transport)
        self.pid = self._transport.get_pid()
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
        run, *rest = fields
        if run != self._run or self._answer is None or self._answer.done():
            raise LocalProtocolError(f"nobody waits for its '{kind}'")
        if kind == "progress":
            self._report(float(rest[0]))
        elif kind == "result":
            if type(rest[0]) is not bytes:
                raise LocalProtocolError("its result is not bytes")
            self._answer.set_result(rest[0])
        elif kind == "error":
            sentence, trace = rest
            if trace:
                _log.warning("a unit failed in the worker process: %s\n%s", sentence, trace)
            self._answer.set_exception(ComputeError(str(sentence)))
        else:
            raise LocalProtocolError(f"it sent an unknown '{kind}'")

    def _report(self, share: float) -> None:
        """Pass progress on; a failing callback fails the run that brought it."""
        try:
            self._on_progress(share)
        except Exception as error:  # noqa: BLE001 - handed to the caller of run, whose callback it is
            if self._answer is not None:
                self._answer.set_exception(error)

    def _finish(self) -> None:
        """Release everything and tell who waits; only the first call counts."""
        if self.gone.is_set():
            return
        self._ended = True
        failure = self._obituary()
        if not self.ready.done():
            self.ready.set_exception(failure)
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(failure)
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


def _nothing(_: object) -> None:
    """The callback before there is one."""
