"""Requests and replies between two peers, and what is gossiped.

Commands are authenticated by the Noise channel they come through; only the facts inside are signed, because
only they must convince third parties. Every request has exactly one reply type; a refused one gets ``Refusal``.
"""

from typing import Annotated, Any, cast

from msgspec import Meta

from sparkle_protocol.codec import Wire, decode, encode
from sparkle_protocol.facts import (
    MAX_BATCH,
    MAX_FACT_BYTES,
    MAX_RESULT_BYTES,
    Epoch,
    Hash32,
    Key32,
    Name,
    ShortText,
    UnitIndex,
)

RawFact = Annotated[bytes, Meta(max_length=MAX_FACT_BYTES + 256)]
Progress = Annotated[float, Meta(ge=0.0, le=1.0)]
Millis = Annotated[int, Meta(ge=0, le=86_400_000)]
MAX_ADDRESS_CHARS = 256
MAX_ADDRESSES = 8
Address = Annotated[str, Meta(min_length=8, max_length=MAX_ADDRESS_CHARS)]

MAX_WANT = 64
MAX_KNOWN_JOBS = 64
MAX_HEARTBEATS = 256  # of one report
MAX_RESULTS_PER_REPORT = 12  # times 64 kB stays under MAX_MESSAGE_BYTES with room for the rest


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


class JobFacts(Wire, frozen=True):
    """A job's spec and keeper set."""

    spec: RawFact
    keepers: RawFact


class LeaseReply(Wire, tag=11, frozen=True):
    """Keeper to worker: leases, specs the worker lacked, and when to ask again if that was not enough."""

    jobs: Annotated[list[JobFacts], Meta(max_length=64)]
    leases: Annotated[list[RawFact], Meta(max_length=64)]
    wait_ms: Millis
    open_jobs: Annotated[int, Meta(ge=0, le=1_000_000)]  # jobs here that are not finished


class Heartbeat(Wire, frozen=True):
    """A running lease and how far it is."""

    unit: UnitIndex
    epoch: Epoch
    progress: Progress


class Report(Wire, tag=12, frozen=True):
    """Worker to keeper: all there is to say about one job. ``results`` match the reveals' items in order."""

    job: Hash32
    facts: Annotated[list[RawFact], Meta(max_length=16)]  # Commits, Reveals, Failures
    results: Annotated[
        list[Annotated[bytes, Meta(max_length=MAX_RESULT_BYTES)]], Meta(max_length=MAX_RESULTS_PER_REPORT)
    ]
    running: Annotated[list[Heartbeat], Meta(max_length=MAX_HEARTBEATS)]
    returned: Annotated[list[UnitEpoch], Meta(max_length=MAX_HEARTBEATS)] = []  # handed back untouched


class ReportReply(Wire, tag=13, frozen=True):
    """Keeper to worker: which commitments to open now, which units to drop, what was decided."""

    job: Hash32
    reveal: Annotated[list[UnitEpoch], Meta(max_length=MAX_BATCH)]
    drop: Annotated[list[UnitEpoch], Meta(max_length=MAX_BATCH)]
    settled: Annotated[list[Settled], Meta(max_length=MAX_BATCH)]
    ended: bool


class Notice(Wire, tag=14, frozen=True):
    """Keeper to worker, unasked: the same news as a ReportReply, as soon as they are true."""

    job: Hash32
    reveal: Annotated[list[UnitEpoch], Meta(max_length=MAX_BATCH)]
    drop: Annotated[list[UnitEpoch], Meta(max_length=MAX_BATCH)]
    settled: Annotated[list[Settled], Meta(max_length=MAX_BATCH)]
    ended: bool


class Offer(Wire, tag=15, frozen=True):
    """Keeper to worker: I have open work; ask me."""

    kernels: Annotated[list[Name], Meta(max_length=64)]


class PeersRequest(Wire, tag=16, frozen=True):
    """Tell me some peers that you are connected to, and your clock."""

    time_ms: Annotated[int, Meta(ge=0)]


class PeerRecord(Wire, frozen=True):
    """A peer and where it was reached."""

    key: Key32
    addresses: Annotated[list[Address], Meta(max_length=MAX_ADDRESSES)]


class PeersReply(Wire, tag=17, frozen=True):
    """A sample of live peers."""

    peers: Annotated[list[PeerRecord], Meta(max_length=32)]
    time_ms: Annotated[int, Meta(ge=0)]


class Ok(Wire, tag=18, frozen=True):
    """Done; nothing to say."""


class Refusal(Wire, tag=19, frozen=True):
    """The request was understood and refused."""

    code: Annotated[str, Meta(max_length=40)]
    text: ShortText


Request = LeaseRequest | Report | Notice | Offer | PeersRequest
Reply = LeaseReply | ReportReply | PeersReply | Ok | Refusal
_REQUEST: Any = Request  # a union is no ``type`` to mypy
_REPLY: Any = Reply


class Announcement(Wire, frozen=True):
    """Gossip on ``/sparkle/<net>/jobs/1``: its author keeps open jobs for these kernels.

    The author of the signed gossip message is the keeper itself, at ``addresses``.
    """

    version: Annotated[int, Meta(ge=1, le=1)]
    kernels: Annotated[list[Name], Meta(max_length=64)]
    addresses: Annotated[list[Address], Meta(max_length=MAX_ADDRESSES)]


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


def shard_key(network: str, kernel: str) -> bytes:
    """Routing key under which keepers with open work for a kernel ("name@version") are found."""
    return f"sparkle/{network}/jobs/{kernel}".encode()
