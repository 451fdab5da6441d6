"""Blobs of a sealed job: encrypted, so that a disk or a blob's id says nothing to who has not the network's key.

The plain bytes are cut into pieces of ``PIECE_BYTES``; each becomes 16 bytes of tag and as many of ciphertext, one
after the other, under AES-SIV (RFC 5297) with a key of the job: HKDF(network key, the job's salt). What each piece
is goes into what its tag vouches for: the blob's label (which input, or the result of which unit), the piece's
number, how many there are, and the size of the whole. So a piece that was changed, moved, left out, or taken from
another blob or job does not open.

The same bytes at the same place give the same blob, whoever seals them: the results of honest workers stay
comparable. That is why the scheme needs no nonce, and all that it gives away: the size, and whether two results of a
unit are alike.
"""

import struct
from collections.abc import Callable, Iterable, Iterator

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from sparkle_p2p.network_key import NetworkKey
from sparkle_protocol.blobs.tree import CHUNK_BYTES, Buffer
from sparkle_protocol.errors import LocalProtocolError, RemoteProtocolError

TAG_BYTES = 16
PIECE_BYTES = CHUNK_BYTES - TAG_BYTES  # sealed, a piece is one chunk of the blob
_KEY_BYTES = 64  # of AES-256-SIV: a half for the tag, a half for the ciphertext
_PURPOSE = b"sparkle/sealed-blobs/1"
_NOTHING = b"\x00"  # stands for no bytes at all, which this cipher does not take; the size tells them apart


def input_label(position: int) -> bytes:
    """Of a job's input by its position in the spec."""
    return struct.pack(">6sI", b"input", position)


def result_label(unit: int) -> bytes:
    """Of a unit's result."""
    return struct.pack(">6sI", b"result", unit)


def sealed_bytes(size: int) -> int:
    """How large a blob of so many plain bytes is."""
    return max(size, len(_NOTHING)) + _piece_count(size) * TAG_BYTES


def _piece_count(size: int) -> int:
    return max(1, -(-size // PIECE_BYTES))


class JobCipher:
    """Seals and opens the blobs of one job.

    Args:
        key: the network's.
        salt: the job's.
    """

    def __init__(self, key: NetworkKey, salt: bytes) -> None:
        self._siv = AESSIV(key.derive(_PURPOSE, _KEY_BYTES, salt))

    def seal(self, label: bytes, size: int, plain: Iterable[Buffer]) -> Iterator[bytes]:
        """The sealed pieces of ``size`` plain bytes that come in parts of any length. Memory stays flat."""
        for number, piece in enumerate(_regrouped(plain, size)):
            yield self._siv.encrypt(piece, _context(label, number, size))

    def open(self, label: bytes, size: int, length: int, read: Callable[[int, int], Buffer]) -> Iterator[bytes]:
        """The plain bytes of a whole blob, piece by piece; each was authenticated before it is given.

        Args:
            label: what the blob is.
            size: how many plain bytes it must hold.
            length: its own size.
            read: its bytes by offset and count, fewer at its end.

        Raises:
            RemoteProtocolError: these are not ``size`` bytes that a holder of the key sealed under this label.
        """
        if length != sealed_bytes(size):
            raise RemoteProtocolError(f"{length} bytes are no sealed blob of {size}")
        for number in range(_piece_count(size)):
            try:
                sealed = read(number * CHUNK_BYTES, CHUNK_BYTES)
                piece = self._siv.decrypt(sealed, _context(label, number, size))
            except InvalidTag as error:
                raise RemoteProtocolError("a blob does not open with the key of this network and job") from error
            if size:
                yield piece


def _context(label: bytes, number: int, size: int) -> list[Buffer]:
    return [label, struct.pack(">QQQ", number, _piece_count(size), size)]


def _regrouped(parts: Iterable[Buffer], size: int) -> Iterator[Buffer]:
    """The same bytes in pieces of ``PIECE_BYTES``, the last one shorter; what is whole already is not copied."""
    left, rest = size, bytearray()
    for part in parts:
        view = memoryview(part).cast("B") if len(part) else memoryview(b"")
        left -= len(view)
        if rest:
            missing = PIECE_BYTES - len(rest)
            rest += view[:missing]
            view = view[missing:]
            if len(rest) == PIECE_BYTES:
                yield rest
                rest = bytearray()
        while len(view) >= PIECE_BYTES:
            yield view[:PIECE_BYTES]
            view = view[PIECE_BYTES:]
        rest += view
    if left:
        raise LocalProtocolError(f"{size - left} bytes came to be sealed where {size} were to come")
    if rest or not size:
        yield rest or _NOTHING
