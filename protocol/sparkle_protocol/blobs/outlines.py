"""Decides whom to ask what a blob consists of: one peer after the other, as answers fail to come.

The next peer is asked as soon as one says no, or when nobody has answered for ``NEXT_S``; the first answer that fits
the blob's id ends it. Call ``handle`` with ``Tick`` at ``next_deadline``.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from sparkle_protocol.blobs.limits import NEXT_S
from sparkle_protocol.blobs.link import NS
from sparkle_protocol.ids import PeerId, short_peer

NEXT_NS = round(NEXT_S * NS)


@dataclass(frozen=True, slots=True)
class NotTold:
    """This peer does not tell it."""

    peer: PeerId
    reason: str


@dataclass(frozen=True, slots=True)
class Tick:
    """It begins, or time has passed."""


@dataclass(frozen=True, slots=True)
class AskOutline:
    """Ask this peer; the answer is the end of it, or ``NotTold``."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class NobodyTells:
    """All have been asked in vain."""

    reason: str


class OutlineSearch:
    """One blob, and the peers that may have it."""

    def __init__(self, peers: Iterable[PeerId]) -> None:
        self._waiting = list(dict.fromkeys(peers))
        self._asked: dict[PeerId, None] = {}
        self._failures: list[str] = []
        self._next_ns: int | None = None

    def handle(self, event: NotTold | Tick, now_ns: int) -> tuple[AskOutline | NobodyTells, ...]:
        """What to do now that this has happened."""
        failed = isinstance(event, NotTold) and event.peer in self._asked
        if isinstance(event, NotTold) and failed:
            del self._asked[event.peer]
            self._failures.append(f"{short_peer(event.peer)}: {event.reason or 'it did not answer'}")
        if self._waiting and (failed or self._next_ns is None or now_ns >= self._next_ns):
            peer = self._waiting.pop(0)
            self._asked[peer] = None
            self._next_ns = now_ns + NEXT_NS
            return (AskOutline(peer),)
        if not self._waiting and not self._asked:
            return (NobodyTells("; ".join(self._failures) or "none was named"),)
        return ()

    def next_deadline(self) -> int | None:
        """When to call ``handle(Tick())`` at the latest."""
        return self._next_ns if self._waiting else None
