"""The worker processes of a simulated node: each slot computes one unit at a time, at the machine's speed."""

from collections.abc import Callable
from math import exp
from typing import Protocol

from sparkle_protocol.effects import Compute, Computed, ComputeFailed, StopCompute
from sparkle_protocol.errors import ComputeError
from sparkle_protocol.facts import JobSpec
from sparkle_protocol.ids import JobId, digest
from sparkle_sim.draws import Draws
from sparkle_sim.kernel import SECOND, Kernel

RESULT_BYTES = 8
NO_REASON: frozenset[str] = frozenset()  # one for all: an empty set takes 216 bytes
UnitKey = tuple[JobId, int, int]


def true_result(job: bytes, unit: int, size: int = RESULT_BYTES) -> bytes:
    """What an honest worker computes; large results repeat themselves."""
    seed = digest(job, unit.to_bytes(4, "big"))
    return (seed * (size // len(seed) + 1))[:size]


def result_size(spec: JobSpec) -> int:
    """Bytes of each result of a job."""
    return int(spec.params.get("result_bytes", RESULT_BYTES))


class Behaviour(Protocol):
    """What a worker makes of a unit: honest or not."""

    def result(self, spec: JobSpec, job: JobId, unit: int) -> bytes | None:
        """Its result; None: it never has one. Raises ComputeError when its kernel fails."""
        ...


class Honest:
    """Computes what was asked for."""

    def result(self, spec: JobSpec, job: JobId, unit: int) -> bytes | None:
        """The right one."""
        return true_result(job, unit, result_size(spec))


class Slots:
    """What a node computes.

    Args:
        kernel: the clock.
        tell: takes ``Computed`` and ``ComputeFailed``; not called any more after ``stop``.
        count: units at a time.
        flops_per_s: of one slot.
        noise: sigma of the lognormal factor on how long a unit takes.
    """

    __slots__ = (
        "_behaviour", "_count", "_draws", "_due", "_kernel", "_running", "_stood_ns", "_stopped", "_suspended",
        "_suspended_ns", "_tell", "_waiting", "flops_per_s", "noise",
    )  # fmt: skip

    def __init__(
        self,
        kernel: Kernel,
        tell: Callable[[Computed | ComputeFailed], None],
        behaviour: Behaviour,
        random: Draws,
        *,
        count: int,
        flops_per_s: float,
        noise: float,
    ) -> None:
        self._kernel = kernel
        self._tell = tell
        self._behaviour = behaviour
        self._draws = random
        self._count = count
        self.flops_per_s = flops_per_s
        self.noise = noise
        self._waiting: list[Compute] = []  # few: a deque would take ten times as much
        self._running: dict[UnitKey, Compute] = {}
        self._suspended = NO_REASON  # why nothing is computed now
        self._suspended_ns = 0  # since when
        self._stood_ns = 0  # how long nothing was computed, before
        self._due: list[
            tuple[UnitKey, Compute, bytes | ComputeError, float, int]
        ] = []  # came to their end while suspended
        self._stopped = False

    def start(self, effect: Compute) -> None:
        """Compute a unit when its turn comes."""
        self._waiting.append(effect)
        self._fill()

    def drop(self, effect: StopCompute) -> None:
        """Give a unit up."""
        key = (effect.job, effect.unit, effect.epoch)
        self._running.pop(key, None)
        self._waiting = [one for one in self._waiting if (one.job, one.unit, one.epoch) != key]
        self._fill()

    def suspend(self, why: str) -> None:
        """Compute nothing until all that suspended it is over."""
        if not self._suspended:
            self._suspended_ns = self._kernel.now
        self._suspended |= {why}

    def resume(self, why: str) -> None:
        """Go on where it was."""
        if why not in self._suspended:
            return
        self._suspended -= {why}
        if not self._suspended:
            self._stood_ns += self._kernel.now - self._suspended_ns
            due, self._due = self._due, []
            for one in due:
                self._done(*one)
            self._fill()

    def stop(self) -> None:
        """All of it is gone with the process."""
        self._stopped = True

    def _fill(self) -> None:
        while self._waiting and len(self._running) < self._count and not self._suspended:
            effect = self._waiting.pop(0)
            key = (effect.job, effect.unit, effect.epoch)
            self._running[key] = effect
            result = self._outcome(effect)
            if result is None:  # it never ends
                continue
            seconds = effect.spec.resources.flops / self.flops_per_s
            if self.noise:
                seconds *= exp(self.noise * self._draws.normal())
            due_ns = int(seconds * SECOND) + self._kernel.now - self._stood_ns  # on the clock of what is computed
            self._kernel.at(due_ns + self._stood_ns, self._done, key, effect, result, seconds, due_ns)

    def _outcome(self, effect: Compute) -> bytes | ComputeError | None:
        """What a unit comes to; None: it never ends."""
        try:
            return self._behaviour.result(effect.spec, effect.job, effect.unit)
        except ComputeError as error:
            return error

    def _done(self, key: UnitKey, effect: Compute, result: bytes | ComputeError, seconds: float, due_ns: int) -> None:
        if self._stopped or self._running.get(key) is not effect:
            return
        if self._suspended:
            self._due.append((key, effect, result, seconds, due_ns))
            return
        if self._kernel.now < due_ns + self._stood_ns:
            self._kernel.at(due_ns + self._stood_ns, self._done, key, effect, result, seconds, due_ns)
            return
        del self._running[key]
        if isinstance(result, ComputeError):
            self._tell(ComputeFailed(*key, "kernel", str(result), blame=True))
        else:
            self._tell(Computed(*key, result, seconds))
        self._fill()
