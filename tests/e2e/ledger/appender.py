"""A process that appends to its own feed in a ledger and prints the id of each entry once it is kept.

``appender.py PATH``: on and on, until it is killed. Checkpoints come often, so that some kills hit one. Between
entries it keeps evidence about a job and closes that job, and prints the job's id.

``appender.py PATH FIRST STEP END``: for each file size from FIRST on, a process of its own with a new file at
PATH.SIZE that the kernel ends in the middle of the write that would make one of its files longer; prints what each
had kept.
"""

import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path

from sparkle_ledger import store
from sparkle_ledger.book import Book
from sparkle_ledger.entries import NO_PREV, Entry, Genesis, Hold
from tests.unit.ledger.feeds import CODEC, NET, PEOPLE, job
from tests.unit.ledger.ledgers import Job

BATCHES = (1, 1, 40, 3)  # entries of one transaction, in turn: some of one page, some of many
CHECKPOINT_PAGES = 40


def entries_of_the_feed() -> Iterator[Entry]:
    """What the process appends, from the first entry on."""
    last: Entry | None = None
    for seq in count():
        payload = Hold(job(seq), 1 + seq, 1 << 40) if last else Genesis()
        last = CODEC.seal(PEOPLE[0], payload, seq=seq, prev=last.id if last else NO_PREV, time_ms=seq)
        yield last


def append_until_killed(path: Path, tell: Callable[[str], None]) -> None:
    db = store.open_ledger(path, NET)
    db.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
    following = islice(entries_of_the_feed(), store.count(db), None)
    for turn in count():
        batch = list(islice(following, BATCHES[turn % len(BATCHES)]))
        store.append(db, batch)
        for entry in batch:
            tell(entry.id.hex())
        tell(close_a_job(db, batch[0].seq).hex())


def close_a_job(db: store.Database, number: int) -> bytes:
    """Keep what proves who did it, and then what takes the place of that. Every other time the proof stays, too."""
    done = Job(PEOPLE[0], nonce=number)
    facts = done.accepted([PEOPLE[1]])
    store.keep_evidence(db, store.Evidence(done.id, [fact.raw for fact in (done.spec, *facts)], []))
    book = Book(NET)
    book.add_record(done.record(facts))
    store.close_job(db, book.close(done.id), keep_evidence=number % 2 > 0)
    return done.id


def ended_in_a_write(path: Path, size: int) -> dict[str, object]:
    """What a process had kept that was ended when one of its files would have exceeded ``size`` bytes."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        append_until_killed(path, lambda text: void(os.write(writing, f"{text}\n".encode())))
    os.close(writing)
    with os.fdopen(reading) as told:
        kept = told.read().split()
    _, status = os.waitpid(child, 0)
    return {"path": str(path), "signal": os.WTERMSIG(status), "kept": kept}


def void(_: object) -> None:
    """Nothing."""


def main(path: Path, sizes: range | None) -> None:
    if sizes is None:
        append_until_killed(path, lambda text: print(text, flush=True))
        return
    for size in sizes:
        print(json.dumps(ended_in_a_write(path.with_name(f"{path.name}.{size}"), size)), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), range(*(int(sys.argv[n]) for n in (2, 4, 3))) if len(sys.argv) > 2 else None)
