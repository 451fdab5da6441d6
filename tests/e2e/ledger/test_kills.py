"""A process that keeps a ledger is killed: whatever it had said to be kept is there, whole and in order."""

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from sparkle_ledger import store
from sparkle_ledger.audit import Audit
from sparkle_ledger.economy import Economy
from sparkle_ledger.entries import Hold, account_of
from sparkle_protocol.facts import FactCodec
from tests.e2e.ledger.appender import entries_of_the_feed
from tests.unit.ledger.feeds import CODEC, NET, PEOPLE

ROOT = Path(__file__).resolve().parents[3]
ECONOMY = Economy(unlimited=frozenset({account_of(NET, PEOPLE[0].public_key)}))
KILLS = 10
LINES = 260  # at most before a kill
PROOF_FACTS, PROOF_EXECUTIONS = 3, 2  # of each job that is closed


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "tests.e2e.ledger.appender", *map(str, arguments)]


def assert_kept(path: Path, kept: Sequence[str]) -> None:
    """All that was kept is there, and nothing but the feed up to some entry: so its balance is that of its Holds.

    Of each job there is the whole proof, or what took its place, or both.
    """
    db = store.open_ledger(path, NET)
    store.check(db)
    entries = list(store.load(db, CODEC))
    audit = Audit(CODEC, FactCodec(NET), ECONOMY, deep=True)
    for _ in audit.steps(store.rows(db), store.count(db), store.evidence(db, closed=True), store.closings(db)):
        pass
    closed = {closing.job.hex(): closing for closing in store.closings(db)}
    proofs = {one.job.hex(): one.facts for one in store.evidence(db, closed=True)}
    assert len({one.job for one in store.evidence(db)} - closed.keys()) <= KILLS
    db.close()
    assert all(len(facts) == PROOF_FACTS for facts in proofs.values())
    assert all(closing.executions == PROOF_EXECUTIONS for closing in closed.values())
    assert entries == list(islice(entries_of_the_feed(), len(entries)))
    assert set(kept) <= {entry.id.hex() for entry in entries} | closed.keys()
    assert audit.report().ok, audit.report().violations
    balance = audit.book.account(account_of(NET, PEOPLE[0].public_key)).balance_micro
    assert balance == -sum(entry.payload.amount_micro for entry in entries if isinstance(entry.payload, Hold))


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_acknowledged_is_lost_when_its_process_is_killed_at_any_moment(tmp_path: Path, seed: int) -> None:
    rng, path, kept = Random(seed), tmp_path / "ledger.db", list[str]()
    for _ in range(KILLS):
        with subprocess.Popen(command(path), cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            try:
                kept += [child.stdout.readline().strip() for _ in range(rng.randrange(LINES))]
            finally:
                child.send_signal(signal.SIGKILL)
            kept += [line.strip() for line in child.stdout if line.endswith("\n")]
        assert_kept(path, kept)
    assert len(kept) > KILLS


def test_nothing_acknowledged_is_lost_when_the_process_ends_in_the_middle_of_a_write(tmp_path: Path) -> None:
    """Of the log's 4120 bytes for each page, and of the file itself where a checkpoint writes it."""
    ran = subprocess.run(
        command(tmp_path / "ledger.db", 100, 2_311, 180_000),
        cwd=ROOT, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    runs = [json.loads(line) for line in ran.stdout.splitlines()]
    assert len(runs) > 70
    for run in runs:
        assert run["signal"] == signal.SIGXFSZ, ran.stderr
        assert_kept(Path(run["path"]), run["kept"])
    assert len({len(run["kept"]) for run in runs}) > 5, "they ended at different places"


FULL_DISK = """
import json, resource, sys
from itertools import islice
from pathlib import Path
from sparkle_ledger import store
from sparkle_protocol.errors import LedgerError
from tests.e2e.ledger.appender import entries_of_the_feed
from tests.unit.ledger.feeds import NET

db = store.open_ledger(Path(sys.argv[1]), NET)
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), most))  # Python ignores the signal: writes fail
feed, kept, said = entries_of_the_feed(), [], ""
while not said:
    batch = list(islice(feed, 30))
    try:
        store.append(db, batch)
        kept += batch
    except LedgerError as error:
        said = str(error)
at_failure = store.count(db)
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
store.append(db, batch)
kept += batch
print(json.dumps({"said": said, "at_failure": at_failure, "kept": [entry.id.hex() for entry in kept]}))
"""


@pytest.mark.parametrize("size", [70_000, 100_001, 300_000])
def test_a_full_disk_is_told_and_nothing_is_lost_once_there_is_room_again(tmp_path: Path, size: int) -> None:
    path = tmp_path / "ledger.db"
    ran = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path), str(size)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["said"].endswith("free some space or check the disk")
    assert found["at_failure"] == len(found["kept"]) - 30
    assert_kept(path, found["kept"])
