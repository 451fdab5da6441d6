"""What the shell tells the agent besides the events of ``sparkle_protocol.effects``."""

from dataclasses import dataclass

from sparkle_ledger.evidence import JobRecord
from sparkle_protocol.facts import Fact
from sparkle_protocol.ids import JobId, PeerId


@dataclass(frozen=True, slots=True)
class Fund:
    """A job of ours is to be handed out: set aside what it may cost. The answer is ``JobFunded``."""

    spec: Fact


@dataclass(frozen=True, slots=True)
class Over:
    """A job of ours is over; take back what is owed to nobody."""

    record: JobRecord


@dataclass(frozen=True, slots=True)
class Accepted:
    """Keepers of somebody's job told that they accepted results of ours, or may come to.

    Attributes:
        spec: of the job.
        units: (unit, epoch) of each; none at first, when there is only work.
        keepers: who may show the proof of it, besides the submitter.
        views: what shows who they are, so that it is known after a restart.
    """

    spec: Fact
    units: tuple[tuple[int, int], ...]
    keepers: tuple[PeerId, ...]
    views: tuple[Fact, ...] = ()


@dataclass(frozen=True, slots=True)
class Cloned:
    """It is proven that somebody else runs with our key: nothing more is signed until this node is started anew."""


@dataclass(frozen=True, slots=True)
class WorkEnded:
    """We get no more units of somebody's job: claim at once what is left of it.

    ``ranges``: of units that we committed to and of which nobody said what became of them.
    """

    job: JobId
    ranges: tuple[int, ...] = ()
