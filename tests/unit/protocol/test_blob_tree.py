"""Names of blobs, and what is taken for one."""

import struct

import pytest
from blake3 import blake3

from sparkle_protocol.blobs.bitmap import Bitmap
from sparkle_protocol.blobs.tree import (
    CHUNK_BYTES,
    MAX_BLOB_BYTES,
    BlobId,
    Outline,
    checked_outline,
    parse_blob_id,
)
from sparkle_protocol.errors import ConfigError, LocalProtocolError, RemoteProtocolError

DATA = bytes(range(256)) * 8192 + b"the end"  # 2 MiB and seven bytes


def outline_of(data: bytes) -> Outline:
    hashes = (blake3(data[start : start + CHUNK_BYTES]).digest() for start in range(0, len(data), CHUNK_BYTES))
    return Outline(len(data), b"".join(hashes))


def test_an_id_can_be_computed_from_the_specification() -> None:
    outline = outline_of(DATA)
    parts = [blake3(DATA[:CHUNK_BYTES]), blake3(DATA[CHUNK_BYTES : 2 * CHUNK_BYTES]), blake3(b"the end")]
    head = b"sparkle/blob/v1" + struct.pack(">QI", len(DATA), 1 << 20)
    assert outline.id == blake3(head + b"".join(part.digest() for part in parts)).digest()
    assert outline.chunks == 3
    assert [outline.chunk_size(chunk) for chunk in range(3)] == [CHUNK_BYTES, CHUNK_BYTES, 7]


def test_the_empty_blob_has_a_name_and_no_chunks() -> None:
    assert outline_of(b"").chunks == 0
    assert outline_of(b"").id != outline_of(b"\0").id


def test_a_chunk_fits_only_where_it_belongs() -> None:
    outline = outline_of(DATA + b"!")
    assert outline.fits(2, [b"the", b" end!"])
    assert not outline.fits(2, [b"the end"])
    assert not outline.fits(2, [b"the end?"])


def test_an_outline_of_another_blob_is_found_out() -> None:
    outline = outline_of(DATA)
    assert checked_outline(outline.id, outline.size, outline.hashes) == outline
    for size, hashes in [
        (outline.size - 1, outline.hashes),  # the size is part of the name
        (outline.size, outline.hashes[32:] + outline.hashes[:32]),
        (outline.size, outline.hashes[:-1] + b"\0"),
        (outline.size, outline.hashes[:-32]),
        (outline.size, outline.hashes + bytes(32)),
        (MAX_BLOB_BYTES + 1, bytes(32 * (MAX_BLOB_BYTES // CHUNK_BYTES + 1))),
        (-1, b""),
    ]:
        with pytest.raises(RemoteProtocolError):
            checked_outline(outline.id, size, hashes)


def test_ids_in_text() -> None:
    blob = BlobId(bytes(range(32)))
    assert parse_blob_id(blob.hex()) == blob
    for text in ("", "abc", "zz" * 32, blob.hex()[:-2], blob.hex() + "00"):
        with pytest.raises(ConfigError, match="64 hexadecimal digits"):
            parse_blob_id(text)


def test_a_bitmap_is_a_set_that_survives_as_bytes() -> None:
    bitmap = Bitmap(11)
    for chunk in (0, 7, 8, 10, 7):
        bitmap.add(chunk)
    bitmap.discard(8)
    bitmap.discard(9)
    assert list(bitmap) == [0, 7, 10]
    assert bitmap.count == 3
    assert list(Bitmap(11, bytes(bitmap))) == [0, 7, 10]
    assert bitmap.byte_of(10) == (1, b"\x04")
    assert Bitmap(11, b"\xff\xff").count == 11  # bits beyond the last chunk say nothing
    assert Bitmap(0).full
    with pytest.raises(LocalProtocolError):
        Bitmap(11, b"\0")
