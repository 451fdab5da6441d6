"""Runs the worker agent's units in executor processes, one per slot.

A slot takes several units, which are computed in their order. A unit's time runs from when its turn comes, and what
happens to the process before that is not held against it.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Protocol

from sparkle_p2p.node.array_units import has_arrays, unit_parameters
from sparkle_p2p.node.tiles import ArrayExecutor, Tiles
from sparkle_protocol.effects import Compute, Computed, ComputeFailed, ComputeProgress, StopCompute
from sparkle_protocol.errors import (
    ComputeError,
    ConfigError,
    ExecutorCrashed,
    RemoteProtocolError,
    StorageError,
    TransportError,
)
from sparkle_protocol.work.prefetch import MAX_HANDED

log = logging.getLogger("sparkle.compute")

MAX_CRASHES_PER_UNIT = 2  # the first may be this machine's fault; the next is held against the unit
MAX_CRASHES_KEPT = 1024  # the oldest are forgotten, which forgives them
STOP_TIMEOUT_S = 3.0

UnitKey = tuple[bytes, int, int]


class UnitExecutor(ArrayExecutor, Protocol):
    """What computes units in another process, one after the other (``sparkle_worker.executor.Executor``)."""

    async def run(
        self,
        kernel: str,
        version: int,
        unit: dict[str, Any],
        on_progress: Callable[[float], None],
        on_begin: Callable[[], None] | None = None,
    ) -> bytes:
        """Result bytes of one unit, of which up to ``MAX_HANDED`` may be under way. Raises ComputeError."""
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

    @property
    def missing_protections(self) -> tuple[str, ...]:
        """What this system cannot enforce upon the process, one sentence each; known once it has been started."""
        ...


@dataclass(slots=True, eq=False)
class _Slot:
    """One executor, and how many units it was given that are not done."""

    executor: UnitExecutor
    units: int = 0


class Computing:
    """The slots of this node. Reports to ``tell`` with the events of ``effects``."""

    def __init__(
        self,
        executors: list[UnitExecutor],
        tell: Callable[[object], None],
        group: asyncio.TaskGroup,
        tiles: Tiles | None = None,
    ) -> None:
        self._tiles = tiles  # None: units with arrays are refused
        self._slots = [_Slot(executor) for executor in executors]
        self._executors = tuple(executors)
        self._tell = tell
        self._group = group
        self._tasks: dict[UnitKey, asyncio.Task[None]] = {}
        self._crashes: dict[UnitKey, int] = {}  # units that crashed here once

    @property
    def missing_protections(self) -> tuple[str, ...]:
        """What this system cannot enforce upon the executors, as far as they have been started."""
        return tuple(dict.fromkeys(text for one in self._executors for text in one.missing_protections))

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
        slot = min(self._slots, key=attrgetter("units"), default=None)
        if slot is None or slot.units >= MAX_HANDED:
            slot = None
        else:
            slot.units += 1
        event: object
        try:
            if slot is None:
                event = ComputeFailed(job, unit, epoch, "refused", "no free slot", blame=False)
            else:
                event = await self._compute(slot.executor, effect)
        except Exception as error:
            log.exception("computing unit %d failed unexpectedly", unit)
            event = ComputeFailed(job, unit, epoch, "crash", f"this node failed: {error}", blame=self._blame(key))
        finally:
            if slot is not None:
                slot.units -= 1
            if self._tasks.get(key) is asyncio.current_task():
                del self._tasks[key]
        if isinstance(event, ComputeFailed) and event.blame and self._tiles is not None:
            self._tiles.failed(key)
        self._tell(event)

    async def _compute(self, executor: UnitExecutor, effect: Compute) -> object:
        job, unit, epoch, spec = effect.job, effect.unit, effect.epoch, effect.spec

        loop = asyncio.get_running_loop()
        began_s: float | None = None

        def progress(done: float) -> None:
            self._tell(ComputeProgress(job, unit, epoch, done))

        def begin() -> None:
            nonlocal began_s
            began_s = loop.time()
            limit.reschedule(began_s + spec.deadlines.execution_s)

        try:
            async with asyncio.timeout(None) as limit:
                if not has_arrays(spec):
                    params = unit_parameters(spec, unit)
                    result = await executor.run(spec.kernel, spec.kernel_version, params, progress, begin)
                elif self._tiles is not None:
                    result = await self._tiles.compute(executor, effect, progress, begin)
                else:
                    raise StorageError("this node has no place for arrays")
        except (ConfigError, RemoteProtocolError) as error:
            return ComputeFailed(job, unit, epoch, "refused", str(error), blame=True)
        except (TransportError, StorageError) as error:
            log.warning("unit %d of %s cannot be computed here now: %s", unit, job.hex()[:8], error)
            return ComputeFailed(job, unit, epoch, "refused", str(error), blame=False)
        except TimeoutError:
            text = f"the unit ran longer than its {spec.deadlines.execution_s} s"
            return ComputeFailed(job, unit, epoch, "time", text, blame=True)
        except ExecutorCrashed as error:
            blame = began_s is not None and self._blame((job, unit, epoch))
            return ComputeFailed(job, unit, epoch, "crash", str(error), blame=blame)
        except ComputeError as error:
            return ComputeFailed(job, unit, epoch, "kernel", str(error), blame=True)
        self._crashes.pop((job, unit, epoch), None)
        return Computed(job, unit, epoch, result, loop.time() - began_s if began_s is not None else None)

    def _blame(self, key: UnitKey) -> bool:
        """Count a crash; whether it is now held against the unit."""
        crashes = self._crashes.pop(key, 0) + 1
        if crashes < MAX_CRASHES_PER_UNIT:
            self._crashes[key] = crashes
            while len(self._crashes) > MAX_CRASHES_KEPT:
                del self._crashes[next(iter(self._crashes))]
        return crashes >= MAX_CRASHES_PER_UNIT
