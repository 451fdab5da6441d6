"""The HTTPS server by hand: tickets replayed, expired, stolen or for something else; bounds and time-outs."""

import asyncio
import contextlib
import hashlib
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from sparkle_p2p.net.bulk import server as server_module
from sparkle_p2p.net.bulk.certificate import client_context
from sparkle_p2p.net.bulk.wire import target
from sparkle_protocol import messages
from sparkle_protocol.blobs.tickets import TICKET_TTL_NS, Grant, Ticket, Wanted
from sparkle_protocol.blobs.tree import BlobId
from sparkle_protocol.ids import PeerId
from tests.unit.net.bulk_peers import MB, Peer, Peers, content

DATA = content(1, 5 * MB + 77)


@pytest.fixture
async def peers(tmp_path: Path) -> AsyncIterator[Peers]:
    made = Peers(tmp_path)
    yield made
    await made.close()


class Client:
    """Speaks to a holder's server by hand."""

    def __init__(self, holder: Peer, asker: Peer, blob: BlobId) -> None:
        self.holder = holder
        self.asker = asker
        self.wanted = Wanted(blob, 0, 0, False)
        self.certificate = b""
        self.ticket: Ticket

    async def get_ticket(self) -> None:
        reply = await self.holder.answer(self.asker.id, messages.TicketRequest(self.wanted.blob))
        assert isinstance(reply, messages.TicketReply)
        self.certificate = reply.certificate
        self.ticket = Ticket(Grant(reply.ticket, reply.key, reply.ttl_ms * 10**6), self.asker.clock_ns())

    def header(self) -> str:
        return self.ticket.header(self.wanted, self.certificate)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.holder.bulk.port, ssl=client_context())

    async def get(self, header: str, wanted: Wanted | None = None, method: str = "GET") -> tuple[int, bytes]:
        reader, writer = await self.connect()
        path = target(wanted or self.wanted)
        writer.write(f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {header}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        body = await reader.readexactly(length)
        writer.close()
        return int(head.split(b" ")[1]), body


@pytest.fixture
async def client(peers: Peers) -> Client:
    holder, asker = await peers.make(), await peers.make()
    made = Client(holder, asker, holder.holds(DATA))
    await made.get_ticket()
    return made


async def test_a_ticket_opens_the_blob(client: Client) -> None:
    assert await client.get(client.header()) == (200, DATA[:MB])


async def test_a_request_that_is_made_again_is_refused(client: Client) -> None:
    header = client.header()
    assert (await client.get(header))[0] == 200
    assert await client.get(header) == (403, b"the request was made before")


async def test_an_expired_ticket_is_refused(client: Client) -> None:
    now_ns = client.holder.clock_ns() + TICKET_TTL_NS
    client.holder.clock_ns = lambda: now_ns
    assert await client.get(client.header()) == (403, b"the ticket has expired")


async def test_a_ticket_for_another_blob_is_refused(client: Client) -> None:
    wanted = Wanted(client.holder.holds(b"x" * MB), 0, 0, False)
    header = client.ticket.header(wanted, client.certificate)
    assert await client.get(header, wanted) == (403, b"the ticket is for another blob")


async def test_another_peer_s_ticket_is_refused(client: Client, peers: Peers) -> None:
    """Who saw the ticket does not have its key."""
    thief = await peers.make()
    reply = await client.holder.answer(thief.id, messages.TicketRequest(client.wanted.blob))
    assert isinstance(reply, messages.TicketReply)
    seen = await client.holder.answer(client.asker.id, messages.TicketRequest(client.wanted.blob))
    assert isinstance(seen, messages.TicketReply)
    stolen = Ticket(Grant(seen.ticket, reply.key, 10**12), 0)
    status, text = await client.get(stolen.header(client.wanted, client.certificate))
    assert (status, text) == (403, b"the request is not by the peer that the ticket was issued to")


async def test_other_requests_get_nothing(client: Client) -> None:
    assert (await client.get("", client.wanted))[0] == 403
    assert (await client.get(client.header(), method="DELETE"))[0] == 400
    beyond = Wanted(client.wanted.blob, 0, 6, False)
    assert (await client.get(client.ticket.header(beyond, client.certificate), beyond))[0] == 416
    client.holder.store.remove(client.wanted.blob)
    assert (await client.get(client.header()))[0] == 404


async def test_only_tls_1_3_is_spoken(client: Client) -> None:
    old = client_context()
    old.minimum_version = ssl.TLSVersion.TLSv1_2
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("127.0.0.1", client.holder.bulk.port, ssl=old)
    reader, writer = await client.connect()
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    assert hashlib.sha256(shown).digest() == client.certificate
    assert writer.get_extra_info("ssl_object").version() == "TLSv1.3"
    writer.close()
    del reader


async def ended(reader: asyncio.StreamReader) -> bool:
    try:
        async with asyncio.timeout(10):
            while await reader.read(1 << 16):
                pass
    except TimeoutError:
        return False
    except (ConnectionError, ssl.SSLError):
        return True
    return True


@pytest.mark.parametrize("said", [b"", b"GET /blob/"])
async def test_a_connection_that_says_nothing_is_closed(
    client: Client, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(server_module, "FIRST_REQUEST_S", 0.3)
    reader, writer = await client.connect()
    writer.write(said)
    assert await ended(reader)
    writer.close()


async def test_a_handshake_that_does_not_come_is_not_waited_for(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "HANDSHAKE_S", 0.3)
    reader, writer = await asyncio.open_connection("127.0.0.1", client.holder.bulk.port)
    assert await ended(reader)
    writer.close()


async def test_a_reader_that_takes_nothing_is_let_go(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "CHUNK_S", 0.5)
    let_go = asyncio.Event()
    answering = server_module.BulkServer._answering

    @contextlib.contextmanager
    def noted(server: server_module.BulkServer, peer: PeerId) -> Iterator[None]:
        try:
            with answering(server, peer):
                yield
        finally:
            let_go.set()

    monkeypatch.setattr(server_module.BulkServer, "_answering", noted)
    blob = client.holder.holds(content(8, 32 * MB))
    wanted = client.wanted = Wanted(blob, 0, 31, False)
    await client.get_ticket()
    reader, writer = await client.connect()
    writer.write(f"GET {target(wanted)} HTTP/1.1\r\nHost: x\r\nAuthorization: {client.header()}\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    assert client.holder.bulk.answering == 1
    async with asyncio.timeout(20):
        await let_go.wait()
    assert not client.holder.bulk.answering
    writer.close()


async def test_requests_at_a_time_and_connections_are_bounded(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "MAX_ANSWERS_PER_PEER", 0)
    assert (await client.get(client.header()))[0] == 503
    monkeypatch.setattr(server_module, "MAX_ANSWERS_PER_PEER", 8)
    now_ns = client.holder.clock_ns()
    client.holder.clock_ns = lambda: now_ns
    statuses = [(await client.get(client.header()))[0] for _ in range(2 * server_module.REQUESTS_PER_S + 5)]
    assert statuses.count(503) in (5, 6)
    client.holder.clock_ns = lambda: now_ns + 10**9
    assert (await client.get(client.header()))[0] == 200
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS_PER_HOST", 0)
    with pytest.raises(OSError):  # noqa: PT011  (reset or closed, as the system likes)
        await client.connect()
