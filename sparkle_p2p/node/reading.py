"""What a keeper's records of a job say, as plain values: the one place of the node that reads them in detail."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from sparkle_p2p.node.forecast import SECOND_NS, Held
from sparkle_p2p.view import UnitCounts
from sparkle_protocol.ids import PeerId, ResultHash, peer_id_from_key
from sparkle_protocol.work.kept_job import KeptJob

LEASES_SAMPLED = 64  # enough to see how far those in hand are


@dataclass(frozen=True, slots=True)
class Holding:
    """A lease that lives."""

    worker: PeerId
    counter: int
    since_s: float
    left_s: float
    progress: float
    copy: bool
    slow: bool


@dataclass(frozen=True, slots=True)
class Commitment:
    """A worker's part in a unit beyond its lease: it has committed, and perhaps shown its result."""

    worker: PeerId
    vote: ResultHash | None
    show_within_s: float | None  # asked to show it
    overdue: bool  # asked, and did not show it in time


@dataclass(frozen=True, slots=True)
class Waiting:
    """Units that got all the answers they can get from the workers there are."""

    units: int
    workers: int
    more: int


def unit_counts(job: KeptJob) -> UnitCounts:
    """Units of a job by state."""
    total = job.state.spec.units
    accepted = len(job.state.final_units)
    leased = committed = decided = 0
    for unit, book in job.leases.books.items() if accepted < total else ():
        if unit in job.dead or unit in job.state.final_units:
            continue
        if job.is_decided(unit):
            decided += 1  # by this node; too few keepers have agreed yet
        elif job.participants(unit):
            committed += 1
        elif book.leases:
            leased += 1
    fast = job.state.spec.policy.level == "fast"
    final, provisional = (0, accepted + decided) if fast else (accepted, decided)
    dead = len(job.dead)
    pending = total - accepted - dead - leased - committed - decided
    return UnitCounts(total, pending, leased, committed, provisional, final, dead)


def accepted_of(job: KeptJob) -> tuple[int, int]:
    """Accepted units and all units."""
    return len(job.state.final_units), job.state.spec.units


def was_taken(job: KeptJob) -> bool:
    """Some worker has taken a unit, now or before."""
    return bool(job.leases.live or job.replicas or job.state.final_units)


def keepers(job: KeptJob) -> tuple[PeerId, ...]:
    """Peers in the newest keeper set."""
    newest = job.state.keeper_set
    return tuple(peer_id_from_key(key) for key in newest.keys) if newest is not None else ()


def workers(job: KeptJob) -> set[PeerId]:
    """Everybody who has a part in the job that is known by name."""
    return {*job.accepted_by, *job.rejected, *job.leases.holders()}


def holdings(job: KeptJob, unit: int, now_ns: int) -> list[Holding]:
    """Who holds a unit now, the first lease first."""
    found = [
        Holding(
            worker, lease.counter, (now_ns - lease.granted_ns) / SECOND_NS,
            max(0.0, (lease.deadline_ns - now_ns) / SECOND_NS), lease.progress, lease.copy, lease.slow,
        )
        for worker, lease in job.leases.known(unit).leases.items()
    ]  # fmt: skip
    return sorted(found, key=lambda one: one.counter)


def commitments(job: KeptJob, unit: int, now_ns: int) -> list[Commitment]:
    """Who has committed to a result of a unit in its epoch, in the order in which that became known."""
    votes, book = job.state.votes(unit), job.leases.known(unit)
    return [
        Commitment(
            worker,
            votes.get(worker),
            max(0.0, (book.asked[worker] - now_ns) / SECOND_NS) if worker in book.asked else None,
            worker in book.withheld,
        )
        for worker in job.state.committed(unit)
    ]


def being_checked(job: KeptJob, unit: int) -> list[PeerId]:
    """Whose results of a unit are being checked here, or wait for that."""
    return sorted({worker for _, worker in job.checks.of(unit).pending}) if job.checks is not None else []


def fruitless(job: KeptJob, unit: int) -> list[PeerId]:
    """Workers that were given a unit in its epoch and have nothing to show for it."""
    answered = {*job.state.committed(unit), *job.state.failures(unit), *job.leases.known(unit).leases}
    return sorted(job.state.leased(unit) - answered)


def back_off_s(job: KeptJob, unit: int, now_ns: int) -> float:
    """How long a unit that failed is not handed out yet."""
    until_ns = job.leases.known(unit).not_before_ns
    return max(0.0, (until_ns - now_ns) / SECOND_NS) if until_ns else 0.0


def ahead_of(job: KeptJob, unit: int) -> int:
    """About how many fresh units are handed out before this one, which nobody was given yet."""
    return max(0, unit - len(job.leases.books))


def never_given(job: KeptJob, unit: int) -> bool:
    """Nobody was given the unit yet."""
    return unit not in job.leases.books


def waiting_for_workers(job: KeptJob) -> Waiting | None:
    """Units that further distinct workers must compute, and nobody holds."""
    units = [
        unit
        for unit, book in job.leases.books.items()
        if not job.is_decided(unit) and unit not in job.dead and not book.leases
        and job.participants(unit) and job.missing(unit) > 0
    ]  # fmt: skip
    if not units:
        return None
    answered = {worker for unit in units for worker in job.participants(unit)}
    return Waiting(len(units), len(answered), max(job.missing(unit) for unit in units))


def first_lease(job: KeptJob) -> tuple[PeerId, int] | None:
    """Somebody who holds a unit and when it was granted, the earliest of those that it holds."""
    for worker in job.leases.holders():
        granted = [job.leases.books[unit].leases[worker].granted_ns for unit in job.leases.held_by(worker)]
        return worker, min(granted)
    return None


def held_count(job: KeptJob, worker: PeerId) -> int:
    """How many units a worker holds."""
    return job.leases.holds(worker)


def held_units(job: KeptJob, worker: PeerId, now_ns: int) -> list[tuple[int, Holding]]:
    """Units that a worker holds, each with its lease."""
    return [
        (unit, holding)
        for unit in job.leases.held_by(worker)
        for holding in holdings(job, unit, now_ns)
        if holding.worker == worker
    ]


def leases_in_hand(job: KeptJob, now_ns: int) -> list[Held]:
    """Present leases as a forecast needs them, ``LEASES_SAMPLED`` at most."""

    def all_() -> Iterator[Held]:
        for worker in job.leases.holders():
            for unit in job.leases.held_by(worker):
                lease = job.leases.books[unit].leases[worker]
                yield Held((now_ns - lease.granted_ns) / SECOND_NS, lease.progress)

    return list(islice(all_(), LEASES_SAMPLED))


def run_times_s(job: KeptJob) -> list[float]:
    """How long the latest units took from lease to commit, sorted."""
    return sorted(ns / SECOND_NS for ns in job.leases._run_times_ns)


def overdue_results(job: KeptJob, worker: PeerId) -> int:
    """Units to which a worker committed and whose result it did not show in time."""
    return sum(1 for book in job.leases.books.values() if worker in book.withheld)


def undecided(job: KeptJob, worker: PeerId) -> int:
    """Units that a worker committed to and was not judged on."""
    return len(job._unsettled.get(worker, ()))


def allowance(job: KeptJob, worker: PeerId, now_ns: int) -> int:
    """How many more units a worker would be given now; 0 or less: none."""
    return job._allowance(worker, now_ns)


def excluded_classes(job: KeptJob) -> dict[str, str]:
    """Device classes that get no units of the job for now, each with the evidence in a sentence."""
    return job.devices.exclusion.all_excluded()


def class_exclusion(job: KeptJob, worker: PeerId, now_ns: int) -> str | None:
    """Why the worker's device class gets no units of the job now, in a sentence; None when it may."""
    return job.devices.refuses(worker, now_ns)


def delivers(job: KeptJob, worker: PeerId) -> bool:
    """The worker mostly commits to what it takes and shows what it commits to."""
    return job._conduct.delivers(worker, job.leases.slow(worker))
