"""What is kept of a job that was settled long ago, in the place of what proved it.

What proves who is to be paid takes many times the room of the entries that pay. It is needed until these were judged:
what was accepted stays accepted, and a Work that counts keeps counting, whatever becomes known later. So the evidence
about a job that is over may be forgotten once none of the Works known here waits for any. Their outcomes are *final*.

A Work that becomes known afterwards waits for evidence like any other. Whoever worked for the job or submitted it
keeps it on disk, and shows it. Then the job is open again, until it is closed once more.
"""

from typing import Annotated, NamedTuple

from msgspec import Meta

from sparkle_ledger.entries import EntryId
from sparkle_ledger.outcomes import Outcome
from sparkle_ledger.proofs import RawFact
from sparkle_protocol.codec import MAX_ARRAY_ITEMS, MAX_MESSAGE_BYTES, Wire, decode

MAX_FINALS = MAX_ARRAY_ITEMS  # a job with more Works stays open: what is written has to be readable
Key = Annotated[bytes, Meta(min_length=32, max_length=32)]


class Ruling(NamedTuple):
    """What an entry comes to: see ``Node`` for the sums."""

    outcome: Outcome
    moved: int = 0
    strict: int = 0
    face: int = 0


class Final(Wire, frozen=True):
    """A Work whose outcome does not change any more: the code of that, and what the account gained by it."""

    id: Key
    code: str
    moved: int

    @property
    def entry(self) -> EntryId:
        """Which entry."""
        return EntryId(self.id)


class PaidBy(Wire, frozen=True):
    """So much came from an account."""

    account: Key
    micro: int


class Closing(Wire, frozen=True):
    """A closed job.

    Attributes:
        job: its id.
        spec: its signed spec as it travels; empty once the job is shut.
        submitter: the key that signed that.
        price_micro: of one execution.
        executions: how many were payable, by all evidence that was known until then.
        finals: its Works that were known then; once it is shut, those that are not folded.
        at_ms: when it was closed first, by this node's clock: what others state about time may be anything.
        paid: what was paid for its folded Works, by whom. None: nothing of it is folded. Else it is *shut*, and
            never opened again (``folding.py``).
    """

    job: Key
    spec: RawFact
    submitter: Key
    price_micro: int
    executions: int
    finals: Annotated[list[Final], Meta(max_length=MAX_FINALS)]
    at_ms: int = 0
    paid: Annotated[list[PaidBy], Meta(max_length=MAX_FINALS)] | None = None

    @property
    def is_shut(self) -> bool:
        """Nothing can be shown about it any more."""
        return self.paid is not None

    @classmethod
    def decode(cls, raw: bytes) -> "Closing":
        """What ``codec.encode`` made of one.

        Raises:
            RemoteProtocolError: it is something else.
        """
        return decode(raw, cls, max_bytes=MAX_MESSAGE_BYTES)
