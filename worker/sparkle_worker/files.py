"""Files as arrays: tiles are mapped, and so are results in files that have been used before.

Rules:

- A file is as long as its array, or is a blob of the node's store: content, then what the store keeps about it
  (``sparkle_p2p/blobs/layout.py``). Nothing but the content is mapped.
- A result's disk blocks are allocated before it is mapped. To write where there are none ends a process by SIGBUS.
- A result in a new file is made in memory, which is kept for the next one, and written when it is complete: through a
  map every page of a new file costs a journalled fault, on ext4 five times as much as the writing (4.5 ms and 0.9 ms
  for 4 MiB). Results larger than ``MEMORY_BYTES`` are mapped all the same.
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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from sparkle_protocol.blobs.bitmap import bitmap_bytes
from sparkle_protocol.blobs.tree import chunk_count
from sparkle_protocol.errors import ComputeError
from sparkle_protocol.ids import HASH_BYTES
from sparkle_worker.kernels.arrays import ArrayType

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEPT_FILES = 64  # each also takes a descriptor
KEPT_BYTES = 2**28
MEMORY_BYTES = 2**26  # of a result that is made in memory
WRITE_BYTES = 2**17  # of one call, so that the system looks for no large pages

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


class WrongSize(ComputeError):
    """A file does not hold the array that it should."""


@dataclass(slots=True)
class _Kept:
    """A mapped file."""

    marks: tuple[int, ...]
    type: ArrayType
    array: "NDArray[Any]"


class MappedFiles:
    """The files of units, as arrays over their pages.

    Errors tell of "it", the file: the caller knows what for.

    Args:
        memory_bytes: address space that all maps and the rest of a unit may take.
    """

    def __init__(self, memory_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        self._kept: dict[tuple[int, int, bool], _Kept] = {}  # by device, inode, written; the latest use is last
        self._bytes = 0
        self._memory: mmap.mmap | None = None  # where results of new files are made

    def __bool__(self) -> bool:
        return bool(self._kept) or self._memory is not None

    def make_room(self, count: int, needed_bytes: int) -> None:
        """Let go of files until a unit that has so many, and needs so much memory with them, fits beside the rest."""
        limit = min(KEPT_BYTES, self._memory_bytes - needed_bytes)
        if self._memory is not None and len(self._memory) > limit:
            self._memory = None  # the unit's own result counts among what it needs
        limit -= 0 if self._memory is None else len(self._memory)
        while self._kept and (self._bytes > limit or len(self._kept) + count > KEPT_FILES):
            self._drop(next(iter(self._kept)))

    def tile(self, path: bytes, type_: ArrayType) -> "NDArray[Any]":
        """The array in a file, read-only.

        Raises:
            WrongSize: it has another size.
            ComputeError: it cannot be read.
            MemoryError: it cannot be mapped within the memory limit.
        """
        return self._array(path, type_, written=False)

    def result(self, path: bytes, type_: ArrayType) -> "NDArray[Any]":
        """An array to be written to a file, which is made as long as that; with what happens to be there.

        Raises:
            ComputeError: it cannot be written, or there is no room for it.
            MemoryError: it cannot be mapped within the memory limit.
        """
        return self._array(path, type_, written=True)

    def new_result(self, path: bytes, type_: ArrayType) -> "NewResult | None":
        """A place in memory for the result that a file is to hold; None if that file had better be mapped.

        Raises:
            ComputeError, MemoryError: as ``result``.
        """
        if type_.nbytes > MEMORY_BYTES or os.name != "posix":
            return None
        try:
            if os.stat(path).st_blocks * 512 >= type_.nbytes:
                return None
            if self._memory is None or len(self._memory) < type_.nbytes:
                self._memory = mmap.mmap(-1, type_.nbytes)
            return NewResult(path, type_, self._memory)
        except OSError as error:
            if error.errno == errno.ENOMEM:
                raise MemoryError from error
            raise ComputeError(f"cannot be opened: {_why(error)}") from error

    def release(self) -> None:
        """Keep nothing. Arrays that are in use stay good."""
        self._kept.clear()
        self._bytes = 0
        self._memory = None

    def _array(self, path: bytes, type_: ArrayType, *, written: bool) -> "NDArray[Any]":
        try:
            status = os.stat(path)
            key = (status.st_dev, status.st_ino, written)
            known = self._kept.get(key)
            if known is not None and known.marks == _marks(status) and known.type == type_:
                self._kept[key] = self._kept.pop(key)
                return known.array
            key, found = _opened(path, type_, written)
        except OSError as error:
            if error.errno == errno.ENOMEM:
                raise MemoryError from error
            raise ComputeError(f"cannot be opened: {_why(error)}") from error
        if key in self._kept:
            self._drop(key)
        self._kept[key] = found
        self._bytes += type_.nbytes
        return found.array

    def _drop(self, key: tuple[int, int, bool]) -> None:
        self._bytes -= self._kept.pop(key).type.nbytes


class NewResult:
    """A result that is made in memory; ``write`` makes it the content of its file, whose blocks are there by then."""

    def __init__(self, path: bytes, type_: ArrayType, memory: mmap.mmap) -> None:
        self._content = memoryview(memory)[: type_.nbytes]
        self.array = type_.view(self._content)
        self._descriptor = os.open(path, os.O_RDWR | _OPEN)
        try:
            status = os.fstat(self._descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ComputeError("is no ordinary file")
            _allocate(self._descriptor, status, type_.nbytes)
        except BaseException:
            os.close(self._descriptor)
            raise

    def write(self) -> None:
        """Raises ComputeError: the disk does not take it."""
        try:
            for offset in range(0, len(self._content), WRITE_BYTES):
                piece = self._content[offset : offset + WRITE_BYTES]
                while piece:
                    written = os.pwrite(self._descriptor, piece, offset)
                    offset, piece = offset + written, piece[written:]
        except OSError as error:
            raise ComputeError(f"cannot be written: {_why(error)}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def _opened(path: bytes, type_: ArrayType, written: bool) -> tuple[tuple[int, int, bool], _Kept]:
    """A file mapped anew, and its key."""
    descriptor = os.open(path, (os.O_RDWR if written else os.O_RDONLY) | _OPEN)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ComputeError("is no ordinary file")
        if written:
            _allocate(descriptor, status, type_.nbytes)
            status = os.fstat(descriptor)
        elif (found := _content_bytes(descriptor, status.st_size)) != type_.nbytes:
            raise WrongSize(f"has {found} bytes, but {type_} has {type_.nbytes}")
        access = mmap.ACCESS_WRITE if written else mmap.ACCESS_READ
        array = type_.view(memoryview(mmap.mmap(descriptor, type_.nbytes, access=access)))
        return (status.st_dev, status.st_ino, written), _Kept(_marks(status), type_, array)
    finally:
        os.close(descriptor)


def _marks(status: os.stat_result) -> tuple[int, ...]:
    """What changes when a file gets another length, or holes."""
    return status.st_size, getattr(status, "st_blocks", 0)


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


def _allocate(descriptor: int, status: os.stat_result, size: int) -> None:
    """Make the file as long as its array, with all blocks on the disk; what was used before is used again.

    Raises:
        ComputeError: there is no room; the file is empty then.
    """
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
        raise ComputeError(f"cannot get the {size} bytes that it needs: {_why(error)}") from error


def _fill(descriptor: int, size: int) -> None:
    """Zeros, where the system cannot allocate without writing."""
    zeros = bytes(2**20)
    for offset in range(0, size, len(zeros)):
        os.pwrite(descriptor, zeros[: size - offset], offset)


def _why(error: OSError) -> str:
    return _ADVICE.get(error.errno or 0, (error.strerror or str(error)).lower())
