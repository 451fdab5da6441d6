"""Files as arrays: tiles are mapped, results are written through their map, and no byte is copied on the way.

Rules:

- A file is as long as its array, or is a blob of the node's store: content, then what the store keeps about it
  (``sparkle_p2p/blobs/layout.py``). Nothing but the content is mapped.
- A result's disk blocks are allocated before it is mapped. To write where there are none ends a process by SIGBUS.
- What was mapped stays mapped for the units that follow, most of which need a tile of the one before: the system
  takes longer to map a page than a kernel to read it. A file is known by its inode, which is nobody else's as long as
  it is mapped. Kept are at most ``KEPT_FILES`` and ``KEPT_BYTES``, and what the memory limit allows beside the next
  unit; the least recently used goes first. Its owner lets go of all when there is nothing to compute, because a
  mapped file takes room on the disk even after it was removed.
"""

import errno
import mmap
import os
import stat
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sparkle_protocol.blobs.bitmap import bitmap_bytes
from sparkle_protocol.blobs.tree import chunk_count
from sparkle_protocol.errors import ComputeError, VerificationError
from sparkle_protocol.ids import HASH_BYTES
from sparkle_worker.kernels.arrays import ArrayType

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEPT_FILES = 64  # each also takes a descriptor
KEPT_BYTES = 2**28

_OPEN = os.O_CLOEXEC | os.O_NONBLOCK if os.name == "posix" else 0  # what is no file shall not be waited for
_TRAILER = struct.Struct(">8sQ16s")  # of a blob file: magic, size of the content, boot id
_MAGIC = b"SPRKBLB1"
_ADVICE = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "the disk quota is used up; free some space",
    errno.EFBIG: "it would exceed the size limit of files here",
    errno.ENOENT: "there is no such file",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "its permissions do not allow it",
}


@dataclass(frozen=True, slots=True)
class ArrayFile:
    """A file and what it has to hold."""

    what: str  # for people: "tile 1 of gemm"
    path: bytes
    type: ArrayType
    written: bool = False  # it is made as long as the array; otherwise it must be


class WrongSize(VerificationError):
    """A file does not hold what it should."""


class MappedFiles:
    """The files of units, as arrays over their pages.

    Args:
        memory_bytes: address space that all maps and the rest of a unit may take.
    """

    def __init__(self, memory_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        self._kept: dict[tuple[int, int, bool], mmap.mmap] = {}  # by device, inode, written; the latest use is last

    def __bool__(self) -> bool:
        return bool(self._kept)

    def arrays(self, files: Sequence[ArrayFile], needed_bytes: int) -> "list[NDArray[Any]]":
        """The files' arrays, for a unit that needs so much memory, the files included.

        Raises:
            WrongSize: a file that is not written has another size.
            ComputeError: a file cannot be opened, or there is no room for it.
            MemoryError: it cannot be mapped within the memory limit.
        """
        self._make_room(len(files), needed_bytes)
        return [file.type.view(memoryview(self._mapped(file))) for file in files]

    def release(self) -> None:
        """Keep nothing. Arrays that are in use stay good."""
        self._kept.clear()

    def _make_room(self, count: int, needed_bytes: int) -> None:
        held = sum(map(len, self._kept.values()))
        for key in tuple(self._kept):
            if held <= min(KEPT_BYTES, self._memory_bytes - needed_bytes) and len(self._kept) + count <= KEPT_FILES:
                return
            held -= len(self._kept.pop(key))

    def _mapped(self, file: ArrayFile) -> mmap.mmap:
        try:
            descriptor = os.open(file.path, (os.O_RDWR if file.written else os.O_RDONLY) | _OPEN)
        except OSError as error:
            raise ComputeError(f"{file.what} cannot be opened: {_why(error)}") from error
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ComputeError(f"{file.what} is no ordinary file")
            if file.written:
                _allocate(descriptor, status, file)
            elif (found := _content_bytes(descriptor, status.st_size)) != file.type.nbytes:
                raise WrongSize(f"{file.what} has {found} bytes, but {file.type} has {file.type.nbytes}")
            key = (status.st_dev, status.st_ino, file.written)
            known = self._kept.pop(key, None)
            if known is None or len(known) != file.type.nbytes:
                known = _map(descriptor, file)
            self._kept[key] = known
            return known
        finally:
            os.close(descriptor)


def _map(descriptor: int, file: ArrayFile) -> mmap.mmap:
    access = mmap.ACCESS_WRITE if file.written else mmap.ACCESS_READ
    try:
        return mmap.mmap(descriptor, file.type.nbytes, access=access)
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise MemoryError from error
        raise ComputeError(f"{file.what} cannot be mapped: {_why(error)}") from error


def _content_bytes(descriptor: int, length: int) -> int:
    """How much of a file of this length is content: all, unless it is a blob of the store."""
    if length <= _TRAILER.size:
        return length
    magic, size, _boot = _TRAILER.unpack(os.pread(descriptor, _TRAILER.size, length - _TRAILER.size))
    if magic != _MAGIC or size >= length:
        return length
    chunks = chunk_count(size)
    tail = HASH_BYTES * chunks + bitmap_bytes(chunks) + _TRAILER.size
    return int(size) if size + tail == length else length


def _allocate(descriptor: int, status: os.stat_result, file: ArrayFile) -> None:
    """Make the file as long as its array, with all blocks on the disk; what was used before is used again.

    Raises:
        ComputeError: there is no room; the file is empty then.
    """
    size = file.type.nbytes
    # With as many blocks as it needs there are no holes. To ask for them again would walk through all its pages.
    if status.st_size == size and getattr(status, "st_blocks", 0) * 512 >= size:
        return
    try:
        os.ftruncate(descriptor, size)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size)
        else:
            _fill(descriptor, size)
    except OSError as error:
        os.ftruncate(descriptor, 0)
        raise ComputeError(f"there is no room for {file.what} ({size} bytes): {_why(error)}") from error


def _fill(descriptor: int, size: int) -> None:
    """Zeros, where the system cannot allocate without writing."""
    zeros = bytes(2**20)
    for offset in range(0, size, len(zeros)):
        os.pwrite(descriptor, zeros[: size - offset], offset)


def _why(error: OSError) -> str:
    return _ADVICE.get(error.errno or 0, (error.strerror or str(error)).lower())
