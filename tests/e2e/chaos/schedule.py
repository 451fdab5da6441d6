"""What happens in a chaos run, as data: who submits what and when, which faults strike whom and for how long.

A schedule is a pure function of its seed, the number of nodes and the length. Each node and each link draws from a
random stream of its own, so that faults of one do not depend on how many others there are.

==========  ======  =============================================================================================
fault       target  while it lasts
==========  ======  =============================================================================================
kill        node    gone by ``kill -9``; afterwards started again on the same home
kill_full   node    the disk is full; at the end ``kill -9`` and at once started again, with space
stop        node    SIGSTOP; then SIGCONT
disk_full   node    whatever it writes to files is refused (RLIMIT_FSIZE)
clock       node    its wall clock is a day ahead
executor    node    its worker processes are killed by ``kill -9`` (at once)
leave       node    gone as if somebody closed it, so long that the others take over; then started again
vanish      node    the same by ``kill -9``
cut         link    silence: what was sent waits, connections stand, none comes about
reset       link    all connections break (at once)
slow        link    delay, jitter, stalls as after lost segments, little bandwidth
==========  ======  =============================================================================================
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

PRIMES = {5 * 10**8: 26_355_867, 2 * 10**9: 98_222_287}  # pi(x): the right answers
JOBS = ((5 * 10**8, 24, "final"), (5 * 10**8, 60, "final"), (2 * 10**9, 40, "final"), (5 * 10**8, 16, "critical"))
JOB_EVERY_S = 3.0
FIRST_FAULT_S = 0.5  # by then the first job has begun

# fault -> how often it is drawn, shortest and longest duration in seconds
NODE_FAULTS = {
    "kill": (4, 0.0, 3.0),
    "kill_full": (2, 0.3, 2.0),
    "stop": (3, 0.2, 7.0),
    "disk_full": (2, 0.3, 4.0),
    "clock": (1, 1.0, 5.0),
    "executor": (2, 0.0, 0.0),
}
LINK_FAULTS = {
    "cut": (3, 0.2, 8.0),
    "reset": (2, 0.0, 0.0),
    "slow": (3, 1.0, 6.0),
}
ABSENCES = ("leave", "vanish")
ABSENCE_CHANCE = 0.4  # of each node: one is away in most runs, now and then most are
ABSENCE_FROM_S = (1.0, 8.0)
ABSENCE_FOR_S = (13.0, 22.0)  # a keeper counts as away ten seconds after its connection broke
NODE_PAUSE_S = (0.3, 4.0)  # between two faults of one target
LINK_PAUSE_S = (0.3, 6.0)


@dataclass(frozen=True, slots=True)
class Submission:
    """A job that a node is asked to take. Only a job that it acknowledged has to be done."""

    at_s: float
    node: str
    stop: int
    units: int
    verify: str

    def __str__(self) -> str:
        return f"{self.node} is asked to count the primes to {self.stop:.0e} in {self.units} units ({self.verify})"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong, with a node (``n1``) or a link (``n0-n2``)."""

    at_s: float
    kind: str
    target: str
    for_s: float

    def __str__(self) -> str:
        return f"{self.kind} {self.target}" + (f" for {self.for_s:.2f} s" if self.for_s else "")


@dataclass(frozen=True, slots=True)
class Schedule:
    """Everything that a seed decides. Times count from when all nodes are connected."""

    seed: int
    nodes: tuple[str, ...]
    length_s: float
    submissions: tuple[Submission, ...]
    faults: tuple[Fault, ...]

    @property
    def links(self) -> tuple[str, ...]:
        """Each pair of nodes, once."""
        return links_of(self.nodes)


def links_of(nodes: tuple[str, ...]) -> tuple[str, ...]:
    """The names of all links between the nodes."""
    return tuple(f"{first}-{second}" for first, second in itertools.combinations(nodes, 2))


def nodes_of(seed: int) -> int:
    """How many nodes a seed takes if nobody says otherwise: enough for three to seven keepers of each job."""
    return Random(f"{seed}/nodes").choice((4, 5, 6, 7))


def make_schedule(seed: int, nodes: int, length_s: float) -> Schedule:
    """The schedule of a seed: the same arguments always give the same one. All faults are over at ``length_s``."""
    names = tuple(f"n{number}" for number in range(nodes))
    absences = {name: _absence(seed, name, length_s) for name in names}
    faults = [
        fault
        for targets, kinds, pause_s in (
            (names, NODE_FAULTS, NODE_PAUSE_S),
            (links_of(names), LINK_FAULTS, LINK_PAUSE_S),
        )
        for target in targets
        for fault in _faults(Random(f"{seed}/{target}"), target, kinds, pause_s, length_s)
        if not _overlap(fault, absences.get(target))
    ]
    faults += [absence for absence in absences.values() if absence is not None]
    faults.sort(key=lambda fault: (fault.at_s, fault.target))
    submissions = [*_submissions(seed, names, length_s), *_on_full_disks(faults), *_before_absences(seed, faults)]
    submissions.sort(key=lambda submission: (submission.at_s, submission.node))
    return Schedule(seed, names, length_s, tuple(submissions), tuple(faults))


def _faults(
    rng: Random,
    target: str,
    kinds: dict[str, tuple[int, float, float]],
    pause_s: tuple[float, float],
    length_s: float,
) -> Iterator[Fault]:
    """Faults of one target, one after the other."""
    weights = [weight for weight, _, _ in kinds.values()]
    at_s = FIRST_FAULT_S
    while True:
        at_s += rng.uniform(*pause_s)
        kind = rng.choices(list(kinds), weights)[0]
        _, shortest_s, longest_s = kinds[kind]
        for_s = rng.triangular(shortest_s, longest_s, shortest_s)  # mostly short
        if at_s + for_s >= length_s:
            return
        yield Fault(round(at_s, 3), kind, target, round(for_s, 3))
        at_s += for_s


def _absence(seed: int, node: str, length_s: float) -> Fault | None:
    """A node is away for long, if it is and if there is the time."""
    rng = Random(f"{seed}/{node}/absence")
    kind, at_s, for_s = rng.choice(ABSENCES), rng.uniform(*ABSENCE_FROM_S), rng.uniform(*ABSENCE_FOR_S)
    if rng.random() >= ABSENCE_CHANCE or at_s + for_s >= length_s:
        return None
    return Fault(round(at_s, 3), kind, node, round(for_s, 3))


def _overlap(fault: Fault, absence: Fault | None) -> bool:
    """Two faults of one target would last at the same time."""
    return (
        absence is not None
        and fault.at_s <= absence.at_s + absence.for_s
        and absence.at_s <= fault.at_s + fault.for_s
    )


def _submissions(seed: int, nodes: tuple[str, ...], length_s: float) -> Iterator[Submission]:
    """A job at once, and more while faults strike, by any node."""
    rng = Random(f"{seed}/jobs")
    at_s = 0.0
    while at_s < length_s:
        stop, units, verify = rng.choice(JOBS)
        if verify == "critical" and len(nodes) < 3:
            verify = "final"
        yield Submission(round(at_s, 3), rng.choice(nodes), stop, units, verify)
        at_s += rng.uniform(0.5, 1.5) * JOB_EVERY_S


def _on_full_disks(faults: list[Fault]) -> Iterator[Submission]:
    """Each node whose disk is full is asked to take a job: it must refuse, or not lose what it acknowledged."""
    stop, units, verify = JOBS[0]
    for fault in faults:
        if fault.kind in ("disk_full", "kill_full"):
            yield Submission(round(fault.at_s + fault.for_s / 2, 3), fault.target, stop, units, verify)


def _before_absences(seed: int, faults: list[Fault]) -> Iterator[Submission]:
    """Each node that will be away for long is asked to take a job shortly before: the others have to go on."""
    stop, units, verify = JOBS[2]
    for fault in faults:
        if fault.kind in ABSENCES:
            before_s = Random(f"{seed}/{fault.target}/leaving").uniform(0.1, 0.9)
            yield Submission(round(fault.at_s - before_s, 3), fault.target, stop, units, verify)
