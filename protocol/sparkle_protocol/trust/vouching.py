"""Whom others vouch for: peers whom somebody knows that the owner of this node named.

A word says *whose answers count*, never *how much*: capital stays where it was earned. If it could be carried from
one submitter to the next, it could be spent at all of them at once, and a cheater would gain its wrong results as
often as there are submitters, for one and the same honest work. So whoever is vouched for has all of its results
compared until it has earned something here. What the word gives is safety: strangers, however many keys they make,
need not be asked.

- Only peers that the owner named are heard, and only about whom they know themselves: a word is not passed on.
- It holds until they say something else, or are proven wrong.
- What was seen here outweighs it: whoever was ever proven wrong here counts when it has earned that here.
"""

from collections import Counter
from collections.abc import Iterable

from sparkle_protocol.ids import PeerId, key_from_peer_id, peer_id_from_key
from sparkle_protocol.trust_messages import MAX_KNOWN, Known, KnownReply

Whom = tuple[PeerId, str]  # and for which class of kernels


class Words:
    """What those say who are heard."""

    def __init__(self) -> None:
        self._words: dict[PeerId, frozenset[Whom]] = {}
        self._vouched: Counter[Whom] = Counter()  # by how many

    def hear(self, voucher: PeerId, whom: Iterable[Whom]) -> bool:
        """Replace what somebody said before; True when that makes a difference."""
        said, before = frozenset(whom), self._words.pop(voucher, frozenset())
        if said:
            self._words[voucher] = said
        self._vouched.update(said - before)
        self._vouched.subtract(before - said)
        for one in before - said:
            if not self._vouched[one]:
                del self._vouched[one]
        return said != before

    def speaks_for(self, peer: PeerId, verification: str) -> bool:
        """Somebody vouches for the peer."""
        return (peer, verification) in self._vouched

    def about(self, peer: PeerId) -> dict[str, list[PeerId]]:
        """Who vouches for a peer, by class of kernels."""
        found: dict[str, list[PeerId]] = {}
        for voucher in sorted(self._words):
            for one, verification in sorted(self._words[voucher]):
                if one == peer:
                    found.setdefault(verification, []).append(voucher)
        return found

    def all(self) -> list[Whom]:
        """Everybody who is vouched for, and for what."""
        return sorted(self._vouched)

    def peers(self) -> set[PeerId]:
        """Everybody who is vouched for, for whatever."""
        return {peer for peer, _ in self._vouched}

    def of_class(self, verification: str) -> list[PeerId]:
        """Everybody who is vouched for."""
        return sorted(peer for peer, known in self._vouched if known == verification)


def word(known: Iterable[Whom]) -> KnownReply:
    """What a node says about those it knows best."""
    return KnownReply([Known(key_from_peer_id(peer), verification) for peer, verification in known][:MAX_KNOWN])


def heard(reply: KnownReply) -> list[Whom]:
    """What somebody else said."""
    return [(peer_id_from_key(one.worker), one.verification) for one in reply.workers]
