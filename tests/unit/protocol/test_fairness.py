"""Who is served next: weights, the lottery lane, and what a unit costs."""

from collections import Counter
from collections.abc import Mapping
from random import Random

import pytest

from sparkle_protocol.facts import Resources
from sparkle_protocol.ids import PeerId
from sparkle_protocol.work.fairness import AGED_NS, MAX_LAG, Capacity, FairQueue, dominant_share

A, B, C = PeerId("a"), PeerId("b"), PeerId("c")
LAN = {A: "local", B: "local", C: "local"}


def shares(
    queue: FairQueue, waiting: Mapping[PeerId, str], picks: int, costs: Mapping[PeerId, float]
) -> Counter[PeerId]:
    """How often each is picked when one worker asks again and again."""
    got = Counter[PeerId]()
    for _ in range(picks):
        round_ = queue.begin(waiting, waiting, 0)
        peer = round_.pick()
        assert peer is not None
        round_.charge(peer, costs.get(peer, 1.0))
        got[peer] += 1
    return got


def test_everybody_counts_the_same_by_default() -> None:
    assert shares(FairQueue(Random(0)), LAN, 300, {}) == {A: 100, B: 100, C: 100}


def test_large_units_are_handed_out_less_often() -> None:
    got = shares(FairQueue(Random(0)), LAN, 700, {A: 1.0, B: 2.0, C: 4.0})
    assert got == {A: 400, B: 200, C: 100}


def test_weights_are_shares() -> None:
    weights = {A: 1.0, B: 2.0, C: 4.0}
    assert shares(FairQueue(Random(0), weights.__getitem__), LAN, 700, {}) == {A: 100, B: 200, C: 400}


def test_units_that_claim_to_cost_nothing_cost_something() -> None:
    got = shares(FairQueue(Random(0)), LAN, 300, {A: 0.0, B: -1.0, C: 0.0})
    assert got == {A: 100, B: 100, C: 100}


def test_a_monstrous_claim_hurts_only_who_made_it() -> None:
    queue = FairQueue(Random(0))
    round_ = queue.begin({A: ""}, [A], 0)
    assert round_.pick() == A
    round_.charge(A, 1e24)
    assert shares(queue, {A: "", B: "", C: ""}, 200, {}) == {B: 100, C: 100}


def test_one_request_is_shared_too() -> None:
    round_ = FairQueue(Random(0)).begin(LAN, [A, B], 0)
    order = []
    for _ in range(4):
        peer = round_.pick()
        assert peer is not None
        order.append(peer)
        round_.charge(peer, 1.0)
    assert order == [A, B, A, B]


def test_who_has_nothing_after_all_is_out_of_the_round() -> None:
    round_ = FairQueue(Random(0)).begin(LAN, [A, B], 0)
    assert [round_.pick(), round_.pick(), round_.pick()] == [A, B, None]


def test_no_credit_means_one_pick_in_ten_for_all_of_them() -> None:
    waiting = {PeerId(f"poor {n}"): "crowded" for n in range(20)} | {C: "quiet", A: "elsewhere"}
    queue = FairQueue(Random(1), lambda peer: 1.0 if peer == A else 0.0)
    got = shares(queue, waiting, 10_000, {})
    assert got[A] == pytest.approx(9_000, abs=150)
    assert got[C] == pytest.approx(500, abs=110)  # its network has one ticket, as the crowded one has
    assert all(5 <= got[PeerId(f"poor {n}")] <= 60 for n in range(20))


def test_the_lottery_lane_has_everything_while_nobody_else_waits() -> None:
    assert sum(shares(FairQueue(Random(1), lambda _peer: 0.0), LAN, 50, {}).values()) == 50


def test_nobody_without_credit_means_no_lottery() -> None:
    rng = Random(7)
    shares(FairQueue(rng), LAN, 20, {})
    assert rng.random() == Random(7).random()


def test_within_one_request_networks_have_one_ticket_too() -> None:
    waiting = {PeerId(f"poor {n}"): "crowded" for n in range(20)} | {C: "quiet"}
    round_ = FairQueue(Random(2), lambda _peer: 0.0).begin(waiting, waiting, 0)
    got = Counter[str]()
    for _ in range(2_000):
        first, second = round_.pick(), round_.pick()
        assert first is not None
        assert second is not None
        for peer in (first, second):
            round_.charge(peer, 1.0)
        got[waiting[first]] += 1
    assert got["quiet"] == pytest.approx(1_000, abs=120)


def test_a_strange_weight_is_none() -> None:
    weights = {A: float("nan"), B: -1.0, C: 1.0}
    got = shares(FairQueue(Random(3), weights.__getitem__), LAN, 1000, {})
    assert got[C] > 850


def test_who_waited_ten_minutes_goes_next_though_far_behind() -> None:
    queue = FairQueue(Random(0))
    round_ = queue.begin(LAN, [A], 0)
    assert round_.pick() == A
    round_.charge(A, 80_000.0)
    late = [*shares(queue, LAN, 3, {})]
    assert A not in late
    round_ = queue.begin(LAN, [A, B, C], AGED_NS)
    assert round_.pick() == A


def test_in_a_long_queue_weights_still_count() -> None:
    waiting = {PeerId(str(n)): "" for n in range(40)} | {A: ""}
    queue = FairQueue(Random(0), lambda peer: 1000.0 if peer == A else 1.0)
    queue.begin(waiting, waiting, 0)
    for n in range(40):  # everybody got something
        round_ = queue.begin(waiting, [PeerId(str(n))], 0)
        assert round_.pick() is not None
        round_.charge(PeerId(str(n)), 10.0)
    got = Counter[PeerId]()
    for _ in range(40):
        round_ = queue.begin(waiting, waiting, 2 * AGED_NS)
        peer = round_.pick()
        assert peer is not None
        round_.charge(peer, 1.0)
        got[peer] += 1
    assert got[A] in range(29, 32)  # three of four


def test_who_is_served_for_its_age_does_not_hold_up_newcomers() -> None:
    queue = FairQueue(Random(0))
    waiting = {A: "", B: ""}
    round_ = queue.begin(waiting, [A], 0)
    assert round_.pick() == A
    round_.charge(A, 80_000.0)
    shares(queue, waiting, 3, {})
    round_ = queue.begin(waiting, [A], AGED_NS)
    assert round_.pick() == A
    round_.charge(A, 1.0)
    got = Counter[PeerId]()
    for _ in range(40):
        round_ = queue.begin({B: "", C: ""}, [B, C], AGED_NS)
        peer = round_.pick()
        assert peer is not None
        round_.charge(peer, 1.0)
        got[peer] += 1
    assert abs(got[B] - got[C]) <= 1


def test_who_had_nothing_for_a_while_starts_where_the_others_are() -> None:
    queue = FairQueue(Random(0))
    round_ = queue.begin({A: "", B: ""}, [A, B], 0)
    for _ in range(2):
        peer = round_.pick()
        assert peer is not None
        round_.charge(peer, 5.0)
    round_ = queue.begin({A: ""}, [A], 0)  # B is idle, a little ahead
    for _ in range(100):
        assert round_.pick() == A
        round_.charge(A, 1.0)
    got = shares(queue, {A: "", B: ""}, 40, {})
    assert abs(got[A] - got[B]) <= 2


def test_a_node_without_work_settles_all_accounts() -> None:
    queue = FairQueue(Random(0))
    round_ = queue.begin({A: ""}, [A], 0)
    assert round_.pick() == A
    round_.charge(A, 1_000.0)
    queue.begin({}, [], 0)
    assert len(queue) == 0
    assert shares(queue, {A: "", B: ""}, 10, {}) == {A: 5, B: 5}


def test_waiting_for_rare_workers_is_made_up_for_but_not_without_limit() -> None:
    queue = FairQueue(Random(0))
    waiting = {A: "", B: ""}
    for _ in range(1000):  # nobody runs B's kernel
        round_ = queue.begin(waiting, [A], 0)
        assert round_.pick() == A
        round_.charge(A, 1.0)
    got = shares(queue, waiting, 200, {})
    assert got[B] - got[A] == pytest.approx(MAX_LAG / 1e9, abs=2)


def test_a_unit_that_came_back_untouched_is_not_paid_for() -> None:
    queue = FairQueue(Random(0))
    round_ = queue.begin(LAN, [A, B], 0)
    assert round_.pick() == A
    round_.charge(A, 50.0)
    queue.refund(A, 50.0)
    queue.refund(PeerId("nobody"), 1.0)
    assert shares(queue, {A: "", B: ""}, 2, {}) == {A: 1, B: 1}


def test_the_dominant_share_is_the_scarcest_resource() -> None:
    capacity = Capacity(flops_per_s=1e9, memory_bytes=8e9, bytes_per_s=1e6, slots=4)
    assert dominant_share(Resources(flops=2e9), 0.0, capacity) == 2.0
    assert dominant_share(Resources(flops=2e9, memory_bytes=4_000_000_000), 8.0, capacity) == 4.0
    assert dominant_share(Resources(flops=2e9, bytes=5e6), 0.0, capacity) == 5.0
    assert dominant_share(Resources(), 8.0, capacity) == 2.0  # whatever it declared
