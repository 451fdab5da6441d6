"""Runs kernels in a worker process that can be paused, killed and replaced without harm to the node.

One ``Executor`` owns one process slot. Rules:

- The process is started by the first run, is reused by later ones, and is replaced after it died.
- It is never asked to end, it is killed: it has no state that could be lost.
- Units wait in its pipe, up to ``MAX_RUNS`` of them, and are computed in the order in which they were given. So the
  first that has no answer is the one that runs: it alone is to blame when the process dies, and it alone ends with
  the process when it is cancelled. Those behind it go to the next process as if nothing had happened.
- Only the thread of the event loop may call an executor, and must outlive it (see ``confine.die_with``).
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sparkle_protocol.errors import ConfigError, ExecutorCrashed, LocalProtocolError
from sparkle_worker.process import NotBegun, WorkerProcess

CHECKPOINT_SECONDS = 30.0  # what a crash may cost, against what writing gigabytes of state costs
STARTUP_SECONDS = 60.0  # 0.2 s on an idle machine; a loaded one with a cold disk was seen to need 20
EXIT_SECONDS = 10.0  # a killed process ends at once unless the kernel is stuck in a disk wait
MAX_RUNS = 32  # units under way at a time; one more is our own bug

_STOPPED = "the executor was stopped"

_log = logging.getLogger(__name__)


class Executor:
    """Computes units in its own process, one after the other.

    Args:
        memory_mb: address space that a unit may use, mapped files included.
        idle_priority: compute only when nothing else wants the processor; otherwise like any process.
        kernels: more kernels for the process, ``MODULE:NAME`` or ``FILE.py:NAME`` (see ``child``).
        startup_seconds: how long the process may take until it can compute, not counting pauses.
        checkpoint_seconds: least time between two checkpoints of a unit.
        checks: it checks results rather than computing them; it can do both, but is set up for that.
    """

    def __init__(
        self,
        *,
        memory_mb: int = 4096,
        idle_priority: bool = True,
        kernels: str | None = None,
        startup_seconds: float = STARTUP_SECONDS,
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
        checks: bool = False,
    ) -> None:
        self._options = ["--memory-mb", str(memory_mb), "--checkpoint-seconds", str(checkpoint_seconds)]
        self._options += [] if idle_priority else ["--normal-priority"]
        self._options += ["--kernels", kernels] if kernels else []
        self._options += ["--checks"] if checks else []
        self._startup_seconds = startup_seconds
        self._child: WorkerProcess | None = None
        self._present: set[WorkerProcess] = set()  # all that are not yet gone; several only just after a kill
        self._starting = asyncio.Lock()
        self._startup: asyncio.Timeout | None = None
        self._stops = 0  # counts stop() calls, so that a start in progress notices one
        self._runs = 0
        self._allowed = asyncio.Event()  # not paused
        self._allowed.set()
        self._missing: tuple[str, ...] = ()

    @property
    def pid(self) -> int | None:
        """Process id of the worker process, or None while there is none."""
        return self._child.pid if self._child is not None and self._child.alive else None

    @property
    def running(self) -> bool:
        """Whether a unit is being computed (or waits for that)."""
        return self._runs > 0

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
        await self._ready_child(self._stops)

    async def run(
        self,
        kernel: str,
        version: int,
        unit: Mapping[str, Any],
        on_progress: Callable[[float], None],
        on_begin: Callable[[], None] | None = None,
    ) -> bytes:
        """Compute one unit and return its result bytes. Up to ``MAX_RUNS`` may be under way.

        Waits while the executor is paused. If cancelled while it is computed, the process is killed; the others
        under way are then computed by the next one.

        Args:
            kernel: name of the kernel.
            version: its version.
            unit: the unit's parameters.
            on_progress: called with 0..1 now and then.
            on_begin: called once, when the units given before are done and this one's turn has come.

        Raises:
            ComputeError: the kernel refused or failed; the text says why.
            ExecutorCrashed: the process died of this unit or could not be started, or ``stop`` was called.
            LocalProtocolError: too many units are under way already.
        """
        return await self._ask(["run", kernel, version, dict(unit)], on_progress, on_begin)

    async def run_arrays(
        self,
        kernel: str,
        version: int,
        unit: Mapping[str, Any],
        inputs: Sequence[Path],
        result: Path,
        on_progress: Callable[[float], None],
        on_begin: Callable[[], None] | None = None,
        *,
        checkpoint: Path | None = None,
        on_resume: Callable[[float], None] | None = None,
    ) -> None:
        """Compute one unit of an array kernel from files into a file; otherwise as ``run``.

        No array passes the pipe: the process maps the files, and writes a result whose file is new. They must stay as
        they are, except that they may be removed, until the unit is done.

        Args:
            kernel: name of the kernel.
            version: its version.
            unit: the unit's parameters.
            inputs: its tiles in their order: plain bytes of an array, or blobs of the store.
            result: a file that exists, in a file system with room for it. It gets the result's length; its contents
                mean something only after this returned. Fastest is one that held such a result before. Not one that
                another executor is given: a unit that was cancelled before its turn may still be written.
            on_progress: called with 0..1 now and then.
            on_begin: called once, when this one's turn has come.
            checkpoint: where to go on from, if that is a checkpoint of this unit, and where to write new ones if the
                kernel has such. Removed when the unit is done.
            on_resume: called once if the unit goes on from the checkpoint, with the share that is done.

        Raises:
            ComputeError: as ``run``; also if a tile has the wrong size, or the disk is full.
            ExecutorCrashed: as ``run``.
            LocalProtocolError: as ``run``.
        """
        await self._ask(
            [
                "arrays",
                kernel,
                version,
                dict(unit),
                [os.fsencode(path) for path in inputs],
                os.fsencode(result),
                None if checkpoint is None else os.fsencode(checkpoint),
            ],
            on_progress,
            on_begin,
            on_resume,
        )

    async def check(
        self,
        kernel: str,
        version: int,
        unit: Mapping[str, Any],
        inputs: Sequence[Path],
        result: Path,
        seed: bytes,
        on_begin: Callable[[], None] | None = None,
    ) -> str:
        """What is wrong with a unit's result, in one sentence; empty if it is right.

        Args:
            kernel: name of the kernel.
            version: its version.
            unit: the unit's parameters.
            inputs: its tiles in their order, as ``run_arrays`` takes them.
            result: the file that is said to be the result.
            seed: 32 bytes that nobody knew when the result was committed to.
            on_begin: called once, when this one's turn has come.

        Raises:
            ComputeError: it cannot be checked here, whether it is right or wrong.
            ExecutorCrashed: as ``run``.
            LocalProtocolError: as ``run``.
        """
        paths = [os.fsencode(path) for path in inputs]
        message = ["check", kernel, version, dict(unit), paths, os.fsencode(result), seed]
        return (await self._ask(message, _ignore, on_begin)).decode()

    async def _ask(
        self,
        message: list[Any],
        on_progress: Callable[[float], None],
        on_begin: Callable[[], None] | None,
        on_resume: Callable[[float], None] | None = None,
    ) -> bytes:
        """The answer of whatever process there is to a request (``frames``)."""
        if self._runs >= MAX_RUNS:
            raise LocalProtocolError(f"an executor takes {MAX_RUNS} units at a time")
        self._runs += 1
        stops = self._stops
        try:
            while True:  # ends: each further round takes the end of a unit that was given before this one
                await self._allowed.wait()
                child = await self._ready_child(stops)
                try:
                    return await child.ask(message, on_progress, on_begin or _nothing, on_resume or _ignore)
                except NotBegun:
                    continue
        finally:
            self._runs -= 1

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
        """End the process at once, paused or not, and wait until it is gone; all units under way fail.

        The executor can be used again.
        """
        self._stops += 1
        if self._child is not None:
            self._child.kill(_STOPPED, with_all=True)
        if self.paused:  # those that wait for the end of the pause shall hear of this
            self._allowed.set()
            self._allowed.clear()
        waiting = [child.gone.wait() for child in tuple(self._present)]
        try:
            async with asyncio.timeout(EXIT_SECONDS):
                await asyncio.gather(*waiting)
        except TimeoutError:
            _log.warning("a worker process was killed but has not ended within %.0f s", EXIT_SECONDS)

    async def _ready_child(self, stops: int) -> WorkerProcess:
        """The process that answers, started if there is none; unless there was a stop since the ``stops``th."""
        async with self._starting:
            if stops != self._stops:
                raise ExecutorCrashed(f"the worker process was ended: {_STOPPED}")
            if self._child is not None and self._child.alive:
                return self._child
            child = await self._spawn()
            self._child = child
            if stops != self._stops:
                child.kill(_STOPPED)
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

    async def _spawn(self) -> WorkerProcess:
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
                lambda: WorkerProcess(loop, self._present), *command, *self._options, process_group=group
            )
        except OSError as error:
            raise ExecutorCrashed(f"the worker process could not be started: {error.strerror}") from error
        return child


def _nothing() -> None:
    """The callback where none is wanted."""


def _ignore(_share: float) -> None:
    """The callback where nobody watches."""
