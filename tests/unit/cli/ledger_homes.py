"""Home directories with a ledger that was really written, for the commands that read it."""

from collections.abc import Iterable
from pathlib import Path

from sparkle_ledger import store
from sparkle_ledger.entries import Entry
from sparkle_ledger.genesis import GenesisRecord
from sparkle_p2p.cli.ledger_copy import LEDGER_FILE, loaded
from sparkle_protocol.facts import Fact
from tests.unit.ledger.ledgers import KEEPERS, NET, Author, Job, person

ALICE, BOB, CAROL = person(1), person(2), person(3)
PRICE, UNITS = 10, 4


def people() -> tuple[Job, dict[str, Author]]:
    """Alice paid Bob and Carol for a job of four units, each done by both."""
    alice, bob, carol = (Author(one) for one in (ALICE, BOB, CAROL))
    job = Job(ALICE, UNITS, keepers=KEEPERS)
    alice.hold(job)
    bob.work(job, 0, 1, 2, 3)
    carol.work(job, 0, 1)
    carol.work(job, 2, 3)
    alice.rotate(ALICE)
    return job, {"alice": alice, "bob": bob, "carol": carol}


def all_entries(authors: dict[str, Author]) -> list[Entry]:
    return [entry for one in authors.values() for entry in one.entries]


def written(
    home: Path,
    entries: Iterable[Entry],
    evidence: Iterable[tuple[Job, list[Fact]]] = (),
    net: str = NET,
    genesis: GenesisRecord | None = None,
) -> Path:
    """The file, closed."""
    home.mkdir(exist_ok=True)
    path = home / LEDGER_FILE
    db = store.open_ledger(path, net, genesis)
    db.execute("PRAGMA synchronous=OFF")
    for job, facts in evidence:
        store.keep_evidence(db, store.Evidence(job.id, [fact.raw for fact in (job.spec, *facts)], []))
    store.append(db, entries)
    db.close()
    return path


def whole(home: Path, genesis: GenesisRecord | None = None) -> Path:
    """A ledger in which everything is right."""
    job, authors = people()
    return written(home, all_entries(authors), [(job, job.accepted([BOB, CAROL]))], genesis=genesis)


def close_all(home: Path) -> None:
    """What a node does to its ledger once all jobs are settled."""
    db = store.open_ledger(home / LEDGER_FILE, NET)
    book = loaded(db, lambda what, done, whole: None)
    for record in list(book.records()):
        store.close_job(db, book.close(record.job), keep_evidence=False)
    db.close()
