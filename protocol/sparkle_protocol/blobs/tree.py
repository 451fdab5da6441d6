"""A blob's name: a two-level BLAKE3 tree, so that each chunk is checked before it is kept or shown.

A blob is cut into chunks of 1 MiB, the last one shorter. Its **outline** is the list of the chunks' hashes, and its
**id** the hash of size, chunk size and outline::

    id = BLAKE3("sparkle/blob/v1" ‖ size:u64 ‖ chunk size:u32 ‖ BLAKE3(chunk 0) ‖ BLAKE3(chunk 1) ‖ …)

Whoever knows the id checks an outline from anybody, and with the outline any chunk, in any order, from anybody. That
is why a transfer resumes at any chunk and takes chunks from several sources. An outline has 32 bytes per MiB.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NewType

from blake3 import blake3

from sparkle_protocol.errors import ConfigError, RemoteProtocolError
from sparkle_protocol.ids import HASH_BYTES

BlobId = NewType("BlobId", bytes)  # 32 bytes

CHUNK_BYTES = 1 << 20  # small enough to lose, large enough that asking for one costs nothing beside moving it
MAX_BLOB_BYTES = 64 << 30  # the outline of such a blob has 2 MiB
MAX_CHUNKS = MAX_BLOB_BYTES // CHUNK_BYTES

_DOMAIN = b"sparkle/blob/v1"

Buffer = bytes | bytearray | memoryview


def chunk_count(size: int) -> int:
    """How many chunks a blob of ``size`` bytes has."""
    return -(-size // CHUNK_BYTES)


def hash_pieces(pieces: Iterable[Buffer]) -> bytes:
    """BLAKE3 of pieces in a row; runs without the interpreter's lock."""
    hasher = blake3()
    for piece in pieces:
        hasher.update(piece)
    return hasher.digest()


@dataclass(frozen=True)
class Outline:
    """What a blob consists of: its size and the hash of each of its chunks."""

    size: int
    hashes: bytes

    def __post_init__(self) -> None:
        if not 0 <= self.size <= MAX_BLOB_BYTES:
            raise RemoteProtocolError(f"a blob has at most {MAX_BLOB_BYTES >> 30} GiB, not {self.size} bytes")
        if len(self.hashes) != HASH_BYTES * chunk_count(self.size):
            raise RemoteProtocolError(f"{len(self.hashes)} bytes are no outline of a blob of {self.size} bytes")

    @cached_property
    def id(self) -> BlobId:
        """The blob's name."""
        head = _DOMAIN + struct.pack(">QI", self.size, CHUNK_BYTES)
        return BlobId(hash_pieces((head, self.hashes)))

    @property
    def chunks(self) -> int:
        """How many chunks there are."""
        return len(self.hashes) // HASH_BYTES

    def chunk_size(self, chunk: int) -> int:
        """Bytes of a chunk."""
        return min(CHUNK_BYTES, self.size - chunk * CHUNK_BYTES)

    def chunk_hash(self, chunk: int) -> bytes:
        """BLAKE3 of a chunk."""
        return self.hashes[chunk * HASH_BYTES : (chunk + 1) * HASH_BYTES]

    def fits(self, chunk: int, pieces: Iterable[Buffer]) -> bool:
        """Whether these pieces in a row are the chunk's bytes."""
        return hash_pieces(pieces) == self.chunk_hash(chunk)


def checked_outline(blob: BlobId, size: int, hashes: bytes) -> Outline:
    """The blob's outline, if these are its size and hashes.

    Raises:
        RemoteProtocolError: they are another blob's, or none's.
    """
    outline = Outline(size, hashes)
    if outline.id != blob:
        raise RemoteProtocolError(f"an outline does not belong to blob {blob.hex()[:12]}")
    return outline


def parse_blob_id(text: str) -> BlobId:
    """The id that ``text`` shows in hex. Raises ConfigError."""
    try:
        blob = bytes.fromhex(text)
    except ValueError:
        blob = b""
    if len(blob) != HASH_BYTES:
        raise ConfigError(f"'{text[:80]}' is not a blob's id: {2 * HASH_BYTES} hexadecimal digits")
    return BlobId(blob)
