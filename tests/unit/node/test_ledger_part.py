"""The ledger in a whole node: what jobs set aside, what comes back, and what a failing disk or a restart does."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sparkle_ledger.agent import desk, own
from sparkle_ledger.agent.own import State
from sparkle_p2p.home import HomeDir
from sparkle_p2p.node.ledger import LedgerPart
from sparkle_p2p.node.node import Node
from sparkle_p2p.node.results import make_spec
from sparkle_p2p.node.store import StoreError
from sparkle_p2p.node.why_credit import job_reasons
from sparkle_p2p.runtime.clock import boot_ns
from sparkle_p2p.view import SubmitRequest
from sparkle_protocol import messages
from sparkle_protocol.codec import encode
from sparkle_protocol.effects import EvidenceRead, KeepLedger, LedgerClosing, ReadEvidence
from sparkle_protocol.errors import ConfigError, LedgerError
from sparkle_protocol.ids import JobId
from sparkle_protocol.ledger_messages import HeadsReply, HeadsRequest
from sparkle_protocol.work.price import unit_price_micro
from tests.unit.node.test_node import OTHER, running

PRIMES = SubmitRequest("prime_count", {"stop": 10**9}, 4)
FREE = SubmitRequest("prime_count", {"stop": 10**9}, 4, free=True)
HUGE = SubmitRequest("prime_count", {"stop": 10**14}, 1000)


@asynccontextmanager
async def started(home: Path, **settings: Any) -> AsyncIterator[Node]:
    async with running(home, **settings) as node:
        if node.ledger is not None:
            await node.ledger.wait_loaded()
        yield node


def ledger(node: Node) -> LedgerPart:
    assert node.ledger is not None
    return node.ledger


async def until(node: Node, holds: Callable[[], bool]) -> None:
    """The condition holds, looked at whenever the loop has done something and the node looks after itself."""
    while not holds():
        ledger(node).look(boot_ns())
        await asyncio.get_running_loop().run_in_executor(None, lambda: None)


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that is alone signs at once also after a restart."""
    monkeypatch.setattr(own, "GRACE_NS", 0)
    monkeypatch.setattr(own, "ALONE_NS", 0)


async def test_what_a_job_may_cost_is_set_aside_and_comes_back(tmp_path: Path) -> None:
    async with started(tmp_path / "home", work=False) as node:
        assert ledger(node).agent.state is State.READY  # its key was made just now
        job = await node.submit(PRIMES)
        spec = node.kept_job(job).state.spec
        assert spec.price_micro == unit_price_micro(spec.resources)
        assert node.view().credit_micro == -spec.hold_micro == -4 * 8 * spec.price_micro
        await node.cancel(job)
        await until(node, lambda: node.view().credit_micro == 0)
        assert ledger(node).book.sum_micro() == 0


async def test_free_work_sets_nothing_aside(tmp_path: Path) -> None:
    async with started(tmp_path / "home", work=False) as node:
        job = await node.submit(FREE)
        assert (node.kept_job(job).state.spec.price_micro, node.view().credit_micro) == (0, 0)
        assert not ledger(node).book.account(ledger(node).account).entries


async def test_what_cannot_be_paid_is_refused_with_the_numbers_and_what_to_do(tmp_path: Path) -> None:
    async with started(tmp_path / "home", work=False) as node:
        with pytest.raises(
            ConfigError, match=r"may cost up to [\d.]+ credits and your account can set aside 10 credits"
        ):
            await node.submit(HUGE)
        assert not node.submitter.jobs
        assert node.view().credit_micro == 0
        await node.submit(PRIMES)  # a smaller one is taken


async def test_a_restart_goes_on_with_what_is_set_aside(tmp_path: Path, no_waiting: None) -> None:
    home = tmp_path / "home"
    async with started(home, work=False) as node:
        job = await node.submit(PRIMES)
        held = node.view().credit_micro
    async with started(home, work=False) as node:
        assert node.view().credit_micro == held < 0
        await until(node, lambda: ledger(node).agent.state is State.READY)
        await node.cancel(job)
        await until(node, lambda: node.view().credit_micro == 0)
    async with started(home, work=False) as node:
        assert node.view().credit_micro == 0
        assert ledger(node).book.sum_micro() == 0


async def test_a_closed_job_stays_so_after_a_restart_and_its_evidence_can_be_read_back(
    tmp_path: Path, no_waiting: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with started(tmp_path / "home", work=False) as node:
        job = await node.submit(PRIMES)
        await node.cancel(job)
        await until(node, lambda: node.view().credit_micro == 0)
        job_id = node.kept_job(job).state.id
        closing = ledger(node).book.close(job_id)
        await ledger(node).store.keep(KeepLedger(1, closings=(LedgerClosing(encode(closing), keep_evidence=True),)))
    async with started(tmp_path / "home", work=False) as node:
        part = ledger(node)
        assert (part.book.record(job_id), part.book.closing(job_id)) == (None, closing)
        assert node.view().credit_micro == part.book.sum_micro() == 0
        (told,) = job_reasons(part, node.kept_job(job))
        assert (told.code, told.numbers["owed_micro"], told.numbers["left_micro"]) == ("escrow", 0, 0)
        heard: list[Any] = []
        monkeypatch.setattr(part, "tell", heard.append)
        part.perform(ReadEvidence(7, job_id))
        await until(node, lambda: bool(heard))
        read = heard.pop()
        assert read.tag == 7
        assert closing.spec in read.facts

        async def fails(_: JobId) -> None:
            raise LedgerError("the disk is gone")

        monkeypatch.setattr(part.store, "evidence_of", fails)
        part.perform(ReadEvidence(8, job_id))
        await until(node, lambda: bool(heard))
        assert heard == [EvidenceRead(8)]


async def test_what_is_set_aside_for_a_job_that_never_was_comes_back(tmp_path: Path, no_waiting: None) -> None:
    """As a process leaves it that is killed before the job is on its disk."""
    home = tmp_path / "home"
    async with started(home, work=False) as node:
        await ledger(node).fund(make_spec(PRIMES, node.identity))
        assert node.view().credit_micro < 0
    async with started(home, work=False) as node:
        await until(node, lambda: node.view().credit_micro == 0)


async def test_who_does_not_wait_for_the_answer_sets_nothing_aside(tmp_path: Path) -> None:
    async with started(tmp_path / "home", work=False) as node:
        asking = asyncio.create_task(node.submit(PRIMES))
        await asyncio.sleep(0)  # it has begun
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await until(node, lambda: ledger(node).book.account(ledger(node).account).entries >= 3)
        assert node.view().credit_micro == 0
        assert not node.submitter.jobs


async def test_nothing_is_handed_out_while_its_hold_is_not_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "AGAIN_NS", 10_000_000)
    async with started(tmp_path / "home", work=False) as node:
        part, works = ledger(node), asyncio.Event()
        keep = part.store.keep

        async def failing(effect: KeepLedger) -> None:
            if not works.is_set():
                raise LedgerError("the disk is full; free some space or check the disk")
            await keep(effect)

        monkeypatch.setattr(part.store, "keep", failing)
        asking = asyncio.create_task(node.submit(PRIMES))
        told = node.events()
        async for event in told:
            if event.event == "storage_failed":
                break
        assert "free some space" in node.diary.lines[-1].text
        for submission in (asking, node.submit(PRIMES)):
            with pytest.raises(StoreError, match="nothing can be set aside for this job: the disk is full"):
                await submission
        assert not node.submitter.jobs
        works.set()
        async for event in told:
            if event.event == "storage_restored":
                break
        await until(node, lambda: node.view().credit_micro == 0)  # the first one was given up
        await node.submit(PRIMES)


async def test_who_waits_while_the_node_stops_hears_so(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with started(home, work=False):
        pass
    async with started(home, work=False) as node:  # its key is not new, so that it asks others first
        assert ledger(node).agent.state is State.LEARNING
        asking = asyncio.create_task(node.submit(PRIMES))
        await asyncio.sleep(0)  # it has begun
        node.stop()
        with pytest.raises(ConfigError, match="this node is stopping"):
            await asking
        assert not node.submitter.jobs


async def test_requests_about_the_ledger_are_served_except_where_there_is_none(tmp_path: Path) -> None:
    async def asked(node: Node) -> messages.Reply:
        raw = messages.encode_message(HeadsRequest([b"a" * 32]))
        return messages.decode_reply(await node.shell.serve(OTHER.peer_id, raw))

    async with started(tmp_path / "home") as node:
        assert await asked(node) == HeadsReply([None])
    async with started(tmp_path / "helper", bootstrap_only=True) as node:
        refused = await asked(node)
        assert isinstance(refused, messages.Refusal)
        assert refused.code == "unserved"


async def test_a_damaged_ledger_stops_the_start_with_one_sentence(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with started(home, work=False) as node:
        await node.submit(PRIMES)
    path = home / "ledger.db"
    path.write_bytes(path.read_bytes()[:5000] + b"\xff" * 4000)
    with HomeDir.open(home) as owned:
        node = Node(node.config, owned)
        with pytest.raises(ConfigError, match=r"ledger\.db"):
            await node.run()
