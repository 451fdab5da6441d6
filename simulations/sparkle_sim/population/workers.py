"""What peers compute: each slot has a unit that it computes and one that waits, so that it never idles.

That is what ``sparkle_protocol.work.prefetch`` asks for where units take seconds and more. A unit that is finished is
reported at once, and the next begins at that very moment, however long a step is.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sparkle_protocol.errors import ConfigError
from sparkle_sim.population.order import NONE, Calendar, Index, Later, Line, Times
from sparkle_sim.population.presence import Change, Presence
from sparkle_sim.population.streams import stream
from sparkle_sim.population.units import Units
from sparkle_sim.population.voting import AGREED, LONE, RIGHT
from sparkle_sim.scenario import Machines, Scenario

KINDS = {"cheat": LONE, "sometimes": LONE, "collude": AGREED, "withhold": 4}
WITHHELD = 4
REVEAL_DEADLINE_S = 30.0  # sparkle_protocol.work.lease
MAX_WITHHELD = 2  # sparkle_protocol.work.conduct: who owes more gets no more units
COPIED_S = 10.0  # sparkle_protocol.work.lease.SILENT_NS after the last report, which was 0 to 10 s before
ROUNDS = 8  # of handing out in one step; who then has no unit that it may take asks again in the next
FREE = -1


class Workers:
    """All slots of all peers: slot ``s`` belongs to peer ``s // slots``.

    Args:
        scenario: what they run on, and who lies.
        presence: who may compute.
        units: what there is to compute.
        delay_s: from asking for a unit to having it.
        speeds: of each peer, as a multiple of the median; drawn where there are none.
    """

    def __init__(
        self,
        scenario: Scenario,
        presence: Presence,
        units: Units,
        seed: int,
        *,
        step_s: float,
        delay_s: float,
        speeds: Sequence[float] | None = None,
    ) -> None:
        machines, count = scenario.peers.machines, scenario.peers.count
        self._slots = machines.slots
        self._presence = presence
        self._units = units
        self._delay_s = delay_s
        self._step_s = step_s
        self._noise = machines.noise
        self._random = stream(seed, "computing")
        self._speed = _speeds(machines, count, seed) if speeds is None else np.array(speeds, np.float32)
        self._kind, self._rate = _liars(scenario, seed)
        self._owes = np.zeros(count if (self._kind == WITHHELD).any() else 0, np.uint8)
        lanes = count * self._slots
        self._running: Index = np.full(lanes, FREE, np.int32)
        self._queued: Index = np.full(lanes, FREE, np.int32)
        self._begun_s: Times = np.zeros(lanes)
        self._asks = np.zeros(lanes, np.bool_)
        self._calendar = Calendar(lanes, step_s)
        self._asking = Line()
        self._later = Later(step_s)
        self._parked: list[Index] = []  # who may have nothing of what there is
        self.computed_s = 0.0
        self.wasted_s = 0.0

    @property
    def computing(self) -> int:
        """Slots that compute."""
        return int(np.count_nonzero(self._running != FREE))

    def _of(self, slots: Index) -> Index:
        """Their peers."""
        return slots if self._slots == 1 else np.floor_divide(slots, self._slots, dtype=np.int32)

    def slots_of(self, peers: Index) -> Index:
        """All slots of these peers."""
        if self._slots == 1:
            return peers
        slots: Index = np.repeat(peers * np.int32(self._slots), self._slots)
        slots += np.tile(np.arange(self._slots, dtype=np.int32), len(peers))
        return slots

    # --- who asks ---------------------------------------------------------------------------------------------

    def ask_later(self, slots: Index, when_s: Times, step: int) -> None:
        """They ask for units from then on."""
        self._later.add(slots, when_s, step)

    def ask(self, slots: Index) -> None:
        """They ask for a unit, each once."""
        new = slots[~self._asks[slots]]
        self._asks[new] = True
        self._asking.join(new)

    def wake(self, step: int) -> None:
        """Those whose time to ask has come."""
        self.ask(self._later.take(step))

    def take_idle(self) -> Index:
        """All that wait for units in vain; they do not ask any more."""
        idle = np.concatenate([self._asking.take(len(self._asking)), *self._parked])
        self._parked.clear()
        self._asks[idle] = False
        return idle

    def unpark(self) -> None:
        """There are units of another job."""
        parked, self._parked = self._parked, []
        for slots in parked:
            self._asks[slots] = False
            self.ask(slots)

    # --- steps ------------------------------------------------------------------------------------------------

    def change(self, change: Change, step: int, lookup_s: float) -> None:
        """Peers come and go."""
        if len(change.back):
            slots = self.slots_of(change.back)
            self.ask_later(slots, np.full(len(slots), step * self._step_s + lookup_s), step - 1)
        if not len(change.gone):
            return
        slots = self.slots_of(change.gone)
        gone_s, queue_s, known_s = (
            np.repeat(times, self._slots) for times in (change.gone_s, change.queue_s, change.given_up_s)
        )
        if (
            not change.paused and not self._units.waiting()
        ):  # whoever has nothing else to do gets copies of what nothing is heard of
            known_s = np.minimum(known_s, gone_s + COPIED_S)
            queue_s = np.minimum(queue_s, known_s)
        running, due_s = self._running[slots], self._calendar.due[slots]
        lost = (running != FREE) & (due_s > gone_s)
        which = slots[lost]
        spent_s = float(np.maximum(0.0, gone_s[lost] - self._begun_s[which]).sum())
        self.computed_s += spent_s
        self.wasted_s += spent_s
        self._units.lose(running[lost], self._of(which), known_s[lost], step)
        self._running[which] = FREE
        self._calendar.forget(which)
        waits = self._queued[slots] != FREE
        which = slots[waits]
        self._units.lose(self._queued[which], self._of(which), queue_s[waits], step)
        self._queued[which] = FREE

    def finish(self, step: int) -> None:
        """Units that are done by the end of this step, and what begins then."""
        slots, when_s = self._calendar.take(step)
        if not len(slots):
            return
        rows, peers = self._running[slots], self._of(slots)
        spent_s = when_s - self._begun_s[slots]
        self.computed_s += float(spent_s.sum())
        self.wasted_s += float(spent_s[self._units.are_over(rows)].sum())
        self._report(rows, peers, when_s, step)
        queued = self._queued[slots]
        self._running[slots] = queued
        self._queued[slots] = FREE
        goes_on = queued != FREE
        self._begin(slots[goes_on], when_s[goes_on])
        self.ask(slots[self._presence.are_active(peers)])

    def _report(self, rows: Index, peers: Index, when_s: Times, step: int) -> None:
        kinds = self._kind[peers]
        lies = kinds > 0
        if lies.any():
            lies[lies] = self._random.random(int(lies.sum()), np.float32) < self._rate[peers[lies]]
        kinds = np.where(lies, kinds, RIGHT).astype(np.uint8)
        withheld = kinds == WITHHELD
        if withheld.any():
            self._withhold(rows[withheld], peers[withheld], when_s[withheld], step)
            rows, peers, kinds, when_s = rows[~withheld], peers[~withheld], kinds[~withheld], when_s[~withheld]
        self._units.vote(rows, peers, kinds, when_s)

    def _withhold(self, rows: Index, peers: Index, when_s: Times, step: int) -> None:
        """Committed and never shown: others get the unit after the deadline."""
        np.add.at(self._owes, peers, 1)
        self._owes[peers] = np.minimum(self._owes[peers], MAX_WITHHELD + 1)
        barred = self._owes[peers] > MAX_WITHHELD
        self._units.bar(rows[barred], peers[barred])
        self._units.lose(rows, peers, when_s + REVEAL_DEADLINE_S, step)

    def _begin(self, slots: Index, when_s: Times) -> None:
        """Their unit is being computed from then on."""
        self._begun_s[slots] = when_s
        took_s = self._units.unit_s[self._units.job[self._running[slots]]] / self._speed[self._of(slots)]
        if self._noise:
            took_s = took_s * np.exp(self._noise * self._random.standard_normal(len(slots), np.float32))
        self._calendar.plan(slots, when_s + took_s)

    def hand_out(self, now_s: float) -> int:
        """Units go to those who ask, first come first served; returns how many."""
        handed = 0
        again: list[Index] = []  # who was not given what there was
        for _ in range(ROUNDS):
            most = min(len(self._asking), self._units.waiting())
            if most <= 0:
                break
            slots = self._fit(self._asking.take(most))
            rows = self._units.draw(len(slots))
            slots, unserved = slots[: len(rows)], slots[len(rows) :]
            self._asking.rejoin(unserved)
            may = self._units.give(rows, self._of(slots))
            self._units.put_back(rows[~may])
            again.append(slots[~may])
            handed += self._take(slots[may], rows[may], now_s)
        if again:
            self._retry(np.concatenate(again))
        return handed

    def _fit(self, slots: Index) -> Index:
        """Those that still are there and have room; the others ask no more."""
        fits = self._presence.are_active(self._of(slots)) & (self._queued[slots] == FREE)
        self._asks[slots[~fits]] = False
        fitting: Index = slots[fits]
        return fitting

    def _take(self, slots: Index, rows: Index, now_s: float) -> int:
        self._asks[slots] = False
        idle = self._running[slots] == FREE
        first, second = slots[idle], slots[~idle]
        self._running[first] = rows[idle]
        self._queued[second] = rows[~idle]
        self._begin(first, np.full(len(first), now_s + self._delay_s))
        self.ask(first)  # one that waits, too
        return len(slots)

    def _retry(self, slots: Index) -> None:
        """They were not given what was there: they have it already, or are barred from its job."""
        front = self._units.barred_from_all(self._of(slots))
        self._parked.append(slots[front])
        self._asking.join(slots[~front])


def _speeds(machines: Machines, count: int, seed: int) -> NDArray[np.float32]:
    """Of each peer, as a multiple of the median."""
    random = stream(seed, "machines")
    speeds: NDArray[np.float32] = np.exp(machines.spread * random.standard_normal(count, np.float32))
    slow = random.random(count, np.float32) < machines.slow_share
    speeds[slow] /= np.float32(machines.slow_factor)
    return speeds


def _liars(scenario: Scenario, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Of each peer what it does instead of a right vote, and at which share of its units.

    Raises:
        ConfigError: a kind that this engine has no model of, or a peer that there is not.
    """
    count = scenario.peers.count
    kind, rate = np.zeros(count, np.uint8), np.zeros(count, np.float32)
    honest = np.unique(np.array([job.submitter for job in scenario.jobs], np.int32))
    others = np.setdiff1d(np.arange(count, dtype=np.int32), honest)
    for number, entry in enumerate(scenario.adversaries):
        if entry.kind not in KINDS:
            raise ConfigError(
                f"adversaries[{number}].kind is '{entry.kind}', which the population engine cannot model; it knows "
                f'{", ".join(KINDS)}: use engine = "full" for others'
            )
        beyond = [peer for peer in entry.peers if not 0 <= peer < count]
        if beyond:
            raise ConfigError(f"adversaries[{number}].peers names peer {beyond[0]}; the {count} peers begin with 0")
        if entry.peers:
            chosen = np.array(entry.peers, np.int32)
        else:
            draw = stream(seed, "adversaries", number)
            chosen = draw.choice(others, round(entry.share * len(others)), replace=False) if len(others) else NONE
        chosen = chosen[kind[chosen] == 0]
        kind[chosen] = KINDS[entry.kind]
        rate[chosen] = entry.rate
    kind[honest] = 0
    return kind, rate
