"""What a unit's processes read and write: files with plain bytes, also where the blobs of the job are sealed.

Blobs of an open job are such files themselves. Those of a sealed job are opened into scratch files, which nobody but
this node's user can read, which no peer can ask for, and which are gone when the unit is: at the latest after the
next start. They count as blobs as far as the disk is concerned.
"""

import contextlib
import mmap
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparkle_p2p.blobs.files import disk_errors, read_into, write_all
from sparkle_p2p.blobs.sealing import PIECE_BYTES, JobCipher, input_label, result_label, sealed_bytes
from sparkle_p2p.network_key import NetworkKey
from sparkle_p2p.node.array_units import ArrayUnit
from sparkle_p2p.node.data_plane import DataPlane, to_its_end
from sparkle_protocol.blobs.tree import BlobId
from sparkle_protocol.errors import ConfigError, StorageError
from sparkle_protocol.facts import JobSpec, is_encrypted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sparkle_p2p.blobs.store import BlobStore


@dataclass(frozen=True, slots=True)
class NewResult:
    """A file for the plain bytes of a unit's result; ``publish`` gives the blob that came of it."""

    path: Path
    publish: Callable[[], Awaitable[BlobId]]


def cipher_of(key: NetworkKey | None, spec: JobSpec) -> JobCipher | None:
    """What opens the blobs of a job; None if they are not sealed. Raises ConfigError (this node has no key)."""
    if not is_encrypted(spec):
        return None
    if key is None:
        raise ConfigError("the job is sealed and this node has no network key; start it with --network-key FILE")
    return JobCipher(key, spec.blob_salt)


@contextlib.asynccontextmanager
async def plain_tiles(plane: DataPlane, spec: JobSpec, unit: ArrayUnit) -> AsyncIterator[list[Path]]:
    """Files that begin with the plain bytes of a unit's tiles, which are here and kept.

    Raises:
        RemoteProtocolError: a tile does not open.
        ConfigError: this node has no network key.
        StorageError: there is no space for them.
    """
    cipher = cipher_of(plane.network_key, spec)
    if cipher is None:
        yield [plane.path(blob) for blob in unit.blobs]
        return
    async with contextlib.AsyncExitStack() as files:
        paths = []
        for blob, position, type_ in zip(unit.blobs, unit.positions, unit.types, strict=True):
            label = input_label(position)
            paths.append(await files.enter_async_context(_opened(plane, cipher, label, blob, type_.nbytes)))
        yield paths


@contextlib.asynccontextmanager
async def plain_result(plane: DataPlane, spec: JobSpec, unit: ArrayUnit, blob: BlobId) -> AsyncIterator[Path]:
    """A file that begins with the plain bytes of a result, which is here and kept. Raises as ``plain_tiles``."""
    cipher = cipher_of(plane.network_key, spec)
    if cipher is None:
        yield plane.path(blob)
        return
    async with _opened(plane, cipher, result_label(unit.index), blob, unit.result.nbytes) as path:
        yield path


@contextlib.asynccontextmanager
async def new_result(plane: DataPlane, spec: JobSpec, unit: ArrayUnit) -> AsyncIterator[NewResult]:
    """A file that a process fills with a unit's result. Raises StorageError, ConfigError."""
    cipher = cipher_of(plane.network_key, spec)
    async with plane.draft(unit.result.nbytes) as draft:
        if cipher is None:
            yield NewResult(draft.path, lambda: plane.publish(draft))
        else:
            label, size = result_label(unit.index), unit.result.nbytes
            yield NewResult(
                draft.path, lambda: to_its_end(lambda: _seal(plane.store, cipher, label, draft.path, size))
            )


@contextlib.asynccontextmanager
async def _opened(plane: DataPlane, cipher: JobCipher, label: bytes, blob: BlobId, size: int) -> AsyncIterator[Path]:
    async with plane.draft(size) as scratch:
        await to_its_end(lambda: _open_into(plane.store, cipher, label, blob, size, scratch.path))
        yield scratch.path


def _open_into(store: "BlobStore", cipher: JobCipher, label: bytes, blob: BlobId, size: int, path: Path) -> None:
    with disk_errors("write", path), path.open("r+b") as file:
        _open_to(store, cipher, label, blob, size, file.fileno())


def _open_to(store: "BlobStore", cipher: JobCipher, label: bytes, blob: BlobId, size: int, descriptor: int) -> None:
    with store.open(blob) as reader:  # read, not mapped: what is mapped counts as this process's memory
        offset = 0
        for piece in cipher.open(label, size, reader.outline.size, reader.read):
            write_all(descriptor, [piece], offset)
            offset += len(piece)


def _seal(store: "BlobStore", cipher: JobCipher, label: bytes, path: Path, size: int) -> BlobId:
    with disk_errors("read", path), path.open("rb") as file:
        if os.fstat(file.fileno()).st_size != size:
            raise StorageError(f"{path} was to have {size} bytes when it was finished")
        return store.put_pieces(cipher.seal(label, size, _pieces_of(file.fileno())), size_hint=sealed_bytes(size))


def _pieces_of(descriptor: int) -> Iterator[memoryview]:
    """A file's content; each piece is good until the next one is taken. Not mapped: another process has it open."""
    buffer = memoryview(bytearray(PIECE_BYTES))
    offset = 0
    while count := read_into(descriptor, buffer, offset):
        yield buffer[:count]
        offset += count


def opened_array(
    store: "BlobStore", cipher: JobCipher, unit: int, blob: BlobId, dtype: str, shape: tuple[int, ...], folder: Path
) -> "NDArray[Any]":
    """A sealed result as an array in a nameless file of a folder; blocks. It goes with the array.

    Raises:
        RemoteProtocolError: it does not open.
        StorageError: it is not here, or cannot be written.
    """
    import numpy as np

    size = int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
    with disk_errors("write", folder), tempfile.TemporaryFile(dir=folder) as file:
        os.posix_fallocate(file.fileno(), 0, max(1, size))
        _open_to(store, cipher, result_label(unit), blob, size, file.fileno())
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.frombuffer(mapped, dtype=dtype, count=int(np.prod(shape, dtype=object))).reshape(shape)
