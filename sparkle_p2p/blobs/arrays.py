"""Blobs as NumPy arrays: reading is mapping, nothing is copied; what has no fixed bytes is refused."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from sparkle_p2p.blobs.reader import BlobReader
from sparkle_protocol.blobs.tree import CHUNK_BYTES
from sparkle_protocol.errors import ConfigError

Array = np.ndarray[Any, np.dtype[Any]]
_KINDS = "biufc"  # bool, integers, floats, complex: the same bytes everywhere


def array_of(reader: BlobReader, dtype: str, shape: tuple[int, ...]) -> Array:
    """The reader's blob as a read-only array in C order. Raises ConfigError."""
    try:
        kind = np.dtype(dtype)
    except TypeError as error:
        raise ConfigError(f"'{dtype[:40]}' is not an array type; use one such as '<f4'") from error
    if kind.kind not in _KINDS:
        raise ConfigError(f"arrays of type '{kind}' do not travel; use numbers, such as float32")
    count = math.prod(shape) if all(length >= 0 for length in shape) else -1
    if count * kind.itemsize != reader.outline.size:
        raise ConfigError(f"a blob of {reader.outline.size} bytes is no array of shape {shape} and type '{kind}'")
    return np.frombuffer(reader.map, dtype=kind, count=count).reshape(shape)


def pieces_of(array: Array) -> Iterator[memoryview]:
    """An array's items in C order, little-endian, in pieces: what must be reordered is copied piece by piece.

    Raises:
        ConfigError: its items are objects, text or dates.
    """
    if array.dtype.kind not in _KINDS:
        raise ConfigError(f"arrays of type '{array.dtype}' do not travel; convert to numbers, such as float32")
    little = array.dtype.newbyteorder("<")
    if array.flags.c_contiguous and array.dtype == little:
        if array.size:
            yield array.data.cast("B")
        return
    items = max(1, CHUNK_BYTES // array.dtype.itemsize)
    for piece in np.nditer(
        array,
        flags=["external_loop", "buffered", "zerosize_ok"],
        op_flags=["readonly"],
        op_dtypes=little,
        order="C",
        buffersize=items,
    ):
        items_of_it = np.ascontiguousarray(piece)
        if items_of_it.size:
            yield items_of_it.data.cast("B")
