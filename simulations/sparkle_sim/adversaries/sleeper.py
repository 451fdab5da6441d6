"""``sleeper``: honest until twenty of its results were accepted, then wrong at the rate, with results of its own.

What stops it: for each wrong result that is accepted it takes a chance to be compared, which is the larger the less
work it was found right about. So it gains one wrong result for some hundred right ones, whenever it strikes and at
whatever rate; what it gave shortly before it is found out waits for that, and is computed again.
"""

from typing import ClassVar

from sparkle_protocol import effects as fx
from sparkle_protocol.facts import JobSpec
from sparkle_protocol.ids import JobId
from sparkle_protocol.messages import Notice, ReportReply, Settled
from sparkle_sim.adversaries.base import Adversary, Lies
from sparkle_sim.computing import Behaviour, result_size, true_result
from sparkle_sim.requests import WORKER

ASLEEP = 20  # accepted results; ten make a worker's answers count


class Sleeper(Adversary):
    """Cheats once it is believed."""

    kind: ClassVar[str] = "sleeper"

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._accepted = 0

    def event(self, core: int, event: object) -> object | None:
        """It counts what was accepted."""
        self._accepted += sum(1 for one in settled(core, event) if one.accepted)
        return event

    @property
    def awake(self) -> bool:
        """It was believed for long enough."""
        return self._accepted >= ASLEEP

    def behaviour(self) -> Behaviour:
        """Right, until it is awake."""
        return Sleeping(self, self.lies())

    def lies(self) -> Lies:
        """What it does then."""
        return Lies(self.salt, self.salt, self.group.rate)


class Sleeping:
    """Results of a sleeper."""

    __slots__ = ("_lies", "_whose")

    def __init__(self, whose: Sleeper, lies: Lies) -> None:
        self._whose = whose
        self._lies = lies

    def result(self, spec: JobSpec, job: JobId, unit: int) -> bytes | None:
        """The right one, or one of its lies."""
        if self._whose.awake:
            return self._lies.result(spec, job, unit)
        return true_result(job, unit, result_size(spec))


def settled(core: int, event: object) -> list[Settled]:
    """What a worker's core is told about its results."""
    told = event.message if core == WORKER and isinstance(event, fx.Requested | fx.Replied) else None
    return told.settled if isinstance(told, Notice | ReportReply) else []
