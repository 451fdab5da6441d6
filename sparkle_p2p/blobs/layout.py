"""One file per blob, whole or partial.

::

    content ‖ hashes of the chunks ‖ bitmap of the chunks that are there ‖ magic "SPRKBLB1" ‖ size:u64 ‖ boot id (16)

The content comes first, so that a mapped file is the array that it holds. A partial one is sparse and ends in
``.part``; it is renamed when its last chunk is on disk.

A chunk's bit is written after its bytes, and a process that is killed leaves what it wrote with the kernel. Only when
the machine goes down can a bit be on disk without its bytes: so the file carries the boot it was written in, and what
it claims is hashed anew if that was another one. Once the bytes of a complete blob were synced, all ones stand there.
"""

import os
import struct
from pathlib import Path

from sparkle_protocol.blobs.bitmap import Bitmap, bitmap_bytes
from sparkle_protocol.blobs.tree import MAX_BLOB_BYTES, Outline, chunk_count
from sparkle_protocol.ids import HASH_BYTES

PART = ".part"
NEW = ".new-"  # of content whose name is not known yet
SETTLED = b"\xff" * 16  # instead of a boot id: all bytes are on the medium
_TRAILER = struct.Struct(">8sQ16s")
_MAGIC = b"SPRKBLB1"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> bytes:
    """Names this boot of the machine; zeros where the system does not tell, which no file is trusted for."""
    try:
        return bytes.fromhex(_BOOT_ID.read_text().strip().replace("-", ""))
    except (OSError, ValueError):
        return bytes(16)


def tail(outline: Outline, have: Bitmap, boot: bytes) -> bytes:
    """What follows the content."""
    return outline.hashes + bytes(have) + _TRAILER.pack(_MAGIC, outline.size, boot)


def tail_bytes(size: int) -> int:
    """How long that is."""
    chunks = chunk_count(size)
    return HASH_BYTES * chunks + bitmap_bytes(chunks) + _TRAILER.size


def bitmap_offset(outline: Outline) -> int:
    """Where the bitmap begins."""
    return outline.size + len(outline.hashes)


def mark_settled(descriptor: int, size: int) -> None:
    """Sync a complete blob of that size, and note in the file that this was done."""
    os.fdatasync(descriptor)
    os.pwrite(descriptor, SETTLED, size + tail_bytes(size) - len(SETTLED))
    os.fdatasync(descriptor)


def read_tail(descriptor: int) -> tuple[Outline, Bitmap, bytes] | None:
    """Outline, chunks and boot that a file tells of; None if it holds no blob."""
    found = read_trailer(descriptor)
    if found is None:
        return None
    size, boot = found
    chunks = chunk_count(size)
    raw = os.pread(descriptor, tail_bytes(size), size)
    hashes = raw[: HASH_BYTES * chunks]
    return Outline(size, hashes), Bitmap(chunks, raw[len(hashes) : len(hashes) + bitmap_bytes(chunks)]), boot


def read_trailer(descriptor: int) -> tuple[int, bytes] | None:
    """Size and boot that a file tells of; None if it holds no blob."""
    length = os.fstat(descriptor).st_size
    raw = os.pread(descriptor, _TRAILER.size, max(0, length - _TRAILER.size))
    if len(raw) != _TRAILER.size:
        return None
    magic, size, boot = _TRAILER.unpack(raw)
    if magic != _MAGIC or size > MAX_BLOB_BYTES or length != size + tail_bytes(size):
        return None
    return size, boot
