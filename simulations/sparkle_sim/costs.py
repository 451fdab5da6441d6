"""What the production network services cost a peer: fitted to a recording of 50 real hosts.

``python3 run.py record`` makes such a recording (``simulations/recordings/hosts-50.json``); a test holds these
constants to it, and lets the model do what the hosts did. Times are those of one core of the machine that recorded
them, and what the wires take is not in them. A host's network service is one thread, so that its costs add up: a
lookup of thirty questions takes at least thirty times that of asking one.
"""

from array import array
from math import exp
from statistics import NormalDist

from sparkle_sim.draws import Draws
from sparkle_sim.kernel import MS, Kernel

_STEPS = 256  # quantiles of a distribution that are drawn from: a draw is one look into a table


def lognormal_factors(sigma: float) -> list[float]:
    """256 factors around 1: middles of equally likely parts of the distribution; ``byte()`` chooses one."""
    normal = NormalDist()
    return [exp(sigma * normal.inv_cdf((step + 0.5) / _STEPS)) for step in range(_STEPS)]


class Cost:
    """A lognormal time, drawn in nanoseconds; nothing beyond its quantiles of 0.2 and 99.8 %."""

    __slots__ = ("_table", "median_ms", "sigma")

    def __init__(self, median_ms: float, sigma: float) -> None:
        self.median_ms = median_ms
        self.sigma = sigma
        self._table = [int(median_ms * factor * MS) for factor in lognormal_factors(sigma)]

    def draw(self, random: Draws) -> int:
        """One of them."""
        return self._table[random.byte()]


DIAL = Cost(29.5, 0.1)  # of both ends' threads, until a connection can be used
DIAL_WORK = Cost(15.4, 0.18)  # of the thread at either end, the greeting and identify included
REFUSED = Cost(0.629, 0.16)  # of the dialler's thread, until a dial to nobody fails whose refusal has come
REQUEST = Cost(1.06, 0.13)  # of both ends' threads, for a small request and its answer
ASKING = Cost(6.25, 0.18)  # of the asker's thread, for one question of a lookup
ANSWERING = Cost(6.31, 0.12)  # and of the thread of who answers
PASSING = Cost(2.9, 0.086)  # of two threads, until a gossip message is at a mesh peer
HEARING = Cost(9.59, 0.086)  # of each thread for a message: its first copy, the others, and passing it on


class Threads:
    """When each peer's network service gets something done: one thing at a time, as it comes."""

    def __init__(self, kernel: Kernel, peers: int) -> None:
        self._kernel = kernel
        self._free = array("q", bytes(8 * peers))  # from when on a thread has nothing to do

    def wait_ns(self, peer: int) -> int:
        """How long it is until a peer's thread has done what it has to do."""
        return max(0, self._free[peer] - self._kernel.now)

    def take(self, peer: int, work_ns: int) -> int:
        """Have a peer's thread do some work, and tell how long it is until that is done."""
        now, free = self._kernel.now, self._free[peer]
        self._free[peer] = done = (free if free > now else now) + work_ns
        return done - now
