"""What those who know the trust policy would try against it, at the submitter of a job."""

from typing import Any

import pytest

from sparkle_protocol import effects as fx
from sparkle_protocol import messages as m
from sparkle_protocol.facts import Policy
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import PeerId, hash_result
from sparkle_protocol.trust.attendance import Attendance
from sparkle_protocol.trust.coin import Coin, Lots
from sparkle_protocol.trust.deciding import rule
from sparkle_protocol.work.lease import SECOND_NS
from tests.unit.protocol.test_keeping import ME, RIGHT, WRONG
from tests.unit.protocol.test_trusting import N1, N2, TrustingKeeper, V, W, X, Y, Z, audit_of, book

KNOWN = (V, W, X, Y, Z)
STRANGERS = [Identity.from_private_bytes(bytes([n]) * 32) for n in range(100, 120)]


def there(keeper: TrustingKeeper, *workers: Identity) -> None:
    """They have asked for work just now."""
    for worker in workers:
        keeper.job.saw(worker.peer_id, keeper.now, works=False)


def answers(keeper: TrustingKeeper, worker: Identity, unit: int, result: bytes = RIGHT) -> None:
    """The worker answers as soon as it is its turn."""
    for _ in range(200):
        there(keeper, *KNOWN)
        if unit in keeper.lease(worker, 1):
            return keeper.compute(worker, unit, result=result)
        keeper.pass_time(SECOND_NS)
    raise AssertionError("its turn never comes")


class Besieged(TrustingKeeper):
    """One that gives strangers as much as they can take: what holds then holds all the more in turns."""

    def __init__(self, *arguments: Any, **changes: Any) -> None:
        super().__init__(*arguments, **changes)
        assert self.job.trust is not None
        self.job.trust.newcomers.may_take = lambda _worker: True  # type: ignore[method-assign]


def differ(keeper: TrustingKeeper) -> None:
    """A stranger shows something else than a known worker, and shows it first."""
    assert keeper.lease(N1) == keeper.lease(V) == [0]
    keeper.commit(N1, WRONG, 0)
    keeper.commit(V, RIGHT, 0)
    keeper.show_asked(N1, WRONG)
    keeper.reveal(V, RIGHT, 0)


def test_strangers_decide_nothing_while_somebody_known_is_at_work() -> None:
    keeper = Besieged(8, book(V, W))
    taken = {unit: stranger for stranger in STRANGERS for unit in keeper.lease(stranger, 1)}
    assert len(taken) == 8
    for unit, stranger in taken.items():
        keeper.commit(stranger, WRONG, unit)
    while len(keeper.final()) < 8:  # two minutes for each of them: the last one waits for a quarter of an hour
        given = [(worker, unit) for worker in (V, W) for unit in keeper.lease(worker, 1)]
        assert given
        for _ in range(12):
            keeper.pass_time(10 * SECOND_NS)
            for worker, unit in given:
                keeper.beat(worker, unit)
            assert all(not keeper.lease(stranger, 1) for stranger in STRANGERS)
        for worker, unit in given:
            keeper.compute(worker, unit)
            keeper.show_asked(taken[unit], WRONG)
            keeper.show_asked(worker)
    assert all(keeper.job.state.final(unit) == hash_result(RIGHT) for unit in range(8))


def test_a_stranger_that_differs_costs_one_answer_more() -> None:
    keeper = Besieged(1, book(V, W, X))
    differ(keeper)
    assert keeper.final() == set()
    answers(keeper, W, 0)
    assert keeper.final() == {0}
    assert keeper.job.rejected == {N1.peer_id}
    assert keeper.job.replicas == 3


def test_a_stranger_has_two_units_out() -> None:
    keeper = Besieged(20, book(V, W))
    assert keeper.take(N1, 20) == [0, 1]
    keeper.commit(N1, RIGHT, 0, 1)
    assert keeper.lease(N1, 5) == []
    keeper.compute(V, *keeper.take(V, 2))
    keeper.show_asked(N1)
    assert len(keeper.take(N1, 20)) == 2


def test_who_does_nothing_but_wait_gets_no_audit_before_its_turn() -> None:
    keeper = Besieged(1, book(*KNOWN), permille=1000)
    there(keeper, *KNOWN)
    given = keeper.lease(V)
    keeper.pass_time(10 * SECOND_NS)
    there(keeper, *KNOWN)
    keeper.compute(V, *given)  # so a unit takes ten seconds
    first, second, *_ = audit_of(keeper, V, 0)
    for _ in range(9):
        there(keeper, *KNOWN)
        assert keeper.lease(second) == []
        keeper.pass_time(SECOND_NS)
    assert keeper.lease(first) == [0]


class Offering(Besieged):
    """One whose offers of work are noted."""

    def __init__(self, *arguments: Any, **changes: Any) -> None:
        self.offered: list[PeerId] = []
        super().__init__(*arguments, **changes)

    def perform(self, effects: fx.Effects) -> m.Reply | None:
        self.offered += [e.peer for e in effects if isinstance(e, fx.Send) and isinstance(e.message, m.Offer)]
        return super().perform(effects)


def test_whoever_is_idle_is_told_of_an_audit_when_it_is_its_turn_and_not_before() -> None:
    keeper = Offering(1, book(*KNOWN), permille=1000)
    given = keeper.lease(V)
    assert not any(keeper.lease(worker) for worker in (W, X, Y, Z, N1))
    keeper.offered.clear()
    keeper.compute(V, *given)
    first, second, *_ = [one.peer_id for one in audit_of(keeper, V, 0)]
    assert keeper.offered == [first]
    keeper.pass_time(SECOND_NS)
    assert keeper.offered == [first, second]


def test_our_own_worker_is_told_of_every_audit() -> None:
    keeper = Offering(1, book(*KNOWN), permille=1000)
    given = keeper.lease(V)
    assert not any(keeper.lease(worker) for worker in (W, X, ME))
    keeper.offered.clear()
    keeper.commit(V, RIGHT, *given)
    keeper.reveal(V, RIGHT, *given)
    assert keeper.offered[0] == ME.peer_id
    assert keeper.lease(ME) == [0]


def test_an_audit_for_which_nobody_is_there_is_offered_to_all() -> None:
    keeper = Offering(1, book(V, W), permille=1000)
    given = keeper.lease(V)
    assert not any(keeper.lease(worker) for worker in (N1, N2))
    keeper.offered.clear()
    keeper.compute(V, *given)
    assert set(keeper.offered) == {N1.peer_id, N2.peer_id}  # they get nothing; whoever counts and asks does


def test_the_next_answer_in_a_dispute_is_drawn_anew() -> None:
    """Else four that lie together and wait would convict whom they like."""
    keeper = Besieged(1, book(*KNOWN), permille=1000)
    there(keeper, *KNOWN)
    keeper.compute(V, *keeper.lease(V))
    answers(keeper, W, 0, WRONG)
    there(keeper, *KNOWN)
    turn = keeper.job.trust.turns.of(0)  # type: ignore[union-attr]
    assert turn is not None
    assert turn.named is not None
    assert len(turn.named) == 1
    assert {V.peer_id, W.peer_id}.isdisjoint(turn.order)
    assert [bool(keeper.lease(one)) for one in (X, Y, Z)] == [one.peer_id in turn.named for one in (X, Y, Z)]


def test_everything_of_both_sides_waits_for_a_disputes_end() -> None:
    keeper = Besieged(6, book(*KNOWN))
    differ(keeper)
    held = keeper.lease(V)
    keeper.compute(V, *held)
    assert held
    assert keeper.final() == set()
    answers(keeper, W, 0)
    assert keeper.final() == {0, *held}


def test_two_that_answered_undrawn_are_audited_as_well() -> None:
    keeper = Besieged(5, book(*KNOWN), permille=1000)
    given = keeper.lease(V)
    keeper.compute(W, *keeper.take(W, 4))
    for _ in range(6):
        keeper.pass_time(10 * SECOND_NS)
        keeper.beat(V, *given)
    for _ in range(200):  # until X is given a copy of what V is slow with
        there(keeper, *KNOWN)
        taken = keeper.lease(X, 1)
        keeper.pass_time(SECOND_NS)
        if taken == given:
            break
        keeper.compute(X, *taken)
    assert taken == given
    keeper.compute(X, *given)
    keeper.compute(V, *given)
    assert not keeper.final() & {*given}
    answers(keeper, Y, given[0])
    keeper.show_asked(V)
    assert keeper.final() >= {*given}


@pytest.mark.parametrize(("known", "leaves_out"), [(12, True), (6, False)])
def test_who_is_shown_results_does_not_audit_where_enough_others_can(known: int, leaves_out: bool) -> None:
    """A lazy keeper could hand in what it was shown. Of few others each would audit its friends too often."""
    workers = STRANGERS[:known]
    keeper = Besieged(1, book(*workers), permille=1000)
    lazy = {worker.peer_id for worker in workers[1:3]}
    trust = keeper.job.trust
    assert trust is not None
    trust._readers = lambda: lazy
    there(keeper, *workers)
    keeper.compute(workers[0], *keeper.lease(workers[0]))
    turn = trust.turns.of(0)
    assert turn is not None
    assert len(turn.order) == known - 1 - 2 * leaves_out
    assert lazy.isdisjoint(turn.order) == leaves_out


def test_units_that_wait_for_an_audit_do_not_wait_when_it_can_have_no_outcome() -> None:
    keeper = Besieged(2, book(V, W), permille=1000, max_replicas=2)
    keeper.compute(V, *keeper.take(V, 2))
    answers(keeper, W, 0, WRONG)
    answers(keeper, W, 1)
    assert keeper.final() == {1}
    assert keeper.job.outcome == "failed"


def test_what_most_of_as_many_as_may_be_asked_say_stands() -> None:
    votes = {one.peer_id: hash_result(RIGHT if place < 5 else WRONG) for place, one in enumerate(STRANGERS[:8])}

    def ruling(last: int) -> object:
        policy = Policy(max_replicas=last)
        return rule(
            policy, votes, lambda _: True, lambda _: 0.95, frozenset(), 0.999, known=lambda _: True, theta_at_last=0.9
        ).accepted

    assert ruling(9) is None
    assert ruling(8) == hash_result(RIGHT)


def test_a_crowd_that_has_done_little_does_not_audit() -> None:
    """Nor does it help to be heard of more often than others."""
    seniors = {PeerId(f"senior {n}"): 19.0 for n in range(50)}
    crowd = {PeerId(f"junior {n}"): 0.02 for n in range(1000)}
    lots, coin = Lots({**crowd, **seniors}), Coin(b"secret", b"job" * 8)  # type: ignore[arg-type]
    first = [coin.order(unit, 1, lots, 64)[0] for unit in range(300)]
    assert sum(one in crowd for one in first) < 20  # 6 on average


def test_strangers_do_not_crowd_out_those_who_are_there() -> None:
    known = PeerId("known")
    there_ = Attendance(lambda worker: worker == known, PeerId("me"))
    there_.saw(known, 0, works=True)
    for number in range(10_000):
        there_.saw(PeerId(str(number)), 1, works=True)
    assert there_.everybody(0) == [known]
    assert there_.works(0, ())
    assert not there_.works(0, {known})
    assert not there_.works(1, ())


def test_strangers_do_not_outvote_the_only_one_who_is_known() -> None:
    keeper = Besieged(1, book(V, W))
    differ(keeper)
    for stranger in STRANGERS[:6]:
        for _ in range(70):
            keeper.pass_time(SECOND_NS)
            there(keeper, V, W)
        assert keeper.lease(stranger) == [0]
        keeper.compute(stranger, 0, result=WRONG)
    assert keeper.job.state.final(0) == hash_result(RIGHT)
    assert V.peer_id not in keeper.job.rejected


def test_whoever_only_asks_is_not_waited_for() -> None:
    """Known peers that take nothing hold up a job for a minute, not for ever."""
    keeper = Besieged(1, book(V, W))
    assert keeper.lease(N1) == [0]
    keeper.commit(N1, RIGHT, 0)
    for _ in range(70):
        keeper.pass_time(SECOND_NS)
        there(keeper, V, W)
    keeper.show_asked(N1)
    assert keeper.lease(N2) == [0]
