"""Six real nodes: a submitter that leaves, a home put back from a backup, and a key that signs two things.

One network lives through all of it, so that what each part leaves behind is there for the next.
"""

import asyncio
import shutil
from pathlib import Path

import pytest

from sparkle_ledger import store
from sparkle_ledger.entries import EntryCodec, EntryId, Release
from sparkle_p2p.home import HomeDir
from sparkle_p2p.net.libp2p import Libp2pOverlay
from sparkle_p2p.net.overlay import OverlayEvents
from sparkle_protocol import messages
from sparkle_protocol.ids import PeerId
from sparkle_protocol.ledger_messages import LedgerPush
from tests.e2e.ledger.books import account, book_of, settled
from tests.e2e.ledger.test_settling import agreed, settled_elsewhere
from tests.e2e.node.processes import NodeProcess, Swarm
from tests.e2e.node.test_keepers import connected, started_again

UNITS = 40
LOOK_S = 120.0


@pytest.mark.timeout(600)
async def test_six_nodes(tmp_path: Path) -> None:
    async with Swarm(tmp_path) as swarm:
        nodes = await swarm.start(6)
        await connected(nodes)
        await a_submitter_leaves_and_returns(nodes)
        await a_home_is_put_back_from_a_backup(nodes)
        await a_key_signs_two_things(nodes)
        for node in nodes:
            assert "Traceback" not in node.log.read_text(), swarm.logs()


async def a_submitter_leaves_and_returns(nodes: list[NodeProcess]) -> None:
    """Others finish its job, its keepers accept, everybody is paid; when it is back it says what all say."""
    submitter, *others = nodes
    job = await submitter.submit("prime_count", UNITS, stop=10**8)
    await submitter.event("job_published", job=job)
    assert await submitter.terminate() == 0
    away = await settled_elsewhere(job, others[0])
    assert away.sum_micro() == 0
    earned = {node.name: away.account(account(node)).earned_micro for node in others}
    assert sum(earned.values()) > 0
    await started_again(submitter)
    document = await submitter.done(job)
    assert document["result"] == 5761455
    book = await settled(job, submitter)
    record = book.record(bytes.fromhex(job))
    assert record is not None
    said = await agreed(nodes)
    assert {node.name: said[node.name][2] for node in others} == earned
    assert -said[submitter.name][0] == record.owed_micro == sum(earned.values())
    assert said[submitter.name][1] == 0  # what was not spent came back


async def a_home_is_put_back_from_a_backup(nodes: list[NodeProcess]) -> None:
    """It learns from its witnesses what it signed since, goes on after that, and nobody calls it a fork."""
    submitter, forgetful, *_ = nodes
    backup = forgetful.home.with_name("backup")
    assert await forgetful.terminate() == 0
    shutil.copytree(forgetful.home, backup)
    await started_again(forgetful)
    await connected(nodes)
    before = await signed(forgetful)
    await earn(submitter, forgetful)
    assert await signed(forgetful) > before  # since the backup
    latest = (await agreed(nodes))[forgetful.name]
    assert await forgetful.terminate() == 0
    shutil.rmtree(forgetful.home)
    shutil.move(backup, forgetful.home)
    await started_again(forgetful)

    async def caught_up() -> bool:
        document = await asyncio.to_thread(forgetful.client.credit)
        return document["state"] == "ready" and document["earned_micro"] == latest[2]

    await forgetful.swarm.until(caught_up, "the node put back from a backup knows its account again", LOOK_S)
    await earn(submitter, forgetful)
    assert (await agreed(nodes))[forgetful.name][2] > latest[2]
    assert [event for node in nodes for event in node.events if event["event"] == "account_forked"] == []


async def a_key_signs_two_things(nodes: list[NodeProcess]) -> None:
    """One witness hears of another entry in a place that everybody knows: all of them have the proof, and show it."""
    witness, forger = nodes[0], nodes[-1]
    honest = [node for node in nodes if node is not forger]
    assert await forger.terminate() == 0
    where = account(forger)
    known = (await asyncio.to_thread(book_of, witness)).account(where)
    await tell_another_story(forger, witness)
    for node in honest:
        await node.event("account_forked", LOOK_S, account=where.hex(), own=False)
        document = await asyncio.to_thread(node.client.credit)
        assert [fork["account"] for fork in document["forks"]] == [where.hex()]
        assert "signed two entries for one place" in await node.why(forger.peer_id)
        shown = (await node.sparkle("credit")).out
        assert "Accounts that signed two entries for one place" in shown
        audit = (await node.sparkle("ledger", "verify", "--json")).document
        assert (audit["ok"], audit["sum_micro"], audit["forks"]) == (True, 0, 1)
        then = await asyncio.to_thread(node.client.credit, where.hex())
        assert then["state"] == "forked"
        assert then["earned_micro"] == known.earned_micro  # what it computed stays paid
    await started_again(forger)
    await forger.event("account_forked", LOOK_S, account=where.hex(), own=True)
    refused = await forger.sparkle("submit", "prime_count", "--units", "4", "-p", "stop=1e6")
    assert refused.code == 2
    assert "signed two entries for one place" in refused.err
    free = await forger.sparkle("submit", "prime_count", "--units", "4", "-p", "stop=1e6", "--free", "--wait")
    assert (free.code, "78498" in free.out) == (0, True)


async def signed(node: NodeProcess) -> int:
    """How many entries a node's account has."""
    return len([*(await asyncio.to_thread(book_of, node)).entries(account(node))])


async def earn(submitter: NodeProcess, worker: NodeProcess) -> None:
    """Jobs, until somebody has earned by one; all are settled."""
    for _ in range(5):
        had = (await asyncio.to_thread(submitter.client.credit, account(worker).hex()))["earned_micro"]
        job = await submitter.submit("prime_count", UNITS, stop=10**8)
        await submitter.done(job)
        book = await settled(job, submitter)
        if book.account(account(worker)).earned_micro > had:
            return
    raise AssertionError(f"{worker.name} earned nothing in five jobs\n{submitter.swarm.logs()}")


async def tell_another_story(forger: NodeProcess, witness: NodeProcess) -> None:
    """Sign something else for the second place of an account, with its own key, and tell one node."""
    net = forger.swarm.net
    codec = EntryCodec(net)
    db = store.open_ledger(forger.home / "ledger.db", net, readonly=True)
    try:
        mine = [codec.open(row.raw) for row in store.rows(db) if row.account == account(forger)]
    finally:
        db.close()
    first = next(entry for entry in mine if (entry.incarnation, entry.seq) == (0, 0))
    with HomeDir.open(forger.home) as home:
        other = codec.seal(home.identity, Release(bytes(32), 1), seq=1, prev=EntryId(first.id), time_ms=1)
        overlay = Libp2pOverlay(home.identity, net=net, listen=["/ip4/127.0.0.1/tcp/0"], agent="forger", mdns=False)
        await overlay.start(_ok, OverlayEvents())
        try:
            await overlay.connect(witness.address)
            push = messages.encode_message(LedgerPush([other.raw]))
            await overlay.request(PeerId(witness.peer_id), push)
        finally:
            await overlay.stop()


async def _ok(_peer: PeerId, _payload: bytes) -> bytes:
    return messages.encode_message(messages.Ok())
