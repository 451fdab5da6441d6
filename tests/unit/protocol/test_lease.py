"""The lease book: order, expiry, back-off, and that its cost does not grow with the job."""

from random import Random
from time import process_time

import pytest

from sparkle_protocol.ids import PeerId
from sparkle_protocol.work.lease import (
    FEW_ALARMS,
    LOST_PEER_GRACE_NS,
    MAX_TTL_NS,
    MIN_TTL_NS,
    RETRY_CAP_S,
    REVEAL_DEADLINE_NS,
    SECOND_NS,
    SILENT_NS,
    LeaseBook,
)

A, B = PeerId("a"), PeerId("b")


def book(units: int = 10, **options: int) -> LeaseBook:
    return LeaseBook(units, Random(1), **options)


def take(leases: LeaseBook, worker: PeerId, count: int, now_ns: int = 0) -> list[int]:
    """As a keeper hands out units of which each wants two workers."""
    taken: list[int] = []
    for unit in leases.candidates(worker):
        if worker not in leases.known(unit).leases:
            leases.grant(unit, worker, now_ns)
            leases.want_more(unit, more=len(leases.known(unit).leases) < 2)
            taken.append(unit)
        if len(taken) == count:
            break
    return taken


def test_what_is_wanted_longest_comes_first_then_fresh_units() -> None:
    leases = book()
    assert take(leases, A, 3) == [0, 1, 2]
    assert take(leases, B, 4) == [0, 1, 2, 3]
    assert take(leases, A, 2) == [3, 4]


def test_an_expired_lease_goes_out_again_even_to_the_same_worker() -> None:
    leases = book(2)
    take(leases, A, 2)
    assert take(leases, A, 2) == []
    gone = list(leases.expire(MIN_TTL_NS))
    assert gone == [(0, A, "lease"), (1, A, "lease")]
    assert leases.live == 0
    assert take(leases, A, 2, MIN_TTL_NS) == [0, 1]


def test_a_report_renews_but_not_beyond_the_execution_deadline() -> None:
    leases = book(1, execution_ns=100 * SECOND_NS)
    take(leases, A, 1)
    for second in range(0, 95, 10):
        assert leases.renew(0, A, 0.5, second * SECOND_NS)
        assert not list(leases.expire(second * SECOND_NS))
    leases.renew(0, A, 0.5, 99 * SECOND_NS)
    assert list(leases.expire(100 * SECOND_NS)) == [(0, A, "lease")]


def test_renewals_leave_no_trail() -> None:
    leases = book(1)
    take(leases, A, 1)
    for tick in range(100_000):
        leases.renew(0, A, 0.5, tick * 1000)
    assert len(leases._alarms) == 1


def test_a_lost_connection_shortens_leases_until_the_worker_reports_again() -> None:
    leases = book(2)
    take(leases, A, 2)
    leases.shorten(A, 0)
    leases.renew(1, A, 0.5, SECOND_NS)
    assert list(leases.expire(LOST_PEER_GRACE_NS)) == [(0, A, "lease")]
    assert leases.held_by(A) == (1,)
    assert list(leases.expire(SECOND_NS + MIN_TTL_NS)) == [(1, A, "lease")]


def test_a_failed_unit_waits_longer_each_time_and_never_over_the_cap() -> None:
    for seed in range(20):
        leases = LeaseBook(1, Random(seed))
        take(leases, A, 1)
        for attempt in range(1, 40):
            leases.delay(0, 0)
            pause_s = leases.known(0).not_before_ns / SECOND_NS
            assert 0 < pause_s <= min(RETRY_CAP_S, 2.0 * 2**attempt) + 1e-6
        assert take(leases, B, 1) == []
        due = leases.known(0).not_before_ns
        assert list(leases.expire(due))[-1] == (0, "", "retry")
        leases.want_more(0, more=True)
        assert take(leases, B, 1, due) == [0]


def test_a_unit_in_back_off_is_not_handed_out_although_it_was_wanted_before() -> None:
    leases = book(1)
    take(leases, A, 1)
    leases.release(0, A, unfinished=False)
    leases.delay(0, 0)
    leases.want_more(0, more=True)
    assert take(leases, B, 1) == []


def test_who_does_not_show_a_result_in_time_withholds_it() -> None:
    leases = book(1)
    take(leases, A, 1)
    leases.release(0, A, unfinished=False)
    leases.ask_reveal(0, A, 0)
    assert leases.next_deadline() is not None
    assert (0, A, "reveal") in list(leases.expire(REVEAL_DEADLINE_NS))
    assert leases.known(0).withheld == {A}


def test_alarms_in_the_past_are_gone_after_expire() -> None:
    leases = book(100)
    take(leases, A, 50)
    leases.shorten(A, 0)
    leases.delay(3, 0)
    for now_ns in range(0, 40 * SECOND_NS, SECOND_NS):
        list(leases.expire(now_ns))
        due = leases.next_deadline()
        assert due is None or due > now_ns


@pytest.mark.parametrize(("seconds", "ttl_ns"), [(1, MIN_TTL_NS), (60, 180 * SECOND_NS), (10**6, MAX_TTL_NS)])
def test_leases_live_three_times_as_long_as_units_take(seconds: int, ttl_ns: int) -> None:
    leases = book()
    for _ in range(64):
        leases.committed_after(seconds * SECOND_NS)
    assert leases.ttl_ns() == ttl_ns


def test_every_wanted_unit_is_offered_to_everybody_in_the_end() -> None:
    """Workers come, take, drop and return in any order; no unit may slip behind somebody's place in the queue."""
    rng = Random(3)
    leases = book(12)
    workers = [PeerId(f"w{n}") for n in range(4)]
    for _ in range(3000):
        worker = rng.choice(workers)
        take(leases, worker, rng.randrange(1, 5))
        for unit in leases.held_by(worker):
            if rng.random() < 0.5:
                leases.release(unit, worker)
                leases.want_more(unit, more=True)
    for worker in workers:
        for unit in leases.held_by(worker):
            leases.release(unit, worker)
            leases.want_more(unit, more=True)
    assert sorted(leases.candidates(workers[0])) == list(range(12))


def seconds_per_unit(units: int) -> float:
    leases = book(units)
    start = process_time()
    for _ in range(2000):
        take(leases, A, 2)
    return (process_time() - start) / 4000


def test_handing_out_costs_the_same_whatever_the_size_of_the_job() -> None:
    assert seconds_per_unit(1 << 20) < 20 * seconds_per_unit(4_000) + 1e-4


def known_pace(leases: LeaseBook, seconds: int = 1) -> None:
    for _ in range(20):
        leases.committed_after(seconds * SECOND_NS)


def test_the_oldest_straggler_comes_first_and_is_copied_once() -> None:
    leases = book(4)
    known_pace(leases)
    for unit in range(3):
        leases.grant(unit, A, unit * SECOND_NS)
    assert leases.stragglers(2 * SECOND_NS - 1) == []
    assert leases.stragglers(3 * SECOND_NS) == [0, 1]
    leases.grant(0, B, 3 * SECOND_NS, copy=True)
    assert leases.stragglers(3 * SECOND_NS) == [1]
    leases.release(1, A)
    assert leases.stragglers(10 * SECOND_NS) == [2]
    assert leases.stragglers(60 * SECOND_NS) == [2]  # nor is a copy copied when it is slow itself


def test_before_anybody_knows_what_is_slow_only_silence_tells() -> None:
    leases = book(2)
    leases.grant(0, A, 0)
    leases.grant(1, B, 0)
    leases.heard(B, SILENT_NS - 1)
    assert leases.stragglers(SILENT_NS - 1) == []
    assert leases.stragglers(SILENT_NS) == [0]


def test_a_unit_may_be_copied_again_once_its_copy_was_answered() -> None:
    leases = book(1)
    for _ in range(3):
        leases.committed_after(SECOND_NS)
    leases.grant(0, A, 0)
    leases.grant(0, B, 3 * SECOND_NS, copy=True)
    leases.heard(A, 60 * SECOND_NS)
    assert leases.stragglers(60 * SECOND_NS) == []
    leases.release(0, B, unfinished=False)
    leases.copy_again(0, 60 * SECOND_NS)
    assert leases.stragglers(61 * SECOND_NS) == []
    assert leases.stragglers(62 * SECOND_NS) == [0]


def test_who_is_slow_is_known_by_worker() -> None:
    leases = book(2)
    for unit in (0, 1):
        leases.grant(unit, A, 0)
        leases.grant(unit, B, 0, copy=True)
    assert (leases.slow(A), leases.slow(B)) == (2, 0)
    leases.release(0, A)
    leases.grant(1, A, SECOND_NS)
    assert leases.slow(A) == 0


def test_a_long_unit_is_no_straggler_where_all_are_long() -> None:
    leases = book(2)
    known_pace(leases, 600)
    leases.grant(0, A, 0)
    leases.heard(A, 1100 * SECOND_NS)
    assert leases.stragglers(1100 * SECOND_NS) == []


def test_the_book_of_stragglers_is_empty_when_nobody_holds_anything() -> None:
    rng, leases, now_ns = Random(5), book(50), 0
    for _ in range(2000):
        now_ns += SECOND_NS // 4
        worker, unit = rng.choice([A, B]), rng.randrange(50)
        if rng.random() < 0.5:
            leases.grant(unit, worker, now_ns, copy=rng.random() < 0.2)
        elif worker in leases.known(unit).leases:
            leases.release(unit, worker)
            leases.ask_reveal(unit, worker, now_ns)
        elif worker in leases.known(unit).asked and rng.random() < 0.5:
            leases.shown(unit, worker)
        list(leases.expire(now_ns))
    list(leases.expire(now_ns + MAX_TTL_NS))
    assert not leases._running
    assert not leases._asked
    assert not leases._heard
    assert leases.stragglers(now_ns + MAX_TTL_NS) == []


def test_a_reminder_outlives_the_alarms_around_it() -> None:
    leases = book(2 * FEW_ALARMS)
    leases.book(7)
    leases.remind(7, 600 * SECOND_NS)
    for unit in range(100, 100 + FEW_ALARMS):
        leases.grant(unit, A, 0)
        leases.release(unit, A)
    assert [what for what in leases.expire(600 * SECOND_NS) if what[2] == "look"] == [(7, PeerId(""), "look")]
