"""Waiting for one of c slots: what Erlang found out about telephone exchanges."""

from collections.abc import Iterator
from math import factorial

from msgspec.structs import replace

from sparkle_protocol.effects import Compute, Computed, ComputeFailed
from sparkle_protocol.facts import Deadlines, JobSpec, Policy, Resources
from sparkle_protocol.ids import JobId
from sparkle_sim.computing import Honest, Slots
from sparkle_sim.draws import draws
from sparkle_sim.kernel import SECOND, Kernel
from sparkle_sim.laws.intervals import mean_of
from sparkle_sim.laws.law import Axes, Law, Point, exactly
from sparkle_sim.laws.parties import seed_of

SERVERS = (1, 2, 4)
LOADS = (0.5, 0.7, 0.85)
SERVICE_S = 10.0
RUNS, QUICK_RUNS = 40, 16
UNITS, QUICK_UNITS = 8000, 3500
SETTLE = 500  # units whose waiting is not counted: at first nobody has to
JOB = JobId(bytes(32))
SPEC = JobSpec(
    "reference", 1, {}, 1, "exact", Policy(), Resources(), Deadlines(), bytes(32), bytes(16), 0
)  # fmt: skip


def erlang_c(servers: int, load: float) -> float:
    """The share of arrivals that have to wait."""
    offered = servers * load
    last = offered**servers / factorial(servers) / (1.0 - load)
    return last / (sum(offered**busy / factorial(busy) for busy in range(servers)) + last)


def mean_wait(servers: int, load: float) -> float:
    """The mean time that an arrival waits, in mean service times."""
    return erlang_c(servers, load) / (servers * (1.0 - load))


class Exchange:
    """Units arrive at random times at a node's slots, which compute them in their order."""

    def __init__(self, seed: int, servers: int, load: float) -> None:
        self._kernel = Kernel()
        self._draws = draws(seed, "arrivals")
        self._slots = Slots(
            self._kernel, self._done, Honest(), draws(seed, "slots"), count=servers, flops_per_s=1.0, noise=0.0
        )
        self._apart_s = SERVICE_S / (servers * load)
        self._arrived: list[int] = []
        self._waited: list[float] = []

    def run(self, units: int) -> tuple[float, float]:
        """Let so many arrive; returns the share that waited, and the mean wait in mean service times."""
        self._arrive(units)
        while len(self._waited) < units:
            self._kernel.run(self._kernel.now + 1000 * SECOND)
        counted = self._waited[SETTLE:]
        return sum(wait > 1e-6 for wait in counted) / len(counted), sum(counted) / len(counted) / SERVICE_S

    def _arrive(self, left: int) -> None:
        unit = len(self._arrived)
        self._arrived.append(self._kernel.now)
        flops = self._draws.exponential(SERVICE_S)
        self._slots.start(Compute(JOB, unit, 0, replace(SPEC, resources=Resources(flops=flops))))
        if left > 1:
            self._kernel.after(int(self._draws.exponential(self._apart_s) * SECOND), self._arrive, left - 1)

    def _done(self, event: Computed | ComputeFailed) -> None:
        """A result is here: what its unit did not compute it waited."""
        if isinstance(event, Computed) and event.seconds is not None:
            since_s = (self._kernel.now - self._arrived[event.unit]) / SECOND
            self._waited.append(since_s - event.seconds)


def measure(seed: int, quick: bool) -> Iterator[Point]:
    """Who waits and how long, for several numbers of slots and loads."""
    runs, units = (QUICK_RUNS, QUICK_UNITS) if quick else (RUNS, UNITS)
    for servers in SERVERS:
        for load in LOADS:
            seeds = [seed_of(seed, "queue", servers, str(load), run) for run in range(runs)]
            found = [Exchange(one, servers, load).run(units) for one in seeds]
            setting, wide = f"c = {servers}, load {load:g}", 0.8 if quick else 0.3
            shares, waits = mean_of([share for share, _ in found]), mean_of([wait for _, wait in found])
            yield exactly(
                f"c = {servers}: wait", f"{setting}, mean wait", load, mean_wait(servers, load), waits, wide=wide
            )
            yield exactly(
                f"c = {servers}: share that waits",
                f"{setting}, share that waits",
                load,
                erlang_c(servers, load),
                shares,
                wide=wide,
            )


LAW = Law(
    "queueing",
    "Waiting for a slot (Erlang C)",
    "P(wait) = C(c, a), E[wait] = C(c, a) / (c μ - λ), a = λ/μ",
    "A. K. Erlang, Solution of some problems in the theory of probabilities of significance in automatic telephone "
    "exchanges, 1917; L. Kleinrock, Queueing systems I, Wiley 1975, section 3.5",
    "Units arrive at the worker slots of a simulated node (Slots on Kernel) at exponential intervals and take "
    "exponential times.",
    "The share that waits and the mean wait (in mean service times) are in our intervals for every number of slots "
    "and load.",
    Axes("load of each slot", "mean wait / mean service; share that waits"),
    measure,
)
