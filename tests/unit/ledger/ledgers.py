"""Accounts, jobs and their evidence, as a test would have them."""

from collections.abc import Iterable, Sequence

from sparkle_ledger.book import Book
from sparkle_ledger.economy import Economy
from sparkle_ledger.entries import (
    AccountId,
    Entry,
    EntryCodec,
    Genesis,
    Hold,
    Payload,
    Release,
    Restore,
    Rotate,
    Settled,
    Work,
    account_of,
    consent_to_rotate,
)
from sparkle_ledger.evidence import JobRecord
from sparkle_ledger.genesis import GenesisRecord
from sparkle_ledger.proofs import MAX_PROOF_FACTS, ProofReading, encode_proof
from sparkle_protocol import facts as f
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import ResultHash
from sparkle_protocol.work.placement import threshold
from sparkle_protocol.work.sealed import SealedRange, SealedUnit, range_count

NET = "test"
FACTS = f.FactCodec(NET)
ENTRIES = EntryCodec(NET)
PRICE = 10
GENESIS = GenesisRecord(NET, limit_max_micro=100_000, starter_micro=1_000)
ECONOMY = GENESIS.economy
RESULT = b"r" * 32


def person(n: int) -> Identity:
    return Identity.from_private_bytes(n.to_bytes(32, "big"))


def idle(number: int = 0) -> Release:
    """What nothing moves by: it waits for a job that nobody knows."""
    return Release(number.to_bytes(32, "big"), 1)


KEEPERS = [person(500 + n) for n in range(4)]  # the fewest that decide by themselves: three of them do


class Author:
    """Somebody's account: signs entries one after the other."""

    def __init__(self, who: Identity, account: AccountId | None = None, *, genesis: bool = True) -> None:
        self.who = who
        self.key = who.public_key
        self.account = account or account_of(NET, who.public_key)
        self.incarnation = 0
        self.entries: list[Entry] = []
        if genesis:
            self.state(Genesis())

    def twin(self) -> "Author":
        """The same account as it stands: for a fork."""
        copy = Author(self.who, self.account, genesis=False)
        copy.incarnation = self.incarnation
        copy.entries = list(self.entries)
        return copy

    def state(self, payload: Payload, time_ms: int = 0) -> Entry:
        last = self.entries[-1] if self.entries else None
        entry = ENTRIES.seal(
            self.who, payload, seq=last.seq + 1 if last else 0, prev=last.id if last else b"\0" * 32,
            time_ms=time_ms, incarnation=self.incarnation, account=self.account,
        )  # fmt: skip
        self.entries.append(entry)
        return entry

    def hold(self, job: "Job", amount: int | None = None) -> Entry:
        entry = self.state(Hold(job.id, job.cover if amount is None else amount, 0))
        job.hold = entry
        return entry

    def work(self, job: "Job", *units: int, epoch: int = 0, amount: int | None = None) -> Entry:
        return self.state(self.claim(job, *units, epoch=epoch, amount=amount))

    def claim(self, job: "Job", *units: int, epoch: int = 0, amount: int | None = None) -> Work:
        assert job.hold is not None
        price = job.price * len(units) if amount is None else amount
        return Work(job.id, job.payer, job.hold.id, self.key, price, [Settled(unit, epoch) for unit in units])

    def rotate(self, to: Identity, consents: Identity | None = None) -> Entry:
        place = consent_to_rotate(NET, self.account, self.incarnation, self.entries[-1].seq + 1)
        entry = self.state(Rotate(to.public_key, (consents or to).sign(place)))
        self.who, self.key = to, to.public_key
        return entry

    def restore(self, last: Entry | None = None) -> Entry:
        last = last or self.entries[-1]
        self.incarnation += 1
        entry = ENTRIES.seal(
            self.who, Restore(last.seq, last.id), seq=0, time_ms=0, incarnation=self.incarnation, account=self.account
        )
        self.entries.append(entry)
        return entry


class Job:
    """A job of somebody's, and what its keepers say of it. With no keepers the submitter's word decides."""

    def __init__(
        self,
        by: Identity,
        units: int = 2,
        *,
        price: int = PRICE,
        replicas: int = 2,
        keepers: Sequence[Identity] = (),
        nonce: int = 0,
    ) -> None:
        self.by = by
        self.price = price
        self.units = units
        self.payer = account_of(NET, by.public_key)
        self.hold: Entry | None = None
        self.keepers = list(keepers) or [by]
        policy = f.Policy(quorum=1, max_replicas=replicas)
        self.spec = FACTS.seal(
            by,
            f.JobSpec(
                "square", 1, {"n": 1}, units, "exact", policy, f.Resources(), f.Deadlines(), b"\0" * 32,
                nonce.to_bytes(16, "big"), 0, price_micro=price,
            ),
        )  # fmt: skip
        self.id = self.spec.job
        self.cover = price * units * replicas
        keys = [one.public_key for one in self.keepers]
        self.view = FACTS.seal(by, f.KeeperSet(self.id, 0, keys, threshold(len(keys))))

    def verdict(
        self, workers: Iterable[Identity], units: Iterable[int], by: Identity | None = None, epoch: int = 0
    ) -> f.Fact:
        keys = [one.public_key for one in workers]
        items = [f.VerdictItem(unit, epoch, RESULT, keys, []) for unit in units]
        return FACTS.seal(by or self.keepers[0], f.Verdicts(self.id, items))

    def words(self, verdict: f.Fact, by: Iterable[Identity]) -> list[f.Fact]:
        """Others' word on a verdict."""
        return [FACTS.seal(one, f.Endorsements(self.id, [bytes(verdict.id)], 0)) for one in by]

    def accepted(
        self, workers: Iterable[Identity], units: Iterable[int] | None = None, epoch: int = 0
    ) -> list[f.Fact]:
        """Facts by which every keeper accepts these workers' results of some units, or of all."""
        verdict = self.verdict(workers, range(self.units) if units is None else units, epoch=epoch)
        return [self.view, verdict, *self.words(verdict, self.keepers[1:])]

    def record(self, *facts: f.Fact | list[f.Fact]) -> JobRecord:
        found = JobRecord(self.spec, NET)
        for one in facts:
            found.add_all(one if isinstance(one, list) else [one])
        return found

    def cancel(self) -> f.Fact:
        return FACTS.seal(self.by, f.Cancel(self.id, "enough"))


def sealed_job(by: Identity, workers: Sequence[Identity], units: int = 1500) -> tuple[Job, list[SealedRange]]:
    """A job of two ranges that are sealed: all of these workers were accepted on each unit."""
    job = Job(by, units, keepers=KEEPERS)
    names = tuple(sorted(one.peer_id for one in workers))
    ends = [SealedUnit(0, ResultHash(b"r" * 32), names)] * units
    return job, [SealedRange.pack(0, ends[:1024]), SealedRange.pack(1024, ends[1024:])]


def seals(job: Job, ranges: Iterable[SealedRange], by: Iterable[Identity]) -> list[f.Fact]:
    """Their word that these are the records of the job's ranges."""
    items = [f.SealItem(one.index, one.root) for one in ranges]
    return [FACTS.seal(one, f.Seals(job.id, items)) for one in by]


def book(*feeds: Author, economy: Economy = ECONOMY) -> Book:
    found = Book(NET, economy)
    for feed in feeds:
        for entry in feed.entries:
            found.add(entry)
    return found


def proof_of(record: JobRecord, ranges: Iterable[int] | None = None) -> bytes:
    """The proof of some ranges, or of all, as it travels."""
    return encode_proof(record, list(range(range_count(record.units)) if ranges is None else ranges))


def proven(proof: bytes, codec: f.FactCodec = FACTS, known: Iterable[f.Fact] = ()) -> JobRecord:
    """What a proof proves to whoever knows these facts."""
    reading = ProofReading(proof, codec, known)
    while (record := reading.step(MAX_PROOF_FACTS)) is None:
        continue
    return record
