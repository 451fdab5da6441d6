"""What is kept of the oldest part of another account's feed, in the place of its entries.

Rules
-----
- A node folds for itself alone, and never its own account. A base is no statement: nobody signs it, and it is never
  sent.
- Folded are the oldest entries of a feed that has one path, as far as the outcome of none of them can change any
  more: Genesis, Rotates, and Holds, Works and Releases of jobs that were closed long ago (``closing.py``). The first
  other entry ends it, and so do the newest ones, which heads and forks are told by.
- The job of a folded entry is *shut*: whatever is shown of it later, it is not opened again. What was paid in it, and
  what its Holds took, is remembered in sums only, so that an execution could be paid twice. A Work of it that becomes
  known later waits for ever.
- The entry after the base names the last folded one. Whatever comes at or before that one is refused: it was known.
  Two entries for a place there, by the key that was in force in it, freeze the account all the same.

``Fold`` is one step of it, and what is written down at once; ``Base`` is what all steps of an account come to.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from dataclasses import replace as replace_fields
from typing import Annotated

from msgspec import Meta
from msgspec.structs import replace

from sparkle_ledger.closing import Closing, Key, PaidBy
from sparkle_ledger.entries import NO_PREV, AccountId, EntryId, Hold, Release, Work
from sparkle_ledger.feed import Node
from sparkle_ledger.walk import JobSums
from sparkle_protocol.codec import MAX_MESSAGE_BYTES, Wire, decode

KEEP_ENTRIES = 64  # the newest, of each feed
MAX_KEYS = 256  # that one base remembers; an account that rotates more often is folded no further
FOLD_MOST = 512  # entries of one step: their sums are numbers of 64 bits
_NONE = EntryId(NO_PREV)


class KeyFrom(Wire, frozen=True):
    """A key, and the first place for which it signs."""

    seq: int
    key: Key


class HeldFor(Wire, frozen=True):
    """What Holds and Releases of a job did: see ``JobSums``."""

    job: Key
    held: int
    released: int
    signed_held: int
    signed_released: int


class FoldedJob(Wire, frozen=True):
    """What was folded of one job: which Works, and what these were paid by whom."""

    job: Key
    works: Annotated[list[Key], Meta(max_length=FOLD_MOST)]
    paid: Annotated[list[PaidBy], Meta(max_length=FOLD_MOST)]


class Fold(Wire, frozen=True):
    """Some entries of one account that followed the base, folded onto it.

    Attributes:
        account: whose.
        after: number of the last entry of the base before; -1: there was none.
        seq, id, time_ms: of the last entry that is folded now.
        keys: that came into force.
        strict, face: what they added to the two sums that Holds are judged by.
        paid: to the account, by others and by itself.
        held: for jobs of the account.
        jobs: all that they name.
    """

    account: Key
    after: int
    seq: int
    id: Key
    time_ms: int
    keys: Annotated[list[KeyFrom], Meta(max_length=FOLD_MOST)]
    strict: int
    face: int
    paid: Annotated[list[PaidBy], Meta(max_length=FOLD_MOST)]
    held: Annotated[list[HeldFor], Meta(max_length=FOLD_MOST)]
    jobs: Annotated[list[FoldedJob], Meta(max_length=FOLD_MOST)]

    @classmethod
    def decode(cls, raw: bytes) -> "Fold":
        """What ``codec.encode`` made of one.

        Raises:
            RemoteProtocolError: it is something else.
        """
        return decode(raw, cls, max_bytes=MAX_MESSAGE_BYTES)


@dataclass(slots=True)
class Base:
    """All that was folded of one account: its entries 0 to ``seq``.

    Attributes:
        id, time_ms: of the last one.
        keys: that were in force, each with the first place for which it signs, in order.
        strict, face: sums up to there, as ``Walk`` has them.
        paid: by each account for work, its own among them.
        held: by job, what its Holds and Releases did.
    """

    account: AccountId
    seq: int = -1
    id: EntryId = _NONE
    time_ms: int = 0
    keys: list[tuple[int, bytes]] = field(default_factory=list)
    strict: int = 0
    face: int = 0
    paid: dict[AccountId, int] = field(default_factory=dict)
    held: dict[bytes, JobSums] = field(default_factory=dict)

    @property
    def key(self) -> bytes:
        """In force after it."""
        return self.keys[-1][1]

    @property
    def all_keys(self) -> frozenset[bytes]:
        """Ever in force up to there."""
        return frozenset(key for _, key in self.keys)

    def signer(self, seq: int) -> bytes:
        """The key that was in force for a folded place."""
        return self.keys[bisect_right(self.keys, seq, key=lambda one: one[0]) - 1][1]

    def copy(self) -> "Base":
        """The same, to go on with."""
        held = {job: one.copy() for job, one in self.held.items()}
        return replace_fields(self, keys=list(self.keys), paid=dict(self.paid), held=held)

    def earned(self) -> dict[AccountId, int]:
        """What others paid it."""
        return {payer: micro for payer, micro in self.paid.items() if payer != self.account}

    def job(self, job: bytes) -> JobSums:
        """A copy of the sums of one job of its."""
        known = self.held.get(job)
        return known.copy() if known is not None else JobSums()

    def add(self, fold: Fold) -> None:
        """Go on with the step that follows."""
        self.seq, self.id, self.time_ms = fold.seq, EntryId(fold.id), fold.time_ms
        self.keys += ((one.seq, one.key) for one in fold.keys)
        self.strict += fold.strict
        self.face += fold.face
        for payer in fold.paid:
            self.paid[AccountId(payer.account)] = self.paid.get(AccountId(payer.account), 0) + payer.micro
        for one in fold.held:
            sums = self.held.setdefault(one.job, JobSums())
            sums.held += one.held
            sums.released += one.released
            sums.signed_held += one.signed_held
            sums.signed_released += one.signed_released


def fold_of(base: Base, nodes: Sequence[Node]) -> Fold:
    """The step that puts the next entries of a feed onto its base."""
    last = nodes[-1]
    keys: list[KeyFrom] = [] if base.keys else [KeyFrom(0, nodes[0].entry.key)]
    in_force = base.key if base.keys else nodes[0].entry.key
    paid: dict[bytes, int] = {}
    held: dict[bytes, JobSums] = {}
    works: dict[bytes, list[bytes]] = {}
    paid_for: dict[bytes, dict[bytes, int]] = {}
    for node in nodes:
        if node.key != in_force:
            in_force = node.key
            keys.append(KeyFrom(node.entry.seq + 1, in_force))
        payload = node.entry.payload
        if isinstance(payload, Work):
            works.setdefault(payload.job, []).append(node.entry.id)
            if node.moved:
                paid[payload.payer] = paid.get(payload.payer, 0) + node.moved
                of_job = paid_for.setdefault(payload.job, {})
                of_job[payload.payer] = of_job.get(payload.payer, 0) + node.moved
        elif isinstance(payload, Hold | Release):
            works.setdefault(payload.job, [])
            held.setdefault(payload.job, JobSums()).count(node, 1)
    return Fold(
        base.account, base.seq, last.entry.seq, last.entry.id, last.entry.time_ms, keys,
        sum(node.strict for node in nodes), sum(node.face for node in nodes), _paid_by(paid),
        [
            HeldFor(job, one.held, one.released, one.signed_held, one.signed_released)
            for job, one in sorted(held.items())
        ],
        [FoldedJob(job, ids, _paid_by(paid_for.get(job, {}))) for job, ids in sorted(works.items())],
    )  # fmt: skip


def shut(closing: Closing, folded: FoldedJob) -> Closing:
    """What is kept of a closed job once that much of it was folded."""
    paid = {one.account: one.micro for one in closing.paid or ()}
    for one in folded.paid:
        paid[one.account] = paid.get(one.account, 0) + one.micro
    gone = set(folded.works)
    finals = [one for one in closing.finals if one.id not in gone]
    return replace(closing, spec=b"", finals=finals, paid=_paid_by(paid))


def _paid_by(sums: dict[bytes, int]) -> list[PaidBy]:
    return [PaidBy(account, sums[account]) for account in sorted(sums)]
