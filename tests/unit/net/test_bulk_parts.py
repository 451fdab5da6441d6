"""The small parts of the data plane: compression, the HTTP form, certificates, rates, where a peer is."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from backports import zstd

from sparkle_p2p.net.bulk.certificate import check_certificate, make_certificate
from sparkle_p2p.net.bulk.compression import compressed, decompressed, looks_compressible
from sparkle_p2p.net.bulk.rate import RateLimit
from sparkle_p2p.net.bulk.wire import RAW, ZSTD, head, parse_head, parse_target, target
from sparkle_p2p.net.bulk.wiring import hosts_through
from sparkle_p2p.net.overlay import Link
from sparkle_protocol.blobs.tickets import Wanted
from sparkle_protocol.blobs.tree import CHUNK_BYTES, BlobId
from sparkle_protocol.errors import RemoteProtocolError
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import PeerId

PEER = PeerId("12D3KooWPeer")


def test_random_numbers_are_seen_to_be_such() -> None:
    random = np.random.default_rng(1)
    assert not looks_compressible(random.bytes(CHUNK_BYTES))
    assert not looks_compressible(random.random(CHUNK_BYTES // 8).tobytes())
    assert looks_compressible(np.arange(CHUNK_BYTES // 8).tobytes())
    assert looks_compressible(bytes(CHUNK_BYTES))
    assert compressed(random.bytes(1000)) is None


@pytest.mark.parametrize("size", [1, 2, 100, 5000, CHUNK_BYTES])
def test_what_was_compressed_comes_back(size: int) -> None:
    data = bytes(size)
    packed = compressed(data)
    if packed is not None:
        assert decompressed([packed[:3], memoryview(packed)[3:]], size) == data


def test_a_frame_is_never_unpacked_to_more_than_it_should_be() -> None:
    bomb = zstd.compress(bytes(1 << 30), 1)
    assert len(bomb) < 1 << 17
    for size in (1, CHUNK_BYTES):
        with pytest.raises(RemoteProtocolError, match="another size"):
            decompressed([bomb], size)


def test_frames_that_are_not_exactly_the_chunk() -> None:
    frame = zstd.compress(bytes(1000), 1)
    streamed = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 27})
    wide = streamed.compress(bytes(1000)) + streamed.flush()
    for bad in (frame[:-1], frame + b"x", frame + frame, b"", b"no frame at all", wide):
        with pytest.raises(RemoteProtocolError):
            decompressed([bad], 1000)
    for size in (999, 1001):
        with pytest.raises(RemoteProtocolError):
            decompressed([frame], size)


def test_paths() -> None:
    for wanted in (Wanted(BlobId(bytes(32)), 0, 0, False), Wanted(BlobId(b"\xab" * 32), 17, 65535, True)):
        assert parse_target(target(wanted)) == wanted
    blob = "ab" * 32
    bad = ["/", f"/blob/{blob}", f"/blob/{blob}/2-1", f"/blob/{blob}/-1-2", f"/blob/{blob.upper()}/0-1"]
    bad += [f"/blob/{blob}/0-1/", f"/blob/{blob}/0-999999", f"/blob/../{blob}/0-1", f"/blob/{blob}/0-1/zz"]
    for path in bad:
        assert parse_target(path) is None


def test_heads_of_chunks() -> None:
    assert parse_head(head(RAW, 1000), 1000) == (RAW, 1000)
    assert parse_head(head(ZSTD, 7), 1000) == (ZSTD, 7)
    for bad in (head(RAW, 999), head(ZSTD, 0), head(ZSTD, CHUNK_BYTES + 1), head(2, 1000)):
        with pytest.raises(RemoteProtocolError):
            parse_head(bad, 1000)


def test_a_certificate_is_the_peer_s_in_one_network() -> None:
    identity, other = Identity.generate(), Identity.generate()
    certificate = make_certificate(identity, "main")
    check_certificate(identity.peer_id, "main", certificate.fingerprint, certificate.signature)
    for peer, net, fingerprint in [
        (other.peer_id, "main", certificate.fingerprint),
        (identity.peer_id, "mai", certificate.fingerprint),
        (identity.peer_id, "main", bytes(32)),
    ]:
        with pytest.raises(RemoteProtocolError):
            check_certificate(peer, net, fingerprint, certificate.signature)


def test_a_rate_allows_a_burst_and_then_its_pace() -> None:
    limit = RateLimit(10, burst_s=2.0)
    assert [limit.take(PEER, 0) for _ in range(21)] == [True] * 20 + [False]
    assert limit.take(PeerId("another"), 0)
    assert not limit.take(PEER, 99_000_000)
    assert limit.take(PEER, 100_000_000)
    assert sum(limit.take(PEER, 10**12) for _ in range(30)) == 20


def test_hosts_are_those_of_direct_links() -> None:
    addresses = (
        f"/ip4/127.0.0.1/tcp/4001/p2p/{PEER}",
        f"/ip4/10.1.2.3/tcp/4001/p2p/{PEER}",
        f"/ip6/fd00::1/tcp/4001/p2p/{PEER}",
        f"/ip4/127.0.0.1/tcp/4002/p2p/{PEER}",
        f"/ip4/192.0.2.7/tcp/4001/p2p/12D3KooWRelay/p2p-circuit/p2p/{PEER}",
    )
    links = (Link(PEER, addresses, "out"), Link(PeerId("x"), ("/ip4/10.9.9.9/tcp/1/p2p/x",), "in"))
    overlay: Any = SimpleNamespace(links=lambda: links)
    assert hosts_through(lambda: overlay)(PEER) == ("127.0.0.1", "10.1.2.3", "fd00::1")
    assert hosts_through(lambda: overlay)(PeerId("unknown")) == ()
    assert hosts_through(lambda: None)(PEER) == ()
