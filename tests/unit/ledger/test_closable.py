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
    assert found.is_closable(second.id, though_some_wait=True)
    found.add_record(first.record(first.accepted([ALICE])))
    outcome = found.outcome(work.id)
    assert outcome is not None
    assert outcome.counts
    assert found.is_closable(second.id)


def test_what_waits_is_left_out_of_a_closing_and_counts_once_it_is_proven() -> None:
    alice, bob, zoe = Author(ALICE), Author(BOB), Author(ZOE)
    job = Job(ALICE, 3, keepers=KEEPERS)
    alice.hold(job)
    done, claimed = bob.work(job, 0, 1), zoe.work(job, 2)
    found = book(alice, bob, zoe)
    found.add_record(job.record(job.accepted([BOB], range(2)), job.cancel()))
    assert not found.is_closable(job.id)
    closing = found.close(job.id)
    assert [one.entry for one in closing.finals] == [done.id]
    outcome = found.outcome(claimed.id)
    assert outcome is not None
    assert outcome.code == "pending:evidence"
    found.add_record(job.record(job.accepted([ZOE], range(2, 3))))
    assert found.moved(claimed.id) == job.price
    assert found.moved(done.id) == 2 * job.price
    assert found.close(job.id).executions == 3


def test_whoever_signs_more_than_a_closing_holds_does_not_keep_a_job_open() -> None:
    alice, bob, zoe = Author(ALICE), Author(BOB), Author(ZOE)
    job = Job(ALICE, 2, keepers=KEEPERS)
    alice.hold(job)
    for _ in range(MAX_FINALS + 1):
        zoe.work(job, 2)  # there is no such unit
    work = bob.work(job, 0)
    found = book(alice, bob, zoe)
    found.add_record(job.record(job.accepted([BOB])))
    closing = found.close(job.id)
    assert len(closing.finals) == MAX_FINALS
    assert work.id in {one.entry for one in closing.finals}
    assert Closing.decode(encode(closing)) == closing
