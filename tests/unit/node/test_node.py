"""A whole node whose network never comes up: what it restores, refuses and says of itself."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace

from sparkle_p2p.api import client
from sparkle_p2p.config import NodeConfig
from sparkle_p2p.home import HomeDir
from sparkle_p2p.node import commands, ledger
from sparkle_p2p.node.node import Node
from sparkle_p2p.node.store import StoreError
from sparkle_p2p.runtime.clock import boot_ns
from sparkle_p2p.view import SubmitRequest
from sparkle_p2p.web import routes
from sparkle_protocol import messages
from sparkle_protocol.effects import PeerUp, Record, Replied, StoreCommit, StoreFact, StoreRejection, Tick
from sparkle_protocol.errors import ConfigError
from sparkle_protocol.facts import Fact, FactCodec, KeeperSet
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import JobId
from sparkle_protocol.presence import FIRST_NS, seal_statement
from sparkle_protocol.work.fairness import Weigh, equal_weight
from sparkle_protocol.work.rejection import Rejection
from tests.property.world import spec
from tests.unit.node.test_store import break_disk, opened

OTHER = Identity.from_private_bytes(bytes(31) + b"\2")
PRIMES = SubmitRequest("prime_count", {"stop": 1000}, 4)


class Nowhere:
    """A network that is still starting; ``begun`` is set once the node has restored what it had."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()

    async def start(self, *_: object) -> None:
        self.begun.set()
        await asyncio.Event().wait()


@asynccontextmanager
async def running(home: Path, weigh: Weigh = equal_weight, **settings: Any) -> AsyncIterator[Node]:
    """A node that has restored its jobs."""
    network = Nowhere()
    with HomeDir.open(home) as owned:
        config = NodeConfig(home, net="test", mdns=False, **settings)
        node = Node(config, owned, overlay_factory=lambda *_: network, weigh=weigh)  # type: ignore[arg-type, return-value]
        life = asyncio.create_task(node.run())
        async with asyncio.timeout(20):
            await network.begun.wait()
            try:
                yield node
            finally:
                node.stop()
                await life


async def leave(home: Path, *records: Record) -> None:
    """What an earlier run left."""
    HomeDir.open(home).close()
    async with opened(home / "node.db") as store:
        await store.write([*records])


async def left(home: Path) -> tuple[list[StoreCommit], int]:
    """Commits that are stored, and how many facts."""
    async with opened(home / "node.db") as store:
        return await store.commits(), len(await store.facts())


def others_job(net: str = "test", price_micro: int = 1) -> Fact:
    return FactCodec(net).seal(OTHER, replace(spec(4, Random(1)), price_micro=price_micro))


async def test_a_start_without_work_keeps_what_is_still_to_be_shown(tmp_path: Path) -> None:
    """Showing a result needs no kernel; its worker has promised it."""
    job = others_job()
    commit = StoreCommit(job.job, 1, 0, b"n" * 16, bytes(8))
    await leave(tmp_path / "home", StoreFact(job), commit)
    async with running(tmp_path / "home", work=False) as node:
        assert not node.worker.kernels
        assert [key[:2] for key in node.worker.held] == [(job.job, 1)]
    assert await left(tmp_path / "home") == ([commit], 1)


async def test_results_that_were_refused_are_counted_after_a_restart(tmp_path: Path) -> None:
    """Those that a check refused too, of which no fact tells; damaged evidence is left out."""
    home = tmp_path / "home"
    async with running(home) as node:
        job = JobId(bytes.fromhex(await node.submit(PRIMES)))
    refused = [Rejection(unit, OTHER.peer_id, None, None, (), "check", f"off by {unit}") for unit in (1, 2, 3)]
    stored = [StoreRejection(job, one.unit, one.worker, one.encode()) for one in refused]
    await leave(home, *stored, StoreRejection(job, 0, OTHER.peer_id, b"damaged"))
    async with running(home) as node:
        (shown,) = await node.jobs()
        assert shown.rejected == 3
        assert [(one.unit, one.worker) for one in shown.rejections] == [(unit, OTHER.peer_id) for unit in (1, 2, 3)]
        assert "off by 1" in shown.rejections[0].reason.sentence


async def test_commits_of_which_nothing_else_is_left_go(tmp_path: Path) -> None:
    """As a process leaves them that is killed while it forgets a job; those of another network stay."""
    job = others_job("elsewhere")
    commit, lone = (StoreCommit(one, 1, 0, b"n" * 16, bytes(8)) for one in (job.job, JobId(b"l" * 32)))
    await leave(tmp_path / "home", StoreFact(job), commit, lone)
    async with running(tmp_path / "home"):
        pass
    assert await left(tmp_path / "home") == ([commit], 1)


async def test_a_node_that_only_helps_others_to_meet_takes_and_keeps_no_jobs(tmp_path: Path) -> None:
    job = others_job()
    push = messages.encode_message(messages.Push(job.job, [job.raw]))
    async with running(tmp_path / "helper", bootstrap_only=True) as node:
        with pytest.raises(ConfigError, match="takes no jobs; submit to another one"):
            await node.submit(PRIMES)
        refused = messages.decode_reply(await node.shell.serve(OTHER.peer_id, push))
        assert isinstance(refused, messages.Refusal)
        assert refused.code == "quota"
        assert await node.jobs() == ()
        assert node.submitter.kept == {}
    async with running(tmp_path / "keeper") as node:
        keys = [OTHER.public_key, node.identity.public_key]
        keepers = FactCodec("test").seal(OTHER, KeeperSet(job.job, 0, keys, 1))
        push = messages.encode_message(messages.Push(job.job, [job.raw, keepers.raw]))
        assert isinstance(messages.decode_reply(await node.shell.serve(OTHER.peer_id, push)), messages.PushReply)
    async with running(tmp_path / "keeper", bootstrap_only=True) as node:  # what it has promised it keeps
        assert isinstance(messages.decode_reply(await node.shell.serve(OTHER.peer_id, push)), messages.PushReply)


async def test_a_node_that_cannot_store_says_so_before_all_else(tmp_path: Path) -> None:
    async with running(tmp_path / "home") as node:
        job = await node.submit(PRIMES)
        await node.pause()
        disk = break_disk(node.store)
        with pytest.raises(StoreError):
            await node.submit(PRIMES)
        view, why = node.view(), await node.why()
        assert (view.state, view.reason.code) == ("paused", "storage_failed")
        assert str(node.store.path) in view.reason.sentence
        assert "free some space or check the disk." in view.reason.sentence
        assert why.headline == view.reason
        assert view.reason in (await node.why(job)).details
        assert view.reason in (await node.why(f"{job}/0")).details
        disk.works = True
        await node.store.write(())
        assert node.view().reason.code == "paused_by_user"


def test_who_waits_for_keepers_hears_of_it_before_the_call_ends() -> None:
    """The node says what is missing, the local API would say only that it took too long, the client even less."""
    assert ledger.FUND_S + commands.PUBLISH_S + 5 <= routes.SUBMIT_TIMEOUT_S
    assert routes.SUBMIT_TIMEOUT_S + 3 <= client.SUBMIT_TIMEOUT_S
    assert routes.CALL_TIMEOUT_S + 3 <= client.TIMEOUT_S


async def test_a_job_for_a_node_that_still_starts_is_refused_and_forgotten(tmp_path: Path) -> None:
    with HomeDir.open(tmp_path) as owned:
        node = Node(NodeConfig(tmp_path, net="test", mdns=False), owned)
        with pytest.raises(ConfigError, match="not started yet"):
            await node.submit(PRIMES)
        assert not node.submitter.jobs


async def test_a_node_whose_key_somebody_else_uses_takes_on_nothing(tmp_path: Path) -> None:
    """From the proof on: no jobs of its own or of others, no computing, whatever its user asks; and it says why."""
    async with running(tmp_path / "home") as node:
        peer, other = OTHER.peer_id, bytes(messages.INSTANCE_BYTES)
        push = messages.Push(b"j" * 32, [])
        assert node.reception.refuses(push) is None
        node.shell.tell(node.presence, PeerUp(peer, ()))
        node.shell.perform(node.presence, node.presence.handle(Tick(), boot_ns() + FIRST_NS))
        statement = seal_statement(node.identity, "test", other, node.presence.instance, 5)
        node.shell.tell(node.presence, Replied(1, peer, messages.HereReply([other], statement)))
        assert node.view().reason.code == "cloned"
        assert node.view().state == "paused"
        assert node.worker.stopping
        assert any("a copy of this node's key" in line.text for line in node.view().log)
        with pytest.raises(ConfigError, match="stop one of them"):
            await node.submit(PRIMES)
        with pytest.raises(ConfigError, match="stop one of them"):
            await node.resume()
        refusal = node.reception.refuses(push)
        assert refusal is not None
        assert refusal.code == "quota"
        findings = {finding.check: finding for finding in await node.checkup()}
        assert findings["identity"].level == "fail"
        assert findings["network"].reason.code == "network_starting"
