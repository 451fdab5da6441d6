"""Everything bad that can be sent to a ledger, together: each has its reason, none moves anybody's credit.

One honest economy: a payer, a worker that was paid for one unit and will be for another, a bystander. Then all bad
inputs of ``THREAT_MODEL.md``, in any order, mixed with what is good.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from sparkle_ledger import store
from sparkle_ledger.book import Book
from sparkle_ledger.entries import MAX_MICRO, Entry, EntryCodec, Genesis, Hold, Release, Restore, Settled, Work
from sparkle_ledger.evidence import JobRecord
from sparkle_ledger.forks import ForkProof
from sparkle_protocol import facts as f
from sparkle_protocol.errors import RemoteProtocolError
from tests.unit.ledger.ledgers import ECONOMY, ENTRIES, FACTS, KEEPERS, NET, PRICE, Author, Job, book, person

PAYER, WORKER, BYSTANDER, LIAR, FRIEND = (person(n) for n in range(1, 6))
STRANGERS = [person(600 + n) for n in range(4)]


@dataclass
class Economy:
    """What honest people did: entries and evidence, and what that comes to."""

    payer: Author = field(default_factory=lambda: Author(PAYER))
    worker: Author = field(default_factory=lambda: Author(WORKER))
    bystander: Author = field(default_factory=lambda: Author(BYSTANDER))
    liar: Author = field(default_factory=lambda: Author(LIAR))
    job: Job = field(default_factory=lambda: Job(PAYER, keepers=KEEPERS))

    def __post_init__(self) -> None:
        self.payer.hold(self.job)
        self.claim = self.worker.work(self.job, 0)
        self.record = self.job.record(self.job.accepted([WORKER]))
        self.honest = [*self.payer.entries, *self.worker.entries, *self.bystander.entries, *self.liar.entries]

    def book(self) -> Book:
        found = Book(NET, ECONOMY)
        found.add_all(self.honest)
        found.add_record(self.record)
        return found


def balances(found: Book, economy: Economy) -> list[tuple[int, int, int]]:
    people = (economy.payer, economy.worker, economy.bystander)
    return [
        (account.balance_micro, account.spendable_micro, account.held_micro)
        for account in (found.account(one.account) for one in people)
    ]


Bad = tuple[str, Entry]


def bad_entries(economy: Economy) -> list[Bad]:  # one of each kind; the order in the liar's feed is theirs
    """Every kind of bad entry that can be read at all, with the reason that it gets."""
    liar, job = economy.liar, economy.job
    unaccepted = Job(PAYER, nonce=7)
    unaccepted.hold = job.hold
    own = Job(LIAR, nonce=8)
    liar.key = LIAR.public_key
    good = Work(job.id, job.payer, job.hold.id, LIAR.public_key, PRICE, [Settled(0, 0)])  # type: ignore[union-attr]

    def work(**change: object) -> Entry:
        fields = {name: getattr(good, name) for name in good.__struct_fields__} | change
        return liar.state(Work(**fields))  # type: ignore[arg-type]

    found: list[Bad] = [
        ("pending:not_accepted", work()),  # WORK without acceptance
        ("void:wrong_key", work(worker=WORKER.public_key)),  # somebody else's work
        ("void:wrong_amount", work(amount_micro=PRICE + 1)),
        ("void:wrong_amount", work(amount_micro=MAX_MICRO)),
        ("void:no_such_unit", work(units=[Settled(1000, 0)])),
        ("pending:not_accepted", work(hold=b"h" * 32)),  # from an escrow that nobody made
        ("void:wrong_payer", work(job=unaccepted.id)),  # from an escrow that is another job's
        ("pending:hold", work(job=unaccepted.id, hold=b"h" * 32)),
        ("pending:not_accepted", work(payer=economy.bystander.account)),
        ("void:overdrawn", liar.state(Hold(own.id, MAX_MICRO, 0))),
        ("pending:evidence", liar.state(Release(own.id, MAX_MICRO))),  # hands into an escrow of nothing
        ("void:not_own_job", liar.state(Release(job.id, MAX_MICRO), time_ms=(1 << 53) - 1)),  # of somebody else's
        ("void:not_own_job", liar.state(Hold(job.id, 1, 0))),
        ("booked", liar.state(ForkProof.make(*forged_pair(economy)).encode())),  # in its place, and it accuses nobody
    ]
    place = liar.entries[-1]
    found += [
        ("gap", seal(liar, Hold(b"j" * 32, 1, 0), seq=1 << 39, prev=b"p" * 32)),  # a place far in the future
        ("refused:misplaced", seal(liar, Genesis(), seq=place.seq + 1, prev=place.id)),
        ("refused:bad_link", seal(liar, Hold(b"j" * 32, 1, 0), seq=place.seq + 2, prev=place.id)),
        ("refused:bad_link", seal(liar, Restore(0, economy.payer.entries[0].id), seq=0, incarnation=1)),
        ("refused:wrong_key", seal(liar, Hold(b"j" * 32, 1, 0), seq=1, prev=economy.payer.entries[0].id, of="payer")),
    ]
    return found


def forged_pair(economy: Economy) -> tuple[Entry, Entry]:
    """Two entries in the bystander's name, by a key that is not its."""
    first, second = (
        ENTRIES.seal(LIAR, Hold(b"j" * 32, n, 0), seq=1, prev=economy.bystander.entries[0].id, time_ms=0,
                     account=economy.bystander.account)
        for n in (1, 2)
    )  # fmt: skip
    return first, second


def seal(
    liar: Author, payload: object, *, seq: int, prev: bytes = b"\0" * 32, incarnation: int = 0, of: str = ""
) -> Entry:
    account = liar.account if not of else Author(PAYER, genesis=False).account
    return ENTRIES.seal(
        LIAR, payload, seq=seq, prev=prev, time_ms=0, incarnation=incarnation, account=account,  # type: ignore[arg-type]
    )  # fmt: skip


def bad_evidence(economy: Economy) -> list[JobRecord]:
    """Certificates of the job that prove nothing."""
    job = economy.job
    lie = job.verdict([LIAR], [0, 1], by=KEEPERS[0])
    by_strangers = job.verdict([LIAR], [0, 1], by=STRANGERS[0])
    their_view = FACTS.seal(STRANGERS[0], f.KeeperSet(job.id, 0, [one.public_key for one in STRANGERS], 3))
    return [
        job.record(job.view, lie, job.words(lie, KEEPERS[1:2])),  # two of four
        job.record(job.view, by_strangers, job.words(by_strangers, STRANGERS[1:])),  # nobody of the view
        job.record(their_view, by_strangers, job.words(by_strangers, STRANGERS[1:])),  # a view of their own
        job.record(FACTS.seal(LIAR, f.Reset(job.id, 0, 1, "again")), FACTS.seal(LIAR, f.Cancel(job.id, "over"))),
    ]


@pytest.mark.parametrize("seed", range(20))
def test_every_bad_input_has_its_reason_and_no_honest_account_notices(seed: int) -> None:
    rng = Random(seed)
    economy = Economy()
    expected = balances(economy.book(), economy)
    assert expected[0][0] == -economy.job.cover
    assert expected[1][0] == PRICE
    bad, proofs = bad_entries(economy), bad_evidence(economy)
    found = Book(NET, ECONOMY)
    inputs: list[Callable[[], object]] = [lambda e=e: found.add(e) for e in economy.honest]  # type: ignore[misc]
    inputs += [lambda e=e: found.add(e) for _, e in bad]  # type: ignore[misc]
    inputs += [lambda r=r: found.add_record(r) for r in (*proofs, economy.record)]  # type: ignore[misc]
    inputs += rng.choices(inputs, k=10)  # some twice
    rng.shuffle(inputs)
    for give in inputs:
        give()
        assert found.sum_micro() == 0
    assert balances(found, economy) == expected
    for reason, entry in bad:
        outcome = found.outcome(entry.id)
        code = outcome.code if outcome is not None else found.add(entry).code
        assert code == reason, entry.payload
    assert not found.account(economy.bystander.account).frozen
    assert found.account(economy.liar.account).balance_micro == 0
    assert found.account(economy.liar.account).earned_micro == 0
    kept = {entry.id for entry in (*found.entries(economy.liar.account), *found.waiting(economy.liar.account))}
    placed = [entry for reason, entry in bad if reason.startswith(("pending:", "void:", "gap"))]
    assert {entry.id for entry in placed} <= kept  # the evidence of the attempt stays
    claim = economy.worker.work(economy.job, 1)
    assert found.add(claim).code == "booked"  # and honest people go on


def test_the_evidence_against_an_account_survives_the_disk(tmp_path: Path) -> None:
    economy = Economy()
    bad = [entry for reason, entry in bad_entries(economy) if not reason.startswith("refused")]
    twin = Author(LIAR)
    second = twin.state(Hold(b"k" * 32, 1, 0))  # in the place of the first bad entry
    db = store.open_ledger(tmp_path / "ledger.db", NET)
    store.append(db, [*economy.honest, *bad, second])
    db.close()
    db = store.open_ledger(tmp_path / "ledger.db", NET)
    found = Book(NET, ECONOMY)
    found.add_all(store.load(db, ENTRIES))
    found.add_record(economy.record)
    db.close()
    assert found.account(economy.liar.account).frozen
    assert found.fork_of(economy.liar.account) == ForkProof.make(bad[0], second)
    assert balances(found, economy) == balances(economy.book(), economy)


@pytest.mark.parametrize("amount", [-1, -MAX_MICRO, 0, MAX_MICRO + 1, 1 << 63, (1 << 64) - 1])
def test_amounts_that_are_negative_huge_or_nothing_are_not_even_read(amount: int) -> None:
    economy = Economy()
    for payload in (
        Hold(b"j" * 32, amount, 0),
        Release(b"j" * 32, amount),
        Work(b"j" * 32, economy.payer.account, b"h" * 32, LIAR.public_key, amount, [Settled(0, 0)]),
    ):
        entry = economy.liar.twin().state(payload)
        if amount == 0 and isinstance(payload, Work):
            continue  # for nothing one may work
        with pytest.raises(RemoteProtocolError):
            ENTRIES.open(entry.raw)


def test_what_was_signed_for_another_network_is_worth_nothing_here() -> None:
    elsewhere = EntryCodec("other")
    genesis = elsewhere.seal(LIAR, Genesis(), seq=0, time_ms=0)
    hold = elsewhere.seal(LIAR, Hold(b"j" * 32, 1, 0), seq=1, prev=genesis.id, time_ms=0)
    for entry in (genesis, hold):
        with pytest.raises(RemoteProtocolError, match="network"):
            ENTRIES.open(entry.raw)


def test_a_debit_cannot_be_hidden_before_a_hold() -> None:
    """Who shows a worker its feed without an earlier Hold shows a feed with a gap, and its job is not funded."""
    payer, worker, hidden, job = Author(PAYER), Author(WORKER), Job(PAYER, nonce=1), Job(PAYER, nonce=2)
    debit = payer.hold(hidden, ECONOMY.starter_micro)  # all that it has
    hold = payer.hold(job)
    found = Book(NET, ECONOMY)
    for entry in payer.entries:
        if entry is not debit:
            found.add(entry)
    found.add_all(worker.entries)
    found.add_record(job.record(job.accepted([WORKER])))
    assert found.funding(job.id) is None
    assert found.add(worker.work(job, 0)).code == "pending:hold"
    assert found.add(debit).code == "booked"
    outcome = found.outcome(hold.id)
    assert outcome is not None
    assert outcome.code == "void:overdrawn"
    assert found.funding(job.id) is None


def test_a_partition_lets_nobody_spend_twice_nor_lose_pay() -> None:
    """Each side hears another part; who spends the same credit on both has signed its fork, and no worker loses."""
    payer, worker, other = Author(PAYER), Author(WORKER), Author(BYSTANDER)
    branch = payer.twin()
    here = Job(PAYER, price=ECONOMY.starter_micro // 2, replicas=1, keepers=KEEPERS, nonce=1)
    there = Job(PAYER, price=ECONOMY.starter_micro // 2, replicas=1, keepers=KEEPERS, nonce=2)
    payer.hold(here)
    branch.hold(there)
    claims = [worker.work(here, 0, 1), other.work(there, 0, 1)]
    left, right = book(payer, worker), book(branch, other)
    for side, job, who in ((left, here, WORKER), (right, there, BYSTANDER)):
        side.add_record(job.record(job.accepted([who])))
    assert [side.outcome(claim.id).code for side, claim in zip((left, right), claims, strict=True)] == ["booked"] * 2  # type: ignore[union-attr]
    for found in (left, right):
        found.add_all([*payer.entries, *branch.entries, *worker.entries, *other.entries])
        for job, who in ((here, WORKER), (there, BYSTANDER)):
            found.add_record(job.record(job.accepted([who])))
        earned = [found.account(one.account).earned_micro for one in (worker, other)]
        assert earned == [ECONOMY.starter_micro] * 2
        assert found.account(payer.account).frozen
        assert found.account(payer.account).spendable_micro == 0
        assert found.sum_micro() == 0


def named_instead(economy: Economy) -> list[Author]:
    """Friends with lower keys than the worker's, as many as a unit may be computed by."""
    lower = (friend for n in range(400) if (friend := person(700 + n)).public_key < WORKER.public_key)
    return [Author(next(lower)) for _ in range(2)]


def facts_for(friends: list[Author], economy: Economy, who: str) -> list[f.Fact]:
    """What pays friends for a unit whose worker was paid already, signed by those who can."""
    names, job = [friend.who for friend in friends], economy.job
    if who == "keepers":
        return job.accepted(names, [0])
    if who == "submitter":  # a result that the keepers certified, and more names
        return [*job.accepted([WORKER], [0]), job.verdict(names, [0], by=PAYER)]
    second = FACTS.seal(PAYER, f.KeeperSet(job.id, 0, [one.public_key for one in STRANGERS], 3))
    verdict = job.verdict(names, [0], by=STRANGERS[0])
    return [second, verdict, *job.words(verdict, STRANGERS[1:])]


@pytest.mark.parametrize("who", ["keepers", "submitter", "second keeper set"])
def test_those_who_decide_can_pay_friends_instead_but_only_with_what_the_job_set_aside(who: str) -> None:
    """Not defended, in bounds: all keepers together, or the submitter, name friends afterwards.

    These take a worker's place in a unit for which no more than so many are paid, also after it was paid. What shows
    it, more names than the job agreed to, is signed and kept.
    """
    economy = Economy()
    found = economy.book()
    before = balances(found, economy)
    friends = named_instead(economy)
    found.add_record(economy.job.record(facts_for(friends, economy, who)))
    claims = [friend.work(economy.job, 0) for friend in friends]
    found.add_all([entry for friend in friends for entry in friend.entries])
    assert [outcome.code for claim in claims if (outcome := found.outcome(claim.id))] == ["booked"] * 2
    outcome = found.outcome(economy.claim.id)
    assert outcome is not None
    assert outcome.code == "pending:not_accepted"
    after = balances(found, economy)
    assert after[1][0] == before[1][0] - PRICE  # the worker of that unit; of all others nothing moves
    assert (after[0][:2], after[2]) == (before[0][:2], before[2])
    assert found.escrow(economy.job.id).balance_micro >= 0
    assert found.sum_micro() == 0
    record = found.record(economy.job.id)
    assert record is not None
    verdicts = [fact.payload for fact in record.counting() if isinstance(fact.payload, f.Verdicts)]
    named = {key for verdict in verdicts for item in verdict.items if item.unit == 0 for key in item.accepted}
    assert len(named) > 2
