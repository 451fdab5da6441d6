"""How much a node keeps for others: bounds per submitter, per network and in all.

- A job is admitted only if the facts that it will cause fit beside those that admitted jobs will cause, so that a
  flood is refused at the door and whoever got in can finish.
- Nobody knows how large results will be; they are counted as they come. A job is *over* while its submitter, its
  network or the node has no room left: it then gets no further results kept (and no leases that would bring some)
  until some of them were fetched or jobs ended.
- The blobs of a job's inputs count when it is admitted, those of results that are kept here as they come. Others get
  three quarters of the space for blobs, so that there is always some for our own jobs and for what we compute.
- The last quarter of each bound is for small submitters: of what is left then, one may have a 64th of the whole, one
  network a 16th. So a few large jobs of strangers cannot shut out everybody else.
- The bound per network is not for addresses that are not public: a LAN, or one machine, is a single network.

Our own jobs, and any other that was never ``add``-ed, are not counted and never over.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from sparkle_protocol.errors import ConfigError
from sparkle_protocol.facts import JobSpec
from sparkle_protocol.ids import JobId, PeerId
from sparkle_protocol.work.blob_sizes import NO_BLOBS, BlobSizes
from sparkle_protocol.work.placement import LOCAL, UNKNOWN

MB = 1_000_000
FACT_BYTES_PER_VOTE = 32  # in memory and compressed: a job of 2²⁰ units, two votes each, costs at most 64 MiB
FACT_BYTES_PER_JOB = 4096  # keeper set, certificates of its views, bookkeeping
CROWDED = 0.75  # from this share of a bound in all on, less is kept for each:
SUBMITTER_SHARE = 64  # one of so many parts of the whole
NETWORK_SHARE = 16


@dataclass(frozen=True, slots=True)
class Bounds:
    """The most that is kept for one holder of a bound."""

    jobs: int
    units: int
    fact_bytes: int
    result_bytes: int
    blob_bytes: int = 0


# A home machine lends 2 GB of disk and a quarter of a GB of memory: a sixteenth of what is common today. One
# submitter may have the largest job there is (2²⁰ units), one network two of them.
PER_SUBMITTER = Bounds(jobs=32, units=1 << 20, fact_bytes=72 * MB, result_bytes=256 * MB)
PER_NETWORK = Bounds(jobs=64, units=1 << 21, fact_bytes=144 * MB, result_bytes=512 * MB)
IN_ALL = Bounds(jobs=512, units=1 << 22, fact_bytes=288 * MB, result_bytes=2_000 * MB)
WORDS = {
    "jobs": "jobs",
    "units": "units",
    "fact_bytes": "of facts",
    "result_bytes": "of results",
    "blob_bytes": "of arrays",
}
BLOB_SHARES = (0.25, 0.5, 0.75)  # of the space for blobs: one submitter, one network, all others together


@dataclass(slots=True)
class Usage:
    """What is kept: of one job, submitter, network, or in all."""

    jobs: int = 0
    units: int = 0
    fact_bytes: int = 0
    result_bytes: int = 0
    blob_bytes: int = 0

    def change(self, other: "Usage", sign: int) -> None:
        """Add another's amounts, or take them away."""
        self.jobs += sign * other.jobs
        self.units += sign * other.units
        self.fact_bytes += sign * other.fact_bytes
        self.result_bytes += sign * other.result_bytes
        self.blob_bytes += sign * other.blob_bytes


@dataclass(slots=True)
class _Kept:
    """An admitted job. Its facts count with what is expected of them, or what there are if more."""

    submitter: PeerId
    network: str
    usage: Usage
    expected_fact_bytes: int
    fact_bytes: int = 0


def expected_fact_bytes(spec: JobSpec, spec_bytes: int) -> int:
    """Memory that a job's facts take when all goes well."""
    return spec.units * spec.policy.quorum * FACT_BYTES_PER_VOTE + spec_bytes + FACT_BYTES_PER_JOB


@dataclass(frozen=True, slots=True)
class _Holder:
    """Somebody to whom a bound applies."""

    whose: str
    usage: Usage
    bounds: Bounds
    in_all: Bounds
    share: int

    def limit(self, name: str, crowded: bool) -> int:
        """The most of this that is kept for it."""
        most: int = getattr(self.bounds, name)
        return min(most, getattr(self.in_all, name) // self.share) if crowded else most

    def sentence(self, name: str, limit: int) -> str:
        """The bound, in words for whoever was refused."""
        amount = f"{limit / MB:g} MB" if name.endswith("_bytes") else str(limit)
        now = " now that it is nearly full" if limit < getattr(self.bounds, name) else ""
        return f"this node keeps at most {amount} {WORDS[name]} of {self.whose}{now}"


class Quota:
    """What is kept for whom. Memory is bounded by the number of jobs admitted."""

    def __init__(
        self,
        per_submitter: Bounds = PER_SUBMITTER,
        per_network: Bounds = PER_NETWORK,
        in_all: Bounds = IN_ALL,
        sizes: BlobSizes = NO_BLOBS,
    ) -> None:
        self.sizes = sizes
        self._per_submitter = per_submitter
        self._per_network = per_network
        self._in_all = in_all
        self._jobs: dict[JobId, _Kept] = {}
        self._submitters: dict[PeerId, Usage] = {}
        self._networks: dict[str, Usage] = {}
        self.total = Usage()

    def __len__(self) -> int:
        return len(self._jobs)

    def of_submitter(self, submitter: PeerId) -> Usage:
        """What is kept for one submitter."""
        return self._submitters.get(submitter, Usage())

    def network_of(self, job: JobId) -> str:
        """The network that the job's submitter was in when it was admitted."""
        kept = self._jobs.get(job)
        return kept.network if kept is not None else UNKNOWN

    def admit(self, submitter: PeerId, network: str, spec: JobSpec, spec_bytes: int) -> str | None:
        """Why this job is not kept here, in a sentence; None when it may be. ``add`` it then."""
        try:
            blob_bytes = self.sizes.input_bytes(spec)
        except ConfigError as error:
            return f"this node cannot tell how large the inputs of the job are: {error}"
        new = Usage(1, spec.units, expected_fact_bytes(spec, spec_bytes), 0, blob_bytes)
        for name in WORDS:
            crowded = getattr(self.total, name) + getattr(new, name) > CROWDED * getattr(self._in_all, name)
            for holder in self._holders(submitter, network):
                limit, had, more = holder.limit(name, crowded), getattr(holder.usage, name), getattr(new, name)
                if had + more > limit or (had >= limit and (more or name != "blob_bytes")):
                    return holder.sentence(name, limit)
        return None

    def add(self, job: JobId, submitter: PeerId, network: str, spec: JobSpec, spec_bytes: int) -> None:
        """Count a job, whether or not there is room: one that was admitted earlier stays. Once per job."""
        if job in self._jobs:
            return
        expected = expected_fact_bytes(spec, spec_bytes)
        try:
            blob_bytes = self.sizes.input_bytes(spec)
        except ConfigError:  # an earlier version knew it
            blob_bytes = 0
        usage = Usage(1, spec.units, expected, 0, blob_bytes)
        kept = self._jobs[job] = _Kept(submitter, network, usage, expected, spec_bytes)
        self._count(kept, kept.usage, +1)

    def remove(self, job: JobId) -> None:
        """A job, with all that was kept for it, is gone."""
        kept = self._jobs.pop(job, None)
        if kept is None:
            return
        self._count(kept, kept.usage, -1)
        if not self._submitters[kept.submitter].jobs:
            del self._submitters[kept.submitter]
        if not self._networks[kept.network].jobs:
            del self._networks[kept.network]

    def grow(self, job: JobId, *, fact_bytes: int = 0, result_bytes: int = 0, blob_bytes: int = 0) -> None:
        """More is kept for a job, or (negative) less: results that were fetched and dropped."""
        kept = self._jobs.get(job)
        if kept is None:
            return
        kept.fact_bytes = max(0, kept.fact_bytes + fact_bytes)
        more = Usage(
            fact_bytes=max(kept.expected_fact_bytes, kept.fact_bytes) - kept.usage.fact_bytes,
            result_bytes=max(result_bytes, -kept.usage.result_bytes),
            blob_bytes=max(blob_bytes, -kept.usage.blob_bytes),
        )
        kept.usage.change(more, +1)
        self._count(kept, more, +1)

    def over(self, job: JobId) -> str | None:
        """Why nothing more is kept for this job at the moment, in a sentence; None while there is room."""
        kept = self._jobs.get(job)
        if kept is None:
            return None
        crowded = self.total.result_bytes > CROWDED * self._in_all.result_bytes
        for holder in self._holders(kept.submitter, kept.network):
            for name, shrinks in (("fact_bytes", False), ("result_bytes", crowded)):  # facts had room from the start
                limit = holder.limit(name, shrinks)
                if getattr(holder.usage, name) > limit:
                    return holder.sentence(name, limit)
        return None

    def no_room(self, job: JobId, blob_bytes: int) -> str | None:
        """Why a blob of a result is not kept for this job, in a sentence; None when it may be. ``grow`` then."""
        kept = self._jobs.get(job)
        if kept is None:
            return None
        crowded = self.total.blob_bytes + blob_bytes > CROWDED * self._in_all.blob_bytes
        for holder in self._holders(kept.submitter, kept.network):
            limit = holder.limit("blob_bytes", crowded)
            if holder.usage.blob_bytes + blob_bytes > limit:
                return holder.sentence("blob_bytes", limit)
        return None

    def _holders(self, submitter: PeerId, network: str) -> Iterator[_Holder]:
        yield _Holder(
            "one submitter", self.of_submitter(submitter), self._per_submitter, self._in_all, SUBMITTER_SHARE
        )
        if network != LOCAL:
            usage = self._networks.get(network, Usage())
            yield _Holder("one network", usage, self._per_network, self._in_all, NETWORK_SHARE)
        yield _Holder("others", self.total, self._in_all, self._in_all, 1)

    def _count(self, kept: _Kept, amounts: Usage, sign: int) -> None:
        for usage in (
            self._submitters.setdefault(kept.submitter, Usage()),
            self._networks.setdefault(kept.network, Usage()),
            self.total,
        ):
            usage.change(amounts, sign)


def with_blobs(space_bytes: int, sizes: BlobSizes) -> Quota:
    """The quota of a node that has so much space for blobs."""
    one, network, others = (
        replace(bound, blob_bytes=int(share * space_bytes))
        for bound, share in zip((PER_SUBMITTER, PER_NETWORK, IN_ALL), BLOB_SHARES, strict=True)
    )
    return Quota(one, network, others, sizes)
