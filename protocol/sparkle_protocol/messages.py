"""Requests and replies between two peers, and what is gossiped.

Commands are authenticated by the Noise channel they come through; only the facts inside are signed, because
only they must convince third parties. Every request has exactly one reply type; a refused one gets ``Refusal``.
"""

from collections.abc import Iterable
from typing import Annotated, Any, TypeVar, cast

import msgspec
from msgspec import Meta

from sparkle_protocol.blobs.tree import MAX_BLOB_BYTES, MAX_CHUNKS
from sparkle_protocol.codec import Wire, decode, encode
from sparkle_protocol.facts import (
    MAX_BATCH,
    MAX_FACT_BYTES,
    MAX_RANGES,
    MAX_RESULT_BYTES,
    Count,
    Epoch,
    Hash32,
    Key32,
    Name,
    ShortText,
    UnitIndex,
)
from sparkle_protocol.ledger_messages import (
    EntriesReply,
    EntriesRequest,
    HeadsReply,
    HeadsRequest,
    LedgerPush,
    ProofReply,
    ProofRequest,
)
from sparkle_protocol.trust_messages import KnownReply, KnownRequest

RawFact = Annotated[bytes, Meta(max_length=MAX_FACT_BYTES + 256)]
Progress = Annotated[float, Meta(ge=0.0, le=1.0)]
Waiting = Annotated[int, Meta(ge=0, le=1 << 20)]
Memory = Annotated[int, Meta(ge=-1, lt=1 << 53)]  # what one unit may use, in bytes
UNSAID = -1
Millis = Annotated[int, Meta(ge=0, le=86_400_000)]
MAX_ADDRESS_CHARS = 256
MAX_ADDRESSES = 8
Address = Annotated[str, Meta(min_length=8, max_length=MAX_ADDRESS_CHARS)]

Result = Annotated[bytes, Meta(max_length=MAX_RESULT_BYTES)]
MAX_WANT = 128
MAX_KNOWN_JOBS = 64
MAX_TOO_LARGE = 8
MAX_HEARTBEATS = 256  # of one report
MAX_RESULTS_PER_REPORT = 256
REPORT_RESULT_BYTES = 640 << 10  # of one report, so that it stays under MAX_MESSAGE_BYTES with room for the rest
MAX_REPORT_FACTS = 64
MAX_VIEW_FACTS = 512  # who keeps a job: 73 sets of eight keepers, each with six endorsements of the next
SHARDS = 4
MAX_PUSHED_FACTS = 256
MAX_UNWANTED = 64
MAX_RECORDS = 16  # of sealed ranges; as many as fit into PUSH_BYTES, but one
MAX_SEAL_BYTES = 720_896  # of one: what its limits allow fits into a message
RawRecord = Annotated[bytes, Meta(max_length=MAX_SEAL_BYTES)]
RangeIndex = Annotated[int, Meta(ge=0, lt=MAX_RANGES)]
MAX_PUSHED_RESULTS = 256  # and no more bytes than PUSH_BYTES together with the facts, unless it is one alone
PUSH_BYTES = 640 << 10
MAX_BEATS = 1024
MAX_COMPARED = 8192  # facts named in one answer
MAX_PIECE_BYTES = 256 << 10  # of a blob in one reply: other replies pass between two of them
MAX_OUTLINE_HASHES = 16384  # in one reply
INSTANCE_BYTES = 16
Instance = Annotated[bytes, Meta(min_length=INSTANCE_BYTES, max_length=INSTANCE_BYTES)]
MAX_STATEMENT_BYTES = 512
MAX_OTHERS = 8
BlobSize = Annotated[int, Meta(ge=0, le=MAX_BLOB_BYTES)]


class UnitEpoch(Wire, frozen=True):
    """A unit in one epoch."""

    unit: UnitIndex
    epoch: Epoch


class Settled(Wire, frozen=True):
    """What became of a worker's result."""

    unit: UnitIndex
    epoch: Epoch
    accepted: bool


class LeaseRequest(Wire, tag=10, frozen=True):
    """Worker to keeper: give me up to ``want`` units of kernels I can run."""

    want: Annotated[int, Meta(ge=1, le=MAX_WANT)]
    kernels: Annotated[list[Name], Meta(max_length=256)]  # "name@version"
    known_jobs: Annotated[list[Hash32], Meta(max_length=MAX_KNOWN_JOBS)] = []  # their specs need not be sent again
    device: Annotated[str, Meta(max_length=64)] = ""  # class of device that will compute, such as "cpu/x86_64"
    memory_bytes: Memory = UNSAID  # units that need more are not wanted
    unwanted: Annotated[list[Hash32], Meta(max_length=MAX_UNWANTED)] = []  # jobs


class JobFacts(Wire, frozen=True):
    """A job's spec, and the facts that show who keeps it now: keeper sets and what endorses them."""

    spec: RawFact
    views: Annotated[list[RawFact], Meta(max_length=MAX_VIEW_FACTS)]


class TooLarge(Wire, frozen=True):
    """An open job whose units need more memory than the worker allows."""

    job: Hash32
    memory_bytes: Count


class LeaseReply(Wire, tag=11, frozen=True):
    """Keeper to worker: leases, specs the worker lacked, and when to ask again if that was not enough."""

    jobs: Annotated[list[JobFacts], Meta(max_length=64)]
    leases: Annotated[list[RawFact], Meta(max_length=64)]
    wait_ms: Millis
    open_jobs: Annotated[int, Meta(ge=0, le=1_000_000)]  # jobs here that are not finished
    waiting: Waiting = 0  # units that could be handed out now
    too_large: Annotated[list[TooLarge], Meta(max_length=MAX_TOO_LARGE)] = []  # of jobs here that are not counted


class Heartbeat(Wire, frozen=True):
    """A running lease and how far it is."""

    unit: UnitIndex
    epoch: Epoch
    progress: Progress


class Report(Wire, tag=12, frozen=True):
    """Worker to keeper: all there is to say about one job. ``results`` match the reveals' items in order."""

    job: Hash32
    # Commits, Reveals, Failures of the worker; before them Leases of other keepers that its units rest on
    facts: Annotated[list[RawFact], Meta(max_length=MAX_REPORT_FACTS)]
    results: Annotated[list[Result], Meta(max_length=MAX_RESULTS_PER_REPORT)]
    running: Annotated[list[Heartbeat], Meta(max_length=MAX_HEARTBEATS)]
    returned: Annotated[list[UnitEpoch], Meta(max_length=MAX_HEARTBEATS)] = []  # handed back untouched


class ReportReply(Wire, tag=13, frozen=True):
    """Keeper to worker: which commitments to open now, which units to drop, what was decided."""

    job: Hash32
    reveal: Annotated[list[UnitEpoch], Meta(max_length=MAX_BATCH)]
    drop: Annotated[list[UnitEpoch], Meta(max_length=MAX_BATCH)]
    settled: Annotated[list[Settled], Meta(max_length=MAX_BATCH)]
    ended: bool
    # When the keepers changed: who they are now, and Leases that carry units over into their new epoch.
    views: Annotated[list[RawFact], Meta(max_length=MAX_VIEW_FACTS)] = []
    leases: Annotated[list[RawFact], Meta(max_length=64)] = []


class Notice(Wire, tag=14, frozen=True):
    """Keeper to worker, unasked: the same news as a ReportReply, as soon as they are true."""

    job: Hash32
    reveal: Annotated[list[UnitEpoch], Meta(max_length=MAX_BATCH)]
    drop: Annotated[list[UnitEpoch], Meta(max_length=MAX_BATCH)]
    settled: Annotated[list[Settled], Meta(max_length=MAX_BATCH)]
    ended: bool
    # When the keepers changed: who they are now, and Leases that carry units over into their new epoch.
    views: Annotated[list[RawFact], Meta(max_length=MAX_VIEW_FACTS)] = []
    leases: Annotated[list[RawFact], Meta(max_length=64)] = []


class Offer(Wire, tag=15, frozen=True):
    """Keeper to worker: I have open work; ask me."""

    kernels: Annotated[list[Name], Meta(max_length=64)]
    waiting: Waiting = 0  # units that could be handed out now; 0: not said


class PeersRequest(Wire, tag=16, frozen=True):
    """Tell me some peers that you are connected to, and your clock."""

    time_ms: Annotated[int, Meta(ge=0)]


class PeerRecord(Wire, frozen=True):
    """A peer and where it was reached."""

    key: Key32
    addresses: Annotated[tuple[Address, ...], Meta(max_length=MAX_ADDRESSES)]


class PeersReply(Wire, tag=17, frozen=True):
    """A sample of live peers."""

    peers: Annotated[list[PeerRecord], Meta(max_length=32)]
    time_ms: Annotated[int, Meta(ge=0)]
    memory_bytes: Memory = UNSAID  # of the sender's own workers; 0: it computes nothing


class Ok(Wire, tag=18, frozen=True):
    """Done; nothing to say."""


class Refusal(Wire, tag=19, frozen=True):
    """The request was understood and refused."""

    code: Annotated[str, Meta(max_length=40)]
    text: ShortText


class Here(Wire, tag=46, frozen=True):
    """I run, as this instance of mine; ``statement``: signed, that I was told of another one (``presence.py``).

    ``ask``: another instance of you has just spoken up here, so ask me now.
    """

    instance: Instance
    statement: Annotated[bytes, Meta(max_length=MAX_STATEMENT_BYTES)] = b""
    ask: bool = False


class HereReply(Wire, tag=47, frozen=True):
    """Other instances of yours that spoke up here lately; ``statement``: of the first, signed, that names yours."""

    others: Annotated[list[Instance], Meta(max_length=MAX_OTHERS)]
    statement: Annotated[bytes, Meta(max_length=MAX_STATEMENT_BYTES)] = b""


class Push(Wire, tag=30, frozen=True):
    """Between keepers of a job: keep these facts and results. The first push of a job starts with its spec.

    ``results`` come with the verdicts that accept them; each is known by its hash.
    """

    job: Hash32
    facts: Annotated[list[RawFact], Meta(max_length=MAX_PUSHED_FACTS)]
    results: Annotated[list[Result], Meta(max_length=MAX_PUSHED_RESULTS)] = []


class PushReply(Wire, tag=31, frozen=True):
    """All of it is kept. ``facts`` are what the keeper itself stated in consequence."""

    job: Hash32
    facts: Annotated[list[RawFact], Meta(max_length=MAX_PUSHED_FACTS)]


class JobBeat(Wire, frozen=True):
    """A job that the sender keeps: a sum over the facts it knows, and whether it has all results it should.

    ``room``: it has room for blobs of results.
    """

    job: Hash32
    sum: Annotated[bytes, Meta(min_length=8, max_length=8)]
    complete: bool
    room: bool = True


class Beat(Wire, tag=32, frozen=True):
    """Between keepers, every ten seconds: I am here; these are the jobs that we both keep."""

    jobs: Annotated[list[JobBeat], Meta(max_length=MAX_BEATS)]


class BeatReply(Wire, tag=33, frozen=True):
    """The same jobs as seen here; those missing are not kept here."""

    jobs: Annotated[list[JobBeat], Meta(max_length=MAX_BEATS)]


class Compare(Wire, tag=34, frozen=True):
    """What do you know of this job? ``sums[i]`` is over the facts here whose id starts with byte i."""

    job: Hash32
    sums: Annotated[list[Annotated[bytes, Meta(min_length=8, max_length=8)]], Meta(min_length=256, max_length=256)]


class CompareReply(Wire, tag=35, frozen=True):
    """The buckets that differ, and the ids (first 8 bytes) of all facts here that are in them.

    Buckets that did not fit are left out; compare again after the others are equal.
    """

    job: Hash32
    buckets: Annotated[bytes, Meta(max_length=256)]
    ids: Annotated[bytes, Meta(max_length=8 * MAX_COMPARED)]


class Fetch(Wire, tag=36, frozen=True):
    """Give me these facts (by the first 8 bytes of their ids), results (by hash) and records of sealed ranges."""

    job: Hash32
    facts: Annotated[bytes, Meta(max_length=8 * MAX_PUSHED_FACTS)] = b""
    results: Annotated[list[Hash32], Meta(max_length=MAX_PUSHED_RESULTS)] = []
    ranges: Annotated[list[RangeIndex], Meta(max_length=MAX_RECORDS)] = []


class FetchReply(Wire, tag=37, frozen=True):
    """What is there of it."""

    job: Hash32
    facts: Annotated[list[RawFact], Meta(max_length=MAX_PUSHED_FACTS)]
    results: Annotated[list[Result], Meta(max_length=MAX_PUSHED_RESULTS)] = []
    ranges: Annotated[list[RawRecord], Meta(max_length=MAX_RECORDS)] = []


class Release(Wire, tag=38, frozen=True):
    """Submitter to keeper: I have all I wanted of this job; keep it no longer."""

    job: Hash32


class OutlineRequest(Wire, tag=40, frozen=True):
    """What does this blob consist of? Hashes of its chunks from ``first`` on."""

    blob: Hash32
    first: Annotated[int, Meta(ge=0, le=MAX_CHUNKS)] = 0


class OutlineReply(Wire, tag=41, frozen=True):
    """Its size and as many of the hashes as fit."""

    size: BlobSize
    hashes: Annotated[bytes, Meta(max_length=32 * MAX_OUTLINE_HASHES)]


class TicketRequest(Wire, tag=42, frozen=True):
    """Let me read this blob over HTTPS."""

    blob: Hash32


class TicketReply(Wire, tag=43, frozen=True):
    """A ticket, its key, and where: ``port`` of the hosts that the peer is reached at; 0: nowhere, ask for pieces."""

    port: Annotated[int, Meta(ge=0, le=65535)]
    certificate: Hash32  # SHA-256 of the server's certificate
    signature: Annotated[bytes, Meta(min_length=64, max_length=64)]  # that it is this peer's
    ticket: Annotated[bytes, Meta(max_length=256)]
    key: Hash32
    ttl_ms: Millis


class PieceRequest(Wire, tag=44, frozen=True):
    """Bytes of a blob, where no HTTPS connection can be made."""

    blob: Hash32
    offset: BlobSize
    count: Annotated[int, Meta(ge=1, le=MAX_PIECE_BYTES)]
    compress: bool = False  # zstd is understood


class PieceReply(Wire, tag=45, frozen=True):
    """All of them, as zstd frame if ``compressed``."""

    data: Annotated[bytes, Meta(max_length=MAX_PIECE_BYTES)]
    compressed: bool = False


BlobRequest = OutlineRequest | TicketRequest | PieceRequest
BlobReply = OutlineReply | TicketReply | PieceReply
Request = (
    LeaseRequest | Report | Notice | Offer | PeersRequest | Here | Push | Beat | Compare | Fetch | Release
    | OutlineRequest | TicketRequest | PieceRequest | HeadsRequest | EntriesRequest | LedgerPush | ProofRequest
    | KnownRequest
)  # fmt: skip
Reply = (
    LeaseReply | ReportReply | PeersReply | Ok | Refusal | HereReply | PushReply | BeatReply | CompareReply
    | FetchReply | OutlineReply | TicketReply | PieceReply | HeadsReply | EntriesReply | ProofReply | KnownReply
)  # fmt: skip
Carrier = TypeVar("Carrier", Push, FetchReply)  # messages that carry results
_REQUEST: Any = Request  # a union is no ``type`` to mypy
_REPLY: Any = Reply


class Announcement(Wire, frozen=True):
    """Gossip on ``/sparkle/<net>/jobs/1``: its author keeps open jobs for these kernels.

    The author of the signed gossip message is the keeper itself, at ``addresses``.
    """

    version: Annotated[int, Meta(ge=1, le=1)]
    kernels: Annotated[list[Name], Meta(max_length=64)]
    addresses: Annotated[list[Address], Meta(max_length=MAX_ADDRESSES)]


def with_results(message: Carrier, results: Iterable[bytes]) -> Carrier:
    """The message with as many of these results as fit, in order; the first always does."""
    size = sum(len(raw) for raw in message.facts)
    size += sum(len(raw) for raw in message.ranges) if type(message) is FetchReply else 0
    taken: list[bytes] = []
    for result in results:
        size += len(result)
        if taken and (size > PUSH_BYTES or len(taken) >= MAX_PUSHED_RESULTS):
            break
        taken.append(result)
    return msgspec.structs.replace(message, results=taken)


def encode_message(message: Request | Reply | Announcement) -> bytes:
    """Bytes of a message."""
    return encode(message)


def decode_request(data: bytes) -> Request:
    """The request in ``data``. Raises RemoteProtocolError."""
    return cast(Request, decode(data, _REQUEST))


def decode_reply(data: bytes) -> Reply:
    """The reply in ``data``. Raises RemoteProtocolError."""
    return cast(Reply, decode(data, _REPLY))


def decode_announcement(data: bytes) -> Announcement:
    """The announcement in ``data``. Raises RemoteProtocolError."""
    return decode(data, Announcement, max_bytes=16 << 10)


def jobs_topic(network: str) -> str:
    """Gossip topic of job announcements."""
    return f"/sparkle/{network}/jobs/1"


def shard_of(job: bytes) -> int:
    """The shard that a job's keepers are found in."""
    return job[0] % SHARDS


def shard_key(network: str, kernel: str, shard: int) -> bytes:
    """Routing key under which keepers with open work for a kernel ("name@version") are found.

    A lookup gives few of the providers of a key, and the peers nearest to a key bear all its lookups. Four shards
    spread both over four times as many, and a worker that looks up two of them each time has seen all after two.
    """
    return f"sparkle/{network}/jobs/{kernel}/{shard}".encode()
