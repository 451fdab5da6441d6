"""What is shown of the ledger: a book filled with real entries, read as views."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

import pytest

from sparkle_ledger.agent.own import State
from sparkle_ledger.book import Book
from sparkle_ledger.economy import Economy
from sparkle_ledger.entries import MAX_MICRO, AccountId, Release, Revoke
from sparkle_ledger.forks import ForkProof
from sparkle_p2p.ledger_view import CreditView
from sparkle_p2p.node.ledger_reading import HISTORY_POINTS, LISTED, History, find_account
from sparkle_protocol.errors import NotFound
from tests.unit.ledger.ledgers import ECONOMY, KEEPERS, NET, PRICE, Author, Job, book, idle, person
from tests.unit.node.credit_views import credit_view

ALICE, BOB, CAROL, MALLORY = (person(n) for n in range(1, 5))
NOW = 1_790_000_000_000
HOUR = 3_600_000


def story() -> tuple[Book, dict[str, Author], Job]:
    """Alice has a job of four units. Bob did all and claims three, Carol claims two, of which one is not accepted."""
    alice, bob, carol = (Author(one) for one in (ALICE, BOB, CAROL))
    job = Job(ALICE, 4, keepers=KEEPERS)
    alice.hold(job)
    bob.state(bob.claim(job, 0, 1), NOW - 2 * HOUR)
    bob.state(bob.claim(job, 2), NOW - HOUR)
    carol.state(carol.claim(job, 0), NOW - HOUR)
    carol.state(carol.claim(job, 3), NOW)
    found = book(alice, bob, carol)
    found.add_record(job.record(job.accepted([BOB, CAROL], range(3)), job.accepted([BOB], [3])))
    return found, {"alice": alice, "bob": bob, "carol": carol}, job


def seen(found: Book, author: Author, **options: object) -> CreditView:
    return credit_view(found, author.account, NOW, **options)  # type: ignore[arg-type]


def test_a_payer_sees_what_is_set_aside_paid_and_still_owed() -> None:
    found, people, job = story()
    view = seen(found, people["alice"], own=State.READY)
    paid = 4 * PRICE
    assert (view.earned_micro, view.spent_micro, view.held_micro) == (0, paid, job.cover - paid)
    assert view.balance_micro == view.earned_micro - view.spent_micro - view.held_micro == -job.cover
    (escrow,) = view.escrows
    assert (escrow.job, escrow.left_micro, escrow.paid_micro) == (job.id.hex(), job.cover - paid, paid)
    assert escrow.owed_micro == 3 * PRICE, "Bob's unit 3, Carol's units 1 and 2"
    assert escrow.over, "every unit has a result"
    assert [(one.peer_id, one.spent_micro) for one in view.partners] == [
        (BOB.peer_id, 3 * PRICE),
        (CAROL.peer_id, PRICE),
    ]


def test_a_worker_sees_who_paid_it_over_time_and_what_does_not_count_yet() -> None:
    found, people, job = story()
    view = seen(found, people["carol"], own=State.READY)
    assert (view.balance_micro, view.earned_micro, view.pending_micro) == (PRICE, PRICE, PRICE)
    (pending,) = view.pending
    assert (pending.seq, pending.kind, pending.job, pending.stated_micro) == (2, "work", job.id.hex(), PRICE)
    assert pending.outcome == "pending:not_accepted"
    assert "accepted" in pending.sentence
    assert [(one.account, one.earned_micro, one.spent_micro) for one in view.partners] == [
        (people["alice"].account.hex(), PRICE, 0)
    ]
    earned = seen(found, people["bob"]).history
    assert [(one.time_ms, one.balance_micro) for one in earned] == [
        (NOW - 2 * HOUR, 2 * PRICE),
        (NOW - HOUR, 3 * PRICE),
        (NOW, 3 * PRICE),
    ]


def test_what_never_counts_is_listed_apart_with_its_reason() -> None:
    found, people, job = story()
    found.add(people["bob"].state(people["bob"].claim(job, 0), NOW))
    view = seen(found, people["bob"])
    assert (view.void_count, view.pending_count) == (1, 0)
    assert [(one.outcome, one.seq) for one in view.void] == [("void:settled", 3)]
    assert view.balance_micro == 3 * PRICE


def test_the_state_says_what_to_do_as_the_refusal_of_a_job_does() -> None:
    found, people, _ = story()
    for state, words in (
        (State.LEARNING, "try again in a moment"),
        (State.LOST, "link to more peers"),
        (State.REVOKED, "use the one that replaced it"),
        (State.CLONED, "stop one of the two"),
    ):
        view = seen(found, people["alice"], own=state)
        assert (view.state, view.reason.code) == (state.value, f"account_{state.value}")
        assert words in view.reason.sentence
        assert view.reason.sentence.endswith(".")
        assert view.spendable_micro == 0, "it signs nothing"
    ready = seen(found, people["bob"], own=State.READY)
    assert "0.001037 credits can be set aside" in ready.reason.sentence
    assert ready.spendable_micro == 3 * PRICE + ready.limit_micro
    kept = seen(found, people["bob"])
    assert (kept.own, kept.state, kept.reason.sentence) == (False, "kept", "3 entries of it are kept here.")
    unopened = credit_view(found, Author(MALLORY).account, NOW, own=State.READY)
    assert unopened.reason.code == "account_unopened"
    assert unopened.spendable_micro == unopened.limit_micro == ECONOMY.starter_micro


def test_a_revoked_account_of_another_says_so() -> None:
    mallory = Author(MALLORY)
    mallory.state(Revoke())
    view = seen(book(mallory), mallory)
    assert (view.state, view.spendable_micro) == ("revoked", 0)


def test_a_fork_is_told_to_its_owner_and_to_others() -> None:
    found, people, _ = story()
    mallory = Author(MALLORY)
    twin = mallory.twin()
    pair = mallory.state(idle(1), NOW - 5), twin.state(idle(2), NOW - 9)
    found.add_all([*mallory.entries, pair[1]])
    own = seen(found, mallory, own=State.READY)  # the agent has not looked yet
    assert own.state == "forked"
    assert "use a new identity" in own.reason.sentence
    stranger = Author(person(77))
    other = stranger.twin()
    heard = ForkProof.make(stranger.state(idle(3)), other.state(idle(4)))
    view = seen(found, people["alice"], own=State.READY, forks=[heard, ForkProof.make(*pair)])
    assert view.fork_count == 2, "one is in the book and was heard of too"
    told = {one.account: one for one in view.forks}
    assert told[mallory.account.hex()].seq == 1
    assert told[mallory.account.hex()].time_ms == NOW - 5
    assert told[stranger.account.hex()].peer_id == person(77).peer_id
    assert own.forks[0].account == mallory.account.hex(), "one's own comes first"


def test_a_released_escrow_is_not_listed_and_unknown_evidence_owes_nobody_knows_what() -> None:
    alice = Author(ALICE)
    first, second = Job(ALICE, 1, keepers=KEEPERS), Job(ALICE, 1, keepers=KEEPERS, nonce=1)
    alice.hold(first)
    alice.hold(second)
    alice.state(Release(first.id, first.cover))
    found = book(alice)
    found.add_record(first.record(first.cancel()))
    view = seen(found, alice)
    assert [(one.job, one.owed_micro, one.over) for one in view.escrows] == [(second.id.hex(), None, False)]
    assert view.held_micro == second.cover


def test_lists_are_bounded_and_say_how_many_there_are() -> None:
    alice = Author(ALICE)
    for number in range(LISTED + 20):
        alice.hold(Job(ALICE, 1, nonce=number), 1 + number)
    found = book(alice, economy=replace(ECONOMY, starter_micro=10**6))
    view = seen(found, alice)
    assert (len(view.escrows), view.escrow_count) == (LISTED, LISTED + 20)
    assert view.escrows[0].left_micro == LISTED + 20, "the largest first"
    for number in range(LISTED + 20):
        found.add(alice.state(idle(number)))
    view = seen(found, alice)
    assert (len(view.pending), view.pending_count) == (LISTED, LISTED + 20)
    assert view.pending[0].seq > view.pending[-1].seq, "the newest first"


def test_sums_beyond_64_bits_and_an_account_without_a_limit() -> None:
    alice, bob = Author(ALICE), Author(BOB)
    boundless = Economy(unlimited=frozenset([alice.account]))
    jobs = [Job(ALICE, 1, price=MAX_MICRO // 2, nonce=n, keepers=KEEPERS) for n in range(3)]
    for job in jobs:
        alice.hold(job)
        bob.work(job, 0)
    found = book(alice, bob, economy=boundless)
    for job in jobs:
        found.add_record(job.record(job.accepted([BOB])))
    view = seen(found, alice, own=State.READY)
    assert view.unlimited
    assert "any amount" in view.reason.sentence
    assert view.spent_micro == 3 * (MAX_MICRO // 2)
    past = History(NOW)
    past.add(1, -(2**70))
    assert past.points(-(2**70))[-1].balance_micro == -(2**70)


@pytest.mark.parametrize("count", [0, 1, HISTORY_POINTS - 1, HISTORY_POINTS, 7 * HISTORY_POINTS, 40_000])
def test_a_history_is_bounded_in_order_and_ends_with_the_balance(count: int) -> None:
    past = History(NOW)
    for number in range(count):
        past.add(NOW - 10 * count + 10 * number, 1)
    points = past.points(count)
    assert len(points) <= HISTORY_POINTS
    assert points[-1].balance_micro == count
    assert points[-1].time_ms == NOW
    times = [one.time_ms for one in points]
    assert times == sorted(times)
    assert all(one.balance_micro <= other.balance_micro for one, other in pairwise(points))
    if count:
        assert points[0].balance_micro == 1


def test_a_clock_that_runs_wild_does_not_spoil_the_history() -> None:
    past = History(NOW)
    for time_ms in (5, (1 << 53) - 1, 3, 0):
        past.add(time_ms, 10)
    assert [(one.time_ms, one.balance_micro) for one in past.points(40)] == [(5, 10), (NOW, 40), (NOW, 40)]


def names(*authors: Author) -> Iterable[str]:
    return [one.account.hex() for one in authors]


def test_accounts_are_found_by_name_by_peer_and_by_the_end_of_a_known_peer() -> None:
    found, people, _ = story()
    bob, own = people["bob"].account, AccountId(b"\7" * 32)
    assert find_account(found, bob.hex()[:8], own) == bob
    assert find_account(found, bob.hex(), own) == bob
    assert find_account(found, BOB.peer_id, own) == bob
    assert find_account(found, f"…{BOB.peer_id[-8:]}", own, [ALICE.peer_id, BOB.peer_id]) == bob
    assert find_account(found, "0707", own) == own, "although it is not opened yet"
    for name in ("", "…", "zz", "ffff" * 16, BOB.peer_id[-8:], MALLORY.peer_id, "12D3KooW", "é" * 500):
        with pytest.raises(NotFound) as refused:
            find_account(found, name, own)
        assert len(str(refused.value)) < 200
    assert found.network == NET


def test_an_ambiguous_beginning_asks_for_more() -> None:
    crowd = [Author(person(n)) for n in range(10, 60)]
    found = book(*crowd)
    first = [name[0] for name in names(*crowd)]
    common = max(set(first), key=first.count)
    with pytest.raises(NotFound, match="give more of the name"):
        find_account(found, common, AccountId(b"\0" * 32))
