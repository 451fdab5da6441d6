"""An audit of a copy with folded entries: the figures are as before, and what is wrong is found."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from msgspec.structs import replace as changed

from sparkle_ledger.audit import Audit, Report
from sparkle_ledger.book import Book
from sparkle_ledger.closing import Closing, PaidBy
from sparkle_ledger.entries import Entry
from sparkle_ledger.export import table
from sparkle_ledger.folding import Base
from sparkle_ledger.forks import ForkProof
from tests.unit.ledger.ledgers import ECONOMY, ENTRIES, FACTS, NET, PRICE, Author, Job, idle, person
from tests.unit.ledger.test_audit import Copy, audited, economy

ALICE, BOB, CAROL = (person(n) for n in range(1, 4))


@dataclass
class Folded:
    """A copy in which Bob's and Carol's work is folded, and Alice's hold as well; each has an entry more."""

    book: Book
    entries: list[Entry]
    closings: list[Closing]
    bases: list[Base]

    def audited(self) -> Report:
        return self.audit().report()

    def audit(self, *forks: ForkProof) -> Audit:
        audit = Audit(ENTRIES, FACTS, ECONOMY, forks=forks)
        rows = Copy(self.entries, []).rows()
        for _ in audit.steps(rows, len(rows), [], self.closings, self.bases):
            pass
        return audit


def story() -> tuple[Copy, Job, dict[str, Author]]:
    copy, job, people = economy()
    for author in people.values():
        author.state(idle())
        author.state(idle(1))
    copy.entries = [entry for author in people.values() for entry in author.entries]
    return copy, job, people


@pytest.fixture
def folded() -> Folded:
    copy, job, people = story()
    book = Book(NET, ECONOMY)
    book.add_record(job.record(job.accepted([BOB, CAROL])))
    book.add_all(copy.entries)
    book.close(job.id)
    for author in people.values():
        book.fold(author.account, book.foldable(author.account, 0, 2))
    entries = [entry for author in people.values() for entry in book.entries(author.account)]
    return Folded(book, entries, list(book.closings()), list(book.bases()))


def test_the_sums_are_those_of_before_and_it_is_said_how_much_nobody_can_see(folded: Folded) -> None:
    copy, _, _ = story()
    before, report = audited(copy), folded.audited()
    assert report.ok, report.violations
    assert report.misdeeds == []
    for name in ("sum_micro", "jobs", "executions", "earned_micro", "final_price_micro", "unsettled_micro"):
        assert getattr(report, name) == getattr(before, name), name
    assert report.entries == before.entries - 8
    (told,) = [text for text in report.unseen if "folded" in text]
    assert told == (
        "8 old entries of 3 accounts, the last of them signed 1970-01-01, are folded into sums: only this node saw "
        "what they were"
    )


def more_paid(folded: Folded) -> None:
    """Bob's base says that he was paid more."""
    at = next(number for number, base in enumerate(folded.bases) if base.paid)
    base = folded.bases[at].copy()
    payer = next(iter(base.paid))
    base.paid[payer] += PRICE
    folded.bases[at] = replace(base, strict=base.strict + PRICE)


def less_shut(folded: Folded) -> None:
    """The job says that less was paid for it."""
    (closing,) = folded.closings
    (paid,) = closing.paid or ()
    folded.closings = [changed(closing, paid=[PaidBy(paid.account, paid.micro - PRICE)])]


def more_than_accepted(folded: Folded) -> None:
    (closing,) = folded.closings
    folded.closings = [changed(closing, executions=1)]


def shut_with_spec(folded: Folded) -> None:
    (closing,) = folded.closings
    folded.closings = [changed(closing, spec=b"spec")]


def base_gone(folded: Folded) -> None:
    folded.bases.pop()


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (more_paid, "base_wrong"), (less_shut, "base_wrong"), (more_than_accepted, "overpaid"),
        (shut_with_spec, "closing_invalid"), (base_gone, "base_wrong"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_found(folded: Folded, damage: Callable[[Folded], None], code: str) -> None:
    damage(folded)
    assert code in folded.audited().violation_codes


def test_an_entry_that_is_folded_and_here_is_found(folded: Folded) -> None:
    _, _, people = story()
    folded.entries.append(people["bob"].entries[1])
    assert "base_wrong" in folded.audited().violation_codes


def test_a_fork_at_a_folded_place_is_judged_as_by_the_node(folded: Folded) -> None:
    carol = Author(CAROL)
    twin = carol.twin()
    proof = ForkProof.make(carol.state(idle(1)), twin.state(idle(2)))
    audit = folded.audit(proof)
    assert audit.report().ok
    assert audit.report().earned_micro == folded.audited().earned_micro
    assert audit.book.is_frozen(carol.account)


def test_a_work_of_a_shut_job_that_nobody_proves_does_not_count(folded: Folded) -> None:
    dave = Author(person(4))
    _, job, people = story()
    job.hold = people["alice"].entries[1]
    dave.work(job, 0)
    folded.entries += dave.entries
    report = folded.audited()
    assert report.ok
    assert report.outcomes["pending:shut"] == 1
    assert any("settled long ago" in text for text in report.unseen)


def test_exported_rows_begin_with_what_is_folded_and_end_with_the_balance(folded: Folded) -> None:
    ordered = sorted(folded.entries, key=lambda one: (one.account, one.incarnation, one.seq))
    rows = list(table(folded.book, ordered))
    opening = [row for row in rows if row.kind == "folded"]
    assert {row.account: row.amount_micro for row in opening} == {
        base.account.hex(): base.strict for base in folded.bases
    }
    last = {row.account: row.balance_micro for row in rows}
    for account in folded.book.accounts():
        assert last[account.hex()] == folded.book.account(account).balance_micro
    assert [row.seq for row in rows if row.account == opening[0].account] == [
        opening[0].seq, opening[0].seq + 1, opening[0].seq + 2,
    ]  # fmt: skip
