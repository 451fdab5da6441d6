"""Peers that the owner named say whom they know: what that is worth, and what nobody can make of it."""

import pytest

from sparkle_protocol import effects as fx
from sparkle_protocol.codec import encode
from sparkle_protocol.errors import RemoteProtocolError
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import PeerId
from sparkle_protocol.messages import decode_reply
from sparkle_protocol.trust.parameters import TRUST_RULES
from sparkle_protocol.trust.standing import Key, Standing, TrustBook, disowned_key
from sparkle_protocol.trust.vouching import Whom, heard, word
from sparkle_protocol.trust_messages import MAX_KNOWN, Known, KnownReply, KnownRequest
from sparkle_protocol.work.references import ASK_EVERY_NS
from tests.unit.protocol.test_keeping import ME, WRONG
from tests.unit.protocol.test_trusting import N1, SENIOR, TrustingKeeper, V, W, X, Y, Z, book, key, there

FRIEND, OTHER = V, W
KNOWN = TRUST_RULES.passes_to_count


def whom(*peers: Identity) -> list[Whom]:
    return [(peer.peer_id, "exact") for peer in peers]


def naming(*named: Identity) -> TrustBook:
    return TrustBook(one.peer_id for one in named)


def vouched_for(*peers: Identity) -> TrustBook:
    """What somebody thinks who named a friend that knows these."""
    found = naming(FRIEND)
    found.vouch(FRIEND.peer_id, whom(*peers))
    return found


# --- what a word is worth ---------------------------------------------------------------------------------------


def test_whom_a_named_peer_knows_counts_and_is_always_compared() -> None:
    known = vouched_for(X, Y)
    assert known.counts(key(X))
    assert known.source(key(X)) == "vouched"
    assert known.audit_rate(key(X), 0.0, 0.05) == 1.0
    assert not known.counts(Key(X.peer_id, "", "algebraic"))
    assert known.known_and_needed("exact") == (3, 2)


def test_what_it_earns_here_is_capital_as_for_everybody() -> None:
    known = vouched_for(X)
    for _ in range(KNOWN):
        known.passed(key(X), 0.0)
    assert known.source(key(X)) == "known"
    assert known.audit_rate(key(X), 0.0, 0.05) == pytest.approx(500 / (500 + KNOWN))


@pytest.mark.parametrize("named", [(), (OTHER,)])
def test_nobody_else_is_heard(named: tuple[Identity, ...]) -> None:
    known = naming(*named)
    assert not known.vouch(FRIEND.peer_id, whom(X))
    assert not known.counts(key(X))


def test_a_word_is_not_passed_on() -> None:
    known = vouched_for(X)
    known.restore(key(Y), Standing(KNOWN, 1e12))
    assert known.seen() == whom(Y)


def test_a_word_says_who_is_best_known_and_nothing_of_how_much() -> None:
    many = [PeerId(Identity.from_private_bytes(n.to_bytes(32, "big")).peer_id) for n in range(1, MAX_KNOWN + 20)]
    known = TrustBook()
    for place, peer in enumerate(many):
        known.restore(Key(peer, "", "exact"), Standing(KNOWN, 1e12 + place))
    said = word(known.seen())
    assert [peer for peer, _ in heard(said)] == many[: -MAX_KNOWN - 1 : -1]
    assert Known.__struct_fields__ == ("worker", "verification")


def test_a_word_that_is_too_long_is_refused() -> None:
    many = KnownReply([Known(bytes(32), "exact")] * (MAX_KNOWN + 1))
    with pytest.raises(RemoteProtocolError):
        decode_reply(encode(many))


def test_the_latest_word_holds() -> None:
    known, before = vouched_for(X, Y), 0
    before = known.version
    assert known.vouch(FRIEND.peer_id, whom(Y, Z))
    assert [known.counts(key(one)) for one in (X, Y, Z)] == [False, True, True]
    assert known.version > before
    assert not known.vouch(FRIEND.peer_id, whom(Z, Y))


def test_of_two_words_one_is_enough() -> None:
    known = naming(FRIEND, OTHER)
    known.vouch(FRIEND.peer_id, whom(X))
    known.vouch(OTHER.peer_id, whom(X))
    known.vouch(FRIEND.peer_id, [])
    assert known.counts(key(X))
    assert known.words.about(X.peer_id) == {"exact": [OTHER.peer_id]}
    known.vouch(OTHER.peer_id, [])
    assert not known.counts(key(X))


# --- what was seen here outweighs it ----------------------------------------------------------------------------


def test_whoever_was_proven_wrong_here_is_vouched_for_in_vain() -> None:
    known = vouched_for(X, Y)
    known.failed(Key(X.peer_id, "gpu", "exact"))
    known.vouch(FRIEND.peer_id, whom(X, Y, Z))
    assert [known.counts(key(one)) for one in (X, Y, Z)] == [False, True, True]
    again = naming(FRIEND)
    again.restore(Key(X.peer_id, "gpu", "exact"), Standing(0, 0.0, 1))
    again.vouch(FRIEND.peer_id, whom(X))
    assert not again.counts(key(X))


def test_a_named_peer_that_is_proven_wrong_is_a_stranger_and_heard_no_more() -> None:
    known = vouched_for(X)
    known.failed(key(FRIEND))
    assert not known.counts(key(FRIEND))
    assert not known.counts(key(X))
    assert not known.vouch(FRIEND.peer_id, whom(X))
    assert known.disowned() == [FRIEND.peer_id]
    assert known.about(FRIEND.peer_id) == [(key(FRIEND), Standing(0, 0.0, 1))]


def test_its_owner_is_told_once_in_each_life_until_it_is_named_anew() -> None:
    def life(stored: dict[Key, Standing], *named: Identity) -> tuple[TrustBook, list[PeerId]]:
        found = naming(*named)
        for one, standing in stored.items():
            found.restore(one, standing)
        return found, found.take_disowned()

    first = naming(FRIEND)
    first.failed(key(FRIEND))
    assert first.take_disowned() == [FRIEND.peer_id]
    assert first.take_disowned() == []
    stored = dict(first.take_fresh())
    assert disowned_key(FRIEND.peer_id) in stored
    second, told = life(stored, FRIEND)
    assert told == [FRIEND.peer_id]
    assert not second.counts(key(FRIEND))
    without, told = life(stored)
    assert told == []
    stored |= dict(without.take_fresh())
    anew, told = life(stored, FRIEND)
    assert told == []
    assert anew.counts(key(FRIEND))


# --- in a job ---------------------------------------------------------------------------------------------------


def answer(keeper: TrustingKeeper, *workers: Identity) -> None:
    """These take what they may, and a moment passes."""
    there(keeper, *workers)
    for worker in workers:
        for unit in keeper.lease(worker):
            keeper.compute(worker, unit)
        keeper.show_asked(worker)
    keeper.pass_time(10**9)


def test_strangers_need_not_be_asked_and_each_result_is_compared() -> None:
    keeper = TrustingKeeper(2, vouched_for(X, Y, Z), permille=50)
    assert keeper.job.trust is not None
    assert not keeper.job.trust.bootstrap
    there(keeper, X, Y, Z)
    keeper.compute(X, *keeper.lease(X))
    assert keeper.final() == set()
    for _ in range(20):
        answer(keeper, Y, Z)
    assert keeper.final() == {0, 1}
    assert keeper.job.replicas == 4


def test_a_liar_whom_the_friend_believes_gains_nothing_alone() -> None:
    keeper = TrustingKeeper(1, vouched_for(X, Y, Z, W), permille=50)
    there(keeper, X, Y, Z, W)
    keeper.compute(X, *keeper.lease(X), result=WRONG)
    for _ in range(80):
        answer(keeper, Y, Z, W, N1)
    assert keeper.final() == {0}
    assert keeper.job.rejected == {X.peer_id}


# --- asking -----------------------------------------------------------------------------------------------------


class Asking(TrustingKeeper):
    """One whose questions are noted."""

    def __init__(self, known: TrustBook) -> None:
        self.questions: list[fx.Send] = []
        self.news: list[fx.Notify] = []
        super().__init__(1, known)

    def perform(self, effects: fx.Effects) -> object:
        self.questions += [e for e in effects if isinstance(e, fx.Send) and isinstance(e.message, KnownRequest)]
        self.news += [e for e in effects if isinstance(e, fx.Notify)]
        return super().perform(effects)

    def see(self, event: object) -> None:
        self.perform(self.core.handle(event, self.now))

    def asked(self) -> list[PeerId]:
        found, self.questions = [one.peer for one in self.questions], []
        return found


def test_named_peers_are_asked_when_they_come_and_now_and_then() -> None:
    keeper = Asking(naming(FRIEND))
    keeper.see(fx.PeerUp(OTHER.peer_id, ()))
    assert keeper.asked() == []
    keeper.see(fx.PeerUp(FRIEND.peer_id, ()))
    (question,) = keeper.questions
    keeper.see(fx.Replied(question.tag, FRIEND.peer_id, word(whom(X, ME))))
    assert keeper.core.trust.vouched() == {X.peer_id}
    assert [(one.event, one.fields) for one in keeper.news[-1:]] == [
        ("workers_vouched", {"peer": FRIEND.peer_id, "workers": 1})
    ]
    assert keeper.asked() == [FRIEND.peer_id]
    keeper.pass_time(ASK_EVERY_NS - 1)
    assert keeper.asked() == []
    keeper.pass_time(1)
    (again,) = keeper.questions
    keeper.see(fx.SendFailed(again.tag, FRIEND.peer_id, "gone"))
    assert keeper.core.trust.vouched() == {X.peer_id}  # what it said holds
    keeper.asked()
    keeper.see(fx.PeerDown(FRIEND.peer_id))
    keeper.pass_time(2 * ASK_EVERY_NS)
    assert keeper.asked() == []
    keeper.see(fx.PeerUp(FRIEND.peer_id, ()))
    assert keeper.asked() == [FRIEND.peer_id]


def test_what_was_not_asked_for_is_not_heard() -> None:
    keeper = Asking(naming(FRIEND))
    keeper.see(fx.Replied(10**9, FRIEND.peer_id, word(whom(X))))
    assert keeper.core.trust.vouched() == set()


def test_whoever_asks_is_told_whom_we_know() -> None:
    keeper = Asking(book(X, Y, passes=SENIOR))
    reply = keeper.ask(N1, KnownRequest())
    assert isinstance(reply, KnownReply)
    assert {peer for peer, _ in heard(reply)} == {X.peer_id, Y.peer_id}


def test_the_owner_is_warned_of_a_named_peer_that_fails() -> None:
    keeper = Asking(naming(FRIEND))
    keeper.core.trust.failed(key(FRIEND))
    keeper.pass_time(1)
    assert [one.fields for one in keeper.news if one.event == "trusted_failed"] == [{"peer": FRIEND.peer_id}]
    keeper.pass_time(1)
    assert len([one for one in keeper.news if one.event == "trusted_failed"]) == 1
