"""Sealing: whatever is sealed opens to itself however it came in, and no part of another opens in its stead."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkle_p2p.blobs import sealing
from sparkle_p2p.blobs.sealing import JobCipher, input_label, sealed_bytes
from sparkle_p2p.network_key import NetworkKey
from sparkle_protocol.errors import RemoteProtocolError

CIPHER = JobCipher(NetworkKey(bytes(32)), b"salt")
PIECE = 32  # instead of a MiB, so that small examples have many


@pytest.fixture(autouse=True, scope="module")
def _small_pieces() -> object:
    before = sealing.PIECE_BYTES, sealing.CHUNK_BYTES
    sealing.PIECE_BYTES, sealing.CHUNK_BYTES = PIECE, PIECE + sealing.TAG_BYTES
    yield
    sealing.PIECE_BYTES, sealing.CHUNK_BYTES = before


def opened(label: bytes, size: int, sealed: bytes) -> bytes:
    return b"".join(CIPHER.open(label, size, len(sealed), lambda at, count: sealed[at : at + count]))


@given(parts=st.lists(st.binary(max_size=100), max_size=6), position=st.integers(0, 2**32 - 1))
def test_round_trip_in_any_portions(parts: list[bytes], position: int) -> None:
    plain, label = b"".join(parts), input_label(position)
    sealed = b"".join(CIPHER.seal(label, len(plain), parts))
    assert sealed == b"".join(CIPHER.seal(label, len(plain), [plain]))
    assert len(sealed) == sealed_bytes(len(plain))
    assert opened(label, len(plain), sealed) == plain


@given(plain=st.binary(max_size=150), data=st.data())
def test_whatever_is_not_exactly_what_was_sealed_does_not_open(plain: bytes, data: st.DataObject) -> None:
    label = input_label(1)
    sealed = b"".join(CIPHER.seal(label, len(plain), [plain]))
    pieces = [sealed[at : at + PIECE + 16] for at in range(0, len(sealed), PIECE + 16)]
    other = b"".join(CIPHER.seal(input_label(2), len(plain), [plain]))
    pieces += [other[at : at + PIECE + 16] for at in range(0, len(other), PIECE + 16)]
    changed = b"".join(data.draw(st.lists(st.sampled_from(pieces), max_size=6)))
    if data.draw(st.booleans()) and changed:
        at = data.draw(st.integers(0, len(changed) - 1))
        changed = changed[:at] + bytes([changed[at] ^ data.draw(st.integers(1, 255))]) + changed[at + 1 :]
    if changed == sealed:
        assert opened(label, len(plain), changed) == plain
        return
    with pytest.raises(RemoteProtocolError):
        opened(label, len(plain), changed)
