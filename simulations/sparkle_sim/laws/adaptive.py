"""Adaptive replication as BOINC has it: how much is computed twice."""

from collections.abc import Iterator
from math import sqrt

from sparkle_sim.draws import draws
from sparkle_sim.kernel import SECOND, Kernel
from sparkle_sim.laws.intervals import mean_of
from sparkle_sim.laws.law import Axes, Law, Point, about
from sparkle_sim.laws.parties import Everybody, wires
from sparkle_sim.network import Network, Place

VALID_FIRST = 10  # consecutive valid results before a host is trusted at all
MARKS, QUICK_MARKS = (10, 30, 100, 300, 1000, 3000), (10, 30, 100, 300)
HOSTS, QUICK_HOSTS = 200, 100
SERVER = 0


def overhead(jobs: int) -> float:
    """Results per job after a host has done so many, from the continuous limit dCV/dn = 1/CV."""
    return 1.0 + sqrt(2 * jobs + 80) / jobs


class Project:
    """A server, its hosts, and as many hosts beside them that compute the second results and are not counted.

    A host with CV consecutive valid results is trusted with probability 1 - 1/CV, from the tenth on.

    Args:
        seed: decides who is trusted when.
        hosts: how many; all of them are honest.
        first: valid results that a host needs before it is trusted at all.
    """

    def __init__(self, seed: int, hosts: int, *, first: int = VALID_FIRST) -> None:
        self._kernel = Kernel()
        self._network = Network(self._kernel, Everybody(), [Place()] * (2 * hosts + 1), wires(), seed)
        self._trust = [draws(seed, host, "trust") for host in range(hosts + 1)]
        self._hosts = hosts
        self._first = first
        self._valid = [0] * (hosts + 1)  # CV
        self._jobs = [0] * (hosts + 1)
        self._waiting: dict[int, int] = {}  # results that came of a host's replicated job
        self.results = [0] * (hosts + 1)  # computed for the jobs of a host
        self._until = 0

    def run(self, jobs: int) -> list[float]:
        """Go on until each host has done so many; returns the results per job of each."""
        self._until = jobs
        for host in range(1, self._hosts + 1):
            if self._jobs[host] < jobs:
                self._hand_out(host)
        self._kernel.run(self._kernel.now + 2 * (jobs + 1) * SECOND)
        return [results / jobs for results in self.results[1:]]

    def _hand_out(self, host: int) -> None:
        self._jobs[host] += 1
        valid = self._valid[host]
        trusted = valid >= self._first and self._trust[host].random() < 1.0 - 1.0 / valid
        self._waiting[host] = 1 if trusted else 2
        for computing in (host,) if trusted else (host, host + self._hosts):
            self.results[host] += 1
            self._network.send(SERVER, computing, self._compute, computing, host, trusted)

    def _compute(self, computing: int, host: int, trusted: bool) -> None:
        self._kernel.after(SECOND, self._network.send, computing, SERVER, self._take, host, trusted)

    def _take(self, host: int, trusted: bool) -> None:
        self._waiting[host] -= 1
        if self._waiting[host]:
            return
        if not trusted:  # both are here, and agree
            self._valid[host] += 1
        if self._jobs[host] < self._until:
            self._hand_out(host)


def measure(seed: int, quick: bool, *, first: int = VALID_FIRST) -> Iterator[Point]:
    """Results per job after more and more jobs."""
    project = Project(seed, QUICK_HOSTS if quick else HOSTS, first=first)
    for jobs in QUICK_MARKS if quick else MARKS:
        ours = mean_of(project.run(jobs))
        yield about("results per job", f"n = {jobs}", jobs, overhead(jobs), 1.0 / jobs, ours)


LAW = Law(
    "adaptive",
    "BOINC's adaptive replication",
    "results per job ≈ 1 + √(2 n + 80) / n after n jobs",
    "D. P. Anderson, BOINC: a platform for volunteer computing, Journal of Grid Computing 18, 99-122, 2020 (the "
    "rule: trusted with probability 1 - 1/CV from CV = 10 on; the formula follows from dCV/dn = 1/CV)",
    "A server and honest hosts on Kernel, Network and Draws; second results come from further hosts that are not "
    "counted.",
    "At every n our interval meets the formula ± 1/n: it takes CV for continuous, which is worth less than one job.",
    Axes("jobs of a host n", "results per job", log_x=True),
    measure,
)
