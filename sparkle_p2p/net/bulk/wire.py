"""What is said over HTTPS: one GET per span of chunks, whose sizes the asker knows.

::

    GET /blob/<id in hex>/<first>-<last>      the chunks one after the other
    GET /blob/<id in hex>/<first>-<last>/z    each chunk behind four bytes, perhaps as a zstd frame
                                              encoding:u8 (0 raw, 1 zstd)  length:u24  bytes[length]
"""

import re

from sparkle_protocol.blobs.tickets import Wanted
from sparkle_protocol.blobs.tree import CHUNK_BYTES, BlobId, Outline
from sparkle_protocol.errors import RemoteProtocolError

HEAD_BYTES = 4
RAW, ZSTD = 0, 1
_TARGET = re.compile(r"/blob/([0-9a-f]{64})/([0-9]{1,5})-([0-9]{1,5})(/z)?")


def target(wanted: Wanted) -> str:
    """The path of a request."""
    return f"/blob/{wanted.blob.hex()}/{wanted.first}-{wanted.last}{'/z' if wanted.compress else ''}"


def parse_target(path: str) -> Wanted | None:
    """What a request with this path wants; None if it is no such path."""
    match = _TARGET.fullmatch(path)
    if match is None:
        return None
    blob, first, last, compress = match.groups()
    wanted = Wanted(BlobId(bytes.fromhex(blob)), int(first), int(last), bool(compress))
    return wanted if wanted.first <= wanted.last else None


def span_bytes(outline: Outline, wanted: Wanted) -> int:
    """Length of an answer of raw chunks."""
    chunks = range(wanted.first, wanted.last + 1)
    return sum(outline.chunk_size(chunk) for chunk in chunks)


def head(encoding: int, length: int) -> bytes:
    """What stands before a chunk."""
    return (encoding << 24 | length).to_bytes(HEAD_BYTES, "big")


def parse_head(raw: bytes, size: int) -> tuple[int, int]:
    """Encoding and length of a chunk of ``size`` bytes. Raises RemoteProtocolError."""
    encoding, length = raw[0], int.from_bytes(raw[1:], "big")
    if encoding not in (RAW, ZSTD) or not 1 <= length <= CHUNK_BYTES or (encoding == RAW and length != size):
        raise RemoteProtocolError("a chunk has another size than its blob's outline says")
    return encoding, length
