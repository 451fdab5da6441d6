"""The blobs of a node: found by their id, within a quota, the least recently needed ones given up first.

All methods may be called from any thread. Those that read, write or remove content block; the others take no longer
than renaming a file.
"""

import contextlib
import os
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sparkle_p2p.blobs.draft import Draft
from sparkle_p2p.blobs.files import disk_errors, read_into, sync_folder
from sparkle_p2p.blobs.layout import (
    NEW,
    PART,
    SETTLED,
    boot_id,
    mark_settled,
    read_tail,
    read_trailer,
    tail_bytes,
)
from sparkle_p2p.blobs.partial import Partial
from sparkle_p2p.blobs.reader import BlobReader
from sparkle_p2p.blobs.writing import NewBlob
from sparkle_protocol.blobs.tree import CHUNK_BYTES, BlobId, Buffer, Outline
from sparkle_protocol.errors import ConfigError, LocalProtocolError, NotFound, StorageError
from sparkle_protocol.ids import HASH_BYTES

if TYPE_CHECKING:
    import numpy

DEFAULT_QUOTA_BYTES = 20 << 30
SPARE_BYTES = 64 << 20  # of the disk that blobs never take: the node's database needs to write


@dataclass(slots=True)
class _Entry:
    """One file of the store."""

    size: int  # of the blob; a partial one counts in full
    needed_s: float  # when somebody last asked for it
    complete: bool
    settled: bool = False  # a power cut does not harm it


class BlobStore:
    """The folder ``blobs`` of a home directory.

    A blob that nobody pinned may be evicted at any time by one that needs its space: pin what you rely on.
    Pins last as long as the process: the node pins anew what its records name before it begins to store.
    """

    def __init__(self, folder: Path, quota_bytes: int = DEFAULT_QUOTA_BYTES, *, boot: bytes | None = None) -> None:
        self._folder = folder
        self._quota = quota_bytes
        self._boot = boot_id() if boot is None else boot
        self._lock = threading.RLock()
        self._entries: dict[BlobId, _Entry] = {}
        self._trash: list[Path] = []  # files of evicted blobs, emptied by who evicted them
        self._pins: Counter[BlobId] = Counter()
        self._writing: dict[str, int] = {}  # names of files that are being written, and what they may take
        with disk_errors("use", folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._scan()

    def _scan(self) -> None:
        for path in sorted(self._folder.iterdir()):
            if path.name.startswith(NEW):
                path.unlink()  # nobody can know its name
                continue
            blob = _blob_of(path.name)
            if blob is None or not path.is_file():
                continue
            if blob in self._entries:  # this is its .part
                if self._entries[blob].complete:
                    path.unlink()
                continue
            with path.open("rb") as file:
                found = read_trailer(file.fileno())
            if found is None:
                path.unlink()
                continue
            size, boot = found
            complete = path.suffix != PART and boot in (SETTLED, self._boot) and boot != bytes(16)
            needed_s = path.stat().st_mtime
            if not complete:  # perhaps written before the machine went down: its chunks are hashed when it is begun
                path = path.rename(self._part(blob))
            self._entries[blob] = _Entry(size, needed_s, complete, settled=boot == SETTLED)

    # --- what is there ----------------------------------------------------------------------------------------

    @property
    def used_bytes(self) -> int:
        """What blobs take, those that are arriving in full."""
        with self._lock:
            return sum(_disk_bytes(entry.size) for entry in self._entries.values()) + sum(self._writing.values())

    @property
    def quota_bytes(self) -> int:
        """What they may take."""
        return self._quota

    def ids(self) -> list[BlobId]:
        """All complete blobs."""
        with self._lock:
            return sorted(blob for blob, entry in self._entries.items() if entry.complete)

    def __contains__(self, blob: BlobId) -> bool:
        with self._lock:
            entry = self._entries.get(blob)
            return entry is not None and entry.complete

    def size(self, blob: BlobId) -> int:
        """Bytes of a complete blob. Raises NotFound."""
        with self._lock:
            return self._complete(blob).size

    def _complete(self, blob: BlobId) -> _Entry:
        entry = self._entries.get(blob)
        if entry is None or not entry.complete:
            raise NotFound(f"blob {blob.hex()[:12]} is not on this node")
        return entry

    def path(self, blob: BlobId) -> Path:
        """The file that begins with the blob's bytes (``size`` of them), while it is not evicted."""
        return self._folder / blob.hex()

    # --- reading ----------------------------------------------------------------------------------------------

    def open(self, blob: BlobId) -> BlobReader:
        """Read a complete blob. Raises NotFound, StorageError."""
        with self._lock:
            self._need(blob, self._complete(blob))
        try:
            return BlobReader(self.path(blob))
        except StorageError as error:
            if self.path(blob).exists():
                raise
            with self._lock:  # it was evicted just now, or somebody tidied up
                self._entries.pop(blob, None)
            raise NotFound(f"blob {blob.hex()[:12]} is not on this node any more") from error

    def open_array(self, blob: BlobId, dtype: str, shape: tuple[int, ...]) -> "numpy.ndarray":
        """The blob as a read-only array that is the file itself, in C order.

        Args:
            blob: the id of a complete blob.
            dtype: as NumPy writes it, such as ``<f4``.
            shape: whose product times the item's size must be the blob's size.

        Raises:
            NotFound, StorageError: it is not here, or cannot be read.
            ConfigError: it is no such array.
        """
        from sparkle_p2p.blobs.arrays import array_of

        with self.open(blob) as reader:
            return array_of(reader, dtype, shape)

    # --- new content ------------------------------------------------------------------------------------------

    def put_file(self, path: Path) -> BlobId:
        """Take a copy of a file. Memory stays flat. Raises StorageError, ConfigError."""
        try:
            with path.open("rb") as file:
                return self.put_pieces(_pieces_of(file.fileno()), size_hint=os.fstat(file.fileno()).st_size)
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error

    def put_bytes(self, data: Buffer) -> BlobId:
        """Take these bytes. Raises StorageError."""
        view = memoryview(data).cast("B") if len(data) else memoryview(b"")
        return self.put_pieces((view,), size_hint=len(view))

    def put_array(self, array: "numpy.ndarray", *, pin: bool = False) -> BlobId:
        """Take an array's items in C order, little-endian. Raises StorageError, ConfigError (object dtype)."""
        from sparkle_p2p.blobs.arrays import pieces_of

        return self.put_pieces(pieces_of(array), size_hint=array.nbytes, pin=pin)

    def put_pieces(self, pieces: Iterable[Buffer], *, size_hint: int = 0, pin: bool = False) -> BlobId:
        """Take content as it comes, in pieces of any size; pinned at once if wanted. Memory stays flat.

        Raises:
            StorageError: there is no room for it.
        """
        name = NEW + secrets.token_hex(8)
        try:
            self._grow(name, size_hint)
            with NewBlob(self._folder / name) as new:
                for piece in pieces:
                    view = memoryview(piece).cast("B") if len(piece) else memoryview(b"")
                    for start in range(0, len(view), CHUNK_BYTES):
                        part = view[start : start + CHUNK_BYTES]
                        self._grow(name, new.size + len(part))
                        new.write(part)
                outline = new.complete()
                with self._lock:
                    self._take_in(outline, new.publish)
                    if pin:
                        self.pin(outline.id)
        finally:
            with self._lock:
                self._writing.pop(name, None)
            self._sweep()
        with disk_errors("write", self._folder):
            sync_folder(self._folder)
        return outline.id

    def draft(self, size: int) -> Draft:
        """A file that another process fills with a blob of that size; use it as a context. Raises StorageError."""
        name = NEW + secrets.token_hex(8)

        def left() -> None:
            with self._lock:
                self._writing.pop(name, None)
            self._sweep()

        self._grow(name, size)
        try:
            return Draft(self._folder / name, size, lambda path, outline: self._take_in(outline, path.rename), left)
        except BaseException:
            left()
            raise

    def _take_in(self, outline: Outline, publish: Callable[[Path], object]) -> None:
        """A blob was made here: give it its name, unless it is here already."""
        blob = outline.id
        with self._lock:
            if blob not in self:
                if blob.hex() + PART not in self._writing:
                    self._evict(blob)  # what came of it from others
                with disk_errors("write", self.path(blob)):
                    publish(self.path(blob))
                self._entries[blob] = _Entry(outline.size, time.time(), True, True)
            self._need(blob, self._entries[blob])

    def _grow(self, name: str, size: int) -> None:
        """Reserve space for a file whose size may not be known yet."""
        with self._lock:
            more = _disk_bytes(size) - self._writing.get(name, 0)
            if more > 0:
                self._make_room(more)
                self._writing[name] = _disk_bytes(size)
        self._sweep()

    # --- arriving content -------------------------------------------------------------------------------------

    def outline(self, blob: BlobId) -> Outline | None:
        """What the blob consists of, if it is here or on its way; None if nobody knows here."""
        with self._lock:
            entry = self._entries.get(blob)
        if entry is None:
            return None
        path = self.path(blob) if entry.complete else self._part(blob)
        try:
            with path.open("rb") as file:
                found = read_tail(file.fileno())
        except OSError:
            return None
        return found[0] if found is not None and found[0].id == blob else None

    def begin(self, outline: Outline) -> Partial:
        """Receive a blob, or go on receiving it. Raises StorageError (it does not fit), LocalProtocolError."""
        blob = outline.id
        name = blob.hex() + PART
        with self._lock:
            if blob in self:
                raise LocalProtocolError("the blob is already there")
            if name in self._writing:
                raise LocalProtocolError("the blob is already being received")
            known = self._entries.pop(blob, None)
            try:
                self._make_room(_disk_bytes(outline.size), _allocated(self._part(blob)))
            except StorageError:
                if known is not None:
                    self._entries[blob] = known
                raise
            self._writing[name] = _disk_bytes(outline.size)
        self._sweep()

        def left(complete: bool, settled: bool) -> None:
            with self._lock:
                self._writing.pop(name, None)
                if blob not in self:
                    self._entries[blob] = _Entry(outline.size, time.time(), complete, settled)

        try:
            return Partial(self._part(blob), self.path(blob), outline, self._boot, left)
        except BaseException:
            with self._lock:
                self._writing.pop(name, None)
            raise

    def settle(self, blob: BlobId) -> None:
        """Return when a power cut cannot harm this complete blob any more. Raises NotFound, StorageError."""
        with self._lock:
            entry = self._complete(blob)
        if entry.settled:
            return
        with disk_errors("write", self.path(blob)), self.path(blob).open("r+b") as file:
            mark_settled(file.fileno(), entry.size)
            sync_folder(self._folder)
        entry.settled = True

    def unsettled(self) -> list[BlobId]:
        """Complete blobs that ``settle`` has not made sure of yet."""
        with self._lock:
            return sorted(b for b, entry in self._entries.items() if entry.complete and not entry.settled)

    def _part(self, blob: BlobId) -> Path:
        return self._folder / (blob.hex() + PART)

    # --- space ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def pinned(self, blob: BlobId) -> Iterator[None]:
        """Keep a blob while this lasts."""
        self.pin(blob)
        try:
            yield
        finally:
            self.unpin(blob)

    def pin(self, blob: BlobId) -> None:
        """Never evict this blob, which need not be there yet; as often as ``unpin`` is called later."""
        with self._lock:
            self._pins[blob] += 1

    def unpin(self, blob: BlobId) -> None:
        """The caller needs it no longer."""
        with self._lock:
            self._pins[blob] -= 1
            if self._pins[blob] <= 0:
                del self._pins[blob]

    def remove(self, blob: BlobId) -> None:
        """Forget a blob, complete or not; open readers keep what they have."""
        with self._lock:
            self._evict(blob)
        self._sweep()

    def _evict(self, blob: BlobId) -> None:
        """Take a blob's name away; giving its space back may take the disk a while, and is done without the lock."""
        if self._entries.pop(blob, None) is None:
            return
        for path in (self.path(blob), self._part(blob)):
            nameless = self._folder / (NEW + secrets.token_hex(8))
            with disk_errors("remove", path):
                if path.exists():
                    path.rename(nameless)
                    self._trash.append(nameless)

    def _sweep(self) -> None:
        """Give the space of evicted blobs back, before what needs it is written."""
        while True:
            with self._lock:
                if not self._trash:
                    return
                path = self._trash.pop()
            with disk_errors("remove", path):
                path.unlink(missing_ok=True)

    def _need(self, blob: BlobId, entry: _Entry) -> None:
        """Somebody asked for it: its turn to be evicted comes later. Kept on disk as the file's time."""
        entry.needed_s = time.time()
        with contextlib.suppress(OSError):
            os.utime(self.path(blob))

    def _make_room(self, count: int, present: int = 0) -> None:
        """Evict until so many more bytes fit the quota and, but for those present, the disk.

        Raises:
            StorageError: they do not fit; nothing was evicted.
        """
        over = self.used_bytes + count - self._quota
        with disk_errors("use", self._folder):
            disk = os.statvfs(self._folder)
        short = count - present + SPARE_BYTES - disk.f_bavail * disk.f_frsize
        if max(over, short) <= 0:
            return
        chosen: list[BlobId] = []
        for blob, entry in sorted(self._entries.items(), key=lambda item: item[1].needed_s):
            if max(over, short) <= 0:
                break
            if blob not in self._pins:
                chosen.append(blob)
                over -= _disk_bytes(entry.size)
                short -= _disk_bytes(entry.size)
        if over > 0:
            raise StorageError(
                f"a blob of {_shown(count)} does not fit: blobs that are needed take {_shown(self.used_bytes)} "
                f"of {_shown(self._quota)}; raise the quota or end jobs that use them"
            )
        if short > 0:
            raise StorageError(f"a blob of {_shown(count)} does not fit: the disk is full; free some space")
        for blob in chosen:
            self._evict(blob)


def _blob_of(name: str) -> BlobId | None:
    name = name.removesuffix(PART)
    if len(name) != 2 * HASH_BYTES or name != name.lower():
        return None
    try:
        return BlobId(bytes.fromhex(name))
    except ValueError:
        return None


def _pieces_of(descriptor: int) -> Iterator[memoryview]:
    """A file's content; each piece is good until the next one is taken."""
    buffer = memoryview(bytearray(CHUNK_BYTES))
    offset = 0
    while count := read_into(descriptor, buffer, offset):
        yield buffer[:count]
        offset += count


def _allocated(path: Path) -> int:
    """Bytes that a file takes of the disk."""
    try:
        return path.stat().st_blocks * 512
    except OSError:
        return 0


def _disk_bytes(size: int) -> int:
    return size + tail_bytes(size)


def _shown(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
