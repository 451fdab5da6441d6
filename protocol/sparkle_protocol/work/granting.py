"""Which units of a job a worker is given, and how many it may hold.

Nothing is given twice to one worker in an epoch unless its lease ended without a commit. How many units a worker
may hold follows from how it behaved (``conduct.py``), and which classes of devices get any from how those did
(``devices.py``).
"""

from collections.abc import Iterable, Iterator

from sparkle_protocol.ids import PeerId
from sparkle_protocol.work.conduct import MOST_LEASES
from sparkle_protocol.work.sealing import Sealing

TIMED = 32  # units over which the run time is averaged
NEWCOMER_UNITS = 2  # undecided, of one whose answers do not count: each that is wrong costs somebody else's work
NEWCOMER_PATIENCE = 2  # times as long as others, until a worker that never answered is given a copy

Granted = tuple[int, int, int, int]  # counter, unit, epoch, ttl_ms


class Granting(Sealing):
    """The part of a kept job that gives units to workers."""

    unit_s: float  # how long a unit was seen to occupy a worker
    _timed: int
    _answered: list[int]  # when the leases were granted that were answered in this step
    _stated_before: set[tuple[int, PeerId]]  # open units of earlier views, and who committed to them there

    def _init_granting(self) -> None:
        self.unit_s = 0.0
        self._timed = 0
        self._answered = []
        self._stated_before = set()

    def _executed(self, unit: int, worker: PeerId) -> None:
        """A commit is one more execution, unless its worker states in a new view what it computed in an older one."""
        if (unit, worker) in self._stated_before:
            self._stated_before.discard((unit, worker))
        else:
            self.replicas += 1

    def may_take(self, unit: int, worker: PeerId, now_ns: int) -> bool:
        """``worker`` can add something to the unit now."""
        if self.is_decided(unit) or unit in self.dead or worker in self.leases.known(unit).leases:
            return False
        failures = self.state.failures(unit)
        if worker in self.state.committed(unit) or worker in failures:
            return False
        if worker in self.state.equivocators(unit) or self.devices.avoids(worker, failures, now_ns):
            return False
        if not self.may_add(unit, worker, now_ns):
            return False
        if self.missing(unit) > 0:
            return True
        return worker in self.trusted and not self._trusted_at_work(unit)

    def grant(self, worker: PeerId, want: int, now_ns: int) -> list[Granted]:
        """Hand out up to ``want`` units."""
        if self.refuses(worker, now_ns):
            return []
        source: Iterable[int] = self.rules.order(self, worker)
        allowed = self._allowance(worker, now_ns)
        if allowed <= 0 and self._may_help_out(worker):
            source, allowed = self.leases.wanted(worker), 1
        granted: list[Granted] = []
        want = min(want, allowed)
        if want <= 0:
            return granted
        for unit in source:
            if not self.may_take(unit, worker, now_ns):
                continue
            granted.append(self._hand_out(unit, worker, now_ns))
            if len(granted) >= want:  # looked at before the next unit is drawn: each is shown only once
                break
        return granted

    def grant_copy(self, worker: PeerId, now_ns: int) -> list[Granted]:
        """A unit that others are slow with, for a worker that found no other work: one at most."""
        if self.refuses(worker, now_ns) or next(self.leases.fresh(), None) is not None:
            return []
        if self._allowance(worker, now_ns) <= 0 and not self._may_help_out(worker):
            return []
        proven = self.accepted_by[worker] or self._conduct.delivered(worker)
        for unit in self.leases.stragglers(now_ns, 1 if proven else NEWCOMER_PATIENCE):
            taken = self.is_decided(unit) or unit in self.dead or worker in self.state.leased(unit)
            if not taken and self.may_copy(unit, worker):
                return [self._hand_out(unit, worker, now_ns, copy=True)]
        return []

    def _hand_out(self, unit: int, worker: PeerId, now_ns: int, *, copy: bool = False) -> Granted:
        lease = self.leases.grant(unit, worker, now_ns, copy=copy)
        if self.trust is not None and not self.trust.counts(unit, worker):
            self.trust.newcomers.given += 1
        self._conduct.granted(worker, now_ns)
        self.devices.tried(worker, now_ns)
        self._refresh(unit)
        return lease.counter, unit, self.state.epoch(unit), lease.ttl_ns // 1_000_000

    def _may_help_out(self, worker: PeerId) -> bool:
        """Its hands are full of what others have not answered yet; so may be everybody's. It may take one more."""
        return not self.leases.holds(worker) and self._conduct.delivers(worker, 0)

    def _allowance(self, worker: PeerId, now_ns: int) -> int:
        """How many more units a worker may get now, whatever it asks for."""
        if self.refuses(worker, now_ns):
            return 0
        undecided = self.leases.holds(worker) + len(self._unsettled.get(worker, ())) - self._excused(worker)
        allowed = (
            MOST_LEASES
            if worker == self.me
            else self._conduct.allowance(worker, undecided, self.leases.slow(worker), now_ns)
        )
        if self.is_newcomer(worker):
            allowed = min(allowed, NEWCOMER_UNITS - undecided)
        return min(1, allowed) if self.devices.on_trial(worker, now_ns) else allowed

    def refuses(self, worker: PeerId, now_ns: int) -> bool:
        """The worker gets nothing of the job now, whatever there is: it lied, or its class of devices fails."""
        return worker in self.rejected or self.devices.refuses(worker, now_ns) is not None

    def take_answered(self) -> list[int]:
        """When the leases were granted that were answered since the last call."""
        taken, self._answered = self._answered, []
        return taken

    def timed(self, seconds: float) -> None:
        """A unit occupied a worker this long."""
        self._timed = min(self._timed + 1, TIMED)
        self.unit_s += (seconds - self.unit_s) / self._timed

    def usual_order(self, worker: PeerId) -> Iterator[int]:
        """Units that a worker may be able to take, what should go first first."""
        return self._own_order() if self.mine and worker == self.me else self.leases.candidates(worker)

    def _own_order(self) -> Iterator[int]:
        """Our own result needs no second one: first what is in dispute, then fresh units, then the rest."""
        yield from tuple(self._disputed)
        yield from self.leases.fresh()
        yield from self.leases.wanted(self.me)

    def _unfinished(self, unit: int, worker: PeerId) -> None:
        """A lease ends without a commit."""
        if self.leases.release(unit, worker) is not None:
            self._conduct.of(worker).fruitless += 1
