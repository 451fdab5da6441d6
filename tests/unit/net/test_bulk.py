"""Blobs between peers over real TLS: what arrives, and what every kind of bad source gets."""

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from sparkle_p2p.net.bulk import server as server_module
from sparkle_p2p.net.bulk.certificate import client_context, make_certificate
from sparkle_p2p.net.bulk.fetch import FetchProgress
from sparkle_p2p.net.bulk.wire import target
from sparkle_protocol import messages
from sparkle_protocol.blobs.tickets import TICKET_TTL_NS, Grant, Ticket, Wanted
from sparkle_protocol.blobs.tree import BlobId
from sparkle_protocol.errors import StorageError, TransportError
from sparkle_protocol.identity import Identity
from tests.unit.net.bulk_peers import MB, NET, Peer, Peers, content

DATA = content(1, 5 * MB + 77)


@pytest.fixture
async def peers(tmp_path: Path) -> AsyncIterator[Peers]:
    made = Peers(tmp_path)
    yield made
    await made.close()


async def test_a_blob_arrives_over_https(peers: Peers) -> None:
    holder, asker = await peers.make(), await peers.make()
    blob = holder.holds(DATA)
    seen: list[FetchProgress] = []
    report = await asker.bulk.fetch(blob, [holder.id], on_progress=seen.append)
    assert asker.content_of(blob) == DATA
    assert report.received_bytes[holder.id] == pytest.approx(len(DATA), abs=100)
    assert holder.asked_for(messages.PieceRequest) == 0
    assert seen[-1].stored_bytes == seen[-1].size == len(DATA)
    assert [progress.stored_bytes for progress in seen] == sorted(progress.stored_bytes for progress in seen)
    link = asker.bulk.links()[holder.id]
    assert link.received == report.received_bytes[holder.id]
    assert link.latency_ns
    assert link.bytes_per_s


@pytest.mark.parametrize("size", [0, 1, 1000, MB, MB + 1])
async def test_blobs_of_any_size(peers: Peers, size: int) -> None:
    holder, asker = await peers.make(), await peers.make()
    blob = holder.holds(content(2, size))
    await asker.bulk.fetch(blob, [holder.id])
    assert asker.content_of(blob) == content(2, size)


async def test_who_vouches_for_a_blob_waits_for_the_medium(peers: Peers) -> None:
    holder, asker = await peers.make(), await peers.make()
    one, two = holder.holds(DATA), holder.holds(content(2, MB))
    await asker.bulk.fetch(one, [holder.id])
    assert asker.store.unsettled() == [one]
    await asker.bulk.fetch(two, [holder.id], durable=True)
    assert asker.store.unsettled() == [one]
    await asker.bulk.fetch(one, [], durable=True)
    assert asker.store.unsettled() == []


async def test_what_is_here_is_not_fetched(peers: Peers) -> None:
    asker = await peers.make()
    await asker.bulk.fetch(asker.holds(DATA), [])


async def test_several_sources_are_used_at_once(peers: Peers) -> None:
    holders = [await peers.make() for _ in range(3)]
    asker = await peers.make()
    data = content(3, 40 * MB)
    (blob,) = {holder.holds(data) for holder in holders}
    report = await asker.bulk.fetch(blob, [holder.id for holder in holders])
    assert asker.content_of(blob) == data
    assert all(report.received_bytes[holder.id] > 0 for holder in holders)


async def test_numbers_that_repeat_travel_compressed(peers: Peers) -> None:
    holder, asker = await peers.make(), await peers.make()
    blob = holder.holds(bytes(range(100)) * 40_000)
    report = await asker.bulk.fetch(blob, [holder.id])
    assert asker.content_of(blob) == bytes(range(100)) * 40_000
    assert report.received_bytes[holder.id] < 3_000_000


async def test_without_a_direct_path_libp2p_carries_it(peers: Peers) -> None:
    holder, asker = await peers.make(serving=False), await peers.make()
    blob, other = holder.holds(DATA), holder.holds(bytes(3 * MB))
    report = await asker.bulk.fetch(other, [holder.id])  # while it is not known how fast the link is
    await asker.bulk.fetch(blob, [holder.id])
    assert asker.content_of(blob) == DATA
    assert asker.content_of(other) == bytes(3 * MB)
    assert report.received_bytes[holder.id] < MB  # compressed as well
    assert holder.asked_for(messages.PieceRequest) >= 20


async def test_where_https_cannot_connect_libp2p_carries_it(peers: Peers) -> None:
    holder, asker = await peers.make(), await peers.make()
    asker.hosts = ("127.0.0.9",)
    blob = holder.holds(DATA)
    await asker.bulk.fetch(blob, [holder.id])
    assert asker.content_of(blob) == DATA
    assert holder.asked_for(messages.PieceRequest) > 0


# --- bad sources -----------------------------------------------------------------------------------------------


def spoil(peer: Peer, blob: BlobId, chunk: int) -> None:
    """Flip a bit of a blob on a peer's disk."""
    with peer.store.path(blob).open("r+b") as file:
        file.seek(chunk * MB + 5)
        byte = file.read(1)[0]
        file.seek(chunk * MB + 5)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("serving", [True, False], ids=["https", "libp2p"])
async def test_a_source_with_a_wrong_byte_is_dropped_and_another_goes_on(peers: Peers, serving: bool) -> None:
    liar, honest, asker = await peers.make(serving=serving), await peers.make(), await peers.make()
    data = content(4, 20 * MB)
    blob = honest.holds(data)
    assert liar.holds(data) == blob
    for chunk in range(20):
        spoil(liar, blob, chunk)
    await asker.bulk.fetch(blob, [liar.id, honest.id])
    assert asker.content_of(blob) == data
    ((accused, evidence),) = asker.violations
    assert accused == liar.id
    assert "is not what its hash says" in evidence
    assert blob.hex()[:12] in evidence


async def test_from_a_liar_alone_nothing_is_shown(peers: Peers) -> None:
    liar, asker = await peers.make(), await peers.make()
    blob = liar.holds(DATA)
    spoil(liar, blob, 3)
    with pytest.raises(TransportError, match="no source is left"):
        await asker.bulk.fetch(blob, [liar.id])
    assert blob not in asker.store
    assert len(asker.violations) == 1


async def test_an_outline_that_is_not_the_blob_s(peers: Peers) -> None:
    liar, honest, asker = await peers.make(), await peers.make(), await peers.make()
    blob = honest.holds(DATA)
    liar.holds(DATA)

    def change(_peer: object, reply: messages.Reply) -> messages.Reply:
        if isinstance(reply, messages.OutlineReply):
            return messages.OutlineReply(reply.size, bytes(len(reply.hashes)))
        return reply

    liar.change = change
    await asker.bulk.fetch(blob, [liar.id, honest.id])
    assert asker.content_of(blob) == DATA
    assert asker.violations[0][0] == liar.id


async def test_the_certificate_of_another_peer_is_refused_before_anything_is_sent(peers: Peers) -> None:
    """Somebody else answers at the address: the ticket is not shown to him; libp2p carries the blob."""
    holder, asker = await peers.make(), await peers.make()
    blob = holder.holds(DATA)
    received: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await reader.read(10_000))
        writer.close()

    context = make_certificate(Identity.generate(), NET).context
    impostor = await asyncio.start_server(listen, "127.0.0.1", 0, ssl=context)
    port = impostor.sockets[0].getsockname()[1]

    def change(_peer: object, reply: messages.Reply) -> messages.Reply:
        return msgspec.structs.replace(reply, port=port) if isinstance(reply, messages.TicketReply) else reply

    holder.change = change
    await asker.bulk.fetch(blob, [holder.id])
    assert asker.content_of(blob) == DATA
    assert not b"".join(received)
    assert holder.asked_for(messages.PieceRequest) > 0
    impostor.close()


async def test_a_certificate_that_the_peer_did_not_sign_for(peers: Peers) -> None:
    holder, asker = await peers.make(), await peers.make()
    blob = holder.holds(DATA)

    def change(_peer: object, reply: messages.Reply) -> messages.Reply:
        if isinstance(reply, messages.TicketReply):
            return msgspec.structs.replace(reply, certificate=bytes(32))
        return reply

    holder.change = change
    with pytest.raises(TransportError, match="signature does not fit"):
        await asker.bulk.fetch(blob, [holder.id])
    assert asker.violations[0][0] == holder.id


async def test_who_may_not_read_a_blob_does_not_learn_that_it_exists(peers: Peers) -> None:
    holder, asker = await peers.make(), await peers.make()
    blob = holder.holds(DATA)
    holder.readers = set()
    for request in (messages.OutlineRequest(blob), messages.TicketRequest(blob), messages.PieceRequest(blob, 0, 5)):
        hidden = await holder.answer(asker.id, request)
        absent = await holder.answer(asker.id, msgspec.structs.replace(request, blob=bytes(32)))
        assert hidden == absent == messages.Refusal("unknown_blob", "this node has no such blob for you")
    with pytest.raises(TransportError, match="no peer has the blob"):
        await asker.bulk.fetch(blob, [holder.id])
    assert not asker.violations


async def test_a_source_that_sends_nothing_is_overtaken(peers: Peers) -> None:
    """It accepts, proves who it is, begins to answer, and then sends a byte now and then."""
    slow, fast, asker = await peers.make(), await peers.make(), await peers.make()
    data = content(5, 12 * MB)
    blob = fast.holds(data)
    slow.holds(data)
    stop = asyncio.Event()

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (MB,))
        while not stop.is_set() and not writer.is_closing():
            writer.write(b"x")
            try:
                async with asyncio.timeout(0.2):
                    await stop.wait()
            except TimeoutError:
                continue
        writer.close()

    certificate = make_certificate(slow.identity, NET)
    trickler = await asyncio.start_server(trickle, "127.0.0.1", 0, ssl=certificate.context)
    port = trickler.sockets[0].getsockname()[1]

    def change(_peer: object, reply: messages.Reply) -> messages.Reply:
        if isinstance(reply, messages.TicketReply):
            return msgspec.structs.replace(
                reply, port=port, certificate=certificate.fingerprint, signature=certificate.signature
            )
        return reply

    slow.change = change
    began = asyncio.get_running_loop().time()
    report = await asker.bulk.fetch(blob, [slow.id, fast.id])
    assert asyncio.get_running_loop().time() - began < 9  # before it would be dropped
    assert asker.content_of(blob) == data
    assert report.received_bytes[slow.id] < 1000
    stop.set()
    trickler.close()


async def test_a_holder_that_was_restarted_is_found_again(peers: Peers) -> None:
    """Another port, another certificate, no memory of tickets: the next ask gets new ones."""
    holder, asker = await peers.make(), await peers.make()
    data = content(6, 30 * MB)
    blob = holder.holds(data)
    reached = asyncio.Event()
    fetching = asyncio.create_task(asker.bulk.fetch(blob, [holder.id], on_progress=lambda _: reached.set()))
    await asyncio.wait_for(reached.wait(), 20)
    holder.up = False
    await holder.bulk.stop()
    holder.bulk = holder.make()
    await holder.bulk.start("127.0.0.1")
    holder.up = True
    report = await asyncio.wait_for(fetching, 60)
    assert asker.content_of(blob) == data
    assert holder.asked_for(messages.TicketRequest) >= 2
    assert report.received_bytes[holder.id] < len(data) + 4 * MB


# --- resuming, sharing, ending --------------------------------------------------------------------------------


async def test_a_fetch_that_was_cancelled_goes_on_where_it_was(peers: Peers) -> None:
    holder, asker = await peers.make(), await peers.make()
    data = content(7, 64 * MB)
    blob = holder.holds(data)
    reached = asyncio.Event()
    stored = 0

    def progress(seen: FetchProgress) -> None:
        nonlocal stored
        stored = seen.stored_bytes
        if stored >= 8 * MB:
            reached.set()

    fetching = asyncio.create_task(asker.bulk.fetch(blob, [holder.id], on_progress=progress))
    await asyncio.wait_for(reached.wait(), 20)
    fetching.cancel()
    await asyncio.gather(fetching, return_exceptions=True)
    report = await asker.bulk.fetch(blob, [holder.id])
    assert asker.content_of(blob) == data
    assert report.resumed_bytes >= 8 * MB
    assert report.received_bytes[holder.id] <= len(data) - report.resumed_bytes + 1000


async def test_two_callers_share_a_fetch_and_either_may_leave(peers: Peers) -> None:
    holder, asker = await peers.make(), await peers.make()
    blob = holder.holds(DATA)
    one = asyncio.create_task(asker.bulk.fetch(blob, [holder.id]))
    two = asyncio.create_task(asker.bulk.fetch(blob, [holder.id]))
    await asyncio.sleep(0)
    one.cancel()
    report = await asyncio.wait_for(two, 20)
    assert asker.content_of(blob) == DATA
    assert report.received_bytes[holder.id] == pytest.approx(len(DATA), abs=100)


async def test_a_disk_that_fills_up_ends_the_fetch_with_one_sentence(
    peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sparkle_p2p.blobs import partial

    holder, asker = await peers.make(), await peers.make()
    blob = holder.holds(DATA)
    write_all, taken = partial.write_all, []

    def fills_up(descriptor: int, pieces: list[bytes], offset: int) -> None:
        if len(taken) >= 2:
            raise OSError(28, "No space left on device")
        taken.append(offset)
        write_all(descriptor, pieces, offset)

    with monkeypatch.context() as patch:
        patch.setattr(partial, "write_all", fills_up)
        with pytest.raises(StorageError, match="the disk is full; free some space, the transfer goes on from there"):
            await asker.bulk.fetch(blob, [holder.id])
    assert not asker.violations
    report = await asker.bulk.fetch(blob, [holder.id])
    assert report.resumed_bytes == MB
    assert asker.content_of(blob) == DATA


async def test_a_blob_that_does_not_fit_is_refused_before_it_is_asked_for(peers: Peers, tmp_path: Path) -> None:
    from sparkle_p2p.blobs.store import BlobStore

    holder, asker = await peers.make(), await peers.make()
    asker.bulk.store = BlobStore(tmp_path / "small", 2 * MB)
    with pytest.raises(StorageError, match="does not fit"):
        await asker.bulk.fetch(holder.holds(DATA), [holder.id])
    assert holder.asked_for(messages.TicketRequest) == 0


# --- the server --------------------------------------------------------------------------------------------------


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
    blob = client.holder.holds(content(8, 32 * MB))
    wanted = client.wanted = Wanted(blob, 0, 31, False)
    await client.get_ticket()
    reader, writer = await client.connect()
    writer.write(f"GET {target(wanted)} HTTP/1.1\r\nHost: x\r\nAuthorization: {client.header()}\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    async with asyncio.timeout(20):
        while client.holder.bulk.answering:
            await until_soon()
    writer.close()


async def until_soon() -> None:
    """Let a twentieth of a second pass."""
    try:
        async with asyncio.timeout(0.05):
            await asyncio.Event().wait()
    except TimeoutError:
        return


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
