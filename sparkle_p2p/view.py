"""What a node shows of itself: one frozen tree that TUI, web page, API and CLI all read.

``NodeControl`` is the matching command set. In-process it is the node itself; elsewhere it is a client of the
local API. Clients never reach behind these two.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:  # most clients never ask for it
    from sparkle_p2p.ledger_view import CreditView

Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something is as it is: a stable code, one sentence for people, and the numbers behind it."""

    code: str
    sentence: str
    numbers: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PeerView:
    """A connected peer. ``standing`` is ``ok``, or ``rejected`` once its work was proven wrong here."""

    peer_id: str
    addresses: tuple[str, ...]
    direction: Literal["in", "out"]
    latency_ms: float | None
    agent: str
    connected_s: float
    units_accepted: int = 0
    units_rejected: int = 0
    violations: int = 0
    standing: Literal["ok", "rejected"] = "ok"


@dataclass(frozen=True, slots=True)
class StandingView:
    """How far this node trusts a worker's results: answers of newcomers are compared and decide nothing."""

    peer_id: str
    device: str  # "": unknown, or whatever device
    verification: str  # class of kernels; "": all
    state: Literal["named", "known", "vouched", "newcomer"]  # vouched: somebody who is named knows it
    passes: int  # comparisons since it was last proven wrong
    capital_h: float  # work behind these, in hours of a reference core
    audit_rate: float  # the probability with which a result of a minute of reference work is compared
    failures: int  # how often it was proven wrong


@dataclass(frozen=True, slots=True)
class UnitView:
    """A unit this node holds now."""

    job: str
    index: int
    kernel: str
    state: Literal["queued", "running", "paused", "committed", "revealed"]
    progress: float  # 0..1
    seconds: float  # since it started (0 while queued)
    keeper: str  # who leased it to us


@dataclass(frozen=True, slots=True)
class UnitCounts:
    """Units of a job by state; they sum to ``total``."""

    total: int
    pending: int = 0
    leased: int = 0
    committed: int = 0
    provisional: int = 0
    final: int = 0
    dead: int = 0


@dataclass(frozen=True, slots=True)
class Rejection:
    """A result that was refused, with the evidence in words."""

    unit: int
    worker: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a worker made of a unit: a failure's code and text, or ``answered`` and the start of its result's hash."""

    worker: str
    epoch: int
    code: str
    text: str


@dataclass(frozen=True, slots=True)
class DeadUnit:
    """A unit that nobody could compute, with the evidence of its last epoch."""

    job: str
    kernel: str
    unit: int
    epoch: int  # how often it was begun anew
    reason: Reason
    attempts: tuple[Attempt, ...]


@dataclass(frozen=True, slots=True)
class Requeued:
    """Dead units that begin anew, and how their job stands now."""

    job: str
    units: tuple[int, ...]
    state: Literal["queued", "running", "done", "cancelled", "failed"]


@dataclass(frozen=True, slots=True)
class Eta:
    """Seconds from now until something probably ends; in four of five cases it lies between low and high."""

    finish_s: float
    low_s: float
    high_s: float


@dataclass(frozen=True, slots=True)
class JobView:
    """A job this node submitted."""

    job: str
    kernel: str
    params: Mapping[str, Any]
    state: Literal["queued", "running", "done", "cancelled", "failed"]
    verify: str
    units: UnitCounts
    replicas: int  # executions committed so far
    rejected: int  # results refused
    workers: Mapping[str, int]  # peer id -> units of it accepted
    rejections: tuple[Rejection, ...]
    result: Any  # JSON value; None until done; large or binary results say how to fetch them
    error: str | None
    age_s: float
    eta_s: float | None  # eta.finish_s
    eta: Eta | None = None  # None: nobody can tell; ``why`` says why
    keepers: tuple[str, ...] = ()  # peers in its newest keeper set
    sealed: bool = False  # its arrays are stored and sent encrypted


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of the node's diary. ``time`` is Unix seconds."""

    time: float
    level: Literal["info", "good", "warning", "error"]
    text: str


@dataclass(frozen=True, slots=True)
class KernelView:
    """A kernel this node can run."""

    name: str
    version: int
    summary: str
    params: Mapping[str, str]  # name -> type, range and meaning in words
    verification: Literal["exact", "algebraic", "tolerance", "homogeneous"]
    cost: str  # how reference work grows with the parameters
    example: str
    inputs: Mapping[str, str] = field(default_factory=dict)  # name -> what the array must be; empty: it takes none
    error: str = ""  # how far a right result may be from the exact one, in words; empty: not at all


@dataclass(frozen=True, slots=True)
class Safety:
    """How safe jobs are with so few or many peers: who accepts results, and what stops when a node leaves.

    ``alone``: this node does everything. ``submitter_only``: peers compute, only a job's submitter accepts.
    ``certified``: keepers accept by certificate.
    """

    code: Literal["alone", "submitter_only", "certified"]
    sentence: str
    peers: int  # within reach, this node counted


@dataclass(frozen=True, slots=True)
class NodeView:
    """Everything a client needs to draw a node."""

    peer_id: str
    net: str
    version: str
    pid: int
    state: Literal["working", "idle", "paused", "stopping"]
    reason: Reason
    network: Literal["starting", "alone", "connected", "down"]
    uptime_s: float
    addresses: tuple[str, ...]
    api: str | None
    peers: tuple[PeerView, ...]
    units: tuple[UnitView, ...]
    jobs: tuple[JobView, ...]
    units_done: int  # computed by this node
    units_verified: int  # of these, accepted by the job's owner
    credit_micro: int
    cpu_percent: float  # node and children, share of the whole machine (0..100)
    pss_bytes: int  # node and children
    limits: Mapping[str, Scalar]
    log: tuple[LogLine, ...]  # newest last, bounded
    safety: Safety
    missing_protections: tuple[str, ...] = ()  # what this system cannot enforce upon computing processes
    network_key: str | None = None  # fingerprint of a private network's key; None: the network is open
    genesis: str | None = None  # beginning of the digest of the genesis record that was given; None: the default one
    known_workers: int = 0  # peers whose answers count here
    standings: tuple[StandingView, ...] = ()  # those named as trusted, then those that changed last; bounded


@dataclass(frozen=True, slots=True)
class SubmitRequest:
    """A job as a user asks for it."""

    kernel: str
    params: Mapping[str, Any]
    units: int | None = None  # None: the kernel chooses
    verify: Literal["fast", "final", "critical"] = "final"
    inputs: Mapping[str, str] = field(default_factory=dict)  # name -> absolute path of a .npy or .png file here
    free: bool = False  # offers no credit: computed when there is nothing better to do
    sealed: bool = False  # arrays are stored and sent encrypted; needs a private network


@dataclass(frozen=True, slots=True)
class JobResult:
    """A finished job's result: a JSON value, or bytes of a media type (an image as PNG).

    An array is a file on the node's machine: ``media_type`` is ``application/x-npy``, ``data`` empty, and ``value``
    holds its ``dtype``, ``shape`` and absolute ``path``. The file stays when the job is forgotten.
    """

    job: str
    kernel: str
    value: Any
    media_type: str = "application/json"
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Moment:
    """Something in the life of a job, or several like things between ``time`` and ``until`` (Unix seconds)."""

    time: float
    until: float
    reason: Reason


@dataclass(frozen=True, slots=True)
class Explanation:
    """Answer to ``why``: a headline, details with numbers, and for a job what happened to it, oldest first."""

    subject: str
    headline: Reason
    details: tuple[Reason, ...] = ()
    timeline: tuple[Moment, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check of ``sparkle doctor`` came to. ``fix`` says what to do about it; empty: nothing."""

    check: str
    level: Literal["ok", "warn", "fail"]
    reason: Reason
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, for ``--json`` logs and server-sent events."""

    event: str
    time: float
    fields: Mapping[str, Any] = field(default_factory=dict)


class NodeControl(Protocol):
    """What clients may ask of a node. Every method raises SparkleError subclasses only."""

    def view(self) -> NodeView:
        """The current picture; cheap, called several times a second."""
        ...

    async def pause(self) -> None:
        """Stop computing at once (running units are suspended) and take no more units."""
        ...

    async def resume(self) -> None:
        """Compute again."""
        ...

    async def submit(self, request: SubmitRequest) -> str:
        """Publish a job and return its id (hex). Raises ConfigError for bad kernels or parameters."""
        ...

    async def job(self, job: str) -> JobView:
        """One job by id or unique prefix. Raises NotFound."""
        ...

    async def jobs(self) -> tuple[JobView, ...]:
        """All jobs this node submitted, newest first."""
        ...

    async def result(self, job: str) -> JobResult:
        """The result of a finished job. Raises NotFound, ConfigError (not done yet)."""
        ...

    async def cancel(self, job: str) -> JobView:
        """Cancel a job; finished jobs stay as they are."""
        ...

    async def dead(self, job: str | None = None) -> tuple[DeadUnit, ...]:
        """Dead units of a job or, newest job first, of all (the first thousand). Raises NotFound."""
        ...

    async def requeue(self, job: str, unit: int | None = None) -> Requeued:
        """Begin a dead unit (None: all of the job) anew; a failed job goes on. Raises NotFound, ConfigError."""
        ...

    async def why(self, subject: str | None = None) -> Explanation:
        """Explain the node's state (None), or a job ('ID'), a unit ('ID/INDEX') or a peer."""
        ...

    async def checkup(self) -> tuple[Finding, ...]:
        """What blocks this node, as far as the running node can tell."""
        ...

    async def credit(self, account: str | None = None) -> "CreditView":
        """The credit of this node's account (None), or of another that is kept here. Raises NotFound, ConfigError."""
        ...

    async def kernels(self) -> tuple[KernelView, ...]:
        """Kernels that this node knows."""
        ...

    def events(self) -> AsyncIterator[Event]:
        """Events from now on; a slow reader loses the oldest (bounded queue)."""
        ...


def status_json(view: NodeView) -> dict[str, Any]:
    """The document that ``sparkle status --json`` and ``/api/v1/status`` give."""
    return {
        "peer_id": view.peer_id,
        "net": view.net,
        "private": view.network_key is not None,
        "network_key": view.network_key,
        "genesis": view.genesis,
        "state": view.state,
        "reason": {
            "code": view.reason.code,
            "sentence": view.reason.sentence,
            "numbers": dict(view.reason.numbers),
        },
        "network": view.network,
        "peers": len(view.peers),
        "safety": {
            "code": view.safety.code,
            "sentence": view.safety.sentence,
            "peers": view.safety.peers,
        },
        "known_workers": view.known_workers,
        "units_running": sum(unit.state == "running" for unit in view.units),  # others wait, or are handed in
        "units_done": view.units_done,
        "units_verified": view.units_verified,
        "credit_micro": view.credit_micro,
        "cpu_percent": round(view.cpu_percent, 2),
        "pss_bytes": view.pss_bytes,
        "limits": dict(view.limits),
        "missing_protections": list(view.missing_protections),
        "uptime_s": round(view.uptime_s, 1),
        "addresses": list(view.addresses),
        "api": view.api,
        "pid": view.pid,
        "version": view.version,
    }
