"""Who keeps a job: its keeper sets, and which of them count.

- A set whose view is a multiple of ``VIEWS_PER_GENERATION`` counts by the submitter's signature: the first one, one
  after so many keepers were lost that the rest cannot decide (a *recovery* view), and any that follows a set of
  fewer than four, where the submitter alone accepts anyway.
- Any other set has the number after its ``previous`` one's, was proposed by a keeper of that or by the submitter,
  and counts once that set's threshold endorsed it. A keeper endorses one successor at most, so there are never two.
- The set with the highest number counts now. Each epoch of a unit belongs to one view, so whoever keeps a view
  decides on its own epochs only; what older views made final stays final.

All of this is a function of the set of facts, in whatever order they came.
"""

from collections.abc import Iterable
from itertools import chain

from sparkle_protocol.errors import RemoteProtocolError
from sparkle_protocol.facts import VIEWS_PER_GENERATION, Endorsements, Fact, KeeperSet
from sparkle_protocol.ids import FactId, PeerId, key_from_peer_id, peer_id_from_key
from sparkle_protocol.messages import MAX_VIEW_FACTS
from sparkle_protocol.work.placement import FEWEST_DECIDING, threshold

MAX_VIEW_BYTES = 256 << 10  # of the facts that show who keeps a job: a quarter of a message


def next_view(view: int, *, by_submitter: bool) -> int:
    """The number of the view that follows, by the submitter's word alone or by the keepers'."""
    return (view // VIEWS_PER_GENERATION + 1) * VIEWS_PER_GENERATION if by_submitter else view + 1


def check_keeper_set(keepers: KeeperSet) -> None:
    """Return when the set is well formed, else raise RemoteProtocolError."""
    if len(set(keepers.keys)) != len(keepers.keys):
        raise RemoteProtocolError("a keeper set names a peer twice")
    if keepers.threshold != threshold(len(keepers.keys)):
        raise RemoteProtocolError(f"{keepers.threshold} is not the threshold of {len(keepers.keys)} keepers")
    if bool(keepers.view % VIEWS_PER_GENERATION) != bool(keepers.previous):
        raise RemoteProtocolError("a keeper set says that it follows another exactly when its number says so")


class View:
    """One keeper set that counts."""

    __slots__ = ("_keepers", "certifying", "fact", "keepers", "keys", "number", "set", "threshold")

    def __init__(self, fact: Fact, keepers: KeeperSet) -> None:
        self.fact = fact
        self.set = keepers
        self.number = keepers.view
        self.keys = keepers.keys
        self.threshold = keepers.threshold
        self.keepers: tuple[PeerId, ...] = tuple(peer_id_from_key(key) for key in keepers.keys)
        self._keepers = frozenset(self.keepers)
        self.certifying = len(keepers.keys) >= FEWEST_DECIDING

    def holds(self, peer: PeerId) -> bool:
        """``peer`` is a keeper of this view."""
        return peer in self._keepers

    def suffices(self, supporters: Iterable[PeerId], submitter: PeerId) -> bool:
        """What these peers support is certified in this view."""
        if not self.certifying:
            return submitter in supporters
        return len(self._keepers.intersection(supporters)) >= self.threshold


class Views:
    """All keeper sets of a job."""

    def __init__(self, submitter: PeerId) -> None:
        self._submitter = submitter
        self._sets: dict[FactId, Fact] = {}
        self._follow: dict[bytes, list[Fact]] = {}  # those that follow each set
        self._named: set[bytes] = set()  # keys of all peers that some set names
        self._counts: dict[int, View] = {}
        self.newest: View | None = None

    def __contains__(self, fact_id: FactId) -> bool:
        return fact_id in self._sets

    def __len__(self) -> int:
        return len(self._sets)

    def add(self, fact: Fact) -> None:
        """Learn of a keeper set; call ``refresh`` afterwards."""
        if type(fact.payload) is KeeperSet and fact.id not in self._sets:
            self._sets[fact.id] = fact
            self._follow.setdefault(fact.payload.previous, []).append(fact)
            self._named.update(fact.payload.keys)

    def get(self, view: int) -> View | None:
        """The set that counts in a view."""
        return self._counts.get(view)

    def counting(self) -> list[View]:
        """The sets that count, the newest first."""
        return [self._counts[view] for view in sorted(self._counts, reverse=True)]

    def stated_by(self, author: PeerId) -> int:
        """How many sets are known that ``author`` signed."""
        return sum(1 for fact in self._sets.values() if fact.author == author)

    def successors(self, view: View) -> list[Fact]:
        """Sets that were proposed to follow ``view``, by id."""
        return sorted(self._follow.get(view.fact.id, ()), key=lambda fact: fact.id)

    def ever_kept(self, peer: PeerId) -> bool:
        """``peer`` is named by some set."""
        return key_from_peer_id(peer) in self._named

    def refresh(self, endorsers: dict[FactId, set[PeerId]]) -> bool:
        """Work out which sets count; True when that changed."""
        counts: dict[int, View] = {}
        ranked = sorted(
            ((f.payload.view, f.id, f) for f in self._sets.values() if type(f.payload) is KeeperSet),
            key=lambda entry: entry[:2],
        )
        for view, _, fact in ranked:
            keepers = fact.payload
            if view not in counts and type(keepers) is KeeperSet and self._is_valid(fact, keepers, counts, endorsers):
                counts[view] = View(fact, keepers)
        before = {view: one.fact.id for view, one in self._counts.items()}
        if before == {view: one.fact.id for view, one in counts.items()}:
            return False
        self._counts = counts
        self.newest = counts[max(counts)] if counts else None
        return True

    def _is_valid(
        self, fact: Fact, keepers: KeeperSet, counts: dict[int, View], endorsers: dict[FactId, set[PeerId]]
    ) -> bool:
        if keepers.view % VIEWS_PER_GENERATION == 0:
            return fact.author == self._submitter
        before = counts.get(keepers.view - 1)
        if before is None or before.fact.id != keepers.previous or not before.certifying:
            return False
        if fact.author != self._submitter and not before.holds(fact.author):
            return False
        return before.suffices(endorsers.get(fact.id, ()), self._submitter)

    def shown(self, known: Iterable[Fact]) -> list[Fact]:
        """The facts that show that the newest set counts, that of the submitter's own word first.

        Of the endorsements in ``known`` as many are shown as the threshold wants, the shortest. Of a chain too long
        for a message the latest sets are shown: they tell the rest to whoever knows the ones before.
        """
        words: dict[bytes, dict[PeerId, Fact]] = {}  # set -> who endorsed it -> the shortest fact that says so
        steps = self._steps()
        follow = {view.fact.id for view, before in steps if before is not None}
        for fact in known if follow else ():
            for named in follow.intersection(fact.payload.facts) if type(fact.payload) is Endorsements else ():
                by = words.setdefault(named, {})
                by[fact.author] = min(by.get(fact.author, fact), fact, key=_length)
        found: list[list[Fact]] = []
        facts = size = 0
        for view, before in steps:
            said = words.get(view.fact.id, {}).values() if before is not None else ()
            counting = sorted(
                (fact for fact in said if before is not None and before.holds(fact.author)), key=_length
            )
            step = [view.fact, *counting[: before.threshold if before is not None else 0]]
            facts, size = facts + len(step), size + sum(len(fact.raw) for fact in step)
            if found and (facts > MAX_VIEW_FACTS or size > MAX_VIEW_BYTES):
                break
            found.append(step)
        return list(chain.from_iterable(reversed(found)))

    @property
    def agreed(self) -> int:
        """How many sets in a row the newest one rests on since the submitter's own word."""
        return max(0, len(self._steps()) - 1)

    def _steps(self) -> list[tuple[View, View | None]]:
        """The newest set, each that it rests on, and which that one follows; the newest first."""
        found: list[tuple[View, View | None]] = []
        view = self.newest
        while view is not None:
            own_word = view.number % VIEWS_PER_GENERATION == 0
            before = None if own_word else self._counts.get(view.number - 1)
            found.append((view, before))
            view = before
        return found


def _length(fact: Fact) -> tuple[int, FactId]:
    return len(fact.raw), fact.id
