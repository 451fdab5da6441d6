"""Copies of the ledger's files, cut, mixed or changed: they open to what verifies, or are refused in words."""

import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from sparkle_ledger import store
from sparkle_ledger.closing import Closing, Final
from sparkle_ledger.entries import Entry, EntryId
from sparkle_protocol.errors import ConfigError, LedgerError
from sparkle_protocol.ids import JobId
from tests.unit.ledger.feeds import CODEC, NET, PEOPLE, holds, job

PAGE, FRAME, LOG_HEADER = 4096, 4120, 32
FEEDS = [holds(person, 7) for person in PEOPLE[:2]]
ENTRIES = [entry for pair in zip(*FEEDS, strict=True) for entry in pair]  # in the order in which they are appended
EVIDENCE = [bytes([n]) * 3000 for n in range(3)]  # long enough for pages of their own
CLOSED_AFTER = 2  # entries: the job that evidence was kept about before it
CLOSING = Closing(job(0), b"spec" * 1000, PEOPLE[0].public_key, 1, 2, [Final(ENTRIES[0].id, "booked", 1)])


class Files:
    """A ledger's database and log, as bytes."""

    def __init__(self, path: Path) -> None:
        self.db = path.read_bytes()
        log = path.with_name(f"{path.name}-wal")
        self.log = log.read_bytes() if log.exists() else b""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Files, Files]:
    """The files before a checkpoint, all entries in the log, and after it, all in the database."""
    folder = tmp_path_factory.mktemp("made")
    db = store.open_ledger(folder / "ledger.db", NET)
    db.execute("PRAGMA wal_autocheckpoint=0")
    for number, entry in enumerate(ENTRIES):
        store.append(db, [entry])
        if number % 5 == 0:
            store.keep_evidence(db, store.Evidence(JobId(job(number)), EVIDENCE, EVIDENCE))
        if number == CLOSED_AFTER:
            store.close_job(db, CLOSING, keep_evidence=False)
    for name in ("ledger.db", "ledger.db-wal"):
        shutil.copy(folder / name, folder / f"before.{name}")
    before = Files(folder / "before.ledger.db")
    db.close()
    after = Files(folder / "ledger.db")
    assert len(before.log) > 50 * FRAME
    assert len(after.db) > 10 * PAGE
    assert not after.log
    return before, after


def reopened(folder: Path, db: bytes, log: bytes) -> list[EntryId] | None:
    """The ids of what a ledger of these bytes holds, all of it valid; None if it is refused with advice."""
    path, log_path = folder / "ledger.db", folder / "ledger.db-wal"
    path.write_bytes(db)
    log_path.write_bytes(log)
    path.with_name("ledger.db-shm").unlink(missing_ok=True)
    try:
        opened = store.open_ledger(path, NET)
    except ConfigError as error:
        assert_advises(str(error))
        return None
    opened.execute("PRAGMA synchronous=OFF")  # nothing is to survive here
    try:
        entries = list(store.load(opened, CODEC))
        evidence = list(store.evidence(opened))
        closings = list(store.closings(opened))
        store.forks(opened)
    except LedgerError as error:
        assert_advises(str(error))
        return None
    finally:
        opened.close()
    assert all(set(one.facts) == set(one.sealed) == set(EVIDENCE) for one in evidence)
    assert closings in ([], [CLOSING])
    proven = any(one.job == CLOSING.job for one in evidence)
    assert proven + len(closings) == 1 or (len(entries) <= 1 and not proven), "its evidence or what took its place"
    assert closings or len(entries) <= CLOSED_AFTER + 1
    for account in {entry.account for entry in entries}:
        assert_feed([entry for entry in entries if entry.account == account])
    assert all(CODEC.open(entry.raw) == entry for entry in entries)
    return [entry.id for entry in entries]


def assert_advises(text: str) -> None:
    assert "; " in text, text
    assert "\n" not in text, text
    assert any(advice in text for advice in ("move it away", "check its permissions", "check the disk", "use ")), text


def assert_feed(entries: list[Entry]) -> None:
    assert [entry.seq for entry in entries] == list(range(len(entries)))
    assert all(later.prev == earlier.id for earlier, later in pairwise(entries))


def around(size: int, unit: int, first: int, step: int) -> Iterator[int]:
    """Every boundary of pages or frames and the bytes beside it, and more of them in between."""
    edges = {edge + beside for edge in range(first, size + 1, unit) for beside in (-1, 0, 1)}
    yield from sorted(cut for cut in edges | set(range(0, size, step)) if 0 <= cut <= size)


def test_a_log_cut_anywhere_leaves_what_came_first(made: tuple[Files, Files], tmp_path: Path) -> None:
    before, _ = made
    seen = set[int]()
    for cut in around(len(before.log), FRAME, LOG_HEADER, 997):
        found = reopened(tmp_path, before.db, before.log[:cut])
        assert found is not None
        assert set(found) == {entry.id for entry in ENTRIES[: len(found)]}
        seen.add(len(found))
    assert seen == set(range(len(ENTRIES) + 1))


def test_a_database_cut_anywhere_is_refused_or_whole(made: tuple[Files, Files], tmp_path: Path) -> None:
    _, after = made
    for cut in around(len(after.db), PAGE, 0, 509):
        found = reopened(tmp_path, after.db[:cut], b"")
        if found is not None and cut:  # an empty file is a new one
            assert set(found) == {entry.id for entry in ENTRIES}, cut
        assert found is not None or cut < len(after.db)


def test_a_database_cut_anywhere_with_its_log_is_refused_or_whole(made: tuple[Files, Files], tmp_path: Path) -> None:
    before, after = made
    for cut in around(len(after.db), PAGE, 0, 1021):
        found = reopened(tmp_path, after.db[:cut], before.log)
        assert found is None or set(found) == {entry.id for entry in ENTRIES}, cut


def test_a_checkpoint_that_ends_at_any_page_leaves_everything(made: tuple[Files, Files], tmp_path: Path) -> None:
    before, after = made
    pages = len(after.db) // PAGE
    for copied in range(pages + 1):
        for order in (1, -1):  # of the pages; a checkpoint may write them in any
            db = bytearray(before.db.ljust(len(after.db), b"\0"))
            for page in list(range(pages))[::order][:copied]:
                db[page * PAGE : (page + 1) * PAGE] = after.db[page * PAGE : (page + 1) * PAGE]
            for torn in (0, 700):
                end = max(0, copied * PAGE - torn) if order > 0 else len(db)
                found = reopened(tmp_path, bytes(db[:end]).ljust(len(before.db), b"\0"), before.log)
                assert found is not None
                assert set(found) == {entry.id for entry in ENTRIES}


def flipped(rng: Random, data: bytes) -> bytes:
    changed = bytearray(data)
    changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def blanked(rng: Random, data: bytes) -> bytes:
    start = rng.randrange(len(data)) // 512 * 512
    return data[:start] + bytes(512) + data[start + 512 :]


@pytest.mark.parametrize("damage", [flipped, blanked])
def test_changed_bytes_never_make_another_entry(
    made: tuple[Files, Files], tmp_path: Path, damage: Callable[[Random, bytes], bytes]
) -> None:
    _, after = made
    rng = Random(1)
    every = {entry.id for entry in ENTRIES}
    outcomes = set[bool]()
    for _ in range(400):
        found = reopened(tmp_path, damage(rng, after.db), b"")
        assert found is None or set(found) <= every
        outcomes.add(found is None)
    assert outcomes == {True, False}
