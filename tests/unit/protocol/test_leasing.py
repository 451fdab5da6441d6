"""Whose units workers get at a keeper that keeps jobs of several submitters."""

from itertools import pairwise

import pytest

from sparkle_protocol import effects as fx
from sparkle_protocol import facts as f
from sparkle_protocol import messages as m
from sparkle_protocol.work.keeper import ANNOUNCE_GAP_S
from sparkle_protocol.work.lease import SECOND_NS
from sparkle_protocol.work.rules import Rules
from tests.unit.protocol.kept_jobs import CODEC, LoneKeeper, peer, work

ALICE, BOB = peer(1), peer(2)
WORKERS = [peer(10 + n) for n in range(40)]


def test_a_large_job_and_a_small_one_take_turns() -> None:
    keeper = LoneKeeper()
    large, _ = keeper.offer(ALICE, 1000)
    small, _ = keeper.offer(BOB, 10)
    for worker in WORKERS[:10]:
        keeper.lease(worker, 2)
    assert keeper.granted == {large: 10, small: 10}


def test_many_jobs_of_one_submitter_count_as_much_as_one_of_another() -> None:
    keeper = LoneKeeper()
    flood = [keeper.offer(ALICE, 100, away=False)[0] for _ in range(30)]
    lone, _ = keeper.offer(BOB, 100)
    for worker in WORKERS[:20]:
        keeper.lease(worker, 4)
    assert 36 <= keeper.granted[lone] <= 44
    assert sum(keeper.granted.get(job, 0) for job in flood) == 80 - keeper.granted[lone]


def test_turns_are_measured_in_the_time_of_workers_and_not_in_units() -> None:
    keeper = LoneKeeper()
    long, _ = keeper.offer(ALICE, 4000)
    short, _ = keeper.offer(BOB, 40_000)
    got = work(keeper, {long: 4.0, short: 0.5}, workers=4, total_s=80.0)
    assert got[ALICE.peer_id] == pytest.approx(got[BOB.peer_id], rel=0.2)


def test_a_weight_of_two_gets_twice_as_much() -> None:
    keeper = LoneKeeper(lambda submitter: 2.0 if submitter == ALICE.peer_id else 1.0)
    favoured, _ = keeper.offer(ALICE, 4000)
    other, _ = keeper.offer(BOB, 4000)
    got = work(keeper, {favoured: 1.0, other: 1.0}, workers=4, total_s=60.0)
    assert got[ALICE.peer_id] == pytest.approx(2 * got[BOB.peer_id], rel=0.15)


def test_of_one_submitter_the_job_of_higher_priority_comes_first_then_the_older_one() -> None:
    keeper = LoneKeeper()
    old, _ = keeper.offer(ALICE, 100)
    new, _ = keeper.offer(ALICE, 100)
    urgent, _ = keeper.offer(ALICE, 100, priority=9)
    for worker in WORKERS[:15]:
        keeper.lease(worker, 8)
    assert keeper.granted == {urgent: 100, old: 20}
    assert new not in keeper.granted


class Priced(Rules):
    def pays(self, spec: f.JobSpec) -> bool:
        return spec.price_micro >= 5


def test_free_work_waits_for_work_that_pays_whoever_submitted_it() -> None:
    """But not for ever, and what offers a little waits with it."""
    keeper = LoneKeeper(rules=Priced())
    paid, _ = keeper.offer(ALICE, 10_000, price_micro=5)
    free, _ = keeper.offer(ALICE, 10_000)
    cheap, _ = keeper.offer(BOB, 10_000, price_micro=4)
    for worker in range(400):
        keeper.lease(peer(1000 + worker), 2)
    assert 0.02 < (keeper.granted[free] + keeper.granted[cheap]) / 800 < 0.25
    places = [keeper.core.place_of(job, keeper.now) for job in (paid, free, cheap)]
    assert [(place.lane, place.pays) for place in places if place is not None] == [
        ("fair", True), ("lottery", False), ("lottery", False),
    ]  # fmt: skip
    assert keeper.core.waiting_submitters() == {ALICE.peer_id: keeper.core.quota.network_of(paid)}


def test_free_work_is_done_when_there_is_no_other() -> None:
    keeper = LoneKeeper(rules=Priced())
    free, _ = keeper.offer(ALICE, 100)
    for worker in WORKERS[:10]:
        keeper.lease(worker, 2)
    assert keeper.granted == {free: 20}


def test_units_handed_back_were_not_had() -> None:
    keeper = LoneKeeper()
    resources = f.Resources(flops=1e10)
    unlucky, _ = keeper.offer(ALICE, 1000, resources=resources)
    other, _ = keeper.offer(BOB, 1000, resources=resources)
    for worker in WORKERS[:20]:
        given = keeper.lease(worker, 1)
        if given[0][0] == unlucky and keeper.granted[unlucky] <= 5:
            keeper.report(worker, unlucky, returned=[m.UnitEpoch(given[0][1], 0)])
    assert keeper.granted[unlucky] == keeper.granted[other] + 5 or keeper.granted[unlucky] >= 12


def test_a_reply_says_how_many_units_wait_here() -> None:
    keeper = LoneKeeper()
    keeper.offer(ALICE, 1000)
    reply = keeper.ask(WORKERS[0], m.LeaseRequest(8, ["square@1"], []))
    assert isinstance(reply, m.LeaseReply)
    assert 992 <= reply.waiting <= 993  # an estimate
    other = keeper.ask(WORKERS[1], m.LeaseRequest(8, ["cube@1"], []))
    assert isinstance(other, m.LeaseReply)
    assert (other.waiting, other.leases) == (0, [])


def test_jobs_that_come_one_after_the_other_are_announced_together() -> None:
    keeper = LoneKeeper()
    for _ in range(20):
        keeper.core.submit(f.JobSpec("square", 1, {}, 5, "exact", f.Policy(), f.Resources(), f.Deadlines(),
                                     b"\0" * 32, keeper.now.to_bytes(16, "big"), 0), keeper.now)  # fmt: skip
    keeper.sent.clear()
    published: list[int] = []
    for n in range(100):
        keeper.now += SECOND_NS
        nonce = n.to_bytes(16, "little")
        job = f.JobSpec("square", 1, {}, 5, "exact", f.Policy(), f.Resources(), f.Deadlines(), b"\0" * 32, nonce, 0)
        keeper.perform(keeper.core.submit(job, keeper.now)[1])
        keeper.perform(keeper.core.handle(fx.Tick(), keeper.now))
        published += [keeper.now for effect in keeper.sent if isinstance(effect, fx.Publish)]
        keeper.sent.clear()
    assert 15 <= len(published) <= 21
    gaps = [after - before for before, after in pairwise(published)]
    assert min(gaps) >= ANNOUNCE_GAP_S * SECOND_NS


@pytest.mark.parametrize(("others", "least", "most"), [(0, 16, 20), (10, 16, 20), (100, 5, 6), (900, 2, 2)])
def test_the_more_keepers_announce_the_more_rarely_each_does(others: int, least: int, most: int) -> None:
    keeper = LoneKeeper()
    said = [fx.Gossiped(m.jobs_topic(CODEC.network), peer(100 + number).peer_id, b"") for number in range(others)]
    keeper.offer(ALICE, 1000, away=False)
    published = 0
    for second in range(600):
        for one in said if second % 300 == 0 else ():
            keeper.perform(keeper.core.handle(one, keeper.now))
        keeper.now += SECOND_NS
        keeper.sent.clear()
        keeper.perform(keeper.core.handle(fx.Tick(), keeper.now))
        published += sum(isinstance(effect, fx.Publish) for effect in keeper.sent)
    assert least <= published <= most
