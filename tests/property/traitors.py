"""Keepers that lie, alone or in concert: a production core whose words are twisted, and forgeries beside them."""

from collections.abc import Callable
from dataclasses import replace

import msgspec

from sparkle_protocol import effects as fx
from sparkle_protocol.facts import (
    Cancel,
    Endorsements,
    Fact,
    KeeperSet,
    LeaseItem,
    Leases,
    Payload,
    Reset,
    VerdictItem,
    Verdicts,
    epoch_of,
)
from sparkle_protocol.ids import JobId, PeerId, hash_result, key_from_peer_id
from sparkle_protocol.messages import (
    Beat,
    BeatReply,
    CompareReply,
    FetchReply,
    JobBeat,
    Push,
    PushReply,
    Release,
    Reply,
    Request,
    decode_request,
)
from sparkle_protocol.work.placement import threshold
from sparkle_protocol.work.state import JobState
from tests.property.world import Core, WorldNode, true_result

WRONG = b"\xff" * 8  # what all of them say of every unit
EVERY_S = 1.5
TRICKS = ("endorse", "two_verdicts", "withhold", "sums", "garbage", "sets", "leases", "release", "decree", "condemn")


class Traitor(WorldNode):
    """Honest until it turns."""

    tricks: tuple[str, ...] = ()
    friends: tuple["Traitor", ...] = ()
    job: JobId

    def turn(self, job: JobId, tricks: tuple[str, ...], friends: tuple["Traitor", ...]) -> None:
        """Lie about a job from now on; friends sign whatever one of them needs."""
        self.job, self.tricks, self.friends = job, tricks, friends
        self.world.later(self.world.rng.uniform(0, EVERY_S), None, self.mischief)

    def repent(self) -> None:
        """Lie no more."""
        self.tricks = ()

    # --- words of the core, twisted ---------------------------------------------------------------------------

    def perform_one(self, core: Core, effect: fx.Effect) -> None:
        if self.tricks and isinstance(effect, fx.Send | fx.Reply):
            effect = self.twisted(effect)
        super().perform_one(core, effect)

    def twisted(self, effect: fx.Send | fx.Reply) -> fx.Send | fx.Reply:
        message = effect.message
        if "withhold" in self.tricks and isinstance(message, Push | PushReply):
            facts = [raw for raw in message.facts if not self.own_word(raw)]
            return replace(effect, message=msgspec.structs.replace(message, facts=facts))
        if "sums" in self.tricks and isinstance(message, Beat | BeatReply):
            jobs = [JobBeat(beat.job, self.world.rng.randbytes(8), complete=True) for beat in message.jobs]
            return replace(effect, message=msgspec.structs.replace(message, jobs=jobs))
        if "sums" in self.tricks and isinstance(message, CompareReply):
            return replace(effect, message=CompareReply(message.job, b"", b""))
        if "garbage" in self.tricks and isinstance(message, FetchReply):
            facts = [self.world.rng.randbytes(80)] if self.world.rng.random() < 0.5 else []
            return replace(effect, message=FetchReply(message.job, facts, [WRONG]), attach=())
        return effect

    def own_word(self, raw: bytes) -> bool:
        fact = self.codec.open(raw)
        return fact.author == self.id and isinstance(fact.payload, Endorsements | Verdicts)

    def ask(self, asker: PeerId, data: bytes, answer: Callable[[Reply], None]) -> None:
        message = decode_request(data)
        if "sums" in self.tricks and isinstance(message, Beat) and self.world.rng.random() < 0.5:
            answer(BeatReply(message.jobs))  # the very sums that were asked about
        else:
            super().ask(asker, data, answer)

    # --- forgeries ----------------------------------------------------------------------------------------------

    def mischief(self) -> None:
        """Say something false to everybody, and come back for more."""
        if not self.tricks:
            return
        self.world.later(EVERY_S, None, self.mischief)
        job = self.submitter.kept.get(self.job)
        if not self.up or job is None or job.state.view is None:
            return
        state = job.state
        others = [peer for peer in (*job.state.view.keepers, state.submitter) if peer != self.id]
        for trick, play in (
            ("endorse", self.endorse_everything),
            ("two_verdicts", self.say_two_things),
            ("sets", self.crown_friends),
            ("leases", self.lease_to_friends),
            ("decree", self.decree),
            ("condemn", self.condemn),
        ):
            if trick in self.tricks:
                play(state, others)
        if "release" in self.tricks:
            for peer in others:
                self.say(peer, Release(self.job))

    def say(self, peer: PeerId, message: Request) -> None:
        self.world.send(self, self.submitter, fx.Send(-1, peer, message))

    def push(self, peer: PeerId, facts: list[Fact], results: list[bytes] | None = None) -> None:
        self.say(peer, Push(self.job, [fact.raw for fact in facts], results or []))

    def sign(self, payload: Payload) -> Fact:
        return self.codec.seal(self.identity, payload)

    def signed_by_all(self, payload: Payload) -> list[Fact]:
        return [self.codec.seal(friend.identity, payload) for friend in self.friends]

    def endorse_everything(self, state: JobState, others: list[PeerId]) -> None:
        known = [bytes(fact.id) for fact in state.facts() if isinstance(fact.payload, Verdicts | KeeperSet)]
        for peer in others if known else ():
            self.push(peer, self.signed_by_all(Endorsements(self.job, known[-1000:])))

    def say_two_things(self, state: JobState, others: list[PeerId]) -> None:
        """The wrong result to some, the right one to others, and each signed for by all friends."""
        unit = self.world.rng.randrange(state.spec.units)
        right, wrong = (self.verdict(state, unit, result) for result in (true_result(unit), WRONG))
        for peer in others:
            if self.world.rng.random() < 0.5:
                self.push(peer, wrong, [WRONG])
            else:
                self.push(peer, right, [true_result(unit)])

    def verdict(self, state: JobState, unit: int, result: bytes) -> list[Fact]:
        keys = [friend.identity.public_key for friend in self.friends]
        item = VerdictItem(unit, state.epoch(unit), hash_result(result), keys, [])
        facts = self.signed_by_all(Verdicts(self.job, [item]))
        return [*facts, *self.signed_by_all(Endorsements(self.job, [bytes(fact.id) for fact in facts]))]

    def crown_friends(self, state: JobState, others: list[PeerId]) -> None:
        """A set full of friends follows, say all friends; and another by the submitter's word alone, forged."""
        if state.view is None:
            return
        friends = {friend.identity.public_key for friend in self.friends}
        keys = [*friends, *(key for key in state.view.keys if key not in friends)][: len(state.view.keys)]
        follower = self.sign(
            KeeperSet(self.job, state.view.number + 1, keys, threshold(len(keys)), bytes(state.view.fact.id))
        )
        mine = sorted(friends)
        usurped = self.sign(KeeperSet(self.job, 256 * 9, mine, threshold(len(mine))))
        words = self.signed_by_all(Endorsements(self.job, [bytes(follower.id), bytes(usurped.id)]))
        for peer in others:
            self.push(peer, [follower, usurped, *words])

    def lease_to_friends(self, state: JobState, others: list[PeerId]) -> None:
        keys = [key_from_peer_id(node.id) for node in self.world.nodes if node.conspires]
        view = state.view.number if state.view is not None else 0
        items = [
            LeaseItem(place, unit, epoch_of(view, 0), key, 60_000)
            for unit in range(min(state.spec.units, 20))
            for place, key in enumerate(keys)
        ]
        for peer in others if items else ():
            self.push(peer, [self.sign(Leases(self.job, items))])

    def condemn(self, state: JobState, others: list[PeerId]) -> None:
        """The right result, with everybody called wrong that gave it, and somebody credited that did not."""
        unit, friends = self.world.rng.randrange(state.spec.units), {friend.id for friend in self.friends}
        honest = [key_from_peer_id(node.id) for node in self.world.nodes if node.id not in friends]
        nobody = self.world.rng.randbytes(32)
        item = VerdictItem(unit, state.epoch(unit), hash_result(true_result(unit)), [nobody], honest)
        for peer in others:
            self.push(peer, self.signed_by_all(Verdicts(self.job, [item])), [true_result(unit)])

    def decree(self, state: JobState, others: list[PeerId]) -> None:
        """What only the submitter may say."""
        for peer in others:
            self.push(peer, [self.sign(Reset(self.job, 0, 7, "mine")), self.sign(Cancel(self.job, "mine"))])
