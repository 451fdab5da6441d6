"""A complete blob as memory: mapped, never copied."""

import errno
import mmap
import os
from pathlib import Path
from typing import Self

from sparkle_p2p.blobs.files import disk_errors
from sparkle_p2p.blobs.layout import read_tail
from sparkle_protocol.blobs.tree import CHUNK_BYTES, Outline
from sparkle_protocol.errors import StorageError

_PROBE_BYTES = 256 << 10


class BlobReader:
    """An open blob. It stays readable when the store evicts it meanwhile.

    Views may outlive ``close``: the memory goes when the last of them does.
    """

    def __init__(self, path: Path) -> None:
        with disk_errors("read", path):
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                found = read_tail(self._descriptor)
                if found is None or not found[1].full:
                    raise StorageError(f"{path} is damaged; remove it, it will be fetched again")
                self.outline: Outline = found[0]
                self._map = mmap.mmap(self._descriptor, 0, access=mmap.ACCESS_READ)
            except BaseException:
                os.close(self._descriptor)
                raise
        self.map = self._map

    def view(self) -> memoryview:
        """All bytes, read-only."""
        return memoryview(self._map)[: self.outline.size]

    def chunk(self, chunk: int) -> memoryview:
        """The bytes of a chunk, read-only."""
        start = chunk * CHUNK_BYTES
        return memoryview(self._map)[start : start + self.outline.chunk_size(chunk)]

    def resident(self, chunk: int) -> bool:
        """Whether the chunk is in memory, as far as samples tell, so that touching it does not wait for the disk."""
        start = chunk * CHUNK_BYTES
        byte = bytearray(1)
        try:
            for offset in range(start, start + self.outline.chunk_size(chunk), _PROBE_BYTES):
                os.preadv(self._descriptor, [byte], offset, os.RWF_NOWAIT)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EOPNOTSUPP):
                return False
            raise
        return True

    def load(self, chunk: int) -> None:
        """Bring a chunk into memory; blocks."""
        os.pread(self._descriptor, self.outline.chunk_size(chunk), chunk * CHUNK_BYTES)

    def read_ahead(self, first: int, last: int) -> None:
        """Have the system begin to read these chunks; returns at once."""
        os.posix_fadvise(
            self._descriptor, first * CHUNK_BYTES, (last - first + 1) * CHUNK_BYTES, os.POSIX_FADV_WILLNEED
        )

    def read(self, offset: int, count: int) -> bytes:
        """A copy of some bytes; blocks."""
        return os.pread(self._descriptor, min(count, max(0, self.outline.size - offset)), offset)

    def close(self) -> None:
        """Nothing more is read through this; views stay good. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
