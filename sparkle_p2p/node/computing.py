"""Runs the worker agent's units in executor processes, one per slot."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol

from sparkle_protocol.effects import Compute, Computed, ComputeFailed, ComputeProgress, StopCompute
from sparkle_protocol.errors import ComputeError, ConfigError, ExecutorCrashed
from sparkle_protocol.facts import JobSpec
from sparkle_worker.kernels.registry import get_kernel

log = logging.getLogger("sparkle.compute")

MAX_CRASHES_PER_UNIT = 2  # the first may be this machine's fault; the next is held against the unit
MAX_CRASHES_KEPT = 1024  # the oldest are forgotten, which forgives them
STOP_TIMEOUT_S = 3.0

UnitKey = tuple[bytes, int, int]


class UnitExecutor(Protocol):
    """What computes one unit at a time in another process (``sparkle_worker.executor.Executor``)."""

    async def run(
        self, kernel: str, version: int, unit: dict[str, Any], on_progress: Callable[[float], None]
    ) -> bytes:
        """Result bytes of one unit. Raises ComputeError."""
        ...

    def pause(self) -> None:
        """Suspend at once."""
        ...

    def resume(self) -> None:
        """Go on."""
        ...

    async def stop(self) -> None:
        """End the process."""
        ...


def unit_parameters(spec: JobSpec, unit: int) -> dict[str, Any]:
    """Parameters of one unit. Raises ConfigError when kernel or parameters are not acceptable here."""
    kernel = get_kernel(spec.kernel, spec.kernel_version)
    params = kernel.validate(spec.params)
    if spec.units > kernel.max_units(params):
        raise ConfigError(f"{spec.kernel} cannot be cut into {spec.units} units")
    return kernel.unit(params, spec.units, unit)


class Computing:
    """The slots of this node. Reports to ``tell`` with the events of ``effects``."""

    def __init__(
        self, executors: list[UnitExecutor], tell: Callable[[object], None], group: asyncio.TaskGroup
    ) -> None:
        self._idle = list(executors)
        self._executors = tuple(executors)
        self._tell = tell
        self._group = group
        self._tasks: dict[UnitKey, asyncio.Task[None]] = {}
        self._crashes: dict[UnitKey, int] = {}  # units that crashed here once

    def start(self, effect: Compute) -> None:
        """Run a unit; what becomes of it is told as an event."""
        key = (effect.job, effect.unit, effect.epoch)
        if key not in self._tasks:
            self._tasks[key] = self._group.create_task(self._run(key, effect), name=f"unit {effect.unit}")

    def drop(self, effect: StopCompute) -> None:
        """Forget a unit; a running one is killed."""
        task = self._tasks.pop((effect.job, effect.unit, effect.epoch), None)
        if task is not None:
            task.cancel()

    def pause(self) -> None:
        """Suspend every executor at once."""
        for executor in self._executors:
            executor.pause()

    def resume(self) -> None:
        """Let them go on."""
        for executor in self._executors:
            executor.resume()

    async def stop(self) -> None:
        """End all executor processes."""
        for task in list(self._tasks.values()):
            task.cancel()
        await asyncio.gather(*(self._stop_one(executor) for executor in self._executors))

    async def _stop_one(self, executor: UnitExecutor) -> None:
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await executor.stop()
        except TimeoutError:
            log.error("an executor process did not end in %s s", STOP_TIMEOUT_S)

    async def _run(self, key: UnitKey, effect: Compute) -> None:
        job, unit, epoch = effect.job, effect.unit, effect.epoch
        executor = self._idle.pop() if self._idle else None
        event: object
        try:
            if executor is None:
                event = ComputeFailed(job, unit, epoch, "refused", "no free slot", blame=False)
            else:
                event = await self._compute(executor, effect)
        except Exception as error:
            log.exception("computing unit %d failed unexpectedly", unit)
            event = ComputeFailed(job, unit, epoch, "crash", f"this node failed: {error}", blame=self._blame(key))
        finally:
            if executor is not None:
                self._idle.append(executor)
            if self._tasks.get(key) is asyncio.current_task():
                del self._tasks[key]
        self._tell(event)

    async def _compute(self, executor: UnitExecutor, effect: Compute) -> object:
        job, unit, epoch, spec = effect.job, effect.unit, effect.epoch, effect.spec

        def progress(done: float) -> None:
            self._tell(ComputeProgress(job, unit, epoch, done))

        try:
            params = unit_parameters(spec, unit)
            async with asyncio.timeout(spec.deadlines.execution_s):
                result = await executor.run(spec.kernel, spec.kernel_version, params, progress)
        except ConfigError as error:
            return ComputeFailed(job, unit, epoch, "refused", str(error), blame=True)
        except TimeoutError:
            text = f"the unit ran longer than its {spec.deadlines.execution_s} s"
            return ComputeFailed(job, unit, epoch, "time", text, blame=True)
        except ExecutorCrashed as error:
            return ComputeFailed(job, unit, epoch, "crash", str(error), blame=self._blame((job, unit, epoch)))
        except ComputeError as error:
            return ComputeFailed(job, unit, epoch, "kernel", str(error), blame=True)
        self._crashes.pop((job, unit, epoch), None)
        return Computed(job, unit, epoch, result)

    def _blame(self, key: UnitKey) -> bool:
        """Count a crash; whether it is now held against the unit."""
        crashes = self._crashes.pop(key, 0) + 1
        if crashes < MAX_CRASHES_PER_UNIT:
            self._crashes[key] = crashes
            while len(self._crashes) > MAX_CRASHES_KEPT:
                del self._crashes[next(iter(self._crashes))]
        return crashes >= MAX_CRASHES_PER_UNIT
