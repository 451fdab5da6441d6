"""``sparkle ledger`` on files that were really written, and on such that were cut, mixed up or never there."""

import csv
import io
import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sparkle_ledger import store
from sparkle_ledger.entries import Genesis
from sparkle_ledger.genesis import GenesisRecord
from sparkle_p2p.cli.ledger_copy import audited, opened
from sparkle_p2p.cli.main import main
from sparkle_p2p.cli.progress import WorkBar
from tests.unit.cli.ledger_homes import (
    ALICE,
    BOB,
    CAROL,
    PRICE,
    UNITS,
    all_entries,
    close_all,
    people,
    whole,
    written,
)
from tests.unit.ledger.ledgers import NET, Author, person


@dataclass
class Said:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def sparkle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Said]:
    """Runs a command in this process, on the home ``tmp_path``."""
    monkeypatch.setenv("SPARKLE_HOME", str(tmp_path))

    def run(*arguments: str) -> Said:
        try:
            code = main(arguments)
        except SystemExit as end:  # argparse
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return run


Sparkle = Callable[..., Said]
EARNED = 2 * UNITS * PRICE


# --- verify -------------------------------------------------------------------------------------------------


def test_a_right_ledger_adds_up_in_one_sentence(sparkle: Sparkle, tmp_path: Path) -> None:
    whole(tmp_path)
    said = sparkle("ledger", "verify")
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines()[0] == (
        "Everything adds up: 8 entries of 3 accounts, balances and escrows sum to exactly 0.000000; "
        "0.000080 credits were earned, which is the price of the 8 accepted executions."
    )
    assert "network 'test': 3 feeds, 3 signatures verified, 1 job, 0 proven forks" in said.out


@pytest.mark.parametrize(
    ("terms", "counting"),
    [({}, 8), ({"starter_micro": 0}, 4), ({"starter_micro": 0, "unlimited": (ALICE.peer_id,)}, 8)],
)
def test_a_copy_is_judged_by_the_genesis_record_that_it_remembers(
    sparkle: Sparkle, tmp_path: Path, terms: dict[str, Any], counting: int
) -> None:
    """Nobody names it. Who may set nothing aside pays nobody: three accounts were opened, a key was named again."""
    genesis = GenesisRecord(NET, **terms)
    whole(tmp_path, genesis)
    said = sparkle("ledger", "verify", "--json").document
    assert (said["genesis"], said["outcomes"].get("booked", 0)) == (genesis.fingerprint, counting)
    assert f"genesis {genesis.fingerprint}" in sparkle("ledger", "verify").out
    rows = [json.loads(line) for line in sparkle("ledger", "export", "--format", "json").out.splitlines()]
    assert sum(row["outcome"] == "booked" for row in rows) == counting


def test_json_is_the_documented_document(sparkle: Sparkle, tmp_path: Path) -> None:
    whole(tmp_path)
    for arguments in (("ledger", "verify", "--json"), ("--json", "ledger", "verify"), ("--json", "ledger", "verify")):
        found = sparkle(*arguments).document
    assert (found["feeds"], found["entries"], found["accounts"], found["sum_micro"]) == (3, 8, 3, 0)
    assert found["earned_micro"] == found["final_price_micro"] == EARNED
    assert (found["violations"], found["unseen"], found["ok"]) == ([], [], True)
    assert sparkle("ledger", "verify", "--deep", "--json").document["signatures"] == 8


def test_closed_jobs_change_nothing_but_what_can_be_proven(sparkle: Sparkle, tmp_path: Path) -> None:
    whole(tmp_path)
    before, table = sparkle("ledger", "verify", "--json").document, sparkle("ledger", "export").out
    close_all(tmp_path)
    after = sparkle("ledger", "verify", "--json").document
    changed = {"unseen", "unseen_count", "seconds"}
    assert {name: after[name] for name in after.keys() - changed} == {
        name: before[name] for name in before.keys() - changed
    }
    assert (after["jobs"], after["executions"], after["unseen_count"]) == (1, 2 * UNITS, 1)
    assert after["unseen"][0].startswith("what became of 3 entries rests on what this node found")
    assert sparkle("ledger", "export").out == table


def test_home_may_stand_before_or_behind(sparkle: Sparkle, tmp_path: Path) -> None:
    other = tmp_path / "other"
    whole(other)
    for arguments in (("--home", str(other), "ledger", "verify"), ("ledger", "verify", f"--home={other}")):
        assert sparkle(*arguments).code == 0
    assert sparkle("ledger", "verify").code == 2


def test_an_empty_ledger_has_nothing_against_it(sparkle: Sparkle, tmp_path: Path) -> None:
    written(tmp_path, [])
    said = sparkle("ledger", "verify")
    assert said.code == 0
    assert said.out.splitlines()[0] == "Everything adds up: the ledger of 'test' has no entries here yet."


def test_what_is_not_here_is_said_and_is_no_violation(sparkle: Sparkle, tmp_path: Path) -> None:
    _, authors = people()
    left_out = [authors["carol"].entries[2], *authors["alice"].entries]
    written(tmp_path, [one for one in all_entries(authors) if one not in left_out])
    said = sparkle("ledger", "verify")
    assert said.code == 0
    alice = authors["alice"].account.hex()[:12]
    assert f"  account {alice} is said to pay for work, and none of its entries is here" in said.out.splitlines()
    found = sparkle("ledger", "verify", "--json").document
    assert found["earned_micro"] == 0
    assert found["outcomes"]["pending:hold"] == 2
    assert found["unseen_count"] == len(found["unseen"]) == 3


def test_pay_that_nobody_claims_is_in_the_verdict(sparkle: Sparkle, tmp_path: Path) -> None:
    job, authors = people()
    authors["carol"].entries.pop()
    written(tmp_path, all_entries(authors), [(job, job.accepted([BOB, CAROL]))])
    said = sparkle("ledger", "verify")
    assert "0.000060 credits were earned, which with 0.000020 that no entry here claims yet" in said.out
    assert said.code == 0


def test_many_sentences_are_counted_not_printed(sparkle: Sparkle, tmp_path: Path) -> None:
    authors = [Author(person(100 + n)) for n in range(30)]
    for one in authors:
        one.state(Genesis())  # misplaced: it has no place
    written(tmp_path, [entry for one in authors for entry in one.entries])
    assert "  … and 10 more; --json lists 30" in sparkle("ledger", "verify").out.splitlines()


def changed(path: Path, statement: str, *values: object) -> None:
    db = sqlite3.connect(path)
    db.execute(statement, values)
    db.commit()
    db.close()


def test_a_changed_entry_is_a_violation_with_its_code(sparkle: Sparkle, tmp_path: Path) -> None:
    path = whole(tmp_path)
    entry = people()[1]["bob"].entries[1]
    changed(path, "UPDATE entries SET raw = ? WHERE id = ?", entry.raw[:-1] + b"\0", entry.id)
    said = sparkle("ledger", "verify", "--json")
    assert said.code == 1
    assert said.document["violations"][0]["code"] == "entry_damaged"
    assert "entry 1 of account" in said.document["violations"][0]["sentence"]
    assert said.document["violation_count"] == len(said.document["violations"])
    plain = sparkle("ledger", "verify")
    assert plain.out.startswith("This copy is not right: ")
    assert "  entry_damaged: entry 1 of account" in plain.out
    assert plain.err == "sparkle: this copy of the ledger is damaged; move it away and the node gets it again\n"


def test_a_proof_that_proves_nothing_is_a_violation(sparkle: Sparkle, tmp_path: Path) -> None:
    path = whole(tmp_path)
    mallory = Author(person(66))
    twin = mallory.twin()
    first, second = mallory.state(Genesis()), twin.state(Genesis(), time_ms=1)
    db = store.open_ledger(path, NET)
    store.keep_fork(db, store.Fork(mallory.account, first.raw, second.raw))
    db.close()
    good = sparkle("ledger", "verify", "--json")
    assert (good.code, good.document["forks"]) == (0, 1)
    changed(path, "UPDATE forks SET second = first")
    bad = sparkle("ledger", "verify", "--json").document
    assert [one["code"] for one in bad["violations"]] == ["proof_invalid"]
    changed(path, "UPDATE forks SET second = ?, account = ?", second.raw, b"\1" * 32)
    assert sparkle("ledger", "verify", "--json").document["violations"][0]["sentence"].endswith("another account")


def test_without_a_ledger_it_says_how_to_get_one(sparkle: Sparkle) -> None:
    said = sparkle("ledger", "verify")
    assert (said.code, said.out) == (2, "")
    assert "there is no ledger at" in said.err


def test_another_network_is_refused_if_one_is_named(sparkle: Sparkle, tmp_path: Path) -> None:
    whole(tmp_path)
    assert sparkle("ledger", "verify", "--net", "test").code == 0
    said = sparkle("ledger", "verify", "--net", "main")
    assert said.code == 2
    assert "is the ledger of network 'test', not of 'main'" in said.err


def test_a_cut_or_foreign_file_is_one_sentence_with_advice(sparkle: Sparkle, tmp_path: Path) -> None:
    path = whole(tmp_path)
    full = path.read_bytes()
    damaged = [
        full[:-4096],
        full[: len(full) // 2],
        full[:5000],
        full[:100],
        b"\xff" * 9000,
        b"SQLite format 3\0" * 600,
    ]
    hole = bytearray(full)
    hole[8192:12288] = b"\xaa" * 4096
    for content in (*damaged, bytes(hole)):
        path.write_bytes(content)
        for action in ("verify", "export"):
            said = sparkle("ledger", action)
            assert said.code in (1, 2), said
            assert len(said.err.splitlines()) == 1, said.err
            assert "; " in said.err, said.err
            assert "Traceback" not in said.err


def test_a_file_of_no_network_is_refused(sparkle: Sparkle, tmp_path: Path) -> None:
    path = whole(tmp_path)
    changed(path, "UPDATE about SET value = 5 WHERE name = 'network'")
    assert "is the ledger of network '5'" in sparkle("ledger", "verify").err
    changed(path, "DELETE FROM about WHERE name = 'network'")
    assert "is the ledger of no network" in sparkle("ledger", "verify").err


def test_it_sees_one_moment_while_a_node_writes(tmp_path: Path) -> None:
    job, authors = people()
    written(tmp_path, all_entries(authors)[:4], [(job, job.accepted([BOB, CAROL]))])
    writer = store.open_ledger(tmp_path / "ledger.db", NET)
    with opened(str(tmp_path), None) as db:
        store.append(writer, all_entries(authors)[4:])
        before = audited(db, lambda *_: None)
    assert before.report.entries == 4
    with opened(str(tmp_path), None) as db:
        assert audited(db, lambda *_: None).report.entries == 8
    writer.close()


def test_it_changes_nothing(sparkle: Sparkle, tmp_path: Path) -> None:
    path = whole(tmp_path)
    before = path.read_bytes()
    sparkle("ledger", "verify")
    sparkle("ledger", "export")
    assert path.read_bytes() == before


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bar_shows_how_long_it_takes_and_goes_away() -> None:
    now = [100.0]
    stream = Terminal()
    with WorkBar(stream, lambda: now[0]) as bar:
        bar.show("checking the file", 0, 0)
        for done in range(0, 101, 10):
            now[0] += 1
            bar.show("entries", done, 100)
    shown = stream.getvalue()
    assert "checking the file…" in shown
    assert "50 %, 5.0 s left" in shown.replace("50%", "50 %")
    assert shown.endswith("\r\x1b[K")
    quiet = io.StringIO()
    with WorkBar(quiet) as bar:
        bar.show("entries", 1, 2)
    assert quiet.getvalue() == ""


INTERRUPTED = """
import os, signal, sys
from sparkle_p2p.cli import ledger_copy, main

def rows(db):
    os.kill(os.getpid(), signal.SIGINT)
    yield from ()

ledger_copy.store.rows = rows
sys.exit(main.main(["ledger", "verify"]))
"""


def test_ctrl_c_ends_it_with_130(tmp_path: Path) -> None:
    whole(tmp_path)
    environment = {**os.environ, "SPARKLE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "\n")


def test_the_check_of_the_file_hears_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite calls back while it checks; a signal that came meanwhile ends it there."""
    path = whole(tmp_path)
    monkeypatch.setattr(store, "_HEARING_STEPS", 1)
    db = store.open_ledger(path, NET, readonly=True)
    handlers = []

    class Interrupted:
        def set_progress_handler(self, handler: Callable[[], int] | None, steps: int) -> None:
            handlers.append(handler)
            db.set_progress_handler((lambda: os.kill(os.getpid(), signal.SIGINT) or 0) if handler else None, steps)

        def __getattr__(self, name: str) -> Any:
            return getattr(db, name)

    with pytest.raises(KeyboardInterrupt):
        store.check(Interrupted())  # type: ignore[arg-type]
    assert handlers[-1] is None
    store.check(db)
    db.close()


# --- export -------------------------------------------------------------------------------------------------


def test_rows_go_to_standard_output_as_csv_or_json(sparkle: Sparkle, tmp_path: Path) -> None:
    whole(tmp_path)
    rows = list(csv.DictReader(io.StringIO(sparkle("ledger", "export").out)))
    assert len(rows) == 8
    assert sum(int(row["amount_micro"]) for row in rows) == 0, "all that was set aside was paid"
    assert {row["outcome"] for row in rows} == {"booked"}
    for arguments in (("--format", "json"), ("--json",)):
        objects = [json.loads(line) for line in sparkle("ledger", "export", *arguments).out.splitlines()]
        assert [{name: str(value) for name, value in one.items()} for one in objects] == rows
    assert sparkle("ledger", "export", "--format", "csv", "--json").code == 2
    assert sparkle("ledger", "export", "--format", "xml").code == 2


def test_a_file_is_written_as_a_whole_or_not_at_all(
    sparkle: Sparkle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole(tmp_path)
    target = tmp_path / "ledger.csv"
    said = sparkle("ledger", "export", "--out", str(target))
    assert (said.code, said.out) == (0, "")
    assert f"wrote {target}" in said.err
    assert target.read_text().count("\n") == 9
    mask = os.umask(0o022)
    os.umask(mask)
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~mask
    target.write_text("precious")

    def fails(*_: object) -> object:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fails)
    said = sparkle("ledger", "export", "--out", str(target))
    assert said.code == 2
    assert "no space left on device" in said.err
    assert target.read_text() == "precious"
    assert sorted(one.name for one in tmp_path.iterdir() if "csv" in one.name) == ["ledger.csv"]


def test_a_target_that_cannot_be_is_refused_before_anything_is_read(sparkle: Sparkle, tmp_path: Path) -> None:
    said = sparkle("ledger", "export", "--out", str(tmp_path / "nowhere" / "x.csv"))
    assert said.code == 2
    assert "make it first" in said.err


def test_damaged_evidence_stops_an_export(sparkle: Sparkle, tmp_path: Path) -> None:
    job, authors = people()
    path = written(tmp_path, all_entries(authors))
    db = store.open_ledger(path, NET)
    store.keep_evidence(db, store.Evidence(job.id, [job.spec.raw, b"no fact"], []))
    db.close()
    said = sparkle("ledger", "export")
    assert (said.code, said.out) == (1, "")
    assert "'sparkle ledger verify' says more" in said.err
    found = sparkle("ledger", "verify", "--json").document
    assert [one["code"] for one in found["violations"]] == ["fact_invalid"]


def test_wrong_words_are_refused_in_one_sentence(sparkle: Sparkle) -> None:
    for arguments in (("ledger",), ("ledger", "verfy"), ("ledger", "verify", "--json", "now"), ("ledgr",)):
        said = sparkle(*arguments)
        assert said.code == 2
        assert len(said.err.splitlines()) == 1
    assert "did you mean 'ledger'?" in said.err
