"""Blobs between peers over real TLS: what arrives, and what every kind of bad source gets."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from sparkle_p2p.blobs.partial import Partial
from sparkle_p2p.net.bulk import fetch
from sparkle_p2p.net.bulk.certificate import make_certificate
from sparkle_p2p.net.bulk.fetch import FetchProgress
from sparkle_protocol import messages
from sparkle_protocol.blobs.tree import BlobId, Outline
from sparkle_protocol.errors import RemoteProtocolError, StorageError, TransportError
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import PeerId
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
    report = await asker.bulk.fetch(asker.holds(DATA), [])
    assert not report.received_bytes


async def test_several_sources_are_used_at_once(peers: Peers) -> None:
    holders = [await peers.make() for _ in range(3)]
    asker = await peers.make()
    data = content(3, 40 * MB)
    (blob,) = {holder.holds(data) for holder in holders}
    report = await asker.bulk.fetch(blob, [holder.id for holder in holders])
    assert asker.content_of(blob) == data
    assert all(report.received_bytes[holder.id] > 0 for holder in holders)


async def test_who_only_may_have_it_is_not_asked_while_the_others_send(
    peers: Peers, caplog: pytest.LogCaptureFixture
) -> None:
    holder, other, asker = await peers.make(), await peers.make(), await peers.make()
    with caplog.at_level(logging.INFO, "sparkle.bulk"):
        await asker.bulk.fetch(holder.holds(DATA), [holder.id], spare=[other.id])
    assert not other.asked
    assert not caplog.records


async def test_who_only_may_have_it_is_asked_when_the_others_fail(
    peers: Peers, caplog: pytest.LogCaptureFixture
) -> None:
    """One is away and one has not got the blob, which is no news and nobody's fault."""
    away, without, holder, asker = [await peers.make() for _ in range(4)]
    away.up = False
    blob = holder.holds(DATA)
    with caplog.at_level(logging.INFO, "sparkle.bulk"):
        await asker.bulk.fetch(blob, [away.id, without.id], spare=[holder.id])
    assert asker.content_of(blob) == DATA
    assert not [record for record in caplog.records if "dropped" in record.message]
    assert not asker.violations


async def test_who_only_may_have_it_is_asked_when_nothing_comes(
    peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "SPARE_S", 0.05)
    slow, holder, asker = await peers.make(serving=False), await peers.make(), await peers.make()
    blob = holder.holds(DATA)
    slow.holds(DATA)
    answer = slow.answer

    async def stuck(peer: PeerId, request: messages.BlobRequest) -> messages.Reply:
        if isinstance(request, messages.OutlineRequest):
            return await answer(peer, request)
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    monkeypatch.setattr(slow, "answer", stuck)
    await asker.bulk.fetch(blob, [slow.id], spare=[holder.id])
    assert asker.content_of(blob) == DATA


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


async def test_a_fetch_cancelled_as_it_begins_to_write_can_be_begun_again(peers: Peers) -> None:
    holder, asker = await peers.make(), await peers.make()
    blob = holder.holds(DATA)
    begin, entered, go_on = asker.store.begin, threading.Event(), threading.Event()

    def slow(outline: Outline) -> Partial:
        entered.set()
        assert go_on.wait(20)
        return begin(outline)

    asker.store.begin = slow  # type: ignore[method-assign]
    fetching = asyncio.create_task(asker.bulk.fetch(blob, [holder.id]))
    assert await asyncio.to_thread(entered.wait, 20)
    for _ in range(3):  # as when the caller of the caller is cancelled, and then its group
        fetching.cancel()
        await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(fetching, return_exceptions=True)
    await asker.bulk.fetch(blob, [holder.id])
    assert asker.content_of(blob) == DATA


async def test_a_blob_of_another_size_than_promised_is_not_fetched(peers: Peers) -> None:
    holder, asker = await peers.make(), await peers.make()
    blob = holder.holds(DATA)
    with pytest.raises(RemoteProtocolError, match="should have 5"):
        await asker.bulk.fetch(blob, [holder.id], size=5)
    assert blob not in asker.store
    assert asker.store.used_bytes == 0
    await asker.bulk.fetch(blob, [holder.id], size=len(DATA))
    with pytest.raises(RemoteProtocolError, match="should have 5"):
        await asker.bulk.fetch(blob, [holder.id], size=5)


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
