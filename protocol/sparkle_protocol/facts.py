"""Signed facts: what peers state about a job, each checkable by anybody who holds the bytes.

======  ===========  ==========  ==========================================================
kind    payload      author      states
======  ===========  ==========  ==========================================================
1       JobSpec      submitter   this job exists
2       KeeperSet    proposer    these peers keep the job in this view (see ``work/views.py`` for when it counts)
3       Leases       keeper      these workers were given these units
4       Commits      worker      I have results with these commitments
5       Reveals      worker      these are the hashes and nonces behind my commitments
6       Verdicts     keeper      these results are accepted and those workers' rejected
7       Reset        submitter   a unit starts over
8       Cancel       submitter   nobody need compute this job any further (called off, or failed)
9       Failures     worker      these units could not be computed, and why
20      Endorsements keeper      I hold what these verdicts accept, or agree that this keeper set follows mine
21      Seals        keeper      I hold the records with these roots, and every result that they name
22      Standings    submitter   these workers' answers count while I am away, and so many are audited
23      AuditCalls   keeper      I want a second answer for these units before I endorse one
24      AuditSecret  submitter   this is what my audits were drawn from; nothing more will be
======  ===========  ==========  ==========================================================

On the wire a fact is the msgpack array ``[body, signature]`` with body = msgpack
``[version, kind, network, author key, payload]``, signature = Ed25519 over ``DOMAIN ‖ body``. Its id is
BLAKE3(body), so that a second signature over the same body is the same fact.
"""

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Any, Protocol, TypeGuard

from msgspec import Meta

from sparkle_protocol.codec import Wire, decode, encode
from sparkle_protocol.errors import LocalProtocolError, RemoteProtocolError
from sparkle_protocol.identity import verify_signature
from sparkle_protocol.ids import FactId, JobId, PeerId, ResultHash, digest, peer_id_from_key

DOMAIN = b"sparkle/fact/1\x00"
COMMIT_DOMAIN = b"sparkle/commit/1\x00"
FACT_VERSION = 1
MAX_UNITS = 1 << 20
MAX_SPEC_BYTES = 64 << 10  # ARCHITECTURE section 6: a JobSpec is at most 64 kB
MAX_FACT_BYTES = 256 << 10
MAX_RESULT_BYTES = 64 << 10  # larger results will travel as blobs
NONCE_BYTES = 16
SALT_BYTES = 16
MAX_BATCH = 1024  # items of one fact
SEAL_UNITS = 1024  # of one range: a record of about 45 kB, one signed root for it
MAX_RANGES = MAX_UNITS // SEAL_UNITS
NO_RANGE = -1  # the lot of facts that speak of no unit, and of those that are kept for good
SEVERAL_RANGES = -2
RESET_BITS = 12
MAX_RESETS = 1 << RESET_BITS  # of one unit
MAX_VIEWS = 1 << 20
VIEWS_PER_GENERATION = 256  # a view whose number is a multiple of this is signed by the submitter alone

Hash32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
Key32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
Nonce = Annotated[bytes, Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]
UnitIndex = Annotated[int, Meta(ge=0, lt=MAX_UNITS)]
View = Annotated[int, Meta(ge=0, lt=MAX_VIEWS)]
# The view in which a unit is worked on and how often it was reset by then, as one number: see ``epoch_of``.
Epoch = Annotated[int, Meta(ge=0, lt=MAX_VIEWS << RESET_BITS)]
Count = Annotated[int, Meta(ge=0, lt=1 << 53)]
Amount = Annotated[float, Meta(ge=0.0, le=1e24)]  # le also keeps NaN and infinity out
Name = Annotated[str, Meta(min_length=1, max_length=64)]
ShortText = Annotated[str, Meta(max_length=400)]
ParamValue = str | int | bool | float


class Policy(Wire, frozen=True):
    """How results of a job are verified."""

    level: Annotated[str, Meta(pattern="^(fast|final|critical)$")] = "final"
    quorum: Annotated[int, Meta(ge=1, le=16)] = 2  # distinct workers that must agree
    max_replicas: Annotated[int, Meta(ge=1, le=64)] = 8  # after that many without agreement the unit is dead
    # Of a thousand results of known workers, so many are compared at least; 0: nobody is known, all are.
    audit_permille: Annotated[int, Meta(ge=0, le=1000)] = 0


class Resources(Wire, frozen=True):
    """Reference work of one unit (the largest of the job)."""

    flops: Amount = 0.0
    bytes: Amount = 0.0
    memory_bytes: Count = 0


class Deadlines(Wire, frozen=True):
    """Seconds: waiting for a first worker, running one unit, and the whole job. Kept separate on purpose."""

    queue_s: Annotated[int, Meta(ge=1, le=31_536_000)] = 604_800
    execution_s: Annotated[int, Meta(ge=1, le=31_536_000)] = 86_400
    total_s: Annotated[int, Meta(ge=1, le=31_536_000)] = 604_800


class JobSpec(Wire, tag=1, frozen=True):
    """One immutable job: a kernel, its parameters and how many units it is cut into."""

    kernel: Name
    kernel_version: Annotated[int, Meta(ge=1, lt=1 << 31)]
    params: dict[str, ParamValue]
    units: Annotated[int, Meta(ge=1, le=MAX_UNITS)]
    verification: Annotated[str, Meta(pattern="^(exact|algebraic|tolerance|homogeneous)$")]
    policy: Policy
    resources: Resources
    deadlines: Deadlines
    audit_commitment: Hash32  # H(secret) of the audit coin; the secret opens when the job ends
    nonce: Nonce  # two equal requests are two jobs
    created_ms: Count  # submitter's wall clock; informative, decides nothing
    priority: Annotated[int, Meta(ge=0, le=9)] = 5
    price_micro: Count = 0  # per accepted execution
    hold_micro: Count = 0  # taken into the job's escrow
    inputs: Annotated[list[Hash32], Meta(max_length=1024)] = []  # msgspec copies defaults
    blob_salt: Annotated[bytes, Meta(max_length=SALT_BYTES)] = b""  # not empty: its blobs are encrypted


def is_encrypted(spec: JobSpec) -> bool:
    """The job's inputs and results are stored and sent encrypted, for holders of the network's key only."""
    return bool(spec.blob_salt)


def is_checked(spec: JobSpec) -> bool:
    """Each result is checked by itself: those of different machines differ in their bits, and none proves another."""
    return spec.verification in ("algebraic", "tolerance")


class KeeperSet(Wire, tag=2, frozen=True):
    """The peers that keep a job in one view and how many of them decide.

    A view whose number is a multiple of ``VIEWS_PER_GENERATION`` is the submitter's own word. Any other follows
    ``previous``, the fact id of the set of the view before, and counts once that set's threshold endorsed it.
    """

    job: Hash32
    view: View
    keys: Annotated[list[Key32], Meta(min_length=1, max_length=16)]
    threshold: Annotated[int, Meta(ge=1, le=16)]
    previous: Annotated[bytes, Meta(max_length=32)] = b""


class LeaseItem(Wire, frozen=True):
    """One unit promised to one worker. ``ttl_ms`` counts from receipt on the holder's monotonic clock."""

    counter: Count
    unit: UnitIndex
    epoch: Epoch
    worker: Key32
    ttl_ms: Annotated[int, Meta(ge=1, le=86_400_000)]


class Leases(Wire, tag=3, frozen=True):
    """Units promised to workers by a keeper, or by the submitter."""

    job: Hash32
    items: Annotated[list[LeaseItem], Meta(min_length=1, max_length=MAX_BATCH)]


class CommitItem(Wire, frozen=True):
    """A worker's binding commitment to a result it does not show yet."""

    unit: UnitIndex
    epoch: Epoch
    commit: Hash32


class Commits(Wire, tag=4, frozen=True):
    """Commitments of one worker."""

    job: Hash32
    items: Annotated[list[CommitItem], Meta(min_length=1, max_length=MAX_BATCH)]
    device: Annotated[str, Meta(max_length=64)] = ""  # class of device that computed, as in a LeaseRequest


class RevealItem(Wire, frozen=True):
    """The opening of a commitment."""

    unit: UnitIndex
    epoch: Epoch
    result_hash: Hash32
    nonce: Nonce


class Reveals(Wire, tag=5, frozen=True):
    """Openings of one worker's commitments; the result bytes travel beside them."""

    job: Hash32
    items: Annotated[list[RevealItem], Meta(min_length=1, max_length=MAX_BATCH)]


class VerdictItem(Wire, frozen=True):
    """The accepted result of a unit, who gave it, and who gave another."""

    unit: UnitIndex
    epoch: Epoch
    result_hash: Hash32
    accepted: Annotated[list[Key32], Meta(min_length=1, max_length=64)]
    rejected: Annotated[list[Key32], Meta(max_length=64)]


class Verdicts(Wire, tag=6, frozen=True):
    """Units that are final."""

    job: Hash32
    items: Annotated[list[VerdictItem], Meta(min_length=1, max_length=MAX_BATCH)]


class Reset(Wire, tag=7, frozen=True):
    """A unit starts over for the ``resets``-th time: what was stated before no longer counts for it."""

    job: Hash32
    unit: UnitIndex
    resets: Annotated[int, Meta(ge=1, lt=MAX_RESETS)]
    reason: ShortText


class Cancel(Wire, tag=8, frozen=True):
    """The submitter wants no further work on the job: it called it off, or it found that it cannot succeed.

    ``restarts`` is the sum of all units' resets that a ``failed`` one was stated at. Once that sum is higher, units
    were requeued since, and the job goes on.
    """

    job: Hash32
    reason: ShortText
    failed: bool = False
    restarts: Count = 0


class FailureItem(Wire, frozen=True):
    """A unit that a worker could not compute. Equal codes from distinct workers point at the unit."""

    unit: UnitIndex
    epoch: Epoch
    code: Annotated[str, Meta(pattern="^(kernel|crash|memory|time|refused)$")]
    text: ShortText
    device: Annotated[str, Meta(max_length=64)] = ""  # class of device, as in a LeaseRequest


class Failures(Wire, tag=9, frozen=True):
    """Units that one worker could not compute."""

    job: Hash32
    items: Annotated[list[FailureItem], Meta(min_length=1, max_length=MAX_BATCH)]


class StandingItem(Wire, frozen=True):
    """A worker whose answers count, and how many of a thousand are to be compared nevertheless."""

    worker: Key32
    audit_permille: Annotated[int, Meta(ge=1, le=1000)]


class Standings(Wire, tag=22, frozen=True):
    """Whose answers count where the submitter does not judge itself. The statement of the highest number holds."""

    job: Hash32
    number: Count
    items: Annotated[list[StandingItem], Meta(max_length=MAX_BATCH)]


class Endorsements(Wire, tag=20, frozen=True):
    """A keeper's word on other facts.

    Of a ``Verdicts``: I hold the results that it accepts for units of views that I am a keeper of, and accept no
    other for them. Of a ``KeeperSet``: it may follow the one that I belong to, in which I endorse nothing further.
    ``range`` is the one that all these verdicts speak of, so that whoever sealed it needs to know nothing else;
    what is said of a verdict on another range does not count.
    """

    job: Hash32
    facts: Annotated[list[Hash32], Meta(min_length=1, max_length=MAX_BATCH)]
    range: Annotated[int, Meta(ge=NO_RANGE, lt=MAX_RANGES)] = NO_RANGE


class SealItem(Wire, frozen=True):
    """One range and the Merkle root over its accepted units."""

    index: Annotated[int, Meta(ge=0, lt=MAX_RANGES)]
    root: Hash32


class Seals(Wire, tag=21, frozen=True):
    """A keeper's word that it holds the records with these roots and every result that they name."""

    job: Hash32
    items: Annotated[list[SealItem], Meta(min_length=1, max_length=MAX_RANGES)]


class CallItem(Wire, frozen=True):
    """A unit in one epoch."""

    unit: UnitIndex
    epoch: Epoch


class AuditCalls(Wire, tag=23, frozen=True):
    """Units whose single answer a keeper wants compared, as its own coin fell so. All are of one range."""

    job: Hash32
    items: Annotated[list[CallItem], Meta(min_length=1, max_length=MAX_BATCH)]


class AuditSecret(Wire, tag=24, frozen=True):
    """The secret behind the spec's ``audit_commitment``, once the job is over."""

    job: Hash32
    secret: Hash32


# What a fact says. Told apart by ``type(payload) is Leases`` where that is done for every fact: for these classes a
# negative ``isinstance`` takes several times as long, and one with a union of them ten times.
Payload = (
    JobSpec | KeeperSet | Leases | Commits | Reveals | Verdicts | Reset | Cancel | Failures | Standings
    | Endorsements | Seals | AuditCalls | AuditSecret
)  # fmt: skip
_PAYLOAD: Any = Payload  # a union is no ``type`` to mypy
Reported = Commits | Reveals | Failures  # what a worker says of units that it was given
_REPORTED = frozenset((Commits, Reveals, Failures))
KINDS: dict[type, int] = {
    JobSpec: 1, KeeperSet: 2, Leases: 3, Commits: 4, Reveals: 5, Verdicts: 6, Reset: 7, Cancel: 8, Failures: 9,
    Endorsements: 20, Seals: 21, Standings: 22, AuditCalls: 23, AuditSecret: 24,
}  # fmt: skip


class _Sealed(Wire, frozen=True):
    body: Annotated[bytes, Meta(max_length=MAX_FACT_BYTES)]
    signature: Annotated[bytes, Meta(min_length=64, max_length=64)]


class _Body(Wire, frozen=True):
    version: int
    kind: int
    network: Name
    author: Key32
    payload: bytes


@dataclass(frozen=True, slots=True)
class Fact:
    """A verified signed statement. ``raw`` is what travels and what is stored.

    Attributes:
        job: the job it speaks of; a spec's own id is the job.
        ranges: of units that it speaks of; none if it is not about the work on units.
        highest_unit: of the units that it names; -1: none.
    """

    id: FactId
    author: PeerId
    payload: Payload
    raw: bytes
    job: JobId = field(init=False, repr=False, compare=False)
    ranges: frozenset[int] = field(init=False, repr=False, compare=False)
    highest_unit: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        payload = self.payload
        self._keep("job", self.id if isinstance(payload, JobSpec) else payload.job)
        self._keep("ranges", _ranges(payload))
        self._keep("highest_unit", max(units_of(payload), default=-1))

    def _keep(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)


class Signer(Protocol):
    """Whoever can sign as a peer: an ``Identity``, or the simulator's cheap stand-in."""

    public_key: bytes
    peer_id: PeerId

    def sign(self, message: bytes) -> bytes:
        """64-byte signature."""
        ...


Verify = Callable[[bytes, bytes, bytes], None]


class FactCodec:
    """Signs and opens the facts of one network."""

    __slots__ = ("_verify", "network")

    def __init__(self, network: str, verify: Verify = verify_signature) -> None:
        self.network = network
        self._verify = verify

    def seal(self, signer: Signer, payload: Payload) -> Fact:
        """State ``payload`` as ``signer``."""
        body = encode(_Body(FACT_VERSION, KINDS[type(payload)], self.network, signer.public_key, encode(payload)))
        limit = MAX_SPEC_BYTES if type(payload) is JobSpec else MAX_FACT_BYTES
        if len(body) > limit:
            raise LocalProtocolError(f"a {type(payload).__name__} of {len(body)} bytes exceeds {limit}")
        raw = encode(_Sealed(body, signer.sign(DOMAIN + body)))
        return Fact(FactId(digest(body)), signer.peer_id, payload, raw)

    def id_of(self, raw: bytes) -> FactId:
        """The id of a fact that is not verified yet, to see whether it is known. Raises RemoteProtocolError."""
        return FactId(digest(decode(raw, _Sealed, max_bytes=MAX_FACT_BYTES + 256).body))

    def lot_of(self, raw: bytes) -> int:
        """The lot of a fact that was verified before. Raises RemoteProtocolError."""
        body = decode(decode(raw, _Sealed, max_bytes=MAX_FACT_BYTES + 256).body, _Body, max_bytes=MAX_FACT_BYTES)
        return lot_of(decode(body.payload, _PAYLOAD, max_bytes=MAX_FACT_BYTES))

    def open(self, raw: bytes) -> Fact:
        """The fact in ``raw`` once signature, network, kind and shape hold.

        Raises:
            RemoteProtocolError: any of them does not.
        """
        sealed = decode(raw, _Sealed, max_bytes=MAX_FACT_BYTES + 256)
        return self._open(sealed, FactId(digest(sealed.body)), raw)

    def open_new(self, raws: Iterable[bytes], known: Container[FactId]) -> list[Fact]:
        """Those of the facts that are not known yet. Raises RemoteProtocolError as ``open`` does."""
        found = []
        for raw in raws:
            sealed = decode(raw, _Sealed, max_bytes=MAX_FACT_BYTES + 256)
            fact_id = FactId(digest(sealed.body))
            if fact_id not in known:
                found.append(self._open(sealed, fact_id, raw))
        return found

    def _open(self, sealed: _Sealed, fact_id: FactId, raw: bytes) -> Fact:
        body = decode(sealed.body, _Body, max_bytes=MAX_FACT_BYTES)
        if body.version != FACT_VERSION:
            raise RemoteProtocolError(f"fact version {body.version} is not spoken here")
        if body.network != self.network:
            raise RemoteProtocolError(f"a fact of network '{body.network}' is none of '{self.network}'")
        self._verify(body.author, sealed.signature, DOMAIN + sealed.body)
        payload: Payload = decode(body.payload, _PAYLOAD, max_bytes=MAX_FACT_BYTES)
        if KINDS[type(payload)] != body.kind:
            raise RemoteProtocolError(f"a fact of kind {body.kind} holds a {type(payload).__name__}")
        if type(payload) is JobSpec and len(sealed.body) > MAX_SPEC_BYTES:
            raise RemoteProtocolError(f"a job spec of {len(sealed.body)} bytes exceeds {MAX_SPEC_BYTES}")
        return Fact(fact_id, peer_id_from_key(body.author), payload, raw)


def epoch_of(view: int, resets: int) -> int:
    """The epoch of a unit in a view. Each epoch belongs to one view, so each is decided by one set of keepers."""
    return view << RESET_BITS | resets


def view_of(epoch: int) -> int:
    """The view that an epoch belongs to."""
    return epoch >> RESET_BITS


def resets_of(epoch: int) -> int:
    """How often a unit of this epoch had been reset."""
    return epoch & (MAX_RESETS - 1)


def is_reported(payload: Payload) -> TypeGuard[Reported]:
    """A worker states such a thing, about units that it was given."""
    return type(payload) in _REPORTED


def units_of(payload: Payload) -> list[int]:
    """The units that a fact names."""
    if isinstance(payload, Reset):
        return [payload.unit]
    if isinstance(payload, Leases | Commits | Reveals | Verdicts | Failures | AuditCalls):
        items: list[LeaseItem | CommitItem | RevealItem | VerdictItem | FailureItem | CallItem] = [*payload.items]
        return [item.unit for item in items]
    return []


def _ranges(payload: Payload) -> frozenset[int]:
    if isinstance(payload, Endorsements):
        return _one_range(payload.range)
    found = set() if isinstance(payload, Reset) else {unit // SEAL_UNITS for unit in units_of(payload)}
    return frozenset(found) if len(found) > 1 else _one_range(next(iter(found), NO_RANGE))


@lru_cache(MAX_RANGES)
def _one_range(index: int) -> frozenset[int]:
    """The same set for all facts about a range, as there may be millions."""
    return frozenset((index,) if index != NO_RANGE else ())


def lot_of(payload: Payload) -> int:
    """Beside which facts one is kept: the range it speaks of, ``NO_RANGE`` or ``SEVERAL_RANGES``."""
    found = _ranges(payload)
    return next(iter(found), NO_RANGE) if len(found) < 2 else SEVERAL_RANGES


def kernel_key(spec: JobSpec) -> str:
    """What workers match their kernels against: results only compare within one version."""
    return f"{spec.kernel}@{spec.kernel_version}"


def commitment(
    network: str, job: JobId, unit: int, epoch: int, worker: bytes, result_hash: ResultHash, nonce: bytes
) -> bytes:
    """What a worker commits to before it shows a result (TRUST: commit and reveal).

    All fields but the network have a fixed size; the network is preceded by its length. The worker's key is
    inside, so another's commitment is useless to copy.
    """
    name = network.encode()
    return digest(
        COMMIT_DOMAIN, len(name).to_bytes(2, "big"), name,
        job, unit.to_bytes(4, "big"), epoch.to_bytes(4, "big"), worker, result_hash, nonce,
    )  # fmt: skip
