"""``equivocate``: as a keeper it says different things to different peers, and its friends sign for all of it.

At a share ``rate`` of its turns, for each job that it keeps: the wrong result of a unit is accepted, to some; the
right one, to others; every verdict and keeper set that is known is endorsed; the next keepers are its friends.

What stops it: a result needs three quarters of the keepers, so that up to three liars of eight never make two; that
somebody signs for two results of one epoch is proof against it, by which it ceases to be a keeper.
"""

from typing import ClassVar

from sparkle_protocol.facts import Endorsements, Fact, KeeperSet, Payload, VerdictItem, Verdicts
from sparkle_protocol.ids import PeerId, hash_result
from sparkle_protocol.messages import Push
from sparkle_protocol.work.placement import threshold
from sparkle_protocol.work.state import JobState
from sparkle_protocol.work.views import View
from sparkle_sim.adversaries.base import Adversary, wrong_result
from sparkle_sim.computing import result_size, true_result
from sparkle_sim.signing import CheapIdentity

TURN_S = 1.5
MOST_ENDORSED = 256


class Equivocate(Adversary):
    """A keeper with two faces."""

    kind: ClassVar[str] = "equivocate"
    keeps: ClassVar[bool] = False

    def begin(self) -> None:
        """Lie in turns."""
        self.peer.every(TURN_S, self._turn)

    def _turn(self) -> None:
        if self.random.random() >= self.group.rate:
            return
        for job in list(self.peer.submitter.kept.values()):
            view = job.state.view
            if view is None or job.outcome or not view.holds(self.peer.id):
                continue
            friends = [one for one in self.group.identities if view.holds(one.peer_id)]
            others = [peer for peer in (*view.keepers, job.state.submitter) if peer != self.peer.id]
            self._say_two_things(job.state, friends, others)
            self._endorse_everything(job.state, friends, others)
            self._crown_friends(job.state, view, friends, others)

    def _say_two_things(self, state: JobState, friends: list[CheapIdentity], others: list[PeerId]) -> None:
        """The wrong result to some, the right one to others, each signed for by all friends."""
        unit = self.random.below(state.spec.units)
        size = result_size(state.spec)
        results = true_result(state.id, unit, size), wrong_result(self.group.salt, state.spec, state.id, unit)
        told = [(result, self._verdict(state, unit, result, friends)) for result in results]
        for peer in others:
            result, facts = told[self.random.below(2)]
            self._push(state, peer, facts, [result])

    def _verdict(self, state: JobState, unit: int, result: bytes, friends: list[CheapIdentity]) -> list[Fact]:
        keys = [friend.public_key for friend in friends]
        item = VerdictItem(unit, state.epoch(unit), hash_result(result), keys, [])
        facts = self._all_sign(Verdicts(state.id, [item]), friends)
        return [*facts, *self._all_sign(Endorsements(state.id, [bytes(fact.id) for fact in facts]), friends)]

    def _endorse_everything(self, state: JobState, friends: list[CheapIdentity], others: list[PeerId]) -> None:
        known = [bytes(fact.id) for fact in state.facts() if isinstance(fact.payload, Verdicts | KeeperSet)]
        if known:
            words = self._all_sign(Endorsements(state.id, known[-MOST_ENDORSED:]), friends)
            for peer in others:
                self._push(state, peer, words)

    def _crown_friends(self, state: JobState, view: View, friends: list[CheapIdentity], others: list[PeerId]) -> None:
        """A set of friends first follows, say all friends."""
        mine = [friend.public_key for friend in friends]
        keys = [*mine, *(key for key in reversed(view.keys) if key not in mine)][: max(4, len(view.keys) - 1)]
        if len(keys) >= len(view.keys):
            return
        follows = KeeperSet(state.id, view.number + 1, keys, threshold(len(keys)), bytes(view.fact.id))
        fact = self.peer.sign(follows)
        words = [fact, *self._all_sign(Endorsements(state.id, [bytes(fact.id)]), friends)]
        for peer in others:
            self._push(state, peer, words)

    def _all_sign(self, payload: Payload, friends: list[CheapIdentity]) -> list[Fact]:
        return [self.peer.world.codec.seal(friend, payload) for friend in friends]

    def _push(self, state: JobState, peer: PeerId, facts: list[Fact], results: list[bytes] | None = None) -> None:
        message = Push(state.id, [fact.raw for fact in facts], results or [])
        self.peer.say(self.peer.world.index[peer], message)
