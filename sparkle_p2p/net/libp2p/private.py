"""Connections of a private network: all bytes pass a stream cipher that only holders of its key can undo.

As the libp2p specification has it (pnet, PSK v1): each side sends 24 random bytes, then everything under XSalsa20
with the network's key and that nonce, from the first byte on. Noise runs inside: this layer keeps strangers out, and
that layer says who is who and that nothing was changed. libp2p's own protector uses another cipher (Salsa20, 8
bytes), which no other implementation understands, and has no addresses; so this is ours.

Whoever has the key says ``/multistream/1.0.0`` first. If those are not the first bytes that come out of the cipher,
the other side has another key or none, and is left at once: nothing of it is ever interpreted.
"""

import os
import struct

from Crypto.Cipher import Salsa20
from Crypto.Cipher.Salsa20 import Salsa20Cipher
from libp2p.io.exceptions import IOException
from libp2p.network.connection.raw_connection import RawConnection

from sparkle_p2p.net.libp2p.opening import GREETING

NONCE_BYTES = 24
READ_BYTES = 64 << 10
_CLEAR = GREETING[:8]  # no nonce begins like this but one in 2^64

TELL_AGAIN_S = 600.0  # of a stranger who keeps coming
MAX_STRANGERS = 256  # the one told of longest ago is forgotten first


class OtherNetworkKey(IOException):
    """The other side has another network key than we, or none. libp2p treats it as a broken connection."""


class PrivateConnection(RawConnection):
    """A connection under the network's key. Whatever its owner reads came from somebody who has the key.

    One task reads at a time, as libp2p does.

    Args:
        inner: the connection itself; both have the same socket.
        key: 32 bytes.
    """

    def __init__(self, inner: RawConnection, key: bytes) -> None:
        addresses = inner.get_transport_addresses()
        super().__init__(inner.stream, inner.is_initiator, inner.get_connection_type(), addresses)
        self.stranger = False  # the other side has been seen to have another key or none
        self._inner = inner
        self._key = key
        self._sending: Salsa20Cipher | None = None
        self._receiving: Salsa20Cipher | None = None
        self._nonce = b""  # theirs, as far as it has come
        self._heard = b""  # how they began, until that is proven right
        self._plain = b""  # read from the connection and not by our owner yet: from ``_at`` on
        self._at = 0

    async def write(self, data: bytes) -> None:
        """Send. Encryption and sending have one order, since nothing waits in between but the stream's fair lock."""
        head = b""
        if self._sending is None:
            head = os.urandom(NONCE_BYTES)
            self._sending = xsalsa20(self._key, head)
        await self._inner.write(head + self._sending.encrypt(data))

    async def read(self, n: int | None = None) -> bytes:
        """Up to ``n`` bytes; none at the end. Raises OtherNetworkKey."""
        if self._at == len(self._plain) and n != 0:
            self._plain, self._at = await self._receive(), 0
        start, end = self._at, len(self._plain)
        self._at = end if n is None else min(end, start + n)
        return self._plain[start : self._at]

    async def _receive(self) -> bytes:
        """What has come, at most ``READ_BYTES``: portions as Noise takes them are too small to decrypt one by one."""
        if self._receiving is None and not await self._take_nonce():
            return b""
        data = await self._inner.read(READ_BYTES)
        if not data or self._receiving is None:
            return b""
        plain = self._receiving.decrypt(data)
        if len(self._heard) < len(GREETING):
            self._heard += plain[: len(GREETING) - len(self._heard)]
            if not GREETING.startswith(self._heard):
                raise self._refusal()
        return plain

    async def _take_nonce(self) -> bool:
        """Whether the whole nonce came before the connection ended; a cancelled call goes on where it was."""
        while len(self._nonce) < NONCE_BYTES:
            part = await self._inner.read(NONCE_BYTES - len(self._nonce))
            if not part:
                return False
            self._nonce += part
            if self._nonce.startswith(_CLEAR):
                raise self._refusal()
        self._receiving = xsalsa20(self._key, self._nonce)
        return True

    def _refusal(self) -> OtherNetworkKey:
        self.stranger = True
        return OtherNetworkKey("the other side has another network key, or none")

    async def close(self) -> None:
        """Close the connection itself."""
        await self._inner.close()


class Strangers:
    """Which addresses to tell of: each that has not been told of for a while."""

    def __init__(self) -> None:
        self._told: dict[str, float] = {}

    def is_news(self, host: str, now_s: float) -> bool:
        """Whether to tell of this one now; it counts as told then."""
        if now_s - self._told.get(host, -TELL_AGAIN_S) < TELL_AGAIN_S:
            return False
        self._told.pop(host, None)
        self._told[host] = now_s
        if len(self._told) > MAX_STRANGERS:
            del self._told[next(iter(self._told))]
        return True


# --- the cipher ---------------------------------------------------------------------------------------------------


def xsalsa20(key: bytes, nonce: bytes) -> Salsa20Cipher:
    """A stream of XSalsa20 (Bernstein 2011, "Extending the Salsa20 nonce"): Salsa20 under a key made of the nonce."""
    return Salsa20.new(key=hsalsa20(key, nonce[:16]), nonce=nonce[16:])


_CONSTANTS = struct.unpack("<4I", b"expand 32-byte k")
_COLUMNS = ((0, 4, 8, 12), (5, 9, 13, 1), (10, 14, 2, 6), (15, 3, 7, 11))
_ROWS = ((0, 1, 2, 3), (5, 6, 7, 4), (10, 11, 8, 9), (15, 12, 13, 14))
_WORD = 0xFFFFFFFF


def hsalsa20(key: bytes, nonce: bytes) -> bytes:
    """32 bytes out of a key of 32 and a nonce of 16: the middle of Salsa20, without its final addition."""
    k, n = struct.unpack("<8I", key), struct.unpack("<4I", nonce)
    c = _CONSTANTS
    state = [c[0], *k[:4], c[1], *n, c[2], *k[4:], c[3]]
    for _ in range(10):
        for a, b, d, e in (*_COLUMNS, *_ROWS):
            state[b] ^= _rotated(state[a] + state[e], 7)
            state[d] ^= _rotated(state[b] + state[a], 9)
            state[e] ^= _rotated(state[d] + state[b], 13)
            state[a] ^= _rotated(state[e] + state[d], 18)
    return struct.pack("<8I", *(state[at] for at in (0, 5, 10, 15, 6, 7, 8, 9)))


def _rotated(word: int, bits: int) -> int:
    word &= _WORD
    return (word << bits | word >> (32 - bits)) & _WORD
