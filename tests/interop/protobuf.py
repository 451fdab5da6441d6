"""As much of Protocol Buffers as libp2p's small messages need: integers and length-delimited fields."""

import asyncio

Value = int | bytes | str
Fields = dict[int, list[int | bytes]]  # field number -> its values in order

_VARINT, _BYTES = 0, 2
MAX_MESSAGE_BYTES = 4 << 20


def encode(*fields: tuple[int, Value]) -> bytes:
    """A message of these (number, value) pairs."""
    parts = []
    for number, value in fields:
        if isinstance(value, int):
            parts.append(varint(number << 3 | _VARINT) + varint(value))
        else:
            data = value.encode() if isinstance(value, str) else value
            parts.append(varint(number << 3 | _BYTES) + varint(len(data)) + data)
    return b"".join(parts)


def decode(data: bytes) -> Fields:
    """The fields of a message."""
    fields: Fields = {}
    position = 0
    while position < len(data):
        key, position = _take_varint(data, position)
        number, kind = key >> 3, key & 7
        value: int | bytes
        value, position = _take_varint(data, position)
        if kind == _BYTES:
            end = position + value
            if end > len(data):
                raise ValueError("a field is longer than its message")
            value, position = data[position:end], end
        elif kind != _VARINT:
            raise ValueError(f"wire type {kind} is not used in libp2p's messages")
        fields.setdefault(number, []).append(value)
    return fields


def texts(fields: Fields, number: int) -> list[str]:
    """Values of a string field."""
    return [value.decode() for value in blobs(fields, number)]


def blobs(fields: Fields, number: int) -> list[bytes]:
    """Values of a bytes, string or message field."""
    return [value for value in fields.get(number, []) if isinstance(value, bytes)]


def varint(value: int) -> bytes:
    """Seven bits a byte, least significant first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _take_varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position


def delimited(message: bytes) -> bytes:
    """The message with its length before it."""
    return varint(len(message)) + message


async def read_delimited(reader: asyncio.StreamReader) -> Fields:
    """The next message of a stream of delimited ones."""
    prefix = b""
    while not prefix or prefix[-1] >= 0x80:
        prefix += await reader.readexactly(1)
    length, _ = _take_varint(prefix, 0)
    if length > MAX_MESSAGE_BYTES:
        raise ValueError(f"a message of {length} bytes")
    return decode(await reader.readexactly(length))
