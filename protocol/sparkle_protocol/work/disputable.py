"""The part of a job's state that deals with units of which two results were stated in one epoch."""

from abc import abstractmethod
from collections.abc import Iterable, Set

from sparkle_protocol.ids import PeerId, ResultHash
from sparkle_protocol.work.sealable import Sealable
from sparkle_protocol.work.views import View


class Disputable(Sealable):
    """What ``JobState`` says about disputes, and about keepers that stand by both sides."""

    __slots__ = ("_disputed", "_fresh_disputes", "_known_two_faced")

    def _init_disputes(self) -> None:
        self._disputed: set[tuple[int, int]] = set()  # units, with the epoch, of which two results were stated
        self._fresh_disputes: set[tuple[int, int]] = set()  # of these, where more was said since
        self._known_two_faced: set[PeerId] = set()  # those whom ``take_two_faced`` named

    @property
    @abstractmethod
    def view(self) -> View | None:
        """Who keeps the job now."""

    @abstractmethod
    def may_keep(self, peer: PeerId, epoch: int) -> bool:
        """``peer`` may judge units of this epoch."""

    @abstractmethod
    def support(self, unit: int, epoch: int) -> dict[ResultHash, set[PeerId]]:
        """Who supports which result of a unit in an epoch, whether or not they may."""

    @property
    def held_up(self) -> bool:
        """The keepers stand by so many different results of an open unit that none can become final in their view."""
        view = self.view
        for unit, epoch in self._disputed if view is not None and view.certifying else ():
            if view is None or unit in self.final_units or epoch != self.epoch(unit):
                continue
            words = [peers & set(view.keepers) for peers in self.support(unit, epoch).values()]
            if max(map(len, words)) + len(view.keepers) - len(set().union(*words)) < view.threshold:
                return True
        return False

    @property
    def two_faced(self) -> dict[PeerId, tuple[int, int]]:
        """Who supports two results of one epoch that it may judge: the first such unit, and the epoch."""
        return self._two_faced_in(self._disputed)

    def take_two_faced(self) -> dict[PeerId, tuple[int, int]]:
        """Who turned out to be two-faced since the last call; nobody is named twice."""
        fresh, self._fresh_disputes = self._fresh_disputes, set()
        found = self._two_faced_in(fresh)
        named = {peer: place for peer, place in found.items() if peer not in self._known_two_faced}
        self._known_two_faced |= named.keys()
        return named

    @property
    def known_two_faced(self) -> Set[PeerId]:
        """Everybody whom ``take_two_faced`` named so far, at no cost."""
        return self._known_two_faced

    def _two_faced_in(self, disputes: Iterable[tuple[int, int]]) -> dict[PeerId, tuple[int, int]]:
        found: dict[PeerId, tuple[int, int]] = {}
        for unit, epoch in sorted(disputes):
            seen: set[PeerId] = set()
            for peers in self.support(unit, epoch).values():
                for peer in peers & seen:
                    if self.may_keep(peer, epoch):
                        found.setdefault(peer, (unit, epoch))
                seen |= peers
        return found
