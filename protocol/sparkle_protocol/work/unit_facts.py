"""What has been stated about one unit of a job."""

from dataclasses import dataclass, field
from typing import TypeVar

from sparkle_protocol.facts import (
    NO_RANGE,
    SEAL_UNITS,
    CallItem,
    CommitItem,
    Fact,
    FailureItem,
    LeaseItem,
    RevealItem,
    VerdictItem,
    Verdicts,
)
from sparkle_protocol.ids import FactId, PeerId, ResultHash

Key = tuple[int, PeerId]  # (epoch, worker)
T = TypeVar("T")


@dataclass(slots=True)
class UnitFacts:
    """What has been stated about one unit, by epoch and worker."""

    resets: int = 0
    # Of each of these there is one, as a rule; a set of one would take four times the memory of a tuple.
    leased: dict[Key, tuple[PeerId, ...]] = field(default_factory=dict)  # by which keepers
    commits: dict[Key, tuple[bytes, ...]] = field(default_factory=dict)
    openings: dict[Key, tuple[tuple[bytes, bytes], ...]] = field(default_factory=dict)  # (result hash, nonce)
    failures: dict[Key, tuple[str, str]] = field(default_factory=dict)  # (code, text)
    calls: tuple[Key, ...] = ()  # keepers that want a second answer
    reasons: dict[int, str] = field(default_factory=dict)  # how many resets -> why
    verdicts: dict[int, dict[tuple[FactId, int], VerdictItem]] = field(default_factory=dict)  # (fact, place in it)
    final: tuple[int, ResultHash] | None = None  # epoch and result
    # Caches with the epoch that they are of; None: to be worked out again.
    binding: tuple[int, dict[PeerId, bytes]] | None = None
    votes: tuple[int, dict[PeerId, ResultHash]] | None = None

    def binding_in(self, epoch: int) -> dict[PeerId, bytes]:
        """The only commit of each worker that stated exactly one in an epoch."""
        return {
            worker: commits[0]
            for (stated, worker), commits in self.commits.items()
            if stated == epoch and len(commits) == 1
        }


@dataclass(frozen=True, slots=True)
class Failed:
    """A worker's word that it could not compute a unit in an epoch."""

    epoch: int
    worker: PeerId
    code: str
    text: str


def with_one(known: tuple[T, ...], one: T) -> tuple[T, ...]:
    """The same with one more, unless it is there."""
    return known if one in known else (*known, one)


NOTHING = UnitFacts()
ItemT = TypeVar("ItemT", CallItem, LeaseItem, CommitItem, RevealItem, FailureItem)


def range_of_verdicts(fact: Fact) -> int:
    """The range of units that verdicts speak of: one, as ``JobState.check`` sees to."""
    return fact.payload.items[0].unit // SEAL_UNITS if type(fact.payload) is Verdicts else NO_RANGE
