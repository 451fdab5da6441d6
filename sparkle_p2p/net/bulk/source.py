"""Where chunks of a blob come from: one small interface, over HTTPS or over libp2p."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Protocol

from sparkle_protocol import messages
from sparkle_protocol.blobs.tree import Buffer
from sparkle_protocol.errors import TransportError
from sparkle_protocol.ids import PeerId

Asker = Callable[[PeerId, messages.BlobRequest], Awaitable[messages.Reply]]
"""Sends a request over libp2p; raises TransportError or RemoteProtocolError."""

Chunk = tuple[int, list[Buffer]]  # its number, and its bytes as pieces in a row, not checked yet


class Declined(TransportError):
    """The peer does not give us this blob: asking again is of no use."""


class NoDirectPath(TransportError):
    """No HTTPS connection to the peer can be made."""


class TicketStale(TransportError):
    """The peer does not know the ticket any more, as after a restart: a new one will do."""


class ChunkSource(Protocol):
    """One blob at one peer."""

    def chunks(
        self, first: int, last: int, *, compress: bool, came: Callable[[int], None]
    ) -> AsyncGenerator[Chunk, None]:
        """Chunks ``first`` to ``last`` in order.

        Args:
            first: number of a chunk.
            last: number of a chunk, not before ``first``.
            compress: whether they may travel compressed.
            came: told how many bytes came over the wire, whenever some did.

        Raises:
            Declined: the peer does not serve this to us.
            TransportError: the connection could not be made, broke, or fell silent.
            RemoteProtocolError: what came breaks a rule.
        """
        ...

    async def close(self) -> None:
        """Give connections free."""
        ...


def accepted(reply: messages.Reply) -> messages.Reply:
    """The reply, unless it is a refusal. Raises Declined, or TransportError for one that may change."""
    if isinstance(reply, messages.Refusal):
        if reply.code in ("busy", "storage", "internal", "stopping"):
            raise TransportError(reply.text)
        raise Declined(reply.text)
    return reply
