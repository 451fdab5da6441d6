"""Reads and writes of whole ranges, and one sentence for what can go wrong with a disk."""

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sparkle_protocol.blobs.tree import Buffer
from sparkle_protocol.errors import StorageError

# Of one call. With more, the system looks for large pages, which in a virtual machine are often not there yet: a MiB
# at a time was seen to cost up to eight times as much. Without them more than this gains nothing.
_WRITE_BYTES = 128 << 10

_GATHERED = 512  # pieces of one call; Linux takes 1024

_ADVICE = {
    errno.ENOSPC: "the disk is full; free some space, the transfer goes on from there",
    errno.EDQUOT: "the disk quota is used up; free some space, the transfer goes on from there",
    errno.EFBIG: "the file would exceed the size limit of this process; raise it, the transfer goes on from there",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "its permissions do not allow it",
}


@contextmanager
def disk_errors(action: str, path: Path) -> Iterator[None]:
    """What the system says about a disk, as a StorageError."""
    try:
        yield
    except OSError as error:
        why = _ADVICE.get(error.errno or 0, (error.strerror or str(error)).lower())
        raise StorageError(f"cannot {action} {path}: {why}") from error


def write_all(descriptor: int, pieces: Sequence[Buffer], offset: int) -> None:
    """Write the pieces in a row, all of them; without joining them."""
    for piece in pieces:
        view = memoryview(piece).cast("B") if len(piece) else memoryview(b"")
        while view:
            written = os.pwrite(descriptor, view[:_WRITE_BYTES], offset)
            offset += written
            view = view[written:]


def write_gathered(descriptor: int, pieces: Iterable[memoryview], offset: int) -> None:
    """Write pieces of bytes in a row as they come, many small ones with one call."""
    waiting: list[memoryview] = []
    size = 0
    for piece in pieces:
        if size + len(piece) > _WRITE_BYTES or len(waiting) == _GATHERED:
            _write_together(descriptor, waiting, offset)
            offset, waiting, size = offset + size, [], 0
        waiting.append(piece)
        size += len(piece)
    _write_together(descriptor, waiting, offset)


def _write_together(descriptor: int, pieces: Sequence[memoryview], offset: int) -> None:
    if len(pieces) <= 1:
        write_all(descriptor, pieces, offset)
        return
    written = os.pwritev(descriptor, pieces, offset)
    rest = b"".join(pieces)[written:] if written < sum(map(len, pieces)) else b""
    write_all(descriptor, [rest], offset + written)


def read_into(descriptor: int, buffer: memoryview, offset: int) -> int:
    """Fill the buffer from the file as far as that goes; how many bytes came."""
    done = 0
    while done < len(buffer):
        count = os.preadv(descriptor, [buffer[done:]], offset + done)
        if count == 0:
            break
        done += count
    return done


def sync_folder(folder: Path) -> None:
    """Make renames in a folder last."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
