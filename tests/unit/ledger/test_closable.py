"""When a book can close a job: not while anything may still come to count by what is known of others."""

from sparkle_ledger.closing import MAX_FINALS, Closing
from sparkle_ledger.economy import Economy
from sparkle_protocol.codec import encode
from tests.unit.ledger.ledgers import KEEPERS, Author, Job, book, person

ALICE, BOB, ZOE = (person(n) for n in range(1, 4))


def test_a_work_whose_hold_may_come_to_count_keeps_its_job_open() -> None:
    """What the payer of the second job may spend rests on evidence about the first, which comes late."""
    alice, bob, zoe = Author(ALICE), Author(BOB), Author(ZOE)
    first, second = Job(ZOE, 8, keepers=KEEPERS), Job(ALICE, 15, keepers=KEEPERS)
    zoe.hold(first)
    alice.work(first, *range(8))
    alice.hold(second)
    work = bob.work(second, *range(15))
    found = book(alice, bob, zoe, economy=Economy(limit_max_micro=100_000, starter_micro=200, payer_share=1))
    found.add_record(second.record(second.accepted([BOB])))
    outcome = found.outcome(work.id)
    assert outcome is not None
    assert outcome.code == "void:unfunded"
    assert not found.is_closable(second.id)
    found.add_record(first.record(first.accepted([ALICE])))
    outcome = found.outcome(work.id)
    assert outcome is not None
    assert outcome.counts
    assert found.is_closable(second.id)


def test_a_job_with_more_works_than_a_closing_holds_stays_open() -> None:
    alice, bob = Author(ALICE), Author(BOB)
    job = Job(ALICE, 2, keepers=KEEPERS)
    alice.hold(job)
    for _ in range(MAX_FINALS):
        bob.work(job, 2)  # there is no such unit
    found, fuller = book(alice, bob), book(alice, bob)
    fuller.add(bob.work(job, 2))
    for one in (found, fuller):
        one.add_record(job.record(job.accepted([BOB])))
    assert not fuller.is_closable(job.id)
    closing = found.close(job.id)
    assert Closing.decode(encode(closing)) == closing
