"""A set of chunk numbers as bits: chunk 0 is the lowest bit of the first byte."""

from collections.abc import Iterator

from sparkle_protocol.errors import LocalProtocolError


class Bitmap:
    """Which of ``size`` chunks are there."""

    __slots__ = ("_bits", "count", "size")

    def __init__(self, size: int, bits: bytes | None = None) -> None:
        self.size = size
        self._bits = bytearray(bitmap_bytes(size) if bits is None else bits)
        if len(self._bits) != bitmap_bytes(size):
            raise LocalProtocolError(f"{len(self._bits)} bytes are no bitmap of {size} chunks")
        if size % 8:
            self._bits[-1] &= (1 << size % 8) - 1
        self.count = sum(map(int.bit_count, self._bits))

    def __contains__(self, chunk: int) -> bool:
        return bool(self._bits[chunk >> 3] >> (chunk & 7) & 1)

    def __iter__(self) -> Iterator[int]:
        return (chunk for chunk in range(self.size) if chunk in self)

    @property
    def full(self) -> bool:
        """Whether all are there."""
        return self.count == self.size

    def add(self, chunk: int) -> None:
        """One more is there."""
        if chunk not in self:
            self._bits[chunk >> 3] |= 1 << (chunk & 7)
            self.count += 1

    def discard(self, chunk: int) -> None:
        """It is not there."""
        if chunk in self:
            self._bits[chunk >> 3] &= ~(1 << (chunk & 7))
            self.count -= 1

    def byte_of(self, chunk: int) -> tuple[int, bytes]:
        """Position and value of the byte that holds the chunk's bit."""
        return chunk >> 3, bytes(self._bits[chunk >> 3 : (chunk >> 3) + 1])

    def __bytes__(self) -> bytes:
        return bytes(self._bits)

    def copy(self) -> "Bitmap":
        """Another set with the same chunks."""
        return Bitmap(self.size, bytes(self._bits))


def bitmap_bytes(size: int) -> int:
    """Bytes of a bitmap of so many chunks."""
    return -(-size // 8)
