"""Tells a dialler that broke off from one that wanted no Noise channel.

libp2p reports both as the same failure. An honest dialler's first words are always the same, so whoever has said
nothing but a beginning of them has done nothing wrong: its process died, its link broke, or it is slow.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from libp2p.abc import IRawConnection
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_PROTOCOL_ID

_WORDS = (b"/multistream/1.0.0\n", f"{NOISE_PROTOCOL_ID}\n".encode())
_FRAMED = [len(word).to_bytes(1, "big") + word for word in _WORDS]
GREETING = _FRAMED[0]
HONEST = b"".join(_FRAMED)


class Opening:
    """The first bytes that came over a connection."""

    def __init__(self) -> None:
        self._heard = b""

    @property
    def honest(self) -> bool:
        """Nothing came but what an honest dialler says, or a beginning of it."""
        return HONEST.startswith(self._heard)

    @contextmanager
    def of(self, raw: IRawConnection) -> Iterator[None]:
        """Listen in on what is read from a connection meanwhile."""
        read = raw.read

        async def read_and_note(n: int | None = None) -> bytes:
            data = await read(n)
            self._heard += data[: len(HONEST) - len(self._heard)]
            return data

        vars(raw)["read"] = read_and_note
        try:
            yield
        finally:
            del vars(raw)["read"]
