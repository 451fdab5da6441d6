"""Asks peers that the owner named whom they know (``trust/vouching.py``), and answers such questions.

Each of them is asked when it comes, and again while it is there: who was proven wrong meanwhile is in no further
answer.
"""

from sparkle_protocol.effects import Replied, SendFailed
from sparkle_protocol.ids import PeerId
from sparkle_protocol.trust.standing import TrustBook
from sparkle_protocol.trust.vouching import heard, word
from sparkle_protocol.trust_messages import KnownReply

SECOND_NS = 1_000_000_000
ASK_EVERY_NS = 600 * SECOND_NS
ANSWER_FOR_NS = 10 * SECOND_NS  # an answer is worked out once in so long, whoever asks


class References:
    """The questions of one node, and its answer.

    Args:
        me: this node, about which nobody need say anything.
    """

    def __init__(self, me: PeerId) -> None:
        self._me = me
        self._due_ns: dict[PeerId, int] = {}  # of named peers that are there: when to ask them
        self._asked: dict[int, PeerId] = {}
        self._answer: tuple[int, KnownReply] | None = None

    def came(self, peer: PeerId, now_ns: int) -> None:
        """A named peer is connected."""
        self._due_ns[peer] = now_ns

    def left(self, peer: PeerId) -> None:
        """A peer is connected no more; what it said holds."""
        self._due_ns.pop(peer, None)

    def to_ask(self, now_ns: int) -> list[PeerId]:
        """Whom to ask now."""
        due = [peer for peer, due_ns in self._due_ns.items() if now_ns >= due_ns] if self._due_ns else []
        self._due_ns.update(dict.fromkeys(due, now_ns + ASK_EVERY_NS))
        return due

    def asks(self, tag: int, peer: PeerId) -> None:
        """A question is on its way."""
        self._asked[tag] = peer

    def answered(self, event: Replied | SendFailed, book: TrustBook) -> int | None:
        """Take in what a named peer says; where it cannot be had, what it said before holds.

        Returns how many it knows, if that is news.
        """
        peer = self._asked.pop(event.tag, None)
        if peer is None or not isinstance(event, Replied) or type(event.message) is not KnownReply:
            return None
        whom = [one for one in heard(event.message) if one[0] != self._me]
        return len(whom) if book.vouch(peer, whom) else None

    def answer(self, book: TrustBook, now_ns: int) -> KnownReply:
        """What we say to whoever asks."""
        if self._answer is None or now_ns - self._answer[0] >= ANSWER_FOR_NS:
            self._answer = now_ns, word(book.seen())
        return self._answer[1]

    def next_deadline(self) -> int | None:
        """When somebody is to be asked again."""
        return min(self._due_ns.values(), default=None)
