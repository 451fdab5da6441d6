"""Sets that are proposed to follow a job's view: which of them can still come to count.

Each keeper of a view endorses one successor of it. If enough of them endorsed different ones, none can win any more,
and as what they signed binds them for ever, nothing can be decided in that view either.
"""

from sparkle_protocol.facts import Fact, KeeperSet
from sparkle_protocol.ids import FactId, PeerId, peer_id_from_key
from sparkle_protocol.work.placement import FEWEST_DECIDING
from sparkle_protocol.work.state import JobState
from sparkle_protocol.work.views import View


class Proposals:
    """The successors of one view, with who endorsed which."""

    def __init__(self, state: JobState, view: View) -> None:
        self._state = state
        self._view = view
        self._submitter = state.submitter
        self.facts: dict[FactId, Fact] = {FactId(fact.id): fact for fact in state.views.successors(view)}
        self.endorsers = {one: state.endorsers(one) & set(view.keepers) for one in self.facts}
        self.bound: set[PeerId] = set().union(*self.endorsers.values())

    def can_win(self, one: FactId) -> bool:
        """Enough keepers endorsed this one, or none yet."""
        free = len(self._view.keepers) - len(self.bound)
        return len(self.endorsers[one]) + free >= self._view.threshold

    @property
    def frozen(self) -> bool:
        """So many keepers are bound that nothing is decided in the view any more, and no set can follow it."""
        free = len(self._view.keepers) - len(self.bound)
        return free < self._view.threshold and not any(self.can_win(one) for one in self.facts)

    def leavers(self, one: FactId) -> set[PeerId]:
        """Who would go; nobody if it is no set that could be endorsed at all."""
        proposed = self.facts[one].payload
        if type(proposed) is not KeeperSet:
            return set()
        if len(proposed.keys) < max(FEWEST_DECIDING, len(self._view.keys)):
            return set()
        return set(self._view.keepers) - {peer_id_from_key(key) for key in proposed.keys}

    def renews(self, one: FactId) -> bool:
        """It names the same keepers, so that each may stand by another result of what they cannot agree on."""
        proposed = self.facts[one].payload
        same = type(proposed) is KeeperSet and set(proposed.keys) == set(self._view.keys)
        return same and self._state.checked and self._state.held_up

    def best(self, of: list[FactId]) -> FactId | None:
        """The one that everybody should endorse who knows these: that of the most, the submitter's, the lowest."""
        return min(of, key=self._rank, default=None)

    def _rank(self, one: FactId) -> tuple[int, bool, FactId]:
        return -len(self.endorsers[one]), self.facts[one].author != self._submitter, one
