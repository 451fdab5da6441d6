"""How long an audit of a ledger of a million entries takes, on one core and reading SQLite, and taking entries in.

Both are held against verifying as many Ed25519 signatures and doing nothing else.

The program that is measured: ``python -m tests.bench.ledger_audit audit FOLDER`` checks the ledger that
``python -m tests.bench.ledger_audit make FOLDER [ENTRIES [EXECUTIONS]]`` has made there, and prints one JSON line.
Each entry claims so many executions; each unit has two, as sealed by six of eight keepers. With ``intake`` in the
place of ``audit`` it takes the first of them in as a node does: opened, verified and judged, one after the other.
"""

import gc
import json
import resource
import sqlite3
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from sparkle_ledger import store
from sparkle_ledger.audit import Audit, in_time
from sparkle_ledger.book import Book
from sparkle_ledger.economy import Economy
from sparkle_ledger.entries import NO_PREV, Entry, EntryCodec, Genesis, Hold, Payload, Settled, Work, account_of
from sparkle_ledger.evidence import JobRecord
from sparkle_protocol.facts import (
    SEAL_UNITS,
    Deadlines,
    Fact,
    FactCodec,
    JobSpec,
    KeeperSet,
    Policy,
    Resources,
    SealItem,
    Seals,
)
from sparkle_protocol.identity import Identity, verify_signature
from sparkle_protocol.ids import PeerId, hash_result
from sparkle_protocol.work.sealed import SealedRange, SealedUnit
from tests.bench.processes import module, scratch
from tests.bench.rows import Row, median_row

NET = "bench"
ENTRIES = 1_000_000
SUBMITTERS, WORKERS, KEEPERS, THRESHOLD = 10, 100, 8, 6
RANGES = 4  # of a job
PRICE_MICRO = 1_000
REPLICAS = 2
BATCH = 5_000  # entries of a transaction
TAKEN_IN = 20_000  # entries
BARE = 5_000  # signatures
ENTRY_BYTES = 300  # about as many as an entry has
LIMIT_S = 1200.0


def ledger_audit(repeat: int) -> list[Row]:
    """Seconds and memory of an audit of a million entries; how fast entries are taken in; what they take on disk."""
    with scratch() as folder:
        with module("ledger_audit", folder / "make.log", "make", str(folder), str(ENTRIES)) as child:
            made = child.read(LIMIT_S)
        audits: list[dict[str, float]] = []
        intakes: list[dict[str, float]] = []
        for _ in range(repeat):
            for what, found in (("audit", audits), ("intake", intakes)):
                with module("ledger_audit", folder / f"{what}.log", what, str(folder)) as child:
                    found.append(child.read(LIMIT_S))
    bare = "bare Ed25519 verification of as many signatures"
    return [
        median_row(
            "ledger_audit", "s", [one["audit_s"] for one in audits], [one["read_s"] for one in audits],
            bar=60.0, stretch=20.0, against="reading the same rows from the file",
        ),
        median_row("ledger_audit_memory", "MB", [one["peak_mb"] for one in audits]),
        median_row(
            "ledger_verify", "entries/s", [one["entries"] / one["audit_s"] for one in audits],
            [one["bare_per_s"] for one in audits], against=bare, at_least=True,
        ),
        median_row(
            "ledger_intake", "entries/s", [one["per_s"] for one in intakes], [one["bare_per_s"] for one in intakes],
            against=bare, at_least=True,
        ),
        median_row("ledger_bytes", "B/entry", [made["bytes"] / made["entries"]]),
    ]  # fmt: skip


def person(number: int) -> Identity:
    """One of the people of this ledger."""
    return Identity.from_private_bytes(number.to_bytes(32, "big"))


SUBMITTING = [person(1_000 + n) for n in range(SUBMITTERS)]
WORKING = [person(2_000 + n) for n in range(WORKERS)]
KEEPING = [person(3_000 + n) for n in range(KEEPERS)]
ECONOMY = Economy(unlimited=frozenset(account_of(NET, one.public_key) for one in SUBMITTING))


class Author:
    """An account that signs one entry after the other."""

    clock = 0  # of all of them

    def __init__(self, identity: Identity, codec: EntryCodec) -> None:
        self._identity, self._codec = identity, codec
        self._seq, self._prev = 0, NO_PREV

    def sign(self, payload: Payload) -> Entry:
        """The next entry."""
        Author.clock += 1
        entry = self._codec.seal(self._identity, payload, seq=self._seq, prev=self._prev, time_ms=Author.clock)
        self._seq, self._prev = self._seq + 1, entry.id
        return entry


def evidence_of(number: int, codec: FactCodec) -> tuple[Fact, list[SealedRange], list[Fact]]:
    """A finished job: its spec, its sealed ranges and what makes them certain."""
    units = RANGES * SEAL_UNITS
    nonce = number.to_bytes(16, "big")
    spec = codec.seal(
        SUBMITTING[number % SUBMITTERS],
        JobSpec(
            "square", 1, {"n": 1}, units, "exact", Policy(), Resources(), Deadlines(), bytes(32), nonce, 0,
            price_micro=PRICE_MICRO,
        ),
    )  # fmt: skip
    keys = [one.public_key for one in KEEPING]
    facts = [codec.seal(SUBMITTING[number % SUBMITTERS], KeeperSet(spec.job, 0, keys, THRESHOLD))]
    ranges = []
    for index in range(RANGES):
        ends = []
        for unit in range(index * SEAL_UNITS, (index + 1) * SEAL_UNITS):
            workers = {WORKING[(unit + number + 37 * replica) % WORKERS].peer_id for replica in range(REPLICAS)}
            ends.append(SealedUnit(0, hash_result(unit.to_bytes(4, "big")), tuple(sorted(workers))))
        ranges.append(SealedRange.pack(index * SEAL_UNITS, ends))
    said = Seals(spec.job, [SealItem(sealed.index, sealed.root) for sealed in ranges])
    facts += [codec.seal(keeper, said) for keeper in KEEPING[:THRESHOLD]]
    return spec, ranges, facts


def make(folder: Path, entries: int, executions: int) -> None:
    """A ledger of so many entries, in which nothing is wrong."""
    db = store.open_ledger(folder / "ledger.db", NET)
    written = 0
    source = _entries(db, executions)
    while written < entries and (batch := list(islice(source, min(BATCH, entries - written)))):
        written += store.append(db, batch)
    db.close()
    size = (folder / "ledger.db").stat().st_size
    print(json.dumps({"entries": written, "bytes": size}), flush=True)


def _entries(db: sqlite3.Connection, executions: int) -> Iterator[Entry]:
    entry_codec, fact_codec = EntryCodec(NET), FactCodec(NET)
    submitters = [Author(one, entry_codec) for one in SUBMITTING]
    workers = {one.peer_id: (one, Author(one, entry_codec)) for one in WORKING}
    for author in (*submitters, *(author for _, author in workers.values())):
        yield author.sign(Genesis())
    number = 0
    while True:
        spec, ranges, facts = evidence_of(number, fact_codec)
        raws = [fact.raw for fact in (spec, *facts)]
        store.keep_evidence(db, store.Evidence(spec.job, raws, [sealed.encode() for sealed in ranges]))
        cover = PRICE_MICRO * RANGES * SEAL_UNITS * Policy().max_replicas
        hold = submitters[number % SUBMITTERS].sign(Hold(spec.job, cover, 1 << 50))
        yield hold
        open_units: dict[PeerId, list[Settled]] = {}
        for sealed in ranges:
            for unit, end in enumerate(sealed, sealed.first):
                for worker in end.accepted:
                    waiting = open_units.setdefault(worker, [])
                    waiting.append(Settled(unit, end.epoch))
                    if len(waiting) == executions:
                        yield _work(workers[worker], spec, hold, open_units.pop(worker))
        for worker, waiting in open_units.items():
            yield _work(workers[worker], spec, hold, waiting)
        number += 1


def _work(worker: tuple[Identity, Author], spec: Fact, hold: Entry, units: list[Settled]) -> Entry:
    key = worker[0].public_key
    return worker[1].sign(Work(spec.job, hold.account, hold.id, key, PRICE_MICRO * len(units), units))


def audit(folder: Path, *, deep: bool) -> None:
    """Check it, as a process that does nothing else: without looking for garbage among millions of entries."""
    gc.disable()
    began = time.process_time()
    db = store.open_ledger(folder / "ledger.db", NET, readonly=True)
    read = sum(len(row.raw) for row in store.rows(db))
    read_s, began = time.process_time() - began, time.process_time()
    run = Audit(EntryCodec(NET), FactCodec(NET), ECONOMY, deep=deep)
    for _ in run.steps(store.rows(db), store.count(db), store.evidence(db, closed=True), store.closings(db)):
        pass
    report = run.report()
    audit_s = time.process_time() - began
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    if report.violations:
        raise RuntimeError(f"the ledger is meant to be right: {report.violations[:3]}")
    figures = {
        "entries": report.entries,
        "read_bytes": read,
        "read_s": read_s,
        "audit_s": audit_s,
        "peak_mb": peak_mb,
        "bare_per_s": bare_per_s(),
    }
    print(json.dumps(figures), flush=True)


def intake(folder: Path) -> None:
    """Take the first entries in, all evidence being known."""
    db = store.open_ledger(folder / "ledger.db", NET, readonly=True)
    raws = [entry.raw for entry in in_time(list(store.load(db, EntryCodec(NET))))[:TAKEN_IN]]
    book, facts, codec = Book(NET, ECONOMY), FactCodec(NET), EntryCodec(NET)
    for one in store.evidence(db):
        opened = [facts.open(raw) for raw in one.facts]
        record = JobRecord(next(fact for fact in opened if type(fact.payload) is JobSpec), NET)
        record.add_all(opened)
        for sealed in one.sealed:
            record.add_sealed(SealedRange.decode(sealed))
        book.add_record(record)
    began = time.process_time()
    counting = sum(book.add(codec.open(raw)).counts for raw in raws)
    took_s = time.process_time() - began
    if counting != len(raws):
        raise RuntimeError(f"{len(raws) - counting} of {len(raws)} entries do not count")
    print(json.dumps({"per_s": len(raws) / took_s, "bare_per_s": bare_per_s()}), flush=True)


def bare_per_s() -> float:
    """Signatures of entries verified per second of one core, with nothing around it."""
    signer, body = SUBMITTING[0], bytes(ENTRY_BYTES)
    key, signature = signer.public_key, signer.sign(body)
    began = time.process_time()
    for _ in range(BARE):
        verify_signature(key, signature, body)
    return BARE / (time.process_time() - began)


def main() -> None:
    """One of the three."""
    what, folder, *rest = sys.argv[1:]
    numbers = [int(one) for one in rest if one.isdigit()]
    if what == "make":
        make(Path(folder), *(numbers + [ENTRIES, 1][len(numbers) :]))
    elif what == "intake":
        intake(Path(folder))
    else:
        audit(Path(folder), deep="deep" in rest)


if __name__ == "__main__":
    main()
