"""The checker of ledgers finds what it is for: whole ones pass, each planted violation is named."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sparkle_ledger.entries import Entry, Release, Work
from sparkle_protocol.facts import Fact
from tests.e2e.chaos.ledgers import ledger_violations
from tests.unit.cli.ledger_homes import BOB, CAROL, all_entries, people, whole, written
from tests.unit.ledger.ledgers import NET, Author, Job


@pytest.fixture
def story() -> tuple[Job, list[Entry], list[Fact]]:
    job, authors = people()
    return job, all_entries(authors), job.accepted([BOB, CAROL])


def found(tmp_path: Path, *homes: tuple[Job, list[Entry], list[Fact]]) -> str:
    named = {f"n{number}": tmp_path / f"n{number}" for number in range(len(homes))}
    for home, (job, entries, facts) in zip(named.values(), homes, strict=True):
        written(home, entries, [(job, facts)])
    return "\n".join(ledger_violations(NET, named))


def test_whole_ledgers_pass(tmp_path: Path) -> None:
    whole(tmp_path / "one")
    whole(tmp_path / "two")
    assert ledger_violations(NET, {"one": tmp_path / "one", "two": tmp_path / "two"}) == []


def test_a_copy_that_knows_less_is_no_violation(tmp_path: Path, story: tuple[Job, list[Entry], list[Fact]]) -> None:
    job, entries, facts = story
    assert found(tmp_path, story, (job, entries[:1], facts[:2])) == ""


def test_work_that_nobody_is_paid_for_is_named(tmp_path: Path, story: tuple[Job, list[Entry], list[Fact]]) -> None:
    job, entries, facts = story
    claims = [entry for entry in entries if isinstance(entry.payload, Work)]
    rest = [entry for entry in entries if entry is not claims[-1]]
    assert f"2 accepted executions of job {job.id.hex()[:8]} are not paid" in found(tmp_path, (job, rest, facts))


def test_an_honest_account_with_two_stories_is_named(
    tmp_path: Path, story: tuple[Job, list[Entry], list[Fact]]
) -> None:
    job, entries, facts = story
    twin = Author(BOB)
    twin.state(Release(job.id, 1))  # where the other copy has a Work
    others = [entry for entry in entries if entry.account != twin.account]
    assert "an honest account forked" in found(tmp_path, story, (job, [*others, *twin.entries], facts))


def test_a_damaged_copy_is_named(tmp_path: Path, story: tuple[Job, list[Entry], list[Fact]]) -> None:
    path = whole(tmp_path / "one")
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE evidence SET raw = zeroblob(100) WHERE id = (SELECT min(id) FROM evidence)")
        db.commit()
    with pytest.raises(Exception, match="damaged"):
        ledger_violations(NET, {"one": tmp_path / "one"})
