"""Requests and replies about the ledger: heads and entries of accounts, and what proves who is to be paid.

Entries and proofs travel as bytes; ``sparkle_ledger`` says what is in them. A request has one reply:

=================  ===============  =======================================================
request            reply            about
=================  ===============  =======================================================
HeadsRequest       HeadsReply       the last entries of accounts
EntriesRequest     EntriesReply     an account's entries from a place on
LedgerPush         HeadsReply       entries for the other to keep; its head of the account then
ProofRequest       ProofReply       accepted executions of a job, by ranges of units
=================  ===============  =======================================================
"""

from typing import Annotated

from msgspec import Meta

from sparkle_protocol.codec import Wire
from sparkle_protocol.facts import MAX_RANGES, Hash32

MAX_ENTRY_BYTES = 64 << 10
MAX_INCARNATIONS = 1 << 12
MAX_SEQ = 1 << 40
MAX_HEADS = 256  # accounts of one request
MAX_ENTRIES = 512  # of one message
MAX_ASKED_RANGES = 16
PAGE_BYTES = 512 << 10  # of entries or of a proof in one message: half of what a message may have
MAX_PROOF_BYTES = 960 << 10  # of a single range: two sealed records do not fit, one does with all that it rests on

PREFIX_BYTES = 8
MAX_HAVE = 4096  # facts that need not be shown

Seq = Annotated[int, Meta(ge=0, lt=MAX_SEQ)]
Incarnation = Annotated[int, Meta(ge=0, lt=MAX_INCARNATIONS)]
RawEntry = Annotated[bytes, Meta(max_length=MAX_ENTRY_BYTES + 256)]
AskedRange = Annotated[int, Meta(ge=0, lt=MAX_RANGES)]


class Head(Wire, frozen=True):
    """The last entry of an account that somebody knows."""

    incarnation: Incarnation
    seq: Seq
    id: Hash32


class HeadsRequest(Wire, tag=52, frozen=True):
    """Which heads of these accounts do you know?"""

    accounts: Annotated[list[Hash32], Meta(min_length=1, max_length=MAX_HEADS)]


class HeadsReply(Wire, tag=53, frozen=True):
    """In the order of the accounts; None: nothing of this one."""

    heads: Annotated[list[Head | None], Meta(max_length=MAX_HEADS)]


class EntriesRequest(Wire, tag=54, frozen=True):
    """Give me an account's entries from this place on, those of later incarnations included."""

    account: Hash32
    incarnation: Incarnation
    first: Seq


class EntriesReply(Wire, tag=55, frozen=True):
    """By incarnation and seq; both of a place that was signed twice. ``more``: these are not the last."""

    entries: Annotated[list[RawEntry], Meta(max_length=MAX_ENTRIES)]
    more: bool = False


class LedgerPush(Wire, tag=56, frozen=True):
    """Keep these entries, all of one account. The reply has the head that is known, and durable, then."""

    entries: Annotated[list[RawEntry], Meta(min_length=1, max_length=MAX_ENTRIES)]


class ProofRequest(Wire, tag=57, frozen=True):
    """Show who is to be paid for the units of these ranges of a job.

    ``have``: the first ``PREFIX_BYTES`` of the ids of facts, and of the roots of sealed records, that are known to
    whoever asks and need not be shown, one after the other.
    """

    job: Hash32
    ranges: Annotated[list[AskedRange], Meta(min_length=1, max_length=MAX_ASKED_RANGES)]
    have: Annotated[bytes, Meta(max_length=MAX_HAVE * PREFIX_BYTES)]


class ProofReply(Wire, tag=58, frozen=True):
    """What shows it for the first of the ranges, as many as fit."""

    job: Hash32
    ranges: Annotated[list[AskedRange], Meta(min_length=1, max_length=MAX_ASKED_RANGES)]
    proof: Annotated[bytes, Meta(max_length=MAX_PROOF_BYTES)]


LedgerRequest = HeadsRequest | EntriesRequest | LedgerPush | ProofRequest
LedgerReply = HeadsReply | EntriesReply | ProofReply


def forks_topic(network: str) -> str:
    """Gossip topic of proofs that an account forked."""
    return f"/sparkle/{network}/forks/1"
