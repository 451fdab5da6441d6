"""What the trio side reports to the asyncio side."""

from collections.abc import Callable
from typing import Literal, Protocol

from sparkle_p2p.net.serving import ErrorCode
from sparkle_protocol.ids import PeerId

CONNECTION_LOST = "the connection was lost"  # reason of a peer that went without a word

Direction = Literal["in", "out"]
Answer = Callable[[bytes | ErrorCode, str], None]  # reply bytes, or an error with a sentence; trio side


class Sink(Protocol):
    """Called in the trio thread; every method returns at once and never raises."""

    def up(
        self,
        peer: PeerId,
        addresses: tuple[str, ...],
        direction: Direction,
        agent: str,
        latency_ms: float | None,
    ) -> None:
        """A peer is connected and has greeted us as a member of our network."""

    def down(self, peer: PeerId, reason: str) -> None:
        """A peer that was up is gone."""

    def latency(self, peer: PeerId, latency_ms: float) -> None:
        """A new latency estimate of a peer that is up."""

    def violation(self, peer: PeerId | None, reason: str) -> None:
        """A peer (or somebody not yet identified) broke a rule."""

    def gossip(self, topic: str, author: PeerId, payload: bytes) -> None:
        """A message of a topic we subscribed to, not by us."""

    def request(self, peer: PeerId, payload: bytes, answer: Answer) -> None:
        """A peer asks; ``answer`` is to be posted to the trio thread exactly once."""
