"""Nodes and the genesis record: who meets whom, whom it makes trusted, and which ledger goes with it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from sparkle_ledger.economy import MICRO
from sparkle_ledger.genesis import GenesisRecord
from sparkle_p2p.config import NodeConfig
from sparkle_p2p.home import HomeDir
from sparkle_p2p.net.memory import MemoryNetwork, MemoryOverlay
from sparkle_p2p.net.overlay import OTHER_GENESIS
from sparkle_p2p.node import checkup
from sparkle_p2p.node.crediting import read_credit
from sparkle_p2p.node.node import Node
from sparkle_p2p.node.offenders import Offenders
from sparkle_p2p.view import status_json
from sparkle_protocol.errors import ConfigError
from sparkle_protocol.identity import Identity
from tests.unit.node.test_node import PRIMES, running

NET = "test"
FOUNDER = Identity.from_private_bytes(bytes(31) + b"\5").peer_id
SWARM = GenesisRecord(NET, starter_micro=5 * MICRO, trusted=(FOUNDER,), unlimited=(FOUNDER,))
Network = MemoryNetwork[MemoryOverlay]


@asynccontextmanager
async def met(folder: Path, *records: GenesisRecord | None) -> AsyncIterator[list[Node]]:
    """Nodes with these records; each has tried to connect to the first."""
    network: Network = MemoryNetwork()

    def overlay(config: NodeConfig, home: HomeDir) -> MemoryOverlay:
        return MemoryOverlay(network, home.identity, net=config.net, genesis=config.record.digest)

    nodes: list[Node] = []
    async with AsyncExitStack() as stack, asyncio.timeout(20):
        for number, record in enumerate(records):
            home = stack.enter_context(HomeDir.open(folder / f"node{number}"))
            bootstrap = nodes[0].overlay.addresses() if nodes and nodes[0].overlay is not None else ()
            config = NodeConfig(home.path, net=NET, mdns=False, work=False, genesis=record, bootstrap=bootstrap)
            node = Node(config, home, overlay_factory=overlay)
            life = asyncio.create_task(node.run())
            stack.push_async_callback(asyncio.wait_for, life, 10)
            stack.callback(node.stop)
            await node.wait_ready()
            nodes.append(node)
        yield nodes


async def until(holds: Callable[[], object]) -> None:
    while not holds():
        await asyncio.get_running_loop().run_in_executor(None, lambda: None)


@pytest.mark.parametrize("record", [None, SWARM])
async def test_nodes_with_one_record_meet(tmp_path: Path, record: GenesisRecord | None) -> None:
    """Without a file it is the default one, which may also be written down."""
    same = GenesisRecord(NET) if record is None else record
    async with met(tmp_path, record, same) as (first, second):
        await until(lambda: first.membership.links and second.membership.links)
        assert [*first.membership.links] == [second.identity.peer_id]
        assert [one.check for one in await checkup.check_node(first)].count("genesis") == 0


@pytest.mark.parametrize("other", [None, GenesisRecord(NET, starter_micro=5 * MICRO)])
async def test_a_node_with_another_record_is_refused_and_both_say_why(
    tmp_path: Path, other: GenesisRecord | None
) -> None:
    async with met(tmp_path, SWARM, other) as (first, second):
        for node, stranger in ((first, second), (second, first)):
            peer = stranger.identity.peer_id
            await until(lambda node=node, peer=peer: node.offenders.of(peer).violations)
            (finding,) = [one for one in await checkup.check_node(node) if one.check == "genesis"]
            assert finding.level == "warn"
            assert f"…{peer[-8:]} {OTHER_GENESIS}; the one here is " in finding.reason.sentence
            assert any(OTHER_GENESIS in line.text for line in node.view().log)
            assert not node.membership.links
        assert any(
            "No connection to bootstrap" in line.text and OTHER_GENESIS in line.text for line in second.view().log
        )


def test_several_strangers_are_told_of_in_one_sentence() -> None:
    offenders = Offenders()
    peers = [Identity.from_private_bytes(bytes(31) + bytes([number])).peer_id for number in range(1, 5)]
    for peer, reason in zip(peers, (OTHER_GENESIS, "wrong network", OTHER_GENESIS, OTHER_GENESIS), strict=True):
        offenders.note(peer, reason, 1.0)
    (finding,) = checkup.genesis(offenders, set(), "abc")
    assert "and so do 2 others; the one here is abc" in finding.reason.sentence
    (finding,) = checkup.genesis(offenders, set(peers[1:]), "abc")  # the others have corrected it
    assert finding.reason.numbers == {"peers": 1}
    assert checkup.genesis(offenders, set(peers), "abc") == []


async def test_founders_are_trusted_and_terms_hold(tmp_path: Path) -> None:
    async with running(tmp_path / "home", work=False, genesis=SWARM) as node:
        assert node.ledger is not None
        await node.ledger.wait_loaded()
        assert node.standings.book.named == {FOUNDER}
        credit = await read_credit(node.ledger, None, ())
        assert (credit.limit_micro, credit.unlimited) == (5 * MICRO, False)
        assert status_json(node.view())["genesis"] == SWARM.fingerprint


async def test_a_founders_own_node_does_not_count_itself_and_has_no_limit(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with HomeDir.open(home) as owned:
        me = owned.identity.peer_id
    mine = GenesisRecord(NET, trusted=(FOUNDER, me), unlimited=(me,))
    async with running(home, work=False, genesis=mine, trusted=(FOUNDER,)) as node:
        assert node.ledger is not None
        await node.ledger.wait_loaded()
        assert node.standings.book.named == {FOUNDER}
        assert (await read_credit(node.ledger, None, ())).unlimited


async def test_without_a_file_nobody_is_trusted_and_nothing_is_shown(tmp_path: Path) -> None:
    async with running(tmp_path / "home", work=False) as node:
        assert not node.standings.book.named
        assert status_json(node.view())["genesis"] is None


async def test_a_ledger_of_another_record_ends_the_start_in_one_sentence(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with running(home, work=False, genesis=SWARM) as node:
        assert node.ledger is not None
        await node.ledger.wait_loaded()
        await node.submit(PRIMES)
    with pytest.raises(ConfigError) as caught:
        async with running(home, work=False) as node:
            await until(lambda: node.stopping)
    assert "ledger.db was judged by the genesis record" in str(caught.value)
    assert "use that --genesis or another --home" in str(caught.value)
    async with running(home, work=False, genesis=SWARM) as node:
        assert node.ledger is not None
        await node.ledger.wait_loaded()
