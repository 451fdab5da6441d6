"""A blob that is made here: written as it comes, named when it is complete."""

import os
from pathlib import Path
from typing import Self

from blake3 import blake3

from sparkle_p2p.blobs.files import disk_errors, write_all
from sparkle_p2p.blobs.layout import SETTLED, tail
from sparkle_protocol.blobs.bitmap import Bitmap
from sparkle_protocol.blobs.tree import CHUNK_BYTES, MAX_BLOB_BYTES, Outline
from sparkle_protocol.errors import ConfigError


class NewBlob:
    """Content of which only its beginning is known. The file is gone on leaving unless it was published."""

    def __init__(self, path: Path) -> None:
        self.size = 0
        self._path = path
        self._hashes = bytearray()
        self._hasher = blake3()
        self._published = False
        with disk_errors("write", path):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def write(self, data: memoryview) -> None:
        """What comes next. Raises StorageError, ConfigError (too large)."""
        if self.size + len(data) > MAX_BLOB_BYTES:
            raise ConfigError(f"a blob has at most {MAX_BLOB_BYTES >> 30} GiB; cut the data into several")
        with disk_errors("write", self._path):
            write_all(self._descriptor, [data], self.size)
        while len(data):
            part = data[: CHUNK_BYTES - self.size % CHUNK_BYTES]
            self._hasher.update(part)
            self.size += len(part)
            data = data[len(part) :]
            if self.size % CHUNK_BYTES == 0:
                self._end_chunk()

    def _end_chunk(self) -> None:
        self._hashes += self._hasher.digest()
        self._hasher.reset()

    def complete(self) -> Outline:
        """That was all: have it on the medium. Raises StorageError."""
        if self.size % CHUNK_BYTES:
            self._end_chunk()
        outline = Outline(self.size, bytes(self._hashes))
        have = Bitmap(outline.chunks)
        for chunk in range(outline.chunks):
            have.add(chunk)
        with disk_errors("write", self._path):
            write_all(self._descriptor, [tail(outline, have, SETTLED)], self.size)
            os.fdatasync(self._descriptor)
        return outline

    def publish(self, path: Path) -> None:
        """Give it its name."""
        with disk_errors("write", path):
            self._path.rename(path)
        self._published = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
        if not self._published:
            self._path.unlink(missing_ok=True)
