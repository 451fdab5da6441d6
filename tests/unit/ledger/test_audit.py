"""An audit of a whole ledger: it finds what is wrong, names the place, and says what it has not seen."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import msgpack
import pytest

from sparkle_ledger import outcomes as out
from sparkle_ledger.audit import Audit, Report
from sparkle_ledger.entries import AccountId, Entry
from sparkle_ledger.money import Money
from sparkle_ledger.rulings import Rulings
from sparkle_ledger.store import Evidence, Row
from sparkle_ledger.witnesses import Head
from sparkle_protocol.ids import digest
from tests.unit.ledger.ledgers import ECONOMY, ENTRIES, FACTS, KEEPERS, PRICE, Author, Job, idle, person

ALICE, BOB, CAROL = person(1), person(2), person(3)
UNITS = 4


@dataclass
class Copy:
    """What a copy of the ledger holds."""

    entries: list[Entry]
    evidence: list[Evidence]

    def rows(self) -> list[Row]:
        ordered = sorted(self.entries, key=lambda one: (one.account, one.incarnation, one.seq, one.id))
        return [Row(one.account, one.incarnation, one.seq, one.id, one.raw, digest(one.raw)[:8]) for one in ordered]


def evidence(job: Job, facts: Sequence[object]) -> Evidence:
    return Evidence(job.id, [fact.raw for fact in (job.spec, *facts)], [])  # type: ignore[attr-defined]


def economy() -> tuple[Copy, Job, dict[str, Author]]:
    """Alice paid Bob and Carol for a job of four units, each done by both."""
    alice, bob, carol = (Author(one) for one in (ALICE, BOB, CAROL))
    job = Job(ALICE, UNITS, keepers=KEEPERS)
    alice.hold(job)
    bob.work(job, 0, 1, 2, 3)
    carol.work(job, 0, 1)
    carol.work(job, 2, 3)
    alice.rotate(ALICE)
    copy = Copy([*alice.entries, *bob.entries, *carol.entries], [evidence(job, job.accepted([BOB, CAROL]))])
    return copy, job, {"alice": alice, "bob": bob, "carol": carol}


def audited(copy: Copy, rows: list[Row] | None = None, **options: object) -> Report:
    audit = Audit(ENTRIES, FACTS, ECONOMY, **options)  # type: ignore[arg-type]
    shown = copy.rows() if rows is None else rows
    progress = list(audit.steps(shown, len(shown), copy.evidence))
    done, whole = progress[-1]
    assert done == whole
    return audit.report()


def test_a_ledger_in_which_all_is_right() -> None:
    copy, _, _ = economy()
    report = audited(copy)
    assert report.ok
    assert (report.feeds, report.entries, report.jobs, report.sum_micro) == (3, 8, 1, 0)
    assert report.earned_micro == report.final_price_micro == 2 * UNITS * PRICE
    assert report.unsettled_micro == 0
    assert (report.violations, report.unseen, report.misdeeds) == ([], [], [])
    assert report.outcomes == {"booked": 8}
    assert report.signatures == 3
    assert audited(copy, deep=True).signatures == 8


def test_an_empty_ledger_is_right() -> None:
    assert audited(Copy([], [])).ok


def test_a_damaged_entry_is_named() -> None:
    copy, _, people = economy()
    rows = [row._replace(checked=bytes(8)) if row.id == people["bob"].entries[1].id else row for row in copy.rows()]
    report = audited(copy, rows)
    (found,) = report.violations
    assert found.startswith(f"entry 1 of account {people['bob'].account.hex()[:12]} is damaged")
    assert not report.ok


def test_a_head_that_its_key_did_not_sign_is_a_violation() -> None:
    copy, _, people = economy()
    last = people["carol"].entries[-1]
    body, _ = msgpack.unpackb(last.raw)
    forged = replace(last, raw=bytes(msgpack.packb([body, bytes(64)])))
    report = audited(Copy([forged if one is last else one for one in copy.entries], copy.evidence))
    (found,) = report.violations
    assert "entry 2 of account" in found
    assert "signature" in found


def test_an_accepted_execution_that_nobody_claims_is_unseen() -> None:
    copy, job, people = economy()
    copy.entries.remove(people["carol"].entries[-1])
    report = audited(copy)
    assert report.ok
    assert report.unseen == [f"2 of 8 accepted executions of job {job.id.hex()[:12]} are settled by no entry here"]
    assert report.final_price_micro - report.earned_micro == report.unsettled_micro == 2 * PRICE


def test_work_without_evidence_is_unseen_and_does_not_count() -> None:
    copy, _, _ = economy()
    report = audited(Copy(copy.entries, []))
    assert report.ok
    assert report.earned_micro == 0
    assert sum("nothing is known here about the job" in text for text in report.unseen) == 3


def test_a_gap_and_a_head_that_only_witnesses_know_are_unseen() -> None:
    copy, _, people = economy()
    carol = people["carol"]
    copy.entries.remove(carol.entries[1])
    beyond = Head(0, 9, b"\1" * 32)
    known = Head(0, 1, people["bob"].entries[1].id)
    heads = {carol.account: beyond, people["bob"].account: known, AccountId(b"\2" * 32): Head(0, 0, b"\1" * 32)}
    report = audited(copy, heads=heads)
    assert report.ok
    assert any(text.startswith("entry 1 of account") and text.endswith("is not here") for text in report.unseen)
    assert any("entry 2 of account" in text and "no place" in text for text in report.unseen)
    assert sum(text.startswith("witnesses know") for text in report.unseen) == 2


def test_a_fork_is_told_and_is_no_violation_of_this_copy() -> None:
    copy, _, people = economy()
    twin = people["bob"].twin()
    twin.entries.pop()
    copy.entries.append(twin.state(idle()))
    report = audited(copy)
    assert report.ok
    (found,) = report.misdeeds
    assert found.startswith("entry 1 of account")


def test_a_fact_that_is_not_signed_counts_for_nothing_and_is_told() -> None:
    copy, job, _ = economy()
    known = copy.evidence[0]
    body, _ = msgpack.unpackb(known.facts[2])  # the verdict
    forged = [*known.facts[:2], bytes(msgpack.packb([body, bytes(64)])), *known.facts[3:]]
    report = audited(Copy(copy.entries, [Evidence(job.id, forged, [b"no record"])]))
    assert report.earned_micro == report.final_price_micro == 0
    assert len(report.violations) == 2


def test_evidence_without_its_spec_proves_nothing() -> None:
    copy, job, _ = economy()
    report = audited(Copy(copy.entries, [Evidence(job.id, copy.evidence[0].facts[1:], [])]))
    assert report.earned_micro == 0
    assert report.unseen[0].startswith("the spec of job")


def test_progress_grows_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparkle_ledger.audit.PROGRESS_EVERY", 2)
    copy, _, _ = economy()
    progress = list(Audit(ENTRIES, FACTS, ECONOMY).steps(copy.rows(), 8, copy.evidence))
    assert progress == [(done, 24) for done in range(2, 25, 2)] + [(24, 24)]


# --- a book with a fault: each is seen, though the book itself sees nothing ---------------------------------


def counts_anything(copy: Copy, patch: pytest.MonkeyPatch) -> None:
    """Work is paid whatever the evidence says."""
    copy.evidence[0].facts[:] = copy.evidence[0].facts[:2]
    patch.setattr(Rulings, "_check_claim", staticmethod(lambda record, work: None))


def counts_without_a_job(copy: Copy, patch: pytest.MonkeyPatch) -> None:
    copy.evidence.clear()
    patch.setattr(Rulings, "_check_work", lambda self, node, work: out.BOOKED)


def counts_twice(copy: Copy, patch: pytest.MonkeyPatch) -> None:
    """A second claim to the same execution is paid too."""
    again = Author(CAROL)
    again.entries = [one for one in copy.entries if one.account == again.account]
    first = again.entries[1]
    copy.entries.append(again.state(first.payload))
    patch.setattr(Rulings, "_is_claimed", lambda self, node, work: False)


def makes_money(copy: Copy, patch: pytest.MonkeyPatch) -> None:
    """A worker is paid one more than the escrow gives."""
    paid = Money.pay

    def pay(self: Money, payer: AccountId, job: bytes, worker: AccountId, amount: int) -> None:
        paid(self, payer, job, worker, amount)
        self.purse(worker).balance += 1

    patch.setattr(Money, "pay", pay)


def overdraws(copy: Copy, patch: pytest.MonkeyPatch) -> None:
    """Holds are not taken from anybody."""
    patch.setattr(Money, "hold", lambda self, account, job, amount: None)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (counts_anything, "was never accepted"),
        (counts_without_a_job, "nothing here proves"),
        (counts_twice, "is settled twice"),
        (makes_money, "not to 0"),
        (overdraws, "more than went in"),
    ],
)
def test_a_fault_of_the_book_is_seen(
    monkeypatch: pytest.MonkeyPatch, fault: Callable[[Copy, pytest.MonkeyPatch], None], told: str
) -> None:
    copy, _, _ = economy()
    assert audited(copy).ok
    fault(copy, monkeypatch)
    report = audited(copy)
    assert not report.ok
    assert any(told in text for text in report.violations), report.violations
