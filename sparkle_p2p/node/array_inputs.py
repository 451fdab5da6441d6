"""From a user's files to the inputs of a job: arrays that are cut into tiles and stored as blobs.

Files are read by their first bytes, not by their names: ``.npy`` (which may be larger than memory) and ``.png`` of
eight bits per channel (height x width, or height x width x channels).

A ``.npy`` file is copied into the store's folder first, and the copy is mapped: whoever reads a mapped file that
somebody else makes shorter is ended by the system (SIGBUS), and one that is written to meanwhile gives tiles that
never were one array. A file that changes while it is copied is refused.
"""

import mmap
import os
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import TYPE_CHECKING, Any

from sparkle_p2p.blobs.files import disk_errors, read_into, write_all
from sparkle_p2p.blobs.sealing import JobCipher, input_label, sealed_bytes
from sparkle_p2p.network_key import NetworkKey
from sparkle_p2p.node.memory import UnitMemory, mib, says_most
from sparkle_p2p.node.narrate import many
from sparkle_p2p.view import SubmitRequest
from sparkle_protocol.blobs.tree import BlobId
from sparkle_protocol.errors import ConfigError
from sparkle_protocol.facts import SALT_BYTES
from sparkle_worker.kernels.arrays import ArrayKernel, array_type
from sparkle_worker.kernels.registry import get_array_kernel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sparkle_p2p.blobs.store import BlobStore

PIECE_BYTES = 4 << 20  # of a file that is copied
STORING = 3  # tiles at a time, all in memory: while the disk takes one, the next is hashed and another one cut
NPY_MAGIC = b"\x93NUMPY"
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"

_PNG_MODES = {"L": "L", "RGB": "RGB", "RGBA": "RGBA", "LA": "LA", "1": "L"}


@dataclass(frozen=True, slots=True)
class CutJob:
    """A job whose inputs are stored."""

    kernel: ArrayKernel
    params: dict[str, Any]
    units: int
    inputs: tuple[BlobId, ...]  # pinned, each once
    salt: bytes = b""  # not empty: they are sealed with it


def cut_job(
    request: SubmitRequest,
    store: "BlobStore",
    memory: UnitMemory,
    stopped: threading.Event,
    on_tile: Callable[[int, int], None],
    sealed_with: NetworkKey | None = None,
) -> CutJob:
    """Store the inputs of a requested job; blocks. Memory stays flat. What was pinned is let go on a failure.

    Args:
        request: what the user wants.
        store: where its tiles go.
        memory: what a unit may use.
        stopped: set when nobody wants the job any more.
        on_tile: told how many tiles and bytes are stored.
        sealed_with: the key of the network, if nobody without it may read them.

    Raises:
        ConfigError: the files, or what is to be done with them, cannot work; one sentence.
        StorageError: the tiles cannot be stored.
    """
    kernel = get_array_kernel(request.kernel)
    with ExitStack() as copies:
        arrays = _opened(request.inputs, store, copies, stopped)
        return _cut(kernel, request, arrays, store, memory, stopped, on_tile, sealed_with)


def _opened(
    inputs: Mapping[str, str], store: "BlobStore", copies: ExitStack, stopped: threading.Event
) -> "dict[str, NDArray[Any]]":
    """All arrays, read at a time."""
    with ThreadPoolExecutor(STORING, thread_name_prefix="sparkle-cut") as threads:
        opening = {key: threads.submit(open_array, key, path, store, copies, stopped) for key, path in inputs.items()}
    return {key: opened.result() for key, opened in opening.items()}


def _cut(
    kernel: ArrayKernel,
    request: SubmitRequest,
    arrays: "Mapping[str, NDArray[Any]]",
    store: "BlobStore",
    memory: UnitMemory,
    stopped: threading.Event,
    on_tile: Callable[[int, int], None],
    sealed_with: NetworkKey | None,
) -> CutJob:
    params = kernel.with_arrays(request.params, {name: array_type(name, array) for name, array in arrays.items()})
    units = choose_units(kernel, params, request.units, memory)
    salt = secrets.token_bytes(SALT_BYTES) if sealed_with is not None else b""
    cipher = JobCipher(sealed_with, salt) if sealed_with is not None else None

    def put(position: int, tile: "NDArray[Any]") -> BlobId:
        return store.put_array(tile, pin=True) if cipher is None else _put_sealed(store, cipher, position, tile)

    def told(tiles: int, size: int) -> None:
        _forget_pages(arrays)
        on_tile(tiles, size)

    inputs = _stored(kernel.tiles(params, units, arrays), put, store, stopped, told)
    return CutJob(kernel, params, units, inputs, salt)


def _stored(
    tiles: "Iterable[NDArray[Any]]",
    put: "Callable[[int, NDArray[Any]], BlobId]",
    store: "BlobStore",
    stopped: threading.Event,
    on_tile: Callable[[int, int], None],
) -> tuple[BlobId, ...]:
    """Store tiles, ``STORING`` at a time, and pin them; the ids in order, or nothing is pinned."""
    coming: deque[tuple[Future[BlobId], int]] = deque()
    inputs: list[BlobId] = []
    size = 0

    def take() -> None:
        nonlocal size
        putting, tile_bytes = coming[0]
        inputs.append(putting.result())
        coming.popleft()
        size += tile_bytes
        on_tile(len(inputs), size)

    with ThreadPoolExecutor(STORING, thread_name_prefix="sparkle-cut") as threads:
        try:
            for position, tile in enumerate(tiles):
                _check_wanted(stopped)
                coming.append((threads.submit(put, position, tile), tile.nbytes))
                if len(coming) == STORING:
                    take()
            while coming:
                take()
        except BaseException:
            inputs += [putting.result() for putting, _ in coming if putting.exception() is None]
            for blob in inputs:
                store.unpin(blob)
            raise
    return tuple(inputs)


def _put_sealed(store: "BlobStore", cipher: JobCipher, position: int, tile: "NDArray[Any]") -> BlobId:
    from sparkle_p2p.blobs.arrays import pieces_of

    pieces = cipher.seal(input_label(position), tile.nbytes, pieces_of(tile))
    return store.put_pieces(pieces, size_hint=sealed_bytes(tile.nbytes), pin=True)


def _forget_pages(arrays: "Mapping[str, NDArray[Any]]") -> None:
    """What was read of mapped files need not count as memory of this process; it is still in the system's cache."""
    for array in arrays.values():
        if isinstance(array.base, mmap.mmap):
            array.base.madvise(mmap.MADV_DONTNEED)


def _check_wanted(stopped: threading.Event) -> None:
    if stopped.is_set():
        raise ConfigError("the job was given up before it was submitted")


def choose_units(kernel: ArrayKernel, params: Mapping[str, Any], wanted: int | None, memory: UnitMemory) -> int:
    """How many units to make, so that each fits into a worker's memory. Raises ConfigError."""
    least = kernel.least_units(params, memory.most)
    if wanted is None:
        limit = memory.good
        try:
            fewest = kernel.least_units(params, limit)
        except ConfigError:  # fewer workers can take part
            limit, fewest = memory.most, least
        units = max(fewest, kernel.default_units(params))
        return units if _fits(kernel, params, units, limit) else fewest
    most = kernel.max_units(params)
    if type(wanted) is not int or not 1 <= wanted <= most:
        raise ConfigError(f"this {kernel.name} job can be cut into 1 to {most} units, not {wanted}")
    if not _fits(kernel, params, wanted, memory.most):
        needs = kernel.cost(kernel.unit(params, wanted, 0)).memory_bytes
        raise ConfigError(
            f"a unit of this {kernel.name} job in {many(wanted, 'unit')} needs {mib(needs)} MB, "
            f"{says_most(memory.most)}; cut it into {least} units or more"
        )
    return wanted


def _fits(kernel: ArrayKernel, params: Mapping[str, Any], units: int, memory_bytes: int) -> bool:
    some = {0, units // 2, units - 1}  # the largest is among these, or hardly larger
    return all(kernel.cost(kernel.unit(params, units, index)).memory_bytes <= memory_bytes for index in some)


# --- files ------------------------------------------------------------------------------------------------


def open_array(
    name: str, path: str, store: "BlobStore", copies: ExitStack, stopped: threading.Event
) -> "NDArray[Any]":
    """The array in a user's file; nothing that is done to the file later changes it.

    Args:
        name: of the input.
        path: of the file.
        store: has a copy of it in its folder,
        copies: until this is left.
        stopped: set when nobody wants the array any more.

    Raises:
        ConfigError: it cannot be used; one sentence.
        StorageError: there is no room for a copy.
    """
    file = Path(path)
    if not file.is_absolute():
        raise ConfigError(f"the file of the input '{name}' must be given with its whole path, not as {path[:200]}")
    try:
        if not file.is_file():
            raise ConfigError(f"the file of the input '{name}' does not exist: {path[:200]}")
        with file.open("rb") as opened:
            start = opened.read(len(PNG_MAGIC))
    except OSError as error:
        raise ConfigError(_unreadable(name, path, error)) from error
    if start.startswith(NPY_MAGIC):
        return _array_of(name, file, store, copies, stopped)
    if start == PNG_MAGIC:
        return _picture(name, file)
    raise ConfigError(
        f"the input '{name}' is neither a .npy nor a .png file: {path[:200]}; write one with numpy.save"
    )


def _array_of(
    name: str, file: Path, store: "BlobStore", copies: ExitStack, stopped: threading.Event
) -> "NDArray[Any]":
    import numpy as np

    try:
        with file.open("rb") as opened:
            shape, dtype = _header(opened)
            if dtype.hasobject or 0 in shape:
                return np.empty(shape if 0 in shape else (1,), dtype)  # ``array_type`` says what is wrong with it
            size = opened.tell() + int(np.prod(shape, dtype=object)) * dtype.itemsize
            if os.fstat(opened.fileno()).st_size < size:
                raise ConfigError(f"the file of the input '{name}' ends too early: {file}; write it anew")
            copy = copies.enter_context(store.draft(size)).path
            if not _copied(opened.fileno(), size, copy, stopped):
                raise ConfigError(
                    f"the file of the input '{name}' changed while it was read: {file}; "
                    "submit the job again when nobody writes to it"
                )
        loaded = np.load(copy, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise ConfigError(_unreadable(name, str(file), error)) from error
    except (ValueError, EOFError, TypeError, SyntaxError, TokenError, RecursionError) as error:
        raise ConfigError(
            f"the input '{name}' is no array that NumPy can read: {file} ({str(error)[:120]})"
        ) from error
    return loaded  # type: ignore[no-any-return]


def _copied(source: int, size: int, target: Path, stopped: threading.Event) -> bool:
    """Copy that many bytes; False when the file became another meanwhile."""
    before, done = os.fstat(source), 0
    buffer = memoryview(bytearray(min(size, PIECE_BYTES)))
    with disk_errors("write", target):
        descriptor = os.open(target, os.O_WRONLY | os.O_CLOEXEC)
    try:
        while done < size:
            _check_wanted(stopped)
            count = read_into(source, buffer[: size - done], done)
            if not count:
                return False
            with disk_errors("write", target):
                write_all(descriptor, [buffer[:count]], done)
            done += count
    finally:
        os.close(descriptor)
    after = os.fstat(source)
    return (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def _header(opened: Any) -> "tuple[tuple[int, ...], np.dtype[Any]]":
    from numpy.lib import format as npy

    major, _ = npy.read_magic(opened)
    read = npy.read_array_header_1_0 if major == 1 else npy.read_array_header_2_0
    if major > 2:  # only names of fields differ, and records are refused
        raise ValueError("it holds records")
    shape, _, dtype = read(opened)
    return shape, dtype


def _picture(name: str, file: Path) -> "NDArray[Any]":
    import numpy as np
    from PIL import Image

    try:
        with Image.open(file, formats=("PNG",)) as picture:
            mode = picture.mode
            if mode == "P":
                mode = "RGBA" if "transparency" in picture.info else "RGB"
            elif mode not in _PNG_MODES:
                raise ConfigError(
                    f"the picture '{name}' has more than 8 bits per channel ({mode}); save it with 8, or as .npy"
                )
            return np.asarray(picture.convert(_PNG_MODES[mode]))
    except (Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise ConfigError(f"the picture '{name}' cannot be read: {file} ({str(error)[:120]})") from error
    except OSError as error:
        raise ConfigError(_unreadable(name, str(file), error)) from error


def _unreadable(name: str, path: str, error: OSError) -> str:
    return f"the file of the input '{name}' cannot be read: {path[:200]} ({(error.strerror or str(error)).lower()})"
