"""A blob that is arriving: chunks in any order, each checked before it is written, none lost to a killed process."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from sparkle_p2p.blobs.files import disk_errors, read_into, sync_folder, write_all
from sparkle_p2p.blobs.layout import bitmap_offset, mark_settled, read_tail, tail
from sparkle_protocol.blobs.bitmap import Bitmap
from sparkle_protocol.blobs.tree import CHUNK_BYTES, Buffer, Outline
from sparkle_protocol.errors import LocalProtocolError, RemoteProtocolError, StorageError


class Partial:
    """The file of a blob that is not complete. Methods block; they may be called from several threads."""

    def __init__(
        self, path: Path, final: Path, outline: Outline, boot: bytes, left: Callable[[bool, bool], None]
    ) -> None:
        self.outline = outline
        self._path = path
        self._final = final
        self._boot = boot
        self._left = left  # told once: whether the blob is complete, and whether it was synced
        self._settled = False
        self._lock = threading.Lock()
        # Writes to one file exclude each other in the kernel, which spins: waiting here costs nothing.
        self._turn = threading.Lock()
        self._closed = False
        self._users = 0  # threads that use the descriptor: the last one closes it
        with disk_errors("write", path):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                self._have = self._resume()
            except BaseException:
                os.close(self._descriptor)
                raise

    def _resume(self) -> Bitmap:
        """Chunks that an earlier process left here; those it wrote before the machine went down are hashed anew."""
        found = read_tail(self._descriptor)
        if found is None or found[0] != self.outline:
            if os.fstat(self._descriptor).st_size:  # a file that was made empty is written out by ext4 on closing
                os.ftruncate(self._descriptor, 0)
            have = Bitmap(self.outline.chunks)
        else:
            have, boot = found[1], found[2]
            if boot == self._boot != bytes(16):
                return have
            buffer = memoryview(bytearray(CHUNK_BYTES))
            for chunk in list(have):
                count = read_into(self._descriptor, buffer[: self.outline.chunk_size(chunk)], chunk * CHUNK_BYTES)
                if not self.outline.fits(chunk, (buffer[:count],)):
                    have.discard(chunk)
        write_all(self._descriptor, [tail(self.outline, have, self._boot)], self.outline.size)
        return have

    @property
    def have(self) -> Bitmap:
        """The chunks that are on disk."""
        with self._lock:
            return self._have.copy()

    def write(self, chunk: int, pieces: Sequence[Buffer]) -> None:
        """Check a chunk's bytes, given as pieces in a row, and keep them.

        Raises:
            RemoteProtocolError: they are not the blob's; nothing was written.
            StorageError: the disk does not take them; what was there stays.
        """
        if sum(map(len, pieces)) != self.outline.chunk_size(chunk) or not self.outline.fits(chunk, pieces):
            raise RemoteProtocolError(f"chunk {chunk} is not what its hash says")
        with self._descriptor_in_use() as descriptor:
            with self._turn:
                write_all(descriptor, pieces, chunk * CHUNK_BYTES)
            with self._lock:
                self._have.add(chunk)
                place, byte = self._have.byte_of(chunk)
                try:
                    os.pwrite(descriptor, byte, bitmap_offset(self.outline) + place)
                except OSError:
                    self._have.discard(chunk)
                    raise

    def finish(self, *, durable: bool = True) -> None:
        """All chunks are there: give the blob its name, after syncing it if it is to survive a power cut now.

        Raises:
            StorageError: the disk does not take it.
        """
        if not self.have.full:
            raise LocalProtocolError("a blob is finished before all its chunks are there")
        with self._descriptor_in_use() as descriptor:
            if durable:
                mark_settled(descriptor, self.outline.size)
            self._path.rename(self._final)
            if durable:
                sync_folder(self._final.parent)
        self._settled = durable
        self._close(complete=True)

    def close(self) -> None:
        """Leave it as it is, to go on later. Idempotent; a write that is under way still ends."""
        self._close(complete=False)

    def _close(self, *, complete: bool) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if not self._users:
                os.close(self._descriptor)
        self._left(complete, self._settled)

    @contextmanager
    def _descriptor_in_use(self) -> Iterator[int]:
        with self._lock:
            if self._closed:
                raise StorageError("the transfer of this blob has ended")
            self._users += 1
        try:
            with disk_errors("write", self._path):
                yield self._descriptor
        finally:
            with self._lock:
                self._users -= 1
                if self._closed and not self._users:
                    os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
