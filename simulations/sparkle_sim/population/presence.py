"""Who is there and may compute: churn, schedules, and machines that are killed.

Sessions and absences as in ``sparkle_sim.churn``: exponential or Weibull sessions, exponential absences, submitters
stay. With ``begin_s = 0`` the run begins in the middle of it: a peer is there with the chance session / (session +
absence), and what is left of its session is a uniform part of one that is met with a chance proportional to its
length. (Fresh sessions for all would let the share of those online fall from 0.67 to 0.43.) With a later ``begin_s``
everybody is there until then.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import gamma
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from sparkle_protocol.errors import ConfigError
from sparkle_sim.churn import read_trace
from sparkle_sim.network import SILENCE_S
from sparkle_sim.population.order import NONE, Calendar, Index, Times, distinct
from sparkle_sim.population.streams import stream
from sparkle_sim.scenario import Churn, Fault, Scenario
from sparkle_sim.world import EPOCH_MS

DAY_S = 86_400.0
DOWN_S = 5.0  # sparkle_protocol.work.lease.LOST_PEER_GRACE_NS: until a broken connection costs a lease
PAUSE_HOLD_S = 300.0  # sparkle_protocol.work.worker.PAUSE_HOLD_NS: a paused unit is kept so long
AWAY, OFF_HOURS, KILLED = 1, 2, 4  # why a peer does not compute, as bits
FAULTS = ("kill", "lose-disk")


class Change(NamedTuple):
    """Peers that begin to compute, and those that stop: when, and from when on others get their units."""

    back: Index
    gone: Index
    gone_s: Times
    queue_s: Times  # those that they had not begun
    given_up_s: Times  # those that they computed
    paused: bool = False  # they are still heard of


@dataclass(frozen=True, slots=True)
class _Switch:
    """Something that happens to many at one time."""

    at_s: float
    peers: Index
    bit: int
    on: bool
    silent: bool = False


class _Trace(NamedTuple):
    """Who comes and goes when, in the order of time."""

    peers: Index
    at_s: Times
    up: NDArray[np.bool_]


class Presence:
    """The state of all peers, step by step.

    Args:
        scenario: what happens to them.
        regions: of each peer.
        seed: of the run.
        step_s: length of a step.
    """

    def __init__(self, scenario: Scenario, regions: NDArray[np.int8], seed: int, step_s: float) -> None:
        count = scenario.peers.count
        self._plan = scenario.peers.churn
        self._step_s = step_s
        self._random = stream(seed, "sessions")
        self._away = np.zeros(count, np.uint8)
        self._stay = np.unique(np.array([job.submitter for job in scenario.jobs], np.int32))
        self._calendar = Calendar(count, step_s)
        self._trace = _Trace(NONE, np.empty(0), np.empty(0, np.bool_))
        self._traced = 0  # so many of its lines are over
        self._switches: list[_Switch] = []
        self._begin_churn(seed)
        self._plan_schedules(scenario, regions, seed)
        for number, fault in enumerate(scenario.faults):
            self._plan_fault(number, fault, scenario, regions, seed)
        self._switches.sort(key=lambda switch: switch.at_s)
        self._next = 0
        while self._next < len(self._switches) and self._switches[self._next].at_s <= 0:
            self._flip(self._switches[self._next])
            self._next += 1

    @property
    def active(self) -> NDArray[np.bool_]:
        """Who may compute."""
        return np.equal(self._away, 0)

    @property
    def online(self) -> int:
        """How many are connected, whether or not they may compute."""
        return int(np.count_nonzero((self._away & (AWAY | KILLED)) == 0))

    def are_active(self, peers: Index) -> NDArray[np.bool_]:
        """Which of these may compute."""
        return np.equal(self._away[peers], 0)

    def advance(self, step: int) -> list[Change]:
        """What changes within a step."""
        changes = []
        peers, when_s = self._calendar.take(step)
        if len(peers):
            changes.append(self._churn(peers, when_s))
        end_s = (step + 1) * self._step_s
        changes += self._follow_trace(end_s)
        while self._next < len(self._switches) and self._switches[self._next].at_s < end_s:
            changes.append(self._flip(self._switches[self._next]))
            self._next += 1
        return changes

    # --- churn ------------------------------------------------------------------------------------------------

    def _begin_churn(self, seed: int) -> None:
        plan, random = self._plan, stream(seed, "churn")
        if plan.kind == "none":
            return
        if plan.kind == "trace":
            self._read_trace()
            return
        count = len(self._away)
        coming = random.random(count, np.float32) < plan.share
        coming[self._stay] = False
        who = np.flatnonzero(coming).astype(np.int32)
        here = np.ones(len(who), np.bool_)
        if plan.begin_s <= 0:
            here = random.random(len(who), np.float32) < plan.session_s / (plan.session_s + plan.absence_s)
        self._away[who[~here]] |= AWAY
        left_s = np.where(
            here, residual_s(plan, len(who), random), plan.absence_s * random.exponential(size=len(who))
        )
        self._calendar.plan(who, plan.begin_s + left_s)

    def _churn(self, peers: Index, when_s: Times) -> Change:
        """Sessions and absences that end: the next ones begin."""
        plan, random = self._plan, self._random
        leaves = (self._away[peers] & AWAY) == 0
        leaving, coming = peers[leaves], peers[~leaves]
        stays = random.random(len(leaving), np.float32) >= plan.gone_share
        absent_s = plan.absence_s * random.exponential(size=len(leaving))
        self._calendar.plan(leaving[stays], (when_s[leaves] + absent_s)[stays])
        self._calendar.plan(coming, when_s[~leaves] + session_s(plan, len(coming), random))
        silent = random.random(len(leaving), np.float32) < plan.silent_share
        return self._come_and_go(coming, leaving, when_s[leaves], silent)

    def _come_and_go(self, coming: Index, leaving: Index, gone_s: Times, silent: NDArray[np.bool_]) -> Change:
        worked = self._away[leaving] == 0
        self._away[leaving] |= AWAY
        self._away[coming] &= ~np.uint8(AWAY)
        back = coming[self._away[coming] == 0]
        known_s = gone_s[worked] + self._noticed_s(silent[worked])
        return Change(back, leaving[worked], gone_s[worked], known_s, known_s)

    def _read_trace(self) -> None:
        """Peers of the trace are there when it says so, and all others always."""
        spans = read_trace(Path(self._plan.trace), len(self._away))
        lines = [
            (at_s, peer, at_s == up_s)
            for peer, some in spans.items()
            for up_s, down_s in some
            for at_s in (up_s, down_s)
        ]
        lines.sort(key=lambda line: line[0])  # those of one time stay in order: first it goes, then it comes again
        self._trace = _Trace(
            np.array([peer for _, peer, _ in lines], np.int32),
            np.array([at_s for at_s, _, _ in lines], np.float64),
            np.array([up for _, _, up in lines], np.bool_),
        )
        self._away[np.array([peer for peer, some in spans.items() if some[0][0] > 0], np.int32)] |= AWAY

    def _follow_trace(self, end_s: float) -> list[Change]:
        """What it says until then; a peer's lines one after the other."""
        trace = self._trace
        changes: list[Change] = []
        first, self._traced = self._traced, int(np.searchsorted(trace.at_s, end_s))
        if self._traced == first:
            return changes
        past = slice(first, self._traced)
        peers, at_s, up = trace.peers[past], trace.at_s[past], trace.up[past]
        for now in distinct(peers, np.zeros(len(self._away), np.int32)):
            coming, leaving = now[up[now]], now[~up[now]]
            heard = np.zeros(len(leaving), np.bool_)
            changes.append(self._come_and_go(peers[coming], peers[leaving], at_s[leaving], heard))
        return changes

    def _noticed_s(self, silent: NDArray[np.bool_]) -> Times:
        """Until those who hand out units do not count on a peer any more."""
        low, high = SILENCE_S
        return DOWN_S + np.where(silent, self._random.uniform(low, high, len(silent)), 0.0)

    # --- what is planned --------------------------------------------------------------------------------------

    def _plan_schedules(self, scenario: Scenario, regions: NDArray[np.int8], seed: int) -> None:
        """Each region's home users begin and end at the same hours of their day."""
        plan = scenario.peers.schedule
        if not plan.share or plan.from_h == plan.to_h:
            return
        keeps = stream(seed, "schedule").random(len(regions), np.float32) < plan.share
        for number, region in enumerate(scenario.wires.regions):
            who = np.flatnonzero(keeps & (regions == number)).astype(np.int32)
            day_s = (EPOCH_MS / 1000 + region.utc_offset_h * 3600) % DAY_S
            first = {bit: (hour * 3600 - day_s) % DAY_S for bit, hour in ((False, plan.from_h), (True, plan.to_h))}
            if first[False] < first[True] and first[False] > 0:  # the next that happens is that they begin
                self._switches.append(_Switch(0.0, who, OFF_HOURS, on=True))
            for ends, at_s in first.items():
                while at_s < scenario.seconds:
                    self._switches.append(_Switch(at_s, who, OFF_HOURS, on=ends))
                    at_s += DAY_S

    def _plan_fault(
        self, number: int, fault: Fault, scenario: Scenario, regions: NDArray[np.int8], seed: int
    ) -> None:
        if fault.kind not in FAULTS:
            raise ConfigError(
                f"faults[{number}].kind is '{fault.kind}', which the population engine cannot model; it knows "
                f'{" and ".join(FAULTS)}: use engine = "full" for others'
            )
        chosen = np.zeros(len(regions), np.bool_)
        chosen[_existing(f"faults[{number}]", fault.peers, len(regions))] = True
        names = [region.name for region in scenario.wires.regions]
        for name in fault.regions:
            if name not in names:
                raise ConfigError(f"faults[{number}] names '{name}', which is no region of the scenario")
            chosen |= regions == names.index(name)
        others = np.setdiff1d(np.arange(len(regions), dtype=np.int32), self._stay)
        hit = round(fault.share * len(others))
        if hit:
            chosen[stream(seed, "fault", number).choice(others, hit, replace=False)] = True
        who, silent = np.flatnonzero(chosen).astype(np.int32), fault.kind == "lose-disk"
        self._switches.append(_Switch(fault.at_s, who, KILLED, on=True, silent=silent))
        if fault.for_s and fault.kind == "kill":
            self._switches.append(_Switch(fault.at_s + fault.for_s, who, KILLED, on=False))

    def _flip(self, switch: _Switch) -> Change:
        before = self._away[switch.peers]
        after = before | switch.bit if switch.on else before & ~np.uint8(switch.bit)
        self._away[switch.peers] = after
        back = switch.peers[(before != 0) & (after == 0)]
        gone = switch.peers[(before == 0) & (after != 0)]
        gone_s = np.full(len(gone), switch.at_s)
        if switch.bit == OFF_HOURS:
            return Change(back, gone, gone_s, gone_s, gone_s + PAUSE_HOLD_S, paused=True)
        known_s = gone_s + self._noticed_s(np.full(len(gone), switch.silent))
        return Change(back, gone, gone_s, known_s, known_s)


def session_s(plan: Churn, count: int, random: Generator) -> Times:
    """How long peers stay that come now."""
    if plan.kind == "exponential":
        return plan.session_s * random.exponential(size=count)
    return _scale_s(plan) * random.weibull(plan.shape, count)


def residual_s(plan: Churn, count: int, random: Generator) -> Times:
    """How long peers stay that are met at a random time: U · scale · Gamma(1 + 1/shape)^(1/shape)."""
    if plan.kind == "exponential":
        return session_s(plan, count, random)
    met = random.gamma(1.0 + 1.0 / plan.shape, 1.0, count) ** (1.0 / plan.shape)
    return random.random(count) * _scale_s(plan) * met


def _scale_s(plan: Churn) -> float:
    return plan.session_s / gamma(1.0 + 1.0 / plan.shape)


def _existing(where: str, peers: Sequence[int], count: int) -> Index:
    """The peers, if there are all of them."""
    beyond = [peer for peer in peers if not 0 <= peer < count]
    if beyond:
        raise ConfigError(f"{where} names peer {beyond[0]}; there are only 0 to {count - 1}")
    return np.array(peers, np.int32) if peers else NONE
