"""Who is there at a time, when sessions and absences have Weibull distributions."""

from collections.abc import Iterator
from math import gamma

from sparkle_sim.draws import draws
from sparkle_sim.kernel import SECOND, Kernel
from sparkle_sim.laws.intervals import ratio_of
from sparkle_sim.laws.law import Axes, Law, Point, exactly
from sparkle_sim.laws.parties import seed_of

SHAPES = (0.5, 0.7, 1.0, 2.0)  # of sessions
UP_S, DOWN_S = 3600.0, 1800.0  # means
DOWN_SHAPE = 0.8
PEERS, QUICK_PEERS = 3000, 1000
SETTLE_S = 60 * (UP_S + DOWN_S)  # until nobody knows any more that all began at once
LOOKS, APART_S = 12, 10 * (UP_S + DOWN_S)


def scale_of(mean: float, shape: float) -> float:
    """The scale of a Weibull distribution with this mean."""
    return mean / gamma(1.0 + 1.0 / shape)


def residual(mean: float, shape: float) -> float:
    """How much longer who is there stays, on average: E[X²] / (2 E[X])."""
    scale = scale_of(mean, shape)
    return scale * scale * gamma(1.0 + 2.0 / shape) / (2.0 * mean)


class Life:
    """One peer that comes and goes."""

    __slots__ = ("_down", "_draws", "_kernel", "_up", "online", "until_ns")

    def __init__(self, kernel: Kernel, seed: int, peer: int, shape: float) -> None:
        self._kernel = kernel
        self._draws = draws(seed, peer, "life")
        self._up = scale_of(UP_S, shape), shape
        self._down = scale_of(DOWN_S, DOWN_SHAPE), DOWN_SHAPE
        self.online = False
        self.until_ns = 0
        self.turn()

    def turn(self) -> None:
        """Come or go, and stay so for a while."""
        self.online = not self.online
        scale, shape = self._up if self.online else self._down
        self.until_ns = self._kernel.now + int(self._draws.weibull(scale, shape) * SECOND)
        self._kernel.at(self.until_ns, self.turn)


def measure(seed: int, quick: bool) -> Iterator[Point]:
    """The share of peers online, and how much longer they stay."""
    for shape in SHAPES:
        own, kernel = seed_of(seed, "availability", str(shape)), Kernel()
        peers = [Life(kernel, own, peer, shape) for peer in range(QUICK_PEERS if quick else PEERS)]
        online, stays = [0] * len(peers), [0.0] * len(peers)
        for look in range(LOOKS):
            kernel.run(int((SETTLE_S + look * APART_S) * SECOND))
            for number, peer in enumerate(peers):
                if peer.online:
                    online[number] += 1
                    stays[number] += (peer.until_ns - kernel.now) / SECOND / UP_S
        share = ratio_of([(there, LOOKS) for there in online])
        left = ratio_of(list(zip(stays, online, strict=True)))
        yield exactly(
            "share online", f"shape {shape:g}, share online", shape, UP_S / (UP_S + DOWN_S), share, wide=0.1
        )
        expected = residual(UP_S, shape) / UP_S
        yield exactly("rest of the session", f"shape {shape:g}, rest / mean", shape, expected, left, wide=0.3)


LAW = Law(
    "availability",
    "Weibull availability",
    "share online = E[up] / (E[up] + E[down]); rest of a session = E[up²] / (2 E[up])",
    "Renewal theory: D. R. Cox, Renewal theory, Methuen 1962, sections 5.2 and 7.3; Weibull sessions of volunteers: "
    "D. Nurmi, J. Brevik and R. Wolski, Modeling machine availability in enterprise and wide-area distributed "
    "computing environments, Euro-Par 2005",
    "Peers that come and go on Kernel with Draws.weibull, all from the same moment; looked at after 60 mean periods, "
    f"{LOOKS} times.",
    "The share online and the mean rest of the sessions (as a share of the mean session) are in our intervals for "
    "every shape.",
    Axes("shape of the sessions", "share online; rest / mean session"),
    measure,
)
