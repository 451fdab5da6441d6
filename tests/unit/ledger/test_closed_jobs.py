"""An audit of a ledger with closed jobs: the figures are as before, and what is wrong is found without proofs."""

from collections.abc import Callable
from dataclasses import dataclass

import msgpack
import msgspec
import pytest

from sparkle_ledger import outcomes as out
from sparkle_ledger.audit import Audit, Report
from sparkle_ledger.book import Book
from sparkle_ledger.closing import MAX_FINALS, Closing, Final
from sparkle_ledger.entries import Entry, Hold
from sparkle_ledger.rulings import Rulings
from sparkle_ledger.store import Evidence
from sparkle_protocol.codec import encode
from sparkle_protocol.errors import LocalProtocolError
from sparkle_protocol.facts import Fact
from tests.unit.ledger.ledgers import ECONOMY, ENTRIES, FACTS, KEEPERS, NET, PRICE, Author, Job, person
from tests.unit.ledger.test_audit import UNITS, Copy, economy, evidence

ALICE, BOB, CAROL, DAVE = (person(n) for n in range(1, 5))
OTHER = Job(ALICE, UNITS, keepers=KEEPERS, nonce=9)


def closed(copy: Copy, job: Job, facts: list[Fact]) -> Closing:
    """What a node keeps of the job once it has judged all of this."""
    book = Book(NET, ECONOMY)
    book.add_record(job.record(facts))
    book.add_all(copy.entries)
    return book.close(job.id)


@dataclass
class Kept:
    """A copy with one closed job, whose proofs are gone."""

    copy: Copy
    job: Job
    people: dict[str, Author]
    closing: Closing

    def change(self, **fields: object) -> None:
        self.closing = msgspec.structs.replace(self.closing, **fields)

    def change_final(self, entry: Entry, **fields: object) -> None:
        """What the closing says of an entry, which need not be one that it names already."""
        found = {one.id: one for one in self.closing.finals}
        known = found.get(entry.id, Final(entry.id, "booked", 0))
        found[entry.id] = msgspec.structs.replace(known, **fields)
        self.change(finals=list(found.values()))

    def settle(self, entry: Entry, moved: int) -> None:
        """One more entry that the closing says counts."""
        self.copy.entries.append(entry)
        self.change_final(entry, moved=moved)

    def audited(self, evidence: list[Evidence] | None = None) -> Report:
        audit = Audit(ENTRIES, FACTS, ECONOMY)
        rows = self.copy.rows()
        for _ in audit.steps(rows, len(rows), evidence or [], [self.closing]):
            pass
        return audit.report()


@pytest.fixture
def kept() -> Kept:
    copy, job, people = economy()
    return Kept(copy, job, people, closed(copy, job, job.accepted([BOB, CAROL])))


def figures(report: Report) -> tuple[object, ...]:
    return (
        report.jobs, report.executions, report.sum_micro, report.earned_micro, report.final_price_micro,
        report.unsettled_micro, report.outcomes,
    )  # fmt: skip


def test_the_figures_are_those_of_before_and_what_nobody_can_see_is_one_sentence(kept: Kept) -> None:
    before = Audit(ENTRIES, FACTS, ECONOMY)
    for _ in before.steps(kept.copy.rows(), 8, kept.copy.evidence):
        pass
    report = kept.audited()
    assert report.ok, report.violations
    assert figures(report) == figures(before.report())
    assert report.earned_micro == report.final_price_micro == 2 * UNITS * PRICE
    assert report.executions == 2 * UNITS
    assert report.unseen == [
        "what became of 3 entries rests on what this node found when it closed 1 job: the proofs are gone"
    ]


def test_what_nobody_claimed_is_told_as_before() -> None:
    copy, job, people = economy()
    copy.entries.remove(people["carol"].entries[-1])
    found = Kept(copy, job, people, closed(copy, job, job.accepted([BOB, CAROL])))
    report = found.audited()
    assert report.ok
    assert report.final_price_micro - report.earned_micro == report.unsettled_micro == 2 * PRICE
    assert f"2 of 8 accepted executions of job {job.id.hex()[:12]} are settled by no entry here" in report.unseen


def test_where_the_proofs_were_kept_they_are_looked_at_again(kept: Kept) -> None:
    report = kept.audited(kept.copy.evidence)
    assert report.ok, report.violations
    assert report.unseen == []
    assert figures(report) == figures(kept.audited())


def test_a_job_that_was_opened_again_is_proven_in_part(kept: Kept) -> None:
    """Of a job with room for more, Dave's work and its proof came after it was closed."""
    job = Job(ALICE, UNITS, replicas=3, keepers=KEEPERS)
    alice, bob, dave = (Author(one) for one in (ALICE, BOB, DAVE))
    alice.hold(job)
    bob.work(job, 0, 1, 2, 3)
    copy = Copy([*alice.entries, *bob.entries], [])
    again = Kept(copy, job, {}, closed(copy, job, job.accepted([BOB])))
    dave.work(job, 0, 1)
    copy.entries += dave.entries
    waiting = again.audited()
    assert waiting.ok
    assert waiting.earned_micro == UNITS * PRICE
    assert any("does not count yet" in text for text in waiting.unseen)
    report = again.audited([evidence(job, job.accepted([DAVE], [0, 1, 2]))])
    assert report.ok, report.violations
    assert (report.earned_micro, report.unsettled_micro) == (6 * PRICE, PRICE)
    assert report.final_price_micro == report.earned_micro + report.unsettled_micro
    assert report.unseen[0].startswith("1 of 7 accepted executions")
    assert report.unseen[1].startswith("what became of 1 entry rests on")


# --- planted errors -----------------------------------------------------------------------------------------


def forged(kept: Kept) -> None:
    body, _ = msgpack.unpackb(kept.closing.spec)
    kept.change(spec=bytes(msgpack.packb([body, bytes(64)])))


def names_something_else(kept: Kept) -> None:
    kept.change_final(kept.people["alice"].entries[1], moved=-80)


def names_work_on_another_job(kept: Kept) -> None:
    alice, dave = kept.people["alice"], Author(DAVE)
    kept.copy.entries.append(alice.hold(OTHER))
    kept.copy.entries.append(dave.entries[0])
    kept.settle(dave.work(OTHER, 0), PRICE)


def moved_too_much(kept: Kept) -> None:
    kept.change_final(kept.people["bob"].entries[-1], moved=UNITS * PRICE + 1)


def moved_without_counting(kept: Kept) -> None:
    kept.change_final(kept.people["bob"].entries[-1], code=out.SETTLED.code)


def names_a_wrong_amount(kept: Kept) -> None:
    kept.settle(kept.people["carol"].work(kept.job, 0, amount=PRICE + 1), PRICE)


def pays_the_submitter(kept: Kept) -> None:
    kept.settle(kept.people["alice"].work(kept.job, 0), PRICE)


def names_no_unit_of_it(kept: Kept) -> None:
    kept.settle(kept.people["carol"].work(kept.job, UNITS), PRICE)


def pays_from_nowhere(kept: Kept) -> None:
    absent = kept.people["alice"].twin()
    absent.state(Hold(kept.job.id, kept.job.cover, 1))
    kept.job.hold = absent.entries[-1]
    kept.settle(kept.people["carol"].work(kept.job, 0), PRICE)


def pays_from_too_small_a_hold(kept: Kept) -> None:
    kept.copy.entries.append(kept.people["alice"].hold(kept.job, kept.job.cover - 1))
    kept.settle(kept.people["carol"].work(kept.job, 0), PRICE)


def settles_twice(kept: Kept) -> None:
    kept.settle(kept.people["carol"].work(kept.job, 0), PRICE)


def pays_a_third_worker(kept: Kept) -> None:
    dave = Author(DAVE)
    kept.copy.entries.append(dave.entries[0])
    kept.settle(dave.work(kept.job, 0), PRICE)


def loses_an_entry(kept: Kept) -> None:
    kept.copy.entries.remove(kept.people["carol"].entries[-1])


def loses_what_an_entry_follows(kept: Kept) -> None:
    kept.copy.entries.remove(kept.people["carol"].entries[1])


@pytest.mark.parametrize(
    ("fault", "code", "told"),
    [
        (forged, "closing_invalid", "its spec is not valid"),
        (lambda kept: kept.change(spec=OTHER.spec.raw), "closing_invalid", "another job"),
        (lambda kept: kept.change(submitter=BOB.public_key), "closing_invalid", "another submitter or price"),
        (lambda kept: kept.change(price_micro=PRICE + 1), "closing_invalid", "another submitter or price"),
        (lambda kept: kept.change(executions=2 * UNITS + 1), "closing_invalid", "more than its spec allows"),
        (lambda kept: kept.change(executions=-1), "closing_invalid", "more than its spec allows"),
        (lambda kept: kept.change(finals=kept.closing.finals * 2), "closing_invalid", "names an entry twice"),
        (lambda kept: kept.change(finals=[Final(b"i" * 32, "well", 0)]), "closing_invalid", "'well' is no final"),
        (
            lambda kept: kept.change_final(kept.people["bob"].entries[1], code=out.NO_EVIDENCE.code),
            "closing_invalid",
            "no final outcome",
        ),
        (loses_an_entry, "final_lost", "is not here"),
        (loses_what_an_entry_follows, "final_lost", "or what it follows is not"),
        (names_something_else, "final_wrong", "is no work on it"),
        (names_work_on_another_job, "final_wrong", "is no work on it"),
        (moved_too_much, "final_wrong", "moved 41 micro-credits instead of 40"),
        (moved_without_counting, "final_wrong", "moved 40 micro-credits instead of 0"),
        (names_a_wrong_amount, "final_wrong", "not the price of its executions"),
        (pays_the_submitter, "final_wrong", "pays the job's submitter"),
        (names_no_unit_of_it, "final_wrong", "a unit that the job does not have"),
        (pays_from_nowhere, "final_wrong", "a hold that is not here"),
        (pays_from_too_small_a_hold, "final_wrong", "does not cover the job"),
        (settles_twice, "settled_twice", "is settled twice"),
        (pays_a_third_worker, "overpaid", "is paid for 3 times, and 2 times at most"),
        (lambda kept: kept.change(executions=7), "overpaid", "8 executions of job"),
    ],
)
def test_what_is_wrong_with_a_closing_is_found(
    kept: Kept, fault: Callable[[Kept], None], code: str, told: str
) -> None:
    assert kept.audited().ok
    fault(kept)
    report = kept.audited()
    assert not report.ok
    found = zip(report.violation_codes, report.violations, strict=True)
    assert any(one == code and told in text for one, text in found), report.violations


def test_a_closing_that_comes_twice_is_told(kept: Kept) -> None:
    audit = Audit(ENTRIES, FACTS, ECONOMY)
    for _ in audit.steps(kept.copy.rows(), 8, [], [kept.closing, kept.closing]):
        pass
    assert audit.report().violation_codes == ["closing_invalid"]


def test_work_that_the_book_counts_without_any_proof_is_found(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bob's is not among what the job was closed with, and a faulty book lets it count all the same."""
    bobs = kept.people["bob"].entries[1]
    kept.change(finals=[one for one in kept.closing.finals if one.id != bobs.id])
    assert kept.audited().earned_micro == UNITS * PRICE
    monkeypatch.setattr(Rulings, "_check_work", lambda self, node, work: out.BOOKED)
    report = kept.audited()
    assert report.violation_codes == ["unproven"] * UNITS


def test_a_closing_that_is_wrong_in_itself_proves_nothing(kept: Kept) -> None:
    forged(kept)
    report = kept.audited()
    assert report.earned_micro == report.final_price_micro == 0
    assert report.violation_count == 1


def test_a_closing_of_as_many_entries_as_there_may_be_is_read_again(kept: Kept) -> None:
    """As large as each of them can be."""
    longest = max(out.BY_CODE, key=len)
    kept.change(finals=[Final(n.to_bytes(32), longest, 1 << 53) for n in range(MAX_FINALS)])
    assert Closing.decode(encode(kept.closing)) == kept.closing


def test_a_job_with_more_entries_than_a_closing_can_name_is_not_closed(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = Book(NET, ECONOMY)
    book.add_record(kept.job.record(kept.job.accepted([BOB, CAROL])))
    book.add_all(kept.copy.entries)
    assert book.is_closable(kept.job.id)
    monkeypatch.setattr("sparkle_ledger.book.MAX_FINALS", 2)
    assert not book.is_closable(kept.job.id)
    with pytest.raises(LocalProtocolError, match="cannot be closed yet"):
        book.close(kept.job.id)
