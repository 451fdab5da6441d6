"""How nodes come and go, and when home users let them work.

A node stays for a session and is away for an absence, each drawn anew: sessions are exponential, or Weibull (of shape
0.3 to 0.7 in measurements of volunteers: Javadi, Kondo, Vincent and Anderson 2011), absences exponential. At
``begin_s`` everybody is there, and each in the midst of a session: what is left of it is a uniform part of a session
that is met with a chance proportional to its length. (With a fresh session for everybody the share of those online
would fall steeply first.) Submitters stay, unless a trace says when they are there. From ``end_s`` on, if there is
one, everybody is back and stays, so that what has to come about in the end can be looked for.

A schedule pauses the worker, as its user would: connections and jobs that the node keeps go on.
"""

import csv
from collections.abc import Callable
from itertools import pairwise
from math import gamma
from pathlib import Path

from sparkle_protocol.errors import ConfigError
from sparkle_sim.draws import Draws, draws, generator
from sparkle_sim.kernel import SECOND
from sparkle_sim.peer import Peer
from sparkle_sim.scenario import Churn, Scenario
from sparkle_sim.world import World

REASON = "churn"
DAY_S = 86_400.0


def begin(world: World, scenario: Scenario) -> None:
    """Have peers come and go, and work by their schedules.

    Raises:
        ConfigError: the trace cannot be read.
    """
    plan = scenario.peers.churn
    if plan.kind == "trace":
        for number, spans in read_trace(Path(plan.trace), len(world.peers)).items():
            _follow(world, world.peers[number], spans)
    elif plan.kind != "none":
        submitters = {job.submitter for job in scenario.jobs}
        for peer in world.peers:
            random = draws(world.seed, peer.number, "churn")
            if random.random() < plan.share and peer.number not in submitters:
                _Coming(world, peer, plan, random).begin()
    _keep_schedules(world, scenario)


def session_s(plan: Churn, random: Draws) -> float:
    """How long a node stays."""
    if plan.kind == "exponential":
        return random.exponential(plan.session_s)
    return random.weibull(plan.session_s / gamma(1.0 + 1.0 / plan.shape), plan.shape)


def residual_s(plan: Churn, seed: int, number: int) -> float:
    """How long a node stays that is met at a random time."""
    random = generator(seed, number, "residual session")
    if plan.kind == "exponential":
        return random.expovariate(1.0 / plan.session_s)
    scale = plan.session_s / gamma(1.0 + 1.0 / plan.shape)
    met = scale * random.gammavariate(1.0 + 1.0 / plan.shape, 1.0) ** (1.0 / plan.shape)
    return float(random.random() * met)


class _Coming:
    """One node that comes and goes."""

    def __init__(self, world: World, peer: Peer, plan: Churn, random: Draws) -> None:
        self._world = world
        self._peer = peer
        self._plan = plan
        self._draws = random
        self._over = False
        self._gone = False

    def begin(self) -> None:
        left_s = residual_s(self._plan, self._world.seed, self._peer.number)
        self._world.kernel.at(int((self._plan.begin_s + left_s) * SECOND), self._go)
        if self._plan.end_s:
            self._world.kernel.at(int(self._plan.end_s * SECOND), self._end)

    def _end(self) -> None:
        self._over = True
        if REASON in self._peer.away and not self._gone:
            self._peer.come_back(REASON)

    def _go(self) -> None:
        if self._over:
            return
        plan = self._plan
        gone, silently = self._draws.random() < plan.gone_share, self._draws.random() < plan.silent_share
        self._gone = gone
        self._peer.lost = self._peer.lost or gone
        self._peer.leave(REASON, silently=silently)
        if not gone:
            self._later(self._draws.exponential(plan.absence_s), self._come)

    def _come(self) -> None:
        if self._over:
            return
        self._peer.come_back(REASON)
        self._later(session_s(self._plan, self._draws), self._go)

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        self._world.kernel.after(int(seconds * SECOND), call)


# --- traces -----------------------------------------------------------------------------------------------------


def read_trace(path: Path, peers: int) -> dict[int, list[tuple[float, float]]]:
    """When the peers of a trace are there: spans in order, which do not overlap.

    Raises:
        ConfigError: the file cannot be read, or a line of it means nothing.
    """
    found: dict[int, list[tuple[float, float]]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = csv.reader(file)
            if [name.strip() for name in next(lines, [])] != ["peer", "up_s", "down_s"]:
                raise ConfigError(f"the first line of the trace {path} must be peer,up_s,down_s")
            for line in lines:
                if line:
                    number, *span = _line(path, lines.line_num, line, peers)
                    found.setdefault(number, []).append((span[0], span[1]))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the trace {path} cannot be read ({error}); name a CSV file in peers.churn.trace"
        ) from error
    for number, spans in found.items():
        spans.sort()
        if any(up_s < down_s for (_, down_s), (up_s, _) in pairwise(spans)):
            raise ConfigError(f"in the trace {path} peer {number} comes while it is there")
    return dict(sorted(found.items()))


def _line(path: Path, number: int, line: list[str], peers: int) -> tuple[int, float, float]:
    try:
        peer, up_s, down_s = int(line[0]), float(line[1]), float(line[2])
    except (ValueError, IndexError):
        raise ConfigError(f"line {number} of the trace {path} is no peer,up_s,down_s") from None
    if not (0 <= peer < peers and 0 <= up_s < down_s):
        raise ConfigError(f"line {number} of the trace {path}: peers are 0 to {peers - 1}, and up_s is before down_s")
    return peer, up_s, down_s


def _follow(world: World, peer: Peer, spans: list[tuple[float, float]]) -> None:
    if spans[0][0] > 0:
        peer.leave(REASON)
    for up_s, down_s in spans:
        if up_s > 0:
            world.kernel.at(int(up_s * SECOND), peer.come_back, REASON)
        world.kernel.at(int(down_s * SECOND), peer.leave, REASON)


# --- schedules --------------------------------------------------------------------------------------------------


def _keep_schedules(world: World, scenario: Scenario) -> None:
    plan = scenario.peers.schedule
    if not plan.share:
        return
    for peer in world.peers:
        if draws(world.seed, peer.number, "schedule").random() < plan.share:
            region = scenario.wires.regions[world.network.places[peer.number].region]
            _Schedule(world, peer, (plan.from_h, plan.to_h), region.utc_offset_h).look()


class _Schedule:
    """The hours at which one machine works."""

    def __init__(self, world: World, peer: Peer, hours: tuple[float, float], utc_offset_h: float) -> None:
        self._world = world
        self._peer = peer
        self._from_s, self._to_s = (hour * 3600.0 for hour in hours)
        self._offset_s = utc_offset_h * 3600.0

    def look(self) -> None:
        """Let it work or not, and look again when that changes."""
        world = self._world
        began_s = (world.epoch_ms / 1000.0 + self._offset_s) % DAY_S
        day_s = (began_s + world.kernel.now / SECOND) % DAY_S
        works = works_at(day_s, self._from_s, self._to_s)
        if works is self._peer.paused:
            (self._peer.resume if works else self._peer.pause)()
        if self._from_s != self._to_s:
            wait_s = ((self._to_s if works else self._from_s) - day_s) % DAY_S
            world.kernel.after(int(wait_s * SECOND) + 1, self.look)


def works_at(day_s: float, from_s: float, to_s: float) -> bool:
    """Whether a time of the day lies in hours that may pass midnight; equal ends mean the whole day."""
    if from_s <= to_s:
        return from_s <= day_s < to_s or from_s == to_s
    return day_s >= from_s or day_s < to_s
