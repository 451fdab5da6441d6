"""Bytes to typed structs and back, under explicit limits.

Wire values are msgpack arrays. ``msgpack`` reads the bytes under size limits, ``msgspec`` checks the shape
into frozen structs. A struct grows by appending fields with defaults: an old reader ignores what it does not
know, a new reader fills in what an old writer left out. Whatever is signed is verified over the bytes that
came in, never over a re-encoding, because msgpack has several encodings of one value.
"""

from typing import Any, TypeVar

import msgpack
import msgspec

from sparkle_protocol.errors import LocalProtocolError, RemoteProtocolError

MAX_MESSAGE_BYTES = 1 << 20
MAX_STRING_BYTES = 4096
MAX_ARRAY_ITEMS = 4096
MAX_MAP_ITEMS = 64
MAX_DEPTH = 12

T = TypeVar("T")

_encoder = msgspec.msgpack.Encoder(order="deterministic")


class Wire(msgspec.Struct, array_like=True, frozen=True):
    """Base of everything that crosses the network: an immutable array of typed fields."""


def encode(value: msgspec.Struct) -> bytes:
    """Deterministic bytes of a wire struct.

    Raises:
        LocalProtocolError: larger than any peer would accept.
    """
    data = _encoder.encode(value)
    if len(data) > MAX_MESSAGE_BYTES:
        raise LocalProtocolError(f"a {type(value).__name__} of {len(data)} bytes exceeds {MAX_MESSAGE_BYTES}")
    return data


def decode(data: bytes, shape: type[T], *, max_bytes: int = MAX_MESSAGE_BYTES) -> T:
    """The struct of type ``shape`` (or a union of tagged structs) that the bytes hold, all of them.

    Raises:
        RemoteProtocolError: oversize, truncated, trailing bytes, nested too deeply, a key named twice, wrong types,
            unknown kind.
    """
    if len(data) > max_bytes:
        raise RemoteProtocolError(f"a message of {len(data)} bytes exceeds the limit of {max_bytes}")
    try:
        raw = msgpack.unpackb(
            data,
            use_list=True,
            strict_map_key=True,
            object_pairs_hook=_unique,
            max_str_len=MAX_STRING_BYTES,
            max_bin_len=max_bytes,
            max_array_len=MAX_ARRAY_ITEMS,
            max_map_len=MAX_MAP_ITEMS,
            max_ext_len=0,
        )
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise RemoteProtocolError(f"malformed msgpack: {_first_line(error)}") from error
    _check_depth(raw, MAX_DEPTH)
    try:
        return msgspec.convert(raw, shape, strict=True)
    except (msgspec.ValidationError, RecursionError, OverflowError) as error:
        raise RemoteProtocolError(f"unexpected message shape: {_first_line(error)}") from error


def _unique(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """A map, unless it names a key twice: readers would not agree on what it says."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a map names a key twice")
    return found


def _check_depth(value: Any, left: int) -> None:
    """Refuse nesting beyond ``left`` levels; the recursion itself is bounded by that."""
    if left == 0:
        raise RemoteProtocolError(f"a message nests deeper than {MAX_DEPTH} levels")
    if type(value) is list:
        for item in value:
            if type(item) is list or type(item) is dict:
                _check_depth(item, left - 1)
    elif type(value) is dict:
        for item in value.values():
            if type(item) is list or type(item) is dict:
                _check_depth(item, left - 1)


def _first_line(error: BaseException) -> str:
    text = str(error).splitlines()
    return text[0][:200] if text else type(error).__name__
