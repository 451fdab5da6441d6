"""Whose jobs go first: weights from who worked for whom, and what a network without any credit does."""

from collections import Counter
from collections.abc import Mapping
from random import Random

import pytest

from sparkle_ledger.entries import AccountId
from sparkle_ledger.flow import AMONG_FRIENDS, OPEN, CreditGraph, WeightRule, Weights
from sparkle_protocol.ids import PeerId
from sparkle_protocol.work.fairness import FairQueue
from sparkle_protocol.work.placement import LOCAL
from sparkle_protocol.work.price import CREDIT

ME, ANN, BEN, CAT, DAN, EVA, FAY = (
    AccountId(name) for name in (b"me", b"ann", b"ben", b"cat", b"dan", b"eva", b"fay")
)


def peer(account: AccountId) -> PeerId:
    return PeerId(account.decode())


def account(name: PeerId) -> AccountId | None:
    return None if name.startswith("stranger") else AccountId(name.encode())


def weights(paid: Mapping[tuple[AccountId, AccountId], int], rule: WeightRule = OPEN, **vouched: int) -> Weights:
    founders = {AccountId(name.encode()): micro for name, micro in vouched.items()}
    made = Weights(CreditGraph(ME, founders), account, rule)
    made.learn(paid)
    return made


def weigh(these: Weights, *waiting: AccountId) -> list[float]:
    these.settle({peer(one): f"net of {one!r}" for one in waiting})
    return [these.weigh(peer(one)) for one in waiting]


@pytest.mark.parametrize(
    ("credits_", "weight"), [(0, 0), (0.05, 0), (0.1, 1.14), (1, 2), (3, 3), (10, 4.46), (127, 8), (10_000, 8)]
)
def test_weights_grow_with_the_logarithm_of_the_work(credits_: float, weight: float) -> None:
    assert OPEN.weight(int(credits_ * CREDIT)) == pytest.approx(weight, abs=0.005)


def test_who_worked_for_me_comes_before_who_did_not() -> None:
    assert weigh(weights({(ME, ANN): 3 * CREDIT, (ME, BEN): CREDIT}), ANN, BEN, CAT) == [3.0, 2.0, 0.0]


def test_who_worked_for_those_who_worked_for_me_counts_too_up_to_what_they_did() -> None:
    paid = {(ME, ANN): CREDIT, (ANN, BEN): 100 * CREDIT, (BEN, CAT): 100 * CREDIT, (CAT, DAN): 100 * CREDIT}
    these = weights({**paid, (DAN, EVA): 100 * CREDIT})
    assert [weigh(these, one)[0] for one in (BEN, CAT, DAN)] == [2.0, 2.0, 2.0]
    assert weigh(these, EVA, DAN) == [0.0, 2.0]  # five arcs away


def test_two_behind_one_friend_share_what_it_did_for_me() -> None:
    these = weights({(ME, ANN): 6 * CREDIT, (ANN, BEN): 6 * CREDIT, (ANN, CAT): 6 * CREDIT})
    assert weigh(these, BEN)[0] == pytest.approx(OPEN.weight(6 * CREDIT), abs=0.01)
    assert weigh(these, BEN, CAT) == pytest.approx([3.0, 3.0], abs=0.01)
    assert these.standing(peer(BEN)).flow_micro == pytest.approx(3 * CREDIT, rel=0.01)


def test_what_i_did_for_others_gives_them_no_standing() -> None:
    assert weigh(weights({(ANN, ME): 50 * CREDIT, (ME, BEN): CREDIT}), ANN, BEN) == [0.0, 2.0]


def test_payments_to_oneself_and_sums_that_vanish_count_nothing() -> None:
    graph = CreditGraph(ME)
    graph.set(ANN, ANN, CREDIT)
    graph.set(ANN, ME, CREDIT)
    graph.set(ME, ANN, CREDIT)
    graph.set(ME, ANN, 0)
    graph.set(ME, BEN, 0)
    graph.set(ME, CAT, -5)
    assert len(graph) == 0
    assert graph.flows([ANN, BEN, CAT, ME], [CREDIT]) == {ANN: 0, BEN: 0, CAT: 0}


def test_a_node_for_which_nobody_worked_prefers_no_network() -> None:
    these = weights({(ANN, BEN): 50 * CREDIT})
    these.settle({peer(ANN): "net a", peer(BEN): "net b", peer(CAT): "net b", peer(DAN): LOCAL, peer(EVA): LOCAL})
    assert [these.weigh(peer(one)) for one in (ANN, BEN, CAT, DAN, EVA)] == [1.0, 0.5, 0.5, 1.0, 1.0]


def test_the_same_goes_while_nobody_who_waits_has_any_standing() -> None:
    these = weights({(ME, ANN): CREDIT})
    assert weigh(these, BEN, CAT) == [1.0, 1.0]
    assert weigh(these, BEN, CAT, ANN) == [0.0, 0.0, 2.0]
    assert weigh(these, CAT) == [1.0]


def test_three_friends_who_begin_with_nothing_get_equal_time_however_large_their_units() -> None:
    these = weights({})
    waiting = {peer(ANN): "net a", peer(BEN): "net b", peer(CAT): "net c"}
    these.settle(waiting)
    cost_s = {peer(ANN): 1.0, peer(BEN): 10.0, peer(CAT): 0.1}
    queue, got = FairQueue(Random(0), these.weigh), Counter[PeerId]()
    for _ in range(20_000):
        turns = queue.begin(waiting, waiting, 0)
        name = turns.pick()
        assert name is not None
        turns.charge(name, cost_s[name])
        got[name] += round(10 * cost_s[name])
    assert max(got.values()) - min(got.values()) <= 100  # the largest grant


def test_members_of_a_private_swarm_never_weigh_less_than_one() -> None:
    these = weights({(ME, ANN): 7 * CREDIT}, AMONG_FRIENDS)
    assert weigh(these, ANN, BEN) == [4.0, 1.0]
    assert these.weigh(PeerId("a newcomer")) == 1.0


def test_founders_lend_their_experience_to_a_node_that_has_none() -> None:
    these = weights({(BEN, CAT): 3 * CREDIT}, ben=CREDIT)
    assert weigh(these, CAT, DAN) == [2.0, 0.0]
    assert weigh(these, BEN) == [2.0]


def test_nothing_flows_to_or_through_who_forked() -> None:
    these = weights({(ME, ANN): CREDIT, (ANN, BEN): CREDIT, (ME, CAT): CREDIT})
    assert weigh(these, BEN, CAT) == [2.0, 2.0]
    these.bar([ANN])
    assert weigh(these, ANN, BEN, CAT) == [0.0, 0.0, 2.0]
    these.bar([])
    assert weigh(these, BEN, CAT) == [2.0, 2.0]


def test_names_of_one_account_share_its_standing_and_strangers_have_none() -> None:
    these = Weights(CreditGraph(ME), lambda name: None if name == "nobody" else ANN)
    these.learn({(ME, ANN): 2 * CREDIT})
    these.settle({PeerId("old key"): "net", PeerId("new key"): "net", PeerId("nobody"): "net"})
    assert [these.weigh(PeerId(name)) for name in ("old key", "new key", "nobody")] == [2.0, 2.0, 0.0]


def test_who_came_since_is_a_newcomer_until_it_is_looked_at() -> None:
    these = weights({(ME, ANN): CREDIT, (ME, BEN): CREDIT})
    assert these.weigh(peer(ANN)) == 1.0  # as everybody's, while nothing was settled
    assert weigh(these, ANN) == [2.0]
    assert these.weigh(peer(BEN)) == 0.0
    assert weigh(these, ANN, BEN) == [2.0, 2.0]


def test_only_a_change_is_worth_computing() -> None:
    these, waiting = weights({(ME, ANN): CREDIT}), {peer(ANN): "net"}
    assert these.settle(waiting)
    assert not these.settle(waiting)
    these.learn({})
    assert not these.settle(waiting)
    these.learn({(ME, ANN): 3 * CREDIT})
    assert these.settle(waiting)
    assert these.weigh(peer(ANN)) == 3.0
    assert these.settle({})


def test_what_is_far_from_me_is_forgotten_first() -> None:
    graph = CreditGraph(ME, most_arcs=1000)
    helpers = [AccountId(b"helper %d" % number) for number in range(100)]
    for helper in helpers:
        graph.set(ME, helper, CREDIT)
    graph.set(helpers[0], BEN, CREDIT)
    for number in range(5000):  # strangers that pay strangers
        graph.set(AccountId(b"x%d" % (number % 70)), AccountId(b"y%d" % number), 1000 * CREDIT)
    assert len(graph) <= 1000
    assert graph.flows([*helpers, BEN], [CREDIT]) == {**dict.fromkeys(helpers, CREDIT), BEN: 0}
    assert graph.flows([BEN], [CREDIT]) == {BEN: CREDIT}


def test_a_single_account_cannot_have_the_others_near_me_forgotten() -> None:
    graph = CreditGraph(ME, most_arcs=1000)
    for helper in (ANN, BEN):
        graph.set(ME, helper, CREDIT)
    graph.set(BEN, CAT, CREDIT)
    for number in range(3000):
        graph.set(ANN, AccountId(b"sybil %d" % number), 1000 * CREDIT)
    assert graph.flows([CAT], [CREDIT]) == {CAT: CREDIT}
