"""From a user's files to the inputs of a job: arrays that are mapped, cut into tiles and stored as blobs.

Files are read by their first bytes, not by their names: ``.npy`` (mapped, so it may be larger than memory) and
``.png`` of eight bits per channel (height x width, or height x width x channels).
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import TYPE_CHECKING, Any

from sparkle_p2p.view import SubmitRequest
from sparkle_protocol.blobs.tree import BlobId
from sparkle_protocol.errors import ConfigError
from sparkle_worker.kernels.arrays import ArrayKernel, array_type
from sparkle_worker.kernels.registry import get_array_kernel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sparkle_p2p.blobs.store import BlobStore

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


def cut_job(
    request: SubmitRequest,
    store: "BlobStore",
    memory_bytes: int,
    stopped: threading.Event,
    on_tile: Callable[[int, int], None],
) -> CutJob:
    """Store the inputs of a requested job; blocks. Memory stays flat. What was pinned is let go on a failure.

    Args:
        request: what the user wants.
        store: where its tiles go.
        memory_bytes: what a unit may use.
        stopped: set when nobody wants the job any more.
        on_tile: told how many tiles and bytes are stored.

    Raises:
        ConfigError: the files, or what is to be done with them, cannot work; one sentence.
        StorageError: the tiles cannot be stored.
    """
    kernel = get_array_kernel(request.kernel)
    arrays = {name: open_array(name, path) for name, path in request.inputs.items()}
    params = kernel.with_arrays(request.params, {name: array_type(name, array) for name, array in arrays.items()})
    units = choose_units(kernel, params, request.units, memory_bytes)
    inputs = _stored(kernel.tiles(params, units, arrays), store, stopped, on_tile)
    return CutJob(kernel, params, units, inputs)


def _stored(
    tiles: "Iterable[NDArray[Any]]",
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
            for tile in tiles:
                if stopped.is_set():
                    raise ConfigError("the job was given up before it was submitted")
                coming.append((threads.submit(store.put_array, tile, pin=True), tile.nbytes))
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


def choose_units(kernel: ArrayKernel, params: Mapping[str, Any], wanted: int | None, memory_bytes: int) -> int:
    """How many units to make, so that each fits into a worker's memory. Raises ConfigError."""
    least = kernel.least_units(params, memory_bytes)
    if wanted is None:
        units = max(least, kernel.default_units(params))
        return units if _fits(kernel, params, units, memory_bytes) else least
    most = kernel.max_units(params)
    if type(wanted) is not int or not 1 <= wanted <= most:
        raise ConfigError(f"this {kernel.name} job can be cut into 1 to {most} units, not {wanted}")
    if not _fits(kernel, params, wanted, memory_bytes):
        needs = kernel.cost(kernel.unit(params, wanted, 0)).memory_bytes
        raise ConfigError(
            f"a unit of this {kernel.name} job in {wanted} units needs {_mb(needs)} MB, and workers have about "
            f"{_mb(memory_bytes)} MB; cut it into {least} units or more"
        )
    return wanted


def _fits(kernel: ArrayKernel, params: Mapping[str, Any], units: int, memory_bytes: int) -> bool:
    some = {0, units // 2, units - 1}  # the largest is among these, or hardly larger
    return all(kernel.cost(kernel.unit(params, units, index)).memory_bytes <= memory_bytes for index in some)


def _mb(size: int) -> int:
    return -(-size // 1_000_000)


# --- files ------------------------------------------------------------------------------------------------


def open_array(name: str, path: str) -> "NDArray[Any]":
    """The array in a user's file, mapped if it is ``.npy``. Raises ConfigError."""
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
        return _mapped(name, file)
    if start == PNG_MAGIC:
        return _picture(name, file)
    raise ConfigError(
        f"the input '{name}' is neither a .npy nor a .png file: {path[:200]}; write one with numpy.save"
    )


def _mapped(name: str, file: Path) -> "NDArray[Any]":
    import numpy as np

    try:
        with file.open("rb") as opened:
            shape, dtype = _header(opened)
            starts = opened.tell()
        if dtype.hasobject or 0 in shape:
            return np.empty(shape if 0 in shape else (1,), dtype)  # ``array_type`` says what is wrong with it
        if os.stat(file).st_size - starts < int(np.prod(shape, dtype=object)) * dtype.itemsize:
            raise ConfigError(f"the file of the input '{name}' ends too early: {file}; write it anew")
        loaded = np.load(file, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise ConfigError(_unreadable(name, str(file), error)) from error
    except (ValueError, EOFError, TypeError, SyntaxError, TokenError, RecursionError) as error:
        raise ConfigError(
            f"the input '{name}' is no array that NumPy can read: {file} ({str(error)[:120]})"
        ) from error
    return loaded  # type: ignore[no-any-return]


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
