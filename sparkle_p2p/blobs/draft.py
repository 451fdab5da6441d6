"""A blob that somebody else writes: a file in the store's folder that becomes a blob without being copied."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Self

from blake3 import blake3

from sparkle_p2p.blobs.files import disk_errors, read_into, sync_folder, write_all
from sparkle_p2p.blobs.layout import SETTLED, tail
from sparkle_protocol.blobs.bitmap import Bitmap
from sparkle_protocol.blobs.tree import CHUNK_BYTES, BlobId, Outline
from sparkle_protocol.errors import StorageError


class Draft:
    """A file of known size that another process fills. Gone on leaving unless it was published.

    Args:
        path: where it is made; empty at first.
        size: of the blob that it is to become.
        adopt: gives the finished file its name in the store.
        left: called once, when nothing is written any more.
    """

    def __init__(
        self, path: Path, size: int, adopt: Callable[[Path, Outline], None], left: Callable[[], None]
    ) -> None:
        self.path = path
        self._size = size
        self._adopt = adopt
        self._left = left
        with disk_errors("write", path):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))

    def publish(self) -> BlobId:
        """Make it a blob, on the medium for good; blocks. Nobody may write it any more. Raises StorageError."""
        with disk_errors("read", self.path):
            descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            with disk_errors("write", self.path):
                if os.fstat(descriptor).st_size != self._size:
                    raise StorageError(f"{self.path} was to have {self._size} bytes when it was finished")
                outline = _outline_of(descriptor, self._size)
                have = Bitmap(outline.chunks)
                for chunk in range(outline.chunks):
                    have.add(chunk)
                write_all(descriptor, [tail(outline, have, SETTLED)], self._size)
                os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
        self._adopt(self.path, outline)
        with disk_errors("write", self.path):
            sync_folder(self.path.parent)
        return outline.id

    def discard(self) -> None:
        """Nothing is written any more: an unpublished file is gone. Idempotent."""
        self.path.unlink(missing_ok=True)
        self._left()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()


def _outline_of(descriptor: int, size: int) -> Outline:
    buffer = memoryview(bytearray(CHUNK_BYTES))
    hashes = bytearray()
    for offset in range(0, size, CHUNK_BYTES):
        piece = buffer[: min(CHUNK_BYTES, size - offset)]
        if read_into(descriptor, piece, offset) != len(piece):
            raise StorageError("a file became shorter while it was read; another program may have changed it")
        hashes += blake3(piece).digest()
    return Outline(size, bytes(hashes))
