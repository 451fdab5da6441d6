"""What is counted in a run, and how it went over time.

A unit counts as final when its submitter says so; whether its result is the right one is known here, outside the
simulated world. A rejected result is one whose worker was told so.
"""

from collections import Counter
from collections.abc import Iterable
from math import ceil, exp, floor, log

from sparkle_protocol.effects import Notify, Violation
from sparkle_protocol.ids import JobId, hash_result
from sparkle_sim.computing import result_size, true_result
from sparkle_sim.kernel import SECOND
from sparkle_sim.network import BYTES_PER_MBIT
from sparkle_sim.peer import Peer
from sparkle_sim.world import World

MAX_ROWS = 10_000  # of a time series: longer runs are sampled more coarsely

COLUMNS = (
    "time_s", "online", "units_final", "units_per_s", "replicas", "messages", "bytes", "blob_bytes", "wrong_finals",
    "rejected", "events",
)  # fmt: skip
CREDIT_COLUMNS = ("paid_units", "paid_micro", "held_micro", "forked")  # where there is credit
Row = tuple[float, int, int, float, int, int, int, int, int, int, int]


def sample_every_s(seconds: float) -> float:
    """How far apart samples are: whole virtual seconds."""
    return float(max(1, ceil(seconds / MAX_ROWS)))


class Latencies:
    """Times from submission to final, counted in bins that are 2 % wide: as many bins for a million as for ten."""

    WIDTH = log(1.02)
    LEAST_S = 1e-3

    def __init__(self) -> None:
        self.count = 0
        self._bins: dict[int, int] = {}

    def add(self, seconds: float) -> None:
        """One more."""
        number = floor(log(max(seconds, self.LEAST_S)) / self.WIDTH)
        self._bins[number] = self._bins.get(number, 0) + 1
        self.count += 1

    def table(self) -> list[tuple[float, int]]:
        """Upper bounds of the bins in seconds, each with how many were in it, in order."""
        return [(exp((number + 1) * self.WIDTH), count) for number, count in sorted(self._bins.items())]

    def quantile(self, share: float) -> float | None:
        """The time within which this share of them was; None if there are none."""
        wanted, seen = share * self.count, 0
        for bound_s, count in self.table():
            seen += count
            if seen >= wanted:
                return bound_s
        return None


class Metrics:
    """A watcher of the world; each event costs it the same, whatever the number of peers and units.

    Args:
        every_s: how far apart samples are.
        submitters: whose jobs count; those of floods do not.
    """

    def __init__(self, every_s: float, submitters: Iterable[int]) -> None:
        self._every_s = every_s
        self._submitters = frozenset(submitters)
        self.notified: Counter[str] = Counter()
        self.violations = 0
        self.units = 0  # submitted
        self.finals = 0
        self.wrong = 0
        self.latencies = Latencies()
        self.first_submit_ns: int | None = None
        self.last_final_ns: int | None = None
        self._submitted_ns: dict[str, int] = {}
        self._known: dict[str, set[int]] = {}  # units that are final; a submitter that lost its disk says so twice
        self._refused: set[tuple[str, str]] = set()  # workers by job, as its submitter says
        self._last = (0.0, 0)

    # --- watching -----------------------------------------------------------------------------------------------

    def heard(self, peer: Peer, effect: Notify) -> None:
        """A peer told its owner something."""
        event = effect.event
        self.notified[event] += 1
        if event == "unit_final":
            if effect.fields["own"]:
                self._final(peer, str(effect.fields["job"]), int(effect.fields["unit"] or 0))
        elif event == "job_submitted" and peer.number in self._submitters:
            job = str(effect.fields["job"])
            if job not in self._submitted_ns:
                self._submitted_ns[job] = now = peer.world.kernel.now
                self._known[job] = set()
                self.units += int(effect.fields["units"] or 0)
                self.first_submit_ns = now if self.first_submit_ns is None else self.first_submit_ns
        elif event == "worker_rejected" and peer.number in self._submitters:
            self._refused.add((str(effect.fields["job"]), str(effect.fields["peer"])))

    def violated(self, peer: Peer, effect: Violation) -> None:
        """A peer found that another one broke a rule."""
        self.violations += 1

    def _final(self, peer: Peer, job: str, unit: int) -> None:
        known = self._known.get(job)
        if known is None or unit in known:
            return
        known.add(unit)
        now = peer.world.kernel.now
        self.finals += 1
        self.last_final_ns = now
        self.latencies.add((now - self._submitted_ns[job]) / SECOND)
        name = JobId(bytes.fromhex(job))
        kept = peer.submitter.jobs.get(name)
        given = kept.decided(unit) if kept is not None else None
        if kept is not None and given is not None:
            self.wrong += given != hash_result(true_result(name, unit, result_size(kept.state.spec)))

    # --- telling ------------------------------------------------------------------------------------------------

    @property
    def replicas(self) -> int:
        """Units that were computed, each as often as it was."""
        return self.notified["unit_computed"]

    @property
    def rejected(self) -> int:
        """Results that were refused, as their workers were told."""
        return self.notified["result_rejected"]

    def sample(self, world: World) -> Row:
        """How things stand now: sums since the beginning, and units per second since the sample before."""
        now_s, (then_s, finals) = world.kernel.now / SECOND, self._last
        rate = (self.finals - finals) / max(now_s - then_s, self._every_s)  # the last sample may come early
        self._last = now_s, self.finals
        online = sum(1 for peer in world.peers if peer.life is not None)
        network = world.network
        return (
            now_s, online, self.finals, rate, self.replicas, network.messages, network.bytes,
            world.arrays.moved_bytes, self.wrong, self.rejected, world.kernel.events,
        )  # fmt: skip

    def summary(self, world: World) -> dict[str, object]:
        """The whole run in figures; None where there is nothing to divide by."""
        begin, end = self.first_submit_ns, self.last_final_ns
        span_s = (end - begin) / SECOND if begin is not None and end is not None and end > begin else None
        messages, bytes_ = world.network.messages, world.network.bytes
        return {
            "units": self.units,
            "units_final": self.finals,
            "wrong_finals": self.wrong,
            "makespan_s": _rounded(span_s),
            "units_per_s": _rounded(self.finals / span_s) if span_s else None,
            "replicas": self.replicas,
            "replicas_per_unit": _per(self.replicas, self.finals),
            "rejected": self.rejected,
            "workers_rejected": len(self._refused),
            "violations": self.violations,
            "messages": messages,
            "bytes": bytes_,
            "messages_per_unit": _per(messages, self.finals),
            "bytes_per_unit": _per(bytes_, self.finals),
            "blob_bytes": world.arrays.moved_bytes,
            "blob_bytes_lost": world.network.uplinks.broken,
            "uplinks": _uplinks(world),
            "latency_s": {
                name: _rounded(self.latencies.quantile(share))
                for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))
            },
            "notified": dict(sorted(self.notified.items())),
        }


def _uplinks(world: World) -> dict[str, float | None]:
    """How busy lines were outwards with blobs and large messages, as shares of what they could have sent."""
    could = world.network.conditions.upload_mbps * BYTES_PER_MBIT * world.kernel.now / SECOND
    if not could:
        return {"mean": None, "busiest": None}
    sent = world.network.uplinks.sent.values()
    return {
        "mean": _rounded(sum(sent) / could / max(1, len(world.peers))),
        "busiest": _rounded(max(sent, default=0) / could),
    }


def _per(count: int, units: int) -> float | None:
    return _rounded(count / units) if units else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")
