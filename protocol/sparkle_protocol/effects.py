"""What the cores ask of their shell, and what the shell tells them.

A core is ``handle(event, now_ns) -> tuple[Effect, ...]`` plus ``next_deadline() -> int | None``. ``now_ns`` is a
monotonic clock that only moves forward. The shell performs effects in their order; what stands after a ``Persist``
waits until that is durable. Whatever answers an effect comes back as an event with the effect's ``tag``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sparkle_protocol import messages
from sparkle_protocol.facts import Fact, JobSpec
from sparkle_protocol.ids import FactId, JobId, PeerId, ResultHash

Value = str | int | float | bool | None

# --- effects ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StoreFact:
    """Keep a fact."""

    fact: Fact


@dataclass(frozen=True, slots=True)
class DropFact:
    """Forget a fact: a lease of ours by which no commit of ours stands any more."""

    job: JobId
    lot: int  # see ``facts.lot_of``
    fact_id: FactId


@dataclass(frozen=True, slots=True)
class SealRange:
    """Keep the record of a range of units instead of these facts (each by its lot and id)."""

    job: JobId
    index: int
    raw: bytes
    drop: tuple[tuple[int, FactId], ...]


@dataclass(frozen=True, slots=True)
class StoreResult:
    """Keep a unit's result bytes; they are found again by job and hash."""

    job: JobId
    result_hash: ResultHash
    result: bytes


@dataclass(frozen=True, slots=True)
class StoreCommit:
    """Keep what a worker must not lose between commit and reveal."""

    job: JobId
    unit: int
    epoch: int
    nonce: bytes
    result: bytes


@dataclass(frozen=True, slots=True)
class DropCommit:
    """A commit of ours is settled."""

    job: JobId
    unit: int
    epoch: int


@dataclass(frozen=True, slots=True)
class DropCommits:
    """The job needs none of our commits any more."""

    job: JobId


@dataclass(frozen=True, slots=True)
class StoreRejection:
    """Keep that a result was refused, and why: no fact says so of a check that failed here."""

    job: JobId
    unit: int
    worker: PeerId
    raw: bytes  # see ``work.rejection``


@dataclass(frozen=True, slots=True)
class DropJob:
    """Forget the results of a job that is not kept here any more, and its facts unless commits of ours are open."""

    job: JobId


Record = (
    StoreFact | DropFact | SealRange | StoreResult | StoreCommit | DropCommit | DropCommits | StoreRejection | DropJob
)


@dataclass(frozen=True, slots=True)
class Persist:
    """Make records durable before any later effect of the same batch.

    Without records it is a barrier: what stands after it waits until all earlier records of the node are durable.
    """

    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer the request that came with ``token``.

    ``attach`` names stored results of the message's job that are to be put into its ``results``; those that are
    not there are left out.
    """

    token: int
    message: messages.Reply
    attach: tuple[ResultHash, ...] = ()


@dataclass(frozen=True, slots=True)
class Send:
    """Send a request; its reply (or failure) comes back with ``tag``. ``attach``: as of ``Reply``."""

    tag: int
    peer: PeerId
    message: messages.Request
    attach: tuple[ResultHash, ...] = ()


@dataclass(frozen=True, slots=True)
class Publish:
    """Gossip a payload."""

    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Provide:
    """Announce in the routing layer that we provide ``key``."""

    key: bytes


@dataclass(frozen=True, slots=True)
class FindProviders:
    """Look for providers of ``key`` and connect to them."""

    key: bytes


@dataclass(frozen=True, slots=True)
class FindPeers:
    """Look for the peers nearest to ``key``; the answer is ``FoundPeers`` with this ``tag``."""

    tag: int
    key: bytes


@dataclass(frozen=True, slots=True)
class Prepare:
    """A unit with inputs is in hand: begin to fetch its tiles from ``keepers``, so that this overlaps computing.

    Nothing answers it. ``Compute`` of the same unit follows, or ``StopCompute`` if it is given up before.
    """

    job: JobId
    unit: int
    epoch: int
    spec: JobSpec
    keepers: tuple[PeerId, ...]


@dataclass(frozen=True, slots=True)
class Compute:
    """Run a unit in the executor, once its inputs are here. ``keepers``: who has them, without ourselves."""

    job: JobId
    unit: int
    epoch: int
    spec: JobSpec
    keepers: tuple[PeerId, ...] = ()


@dataclass(frozen=True, slots=True)
class StopCompute:
    """Drop a unit that is prepared or runs; ``resumes``: it may come back, so what it has come to can be kept."""

    job: JobId
    unit: int
    epoch: int
    resumes: bool = False


@dataclass(frozen=True, slots=True)
class CheckUnit:
    """Find out whether a worker's revealed result is right; the answer is ``UnitChecked``.

    ``result`` is what the worker revealed: of an array kernel the id of the blob. ``sources``: who may have the
    blobs, without ourselves; the worker is the first.
    """

    job: JobId
    unit: int
    epoch: int
    worker: PeerId
    result: bytes
    spec: JobSpec
    sources: tuple[PeerId, ...]


@dataclass(frozen=True, slots=True)
class HoldInputs:
    """Fetch a job's inputs from ``sources`` and keep them; the answer is ``InputsHeld``.

    It may be said again, with other sources, until that came. The first ``likely`` sources should have all of them.
    ``sizes``: what the inputs must have, in order; empty where that is not known.
    """

    job: JobId
    inputs: tuple[bytes, ...]
    sources: tuple[PeerId, ...]
    likely: int = 0
    sizes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ReleaseInputs:
    """A job's inputs are not needed here any more, as far as this job is concerned."""

    job: JobId
    inputs: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class HoldResult:
    """Fetch the blob that a stored result of somebody else's job names, and keep it until ``ReleaseResults``.

    The answer is ``ResultNotHeld`` if that does not work. ``size``: of the blob. The first ``likely`` sources should
    have it.
    """

    job: JobId
    unit: int
    result: ResultHash
    size: int
    sources: tuple[PeerId, ...]
    likely: int


@dataclass(frozen=True, slots=True)
class ReleaseResults:
    """No blob of a result of this job need be kept here for its sake any more."""

    job: JobId


@dataclass(frozen=True, slots=True)
class LedgerEvidence:
    """What proves the outcome of a job: signed facts and records of sealed ranges, as they travel."""

    job: JobId
    facts: tuple[bytes, ...]
    sealed: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class LedgerClosing:
    """What is kept of a job that was settled long ago; unless ``keep_evidence``, what proved it is to be deleted."""

    raw: bytes
    keep_evidence: bool


@dataclass(frozen=True, slots=True)
class KeepLedger:
    """Make this durable in the ledger; the answer is ``LedgerKept`` with this ``tag``.

    ``entries`` are signed entries, ``forks`` pairs of entries that one key signed for one place, as they travel.
    ``closings`` come after these: they rest on all of that. ``folds`` come last: each takes entries away that rest on
    what was kept before, and is in itself done as a whole or not at all.
    """

    tag: int
    entries: tuple[bytes, ...] = ()
    evidence: tuple[LedgerEvidence, ...] = ()
    forks: tuple[tuple[bytes, bytes], ...] = ()
    closings: tuple[LedgerClosing, ...] = ()
    folds: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class ReadEvidence:
    """Read back what the ledger has on disk about a job; the answer is ``EvidenceRead`` with this ``tag``, always."""

    tag: int
    job: JobId


@dataclass(frozen=True, slots=True)
class JobFunded:
    """What became of setting aside what a job of ours may cost; ``refused`` says why it was not done."""

    job: JobId
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class Earned:
    """Somebody's job with a price has work of ours: pay for it is to be claimed.

    ``units``: (unit, epoch) of each result that was accepted just now; at first, when units were given to us, none.
    ``views``: what shows who keeps the job.
    """

    spec: Fact
    views: tuple[Fact, ...]
    units: tuple[tuple[int, int], ...]
    keepers: tuple[PeerId, ...]


@dataclass(frozen=True, slots=True)
class JobUnfunded:
    """Nobody shows that the pay for a job was set aside: an effect of the ledger, and an event for the worker."""

    job: JobId


@dataclass(frozen=True, slots=True)
class WorkOver:
    """A job with a price has ended for us.

    ``ranges``: of units that we committed to and of which nobody said what became of them. They may be accepted.
    """

    job: JobId
    ranges: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Dial:
    """Connect to an address; ``tag`` names the attempt."""

    tag: int
    address: str


@dataclass(frozen=True, slots=True)
class Hangup:
    """Close the connection to a peer."""

    peer: PeerId
    reason: str


@dataclass(frozen=True, slots=True)
class RememberPeer:
    """Keep a peer's addresses for the next start."""

    peer: PeerId
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Violation:
    """Record that a peer broke a rule."""

    peer: PeerId
    reason: str


@dataclass(frozen=True, slots=True)
class Notify:
    """Something a person or a client may want to know. ``event`` is a stable name."""

    event: str
    fields: Mapping[str, Value] = field(default_factory=dict)


Effect = (
    Persist | Reply | Send | Publish | Provide | FindProviders | FindPeers | Prepare | Compute | StopCompute
    | CheckUnit | HoldInputs | ReleaseInputs | HoldResult | ReleaseResults | Dial | Hangup | RememberPeer
    | Violation | Notify | KeepLedger | ReadEvidence | JobFunded | JobUnfunded | Earned | WorkOver
)  # fmt: skip
Effects = tuple[Effect, ...]

# --- events -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tick:
    """A deadline has passed."""


@dataclass(frozen=True, slots=True)
class Requested:
    """A peer (or this node itself) asks; answer with ``Reply(token, …)`` in the same batch."""

    token: int
    peer: PeerId
    message: messages.Request


@dataclass(frozen=True, slots=True)
class Replied:
    """The answer to a ``Send``."""

    tag: int
    peer: PeerId
    message: messages.Reply


@dataclass(frozen=True, slots=True)
class SendFailed:
    """A ``Send`` got no answer."""

    tag: int
    peer: PeerId
    reason: str


@dataclass(frozen=True, slots=True)
class PeerUp:
    """A peer is connected."""

    peer: PeerId
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PeerDown:
    """A peer's connection is gone."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class Gossiped:
    """A gossip message arrived."""

    topic: str
    author: PeerId
    payload: bytes


@dataclass(frozen=True, slots=True)
class Discovered:
    """An address of some peer was learnt."""

    address: str
    source: str


@dataclass(frozen=True, slots=True)
class Dialled:
    """A ``Dial`` ended; ``peer`` is None when it failed."""

    tag: int
    address: str
    peer: PeerId | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class FoundPeers:
    """The answer to ``FindPeers``: peers that can be reached, nearest first; empty when the network knows none."""

    tag: int
    peers: tuple[PeerId, ...]


@dataclass(frozen=True, slots=True)
class Computed:
    """The executor finished a unit. ``seconds`` is how long it took once its turn had come, if that is known."""

    job: JobId
    unit: int
    epoch: int
    result: bytes
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class ComputeFailed:
    """The executor could not finish a unit. ``blame`` tells whether the unit or this machine is at fault."""

    job: JobId
    unit: int
    epoch: int
    code: str
    text: str
    blame: bool


@dataclass(frozen=True, slots=True)
class ComputeProgress:
    """A running unit is this far (0..1)."""

    job: JobId
    unit: int
    epoch: int
    progress: float


@dataclass(frozen=True, slots=True)
class UnitChecked:
    """The answer to ``CheckUnit``.

    ``passed`` is None if the result could not be had, which accuses nobody; ``text`` says what was found wrong.
    """

    job: JobId
    unit: int
    epoch: int
    worker: PeerId
    passed: bool | None
    text: str = ""


@dataclass(frozen=True, slots=True)
class LedgerKept:
    """The answer to ``KeepLedger``; ``failure`` says why it is not durable."""

    tag: int
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class EvidenceRead:
    """The answer to ``ReadEvidence``: facts and records as they travel; none if the disk failed."""

    tag: int
    facts: tuple[bytes, ...] = ()
    sealed: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class InputsHeld:
    """The answer to ``HoldInputs``: all inputs of the job are durable here."""

    job: JobId


@dataclass(frozen=True, slots=True)
class ResultNotHeld:
    """A ``HoldResult`` was given up; ``full``: there is no room for it."""

    job: JobId
    unit: int
    full: bool
