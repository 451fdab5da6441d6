"""What is known of workers outlives jobs, restarts and crashes, and cannot be spoilt by a damaged row."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from sparkle_p2p.node.standings import Standings, standing_views
from sparkle_p2p.node.store import StoreError
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import PeerId
from sparkle_protocol.trust.standing import Key, Standing
from tests.unit.node.test_node import leave, running
from tests.unit.node.test_store import break_disk, opened

A, B, C, D = (Identity.from_private_bytes(bytes([n]) * 32).peer_id for n in range(1, 5))
MINUTE = 1.2e11  # of the reference worker, in flops


def key(peer: PeerId, device: str = "cpu/x86_64") -> Key:
    return Key(peer, device, "exact")


def pass_often(standings: Standings, peer: PeerId, count: int = 62, submitter: PeerId | None = None) -> None:
    for _ in range(count):
        standings.book.passed(key(peer), MINUTE, submitter=submitter)


async def test_standings_are_there_after_a_restart_of_the_node(tmp_path: Path) -> None:
    async with running(tmp_path / "home") as node:
        pass_often(node.standings, A)
        pass_often(node.standings, B, 3, submitter=C)
        node.standings.book.failed(key(D))
    async with running(tmp_path / "home") as node:
        book = node.submitter.trust
        assert book.of(key(A)) == Standing(62, 62 * MINUTE)
        assert book.of(key(B)) == Standing(3, 3 * MINUTE, 0, {C: 3})
        assert book.of(key(D)) == Standing(0, 0.0, 1)
        assert node.view().known_workers == 1
        shown = {one.peer_id: (one.state, one.passes, one.failures) for one in node.view().standings}
        assert shown == {A: ("known", 62, 0), B: ("newcomer", 3, 0), D: ("newcomer", 0, 1)}


async def test_each_network_has_its_own(tmp_path: Path) -> None:
    async with opened(tmp_path / "node.db") as store:
        here, there = Standings(store, "here"), Standings(store, "there")
        pass_often(here, A)
        await here.save()
        await there.load()
        assert there.known_workers() == 0
        again = Standings(store, "here")
        await again.load()
        assert again.known_workers() == 1


async def test_a_damaged_row_is_skipped_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(tmp_path / "node.db") as store:
        standings = Standings(store, "test")
        pass_often(standings, A)
        await standings.save()
    good = (A, "gpu", "exact", 50, 1e13, 0, "{}", 9)
    wrong = [
        ("nobody", *good[1:]),
        (b"\xff", *good[1:]),
        (B, b"gpu", *good[2:]),
        (*good[:3], -1, *good[4:]),
        (*good[:3], "many", *good[4:]),
        (*good[:4], float("inf"), *good[5:]),
        (*good[:4], "rich", *good[5:]),
        (*good[:5], 1.5, *good[6:]),
        (*good[:6], "{", good[7]),
        (*good[:6], '{"nobody": 1}', good[7]),
        (*good[:6], f'{{"{B}": "x"}}', good[7]),
        (*good[:6], "[1]", good[7]),
        (*good[:7], "late"),
    ]
    with closing(sqlite3.connect(tmp_path / "node.db")) as db:
        for place, row in enumerate(wrong):
            shown = (*row[:2], f"exact{place}", *row[3:]) if row[2] == "exact" else row
            db.execute("INSERT INTO standings VALUES ('test', ?, ?, ?, ?, ?, ?, ?, ?)", shown)
        db.commit()
    async with opened(tmp_path / "node.db") as store:
        again = Standings(store, "test")
        await again.load()
        assert again.peers() == {A}
        assert again.book.of(key(A)).passes == 62
    assert sum("is damaged and skipped" in record.message for record in caplog.records) == len(wrong)


async def test_what_a_failing_disk_did_not_take_is_written_later(tmp_path: Path) -> None:
    async with opened(tmp_path / "node.db") as store:
        standings, broken = Standings(store, "test"), break_disk(store)
        pass_often(standings, A)
        with pytest.raises(StoreError):
            await standings.save()
        broken.works = True
        pass_often(standings, B, 1)
        await standings.save()
        again = Standings(store, "test")
        await again.load()
        assert (again.book.of(key(A)).passes, again.book.of(key(B)).passes) == (62, 1)


async def test_of_too_many_the_newcomers_heard_of_longest_ago_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sparkle_p2p.node.standings.MAX_STANDINGS", 2)
    async with opened(tmp_path / "node.db") as store:
        standings = Standings(store, "test")
        pass_often(standings, A)
        for peer in (B, C, D):
            pass_often(standings, peer, 1)
            await standings.save()
        again = Standings(store, "test")
        await again.load()
        assert again.peers() == {A, D}
        assert [one.peer_id for one in standing_views(again.book, 1)] == [D]  # it changed last


WRITER = """
import asyncio, sys
from pathlib import Path
from sparkle_p2p.node.standings import Standings
from tests.unit.node.test_standings import A, B, key, pass_often
from tests.unit.node.test_store import opened

async def main():
    async with opened(Path(sys.argv[1])) as store:
        standings = Standings(store, "test")
        pass_often(standings, A)
        standings.book.failed(key(B))
        await standings.save()
        pass_often(standings, A, 1)
        print("saved", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def test_kill_9_costs_only_what_was_not_saved_yet(tmp_path: Path) -> None:
    path, root = tmp_path / "node.db", Path(__file__).resolve().parents[3]
    command = [sys.executable, "-c", WRITER, str(path)]
    environ = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root, env=environ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"saved\n"
        child.send_signal(signal.SIGKILL)

    async def found() -> tuple[int, int]:
        async with opened(path) as store:
            again = Standings(store, "test")
            await again.load()
            return again.book.of(key(A)).passes, again.book.of(key(B)).failures

    assert asyncio.run(found()) == (62, 1)


async def test_who_is_named_counts_from_the_start_and_is_shown_so(tmp_path: Path) -> None:
    await leave(tmp_path / "home")
    async with running(tmp_path / "home", trusted=(A, B)) as node:
        view = node.view()
        assert view.known_workers == 2
        assert [(one.peer_id, one.state) for one in view.standings] == [(peer, "named") for peer in sorted((A, B))]
        assert all(one.audit_rate == pytest.approx(0.05) for one in view.standings)
        said = await node.why(A[-8:])
        assert said.details[0].code == "standing_named"
        assert said.headline.numbers["known"] is True


async def test_whom_a_named_peer_knows_counts_and_why_says_who_said_so(tmp_path: Path) -> None:
    async with running(tmp_path / "home", trusted=(A,)) as node:
        book = node.standings.book
        book.vouch(A, [(B, "exact"), (C, "exact")])
        book.failed(key(C))
        assert node.view().known_workers == 2
        shown = {one.peer_id: (one.state, one.audit_rate) for one in node.view().standings}
        assert shown[B] == ("vouched", 1.0)
        assert shown[C][0] == "newcomer"
        said = await node.why(B)
        assert [one.code for one in said.details] == ["standing_vouched"]
        assert A[-8:] in said.details[0].sentence or A[:8] in said.details[0].sentence
        assert said.headline.numbers["known"] is True
        assert [one.code for one in (await node.why(C)).details] == ["standing_newcomer", "standing_vouched_in_vain"]


async def test_a_named_peer_that_was_proven_wrong_is_believed_again_when_it_is_named_anew(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with running(home, trusted=(A,)) as node:
        node.standings.book.failed(key(A))
        assert node.view().known_workers == 0
    async with running(home, trusted=(A,)) as node:
        assert node.view().known_workers == 0
        said = await node.why(A)
        assert said.details[0].code == "standing_disowned"
        assert said.headline.numbers["known"] is False
    async with running(home) as node:
        assert (await node.why(A)).details[0].code == "standing_newcomer"
    async with running(home, trusted=(A,)) as node:
        assert node.view().known_workers == 1
        assert (await node.why(A)).details[0].code == "standing_named"


async def test_why_tells_a_newcomer_from_a_known_worker_with_its_numbers(tmp_path: Path) -> None:
    async with running(tmp_path / "home") as node:
        pass_often(node.standings, A, 60)
        node.standings.book.failed(Key(B, "gpu", "exact"))
        pass_often(node.standings, B, 2)
        (known,) = (await node.why(A)).details
        assert known.code == "standing_known"
        assert known.numbers == {
            "device": "cpu/x86_64", "verification": "exact", "passes": 60, "needed": 60, "capital_h": 1.0,
            "audit_rate": pytest.approx(500 / 560, abs=1e-4), "failures": 0,
        }  # fmt: skip
        assert "60 comparisons passed, 1.0 h of reference work" in known.sentence
        assert "89.3 % are audited" in known.sentence
        newcomer, failed, votes = (await node.why(B)).details
        assert (newcomer.code, newcomer.numbers["passes"]) == ("standing_newcomer", 2)
        assert (failed.code, failed.numbers["failures"]) == ("standing_newcomer", 1)
        assert (votes.code, votes.numbers) == ("votes_decide", {"known": 1, "enough": 2})
        assert "proven wrong once" in failed.sentence
