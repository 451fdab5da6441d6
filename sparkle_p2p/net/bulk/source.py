"""Where chunks of a blob come from: one small interface, over HTTPS or over libp2p."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from sparkle_protocol import messages
from sparkle_protocol.blobs.tree import Buffer
from sparkle_protocol.errors import TransportError
from sparkle_protocol.ids import PeerId

Asker = Callable[[PeerId, messages.BlobRequest], Awaitable[messages.Reply]]
"""Sends a request over libp2p; raises TransportError or RemoteProtocolError."""


class Declined(TransportError):
    """The peer does not give us this blob: asking again is of no use."""


class NotThere(Declined):
    """The peer does not have this blob, or does not say so to us: no fault of its own."""


class NoDirectPath(TransportError):
    """No HTTPS connection to the peer can be made."""


class TicketStale(TransportError):
    """The peer does not know the ticket any more, as after a restart: a new one will do."""


class Sink(Protocol):
    """Takes what comes. Both methods are called in threads."""

    def came(self, count: int) -> None:
        """So many bytes came over the wire."""
        ...

    def take(self, chunk: int, pieces: Sequence[Buffer]) -> None:
        """Check a chunk, given as pieces in a row, and write it; they may be overwritten afterwards.

        Raises:
            RemoteProtocolError: its bytes are not the blob's.
            StorageError: the disk does not take it.
        """
        ...


class ChunkSource(Protocol):
    """One blob at one peer."""

    async def read(self, first: int, last: int, sink: Sink, *, compress: bool) -> None:
        """Bring chunks ``first`` to ``last`` into the sink, in order; compressed on the way if allowed and of use.

        Raises:
            Declined: the peer does not serve this to us.
            TransportError: the connection could not be made, broke, or fell silent.
            RemoteProtocolError: what came breaks a rule.
            StorageError: from the sink.
        """
        ...


def accepted(reply: messages.Reply) -> messages.Reply:
    """The reply, unless it is a refusal. Raises NotThere, Declined, or TransportError for one that may change."""
    if isinstance(reply, messages.Refusal):
        if reply.code == "unknown_blob":
            raise NotThere(reply.text)
        if reply.code in ("busy", "storage", "internal", "stopping"):
            raise TransportError(reply.text)
        raise Declined(reply.text)
    return reply
