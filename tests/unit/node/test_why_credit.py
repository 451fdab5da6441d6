"""What ``why`` says of credit is what the book says, and agrees with what ``credit`` shows."""

from collections import Counter
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from sparkle_ledger.book import Book
from sparkle_ledger.entries import Release
from sparkle_ledger.forks import ForkProof
from sparkle_p2p.node.why_credit import job_reasons, peer_reasons, unit_reasons
from sparkle_protocol.facts import VerdictItem
from sparkle_protocol.ids import PeerId
from tests.unit.ledger.ledgers import KEEPERS, PRICE, RESULT, Author, Job, book, idle, person
from tests.unit.node.credit_views import credit_view

ALICE, BOB, CAROL, MALLORY = (person(n) for n in range(1, 5))
UNITS = 4


@dataclass
class Ledger:
    """A node's part in the ledger, filled by a test."""

    book: Book
    account: bytes
    loaded: bool = True
    proofs: dict[bytes, ForkProof] = field(default_factory=dict)

    @property
    def agent(self) -> Any:
        return SimpleNamespace(book=self.book, forked=self.proofs.get)


def kept(job: Job, accepted: dict[PeerId, int] | None = None, verdicts: dict[int, VerdictItem] | None = None) -> Any:
    state = SimpleNamespace(id=job.id, spec=job.spec.payload, submitter=job.by.peer_id, verdict=(verdicts or {}).get)
    return SimpleNamespace(state=state, accepted_by=Counter(accepted or {}))


def started() -> tuple[Job, Author, Author]:
    alice, bob = Author(ALICE), Author(BOB)
    job = Job(ALICE, UNITS, keepers=KEEPERS)
    alice.hold(job)
    return job, alice, bob


def test_a_job_tells_what_is_set_aside_owed_and_paid_and_then_that_the_rest_came_back() -> None:
    job, alice, bob = started()
    ledger: Any = Ledger(book(alice, bob), alice.account)
    accepted = {BOB.peer_id: 3, ALICE.peer_id: 1}
    (told,) = job_reasons(ledger, kept(job, accepted))
    assert told.numbers["owed_micro"] == 3 * PRICE, "work for oneself is not paid"
    assert "0.000080 credits were set aside for it: 0.000000 paid to workers, 0.000080 left" in told.sentence
    assert "0.000030 is owed for accepted work" in told.sentence
    ledger.book.add_record(job.record(job.accepted([BOB], range(3)), job.accepted([ALICE], [3])))
    for entry in (bob.work(job, 0, 1, 2), alice.state(Release(job.id, job.cover))):
        ledger.book.add(entry)
    (told,) = job_reasons(ledger, kept(job, accepted))
    assert told.sentence == (
        "0.000080 credits were set aside for it: 0.000030 paid to workers, 0.000050 came back, nothing left."
    )
    shown = credit_view(ledger.book, alice.account, 0)
    assert (shown.spent_micro, shown.held_micro) == (told.numbers["paid_micro"], told.numbers["left_micro"])


def test_free_jobs_and_those_without_a_hold_say_so_and_without_a_ledger_nothing_is_said() -> None:
    job, alice, _ = started()
    ledger: Any = Ledger(book(), alice.account)
    assert [one.code for one in job_reasons(ledger, kept(Job(ALICE, price=0)))] == ["free"]
    assert [one.code for one in job_reasons(ledger, kept(job))] == ["nothing_set_aside"]
    ledger.loaded = False
    for none in (None, ledger):
        assert job_reasons(none, kept(job)) == unit_reasons(none, kept(job), 0) == []
        assert peer_reasons(none, BOB.peer_id) == []


def test_a_unit_tells_who_was_paid_who_waits_for_what_and_who_has_not_claimed() -> None:
    job, alice, bob = started()
    carol, late = Author(CAROL), Author(MALLORY)
    bob.work(job, 0)
    carol.work(job, 0)
    ledger: Any = Ledger(book(alice, bob, carol, late), alice.account)
    ledger.book.add_record(job.record(job.accepted([BOB], [0])))
    keys = [one.public_key for one in (BOB, CAROL, MALLORY, ALICE)]
    told = unit_reasons(ledger, kept(job, verdicts={0: VerdictItem(0, 0, RESULT, keys, [])}), 0)
    assert [one.code for one in told] == ["paid", "pay_pending", "pay_unclaimed"], "nobody is paid by itself"
    assert told[0].sentence.endswith("was paid 0.000010 for it.")
    assert told[1].numbers["outcome"] == "pending:not_accepted"
    assert "which does not count here: " in told[1].sentence
    assert "has not claimed 0.000010 for it yet" in told[2].sentence
    assert unit_reasons(ledger, kept(job), 1) == [], "not decided"


def test_a_closed_job_tells_the_same_as_before() -> None:
    job, alice, bob = started()
    carol = Author(CAROL)
    ledger: Any = Ledger(book(alice, bob, carol), alice.account)
    ledger.book.add_record(job.record(job.accepted([BOB], range(3)), job.accepted([CAROL], [3]), job.cancel()))
    for entry in (bob.work(job, 0, 1, 2), carol.work(job, 0), alice.state(Release(job.id, 4 * PRICE))):
        ledger.book.add(entry)
    keys = [one.public_key for one in (BOB, CAROL)]
    accepted = kept(job, {BOB.peer_id: 3, CAROL.peer_id: 1}, {0: VerdictItem(0, 0, RESULT, keys, [])})
    before = job_reasons(ledger, accepted), credit_view(ledger.book, alice.account, 0)
    assert before[0][0].numbers["owed_micro"] == PRICE
    assert [one.code for one in unit_reasons(ledger, accepted, 0)] == ["paid", "pay_pending"]
    assert not ledger.book.is_closable(job.id)
    ledger.book.add_record(job.record(job.accepted([CAROL], [0])))
    assert [one.code for one in unit_reasons(ledger, accepted, 0)] == ["paid", "paid"]
    before = job_reasons(ledger, accepted), credit_view(ledger.book, alice.account, 0)
    ledger.book.close(job.id)
    assert (job_reasons(ledger, accepted), credit_view(ledger.book, alice.account, 0)) == before
    assert before[1].escrows[0].owed_micro == PRICE
    assert before[1].escrows[0].over
    assert [one.code for one in unit_reasons(ledger, accepted, 0)] == ["paid", "paid"]


def test_a_peer_tells_its_balance_here_what_went_between_us_and_a_fork() -> None:
    job, alice, bob = started()
    bob.work(job, 0, 1)
    ledger: Any = Ledger(book(alice, bob), alice.account)
    ledger.book.add_record(job.record(job.accepted([BOB])))
    (told,) = peer_reasons(ledger, BOB.peer_id)
    assert told.numbers["balance_micro"] == 2 * PRICE == credit_view(ledger.book, bob.account, 0).balance_micro
    assert "it paid this node 0.000000 and was paid 0.000020 by it" in told.sentence
    assert [one.code for one in peer_reasons(ledger, CAROL.peer_id)] == ["account_unknown"]
    mallory = Author(MALLORY)
    twin = mallory.twin()
    proof = ForkProof.make(mallory.state(idle(1)), twin.state(idle(2)))
    ledger.proofs[mallory.account] = proof
    assert [one.code for one in peer_reasons(ledger, MALLORY.peer_id)] == ["account_forked", "account_unknown"]
    ledger.book.add_all([*mallory.entries, twin.entries[-1]])
    forked, known = peer_reasons(ledger, MALLORY.peer_id)
    assert "entry 1: it can spend no more" in forked.sentence
    assert known.numbers["entries"] == 3
