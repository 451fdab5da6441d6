"""Fork proofs: two entries that one key signed for one place of an account.

A proof shows by itself that the key lied. That it was the account's own key is shown by the account's feed: the book
freezes the account once one of the two stands in it.
"""

from dataclasses import dataclass

from sparkle_ledger.entries import Entry, EntryCodec, Penalty, Place
from sparkle_protocol.errors import LocalProtocolError, RemoteProtocolError


@dataclass(frozen=True, slots=True)
class ForkProof:
    """The two entries, the lower id first, so that two proofs of the same are equal."""

    first: Entry
    second: Entry

    @classmethod
    def make(cls, one: Entry, other: Entry) -> "ForkProof":
        """The proof by two verified entries.

        Raises:
            LocalProtocolError: they do not prove a fork.
        """
        fault = _fault(one, other)
        if fault is not None:
            raise LocalProtocolError(fault)
        first, second = sorted((one, other), key=lambda entry: entry.id)
        return cls(first, second)

    @property
    def place(self) -> Place:
        """Where the account stands twice."""
        return self.first.place

    def encode(self) -> Penalty:
        """What an entry or a message carries."""
        return Penalty(self.first.raw, self.second.raw)

    @classmethod
    def decode(cls, proof: Penalty, codec: EntryCodec) -> "ForkProof":
        """The proof once both signatures hold and it proves something.

        Raises:
            RemoteProtocolError: it does not, or an entry of it is malformed or of another network.
        """
        one, other = codec.open(proof.first), codec.open(proof.second)
        fault = _fault(one, other)
        if fault is not None:
            raise RemoteProtocolError(fault)
        return cls.make(one, other)


def _fault(one: Entry, other: Entry) -> str | None:
    if one.id == other.id:
        return "an entry is no fork of itself"
    if one.key != other.key:
        return "two keys signed these entries: neither of them lied"
    if one.place != other.place:
        return "two entries with different places are no fork"
    return None
