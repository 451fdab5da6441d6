"""The facts of one job, found by id and by the range of units that they speak of, and the sum over them.

Facts about sealed units leave the set. A few of them stay *aside*, because they prove what somebody did: they are
found by their id, but are neither counted in the sum nor told to anybody, so that two keepers that sealed the same
ranges hold equal sets whatever evidence each of them has seen.
"""

from collections.abc import Iterator

from sparkle_protocol.facts import NO_RANGE, Fact
from sparkle_protocol.ids import FactId
from sparkle_protocol.work.tally import Tally


class FactSet:
    """Facts by id; iteration is over those that count, in the order in which they came."""

    __slots__ = ("_aside", "_by_lot", "_facts", "_several", "tally")

    def __init__(self) -> None:
        self.tally = Tally()
        self._facts: dict[FactId, Fact] = {}
        self._aside: dict[FactId, Fact] = {}
        self._by_lot: dict[int, dict[FactId, None]] = {}  # those of one range, or of none
        self._several: dict[FactId, frozenset[int]] = {}  # those of several ranges

    def add(self, fact: Fact) -> None:
        """Put in a fact that is not there."""
        self._facts[fact.id] = fact
        self.tally.add(fact.id)
        if len(fact.ranges) > 1:
            self._several[fact.id] = fact.ranges
        else:
            self._by_lot.setdefault(next(iter(fact.ranges), NO_RANGE), {})[fact.id] = None

    def remove(self, fact: Fact, *, keep_aside: bool) -> None:
        """Take a fact out; ``keep_aside``: it can still be found."""
        del self._facts[fact.id]
        self.tally.remove(fact.id)
        if self._several.pop(fact.id, None) is None:
            lot = next(iter(fact.ranges), NO_RANGE)
            found = self._by_lot[lot]
            del found[fact.id]
            if not found:
                del self._by_lot[lot]
        if keep_aside:
            self._aside[fact.id] = fact

    def about(self, index: int) -> list[Fact]:
        """The facts that speak of a range, or (``NO_RANGE``) of none."""
        found = [self._facts[fact_id] for fact_id in self._by_lot.get(index, ())]
        return found + [self._facts[fact_id] for fact_id, ranges in self._several.items() if index in ranges]

    def get(self, fact_id: FactId) -> Fact | None:
        """A fact by its id, also one that is kept aside."""
        return self._facts.get(fact_id) or self._aside.get(fact_id)

    def is_aside(self, fact_id: FactId) -> bool:
        """The fact is kept as a proof only."""
        return fact_id in self._aside

    def __contains__(self, fact_id: object) -> bool:
        return fact_id in self._facts or fact_id in self._aside

    def __iter__(self) -> Iterator[Fact]:
        return iter(self._facts.values())

    def __len__(self) -> int:
        return len(self._facts)
