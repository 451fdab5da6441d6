"""Connections that wait for the next blob: whose, how many, how long."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sparkle_p2p.net.bulk import connections
from sparkle_p2p.net.bulk.connections import MAX_IDLE, Connections
from sparkle_p2p.net.bulk.https_client import Connection
from sparkle_protocol.blobs.source import MAX_ASKS
from tests.unit.net.bulk_peers import MB, Peers, content

HERE = ("127.0.0.1", 1)


@pytest.fixture
async def peers(tmp_path: Path) -> AsyncIterator[Peers]:
    made = Peers(tmp_path)
    yield made
    await made.close()


@pytest.fixture
def handshakes(monkeypatch: pytest.MonkeyPatch) -> list[Connection]:
    """Connections that were made."""
    made: list[Connection] = []
    connect = Connection._connect

    def noted(connection: Connection) -> object:
        made.append(connection)
        return connect(connection)

    monkeypatch.setattr(Connection, "_connect", noted)
    return made


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[Connection]:
    """Connections that were closed, in this order."""
    ended: list[Connection] = []
    monkeypatch.setattr(Connection, "close", lambda connection: ended.append(connection))
    return ended


async def test_blobs_of_one_peer_share_connections(peers: Peers, handshakes: list[Connection]) -> None:
    holder, asker = await peers.make(), await peers.make()
    await asker.bulk.fetch(holder.holds(content(0, 3 * MB)), [holder.id])
    for seed in range(1, 9):
        await asker.bulk.fetch(holder.holds(content(seed, MB)), [holder.id])
    # As many as there are requests at a time, and the end of an answer may be read while the next one is asked for.
    assert len(handshakes) <= MAX_ASKS + 1


async def test_each_peer_has_its_own(peers: Peers, handshakes: list[Connection]) -> None:
    one, other, asker = await peers.make(), await peers.make(), await peers.make()
    await asker.bulk.fetch(one.holds(content(1, MB)), [one.id])
    first = len(handshakes)
    await asker.bulk.fetch(other.holds(content(2, MB)), [other.id])
    assert {connection.certificate for connection in handshakes[:first]} != {handshakes[-1].certificate}


async def test_one_that_the_server_closed_meanwhile_is_made_anew(peers: Peers, handshakes: list[Connection]) -> None:
    holder, asker = await peers.make(), await peers.make()
    await asker.bulk.fetch(holder.holds(content(1, MB)), [holder.id])
    for connection in handshakes:
        connection.cut()
    first, blob = len(handshakes), holder.holds(content(2, MB))
    await asker.bulk.fetch(blob, [holder.id])
    assert asker.content_of(blob) == content(2, MB)
    assert len(handshakes) > first


async def test_few_are_kept_and_the_oldest_goes_first(closed: list[Connection]) -> None:
    kept = Connections(ssl.create_default_context())
    made = [kept.new(HERE, bytes([number])) for number in range(MAX_IDLE + 2)]
    for connection in made:
        kept.give_back(connection)
    assert closed == made[:2]
    assert kept.idle(bytes([0])) is None
    assert kept.idle(bytes([5])) is made[5]
    assert kept.idle(bytes([5])) is None  # one user at a time
    kept.close()
    assert closed == [*made[:5], *made[6:]]
    kept.give_back(made[5])
    assert closed[-1] is made[5]


async def test_none_stays_for_long(closed: list[Connection], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "IDLE_S", 0.0)
    kept = Connections(ssl.create_default_context())
    connection = kept.new(HERE, b"")
    kept.give_back(connection)
    for _ in range(100):
        await asyncio.sleep(0)
    assert closed == [connection]
    assert kept.idle(b"") is None
