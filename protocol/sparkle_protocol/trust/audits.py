"""Results that were believed without a second answer, and those for which one was asked.

::

    believed ──coin: no──▶ final, unless an audit of its worker is open: then it is *held* until that has an end
        └─────coin: yes──▶ audited ──equal──▶ final, and so is what was held
                               └──different──▶ dispute: if its worker loses it, what was held is computed again

The coin falls after the commit and is not told to the worker; an audit is a lease like any other. Holding back what
came while an audit is open costs no work and little time, and ends what a cheater could gain between the draw that
finds it out and its outcome. It falls as well where several answered that nobody had drawn (one of them being given a
copy of what another was slow with): two who lie together would see to it that they are these. Where all who count
have answered nobody is left to be drawn, and it is enough that they agree. In a dispute all whose answers count are
held back.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from sparkle_protocol.ids import PeerId


@dataclass(frozen=True, slots=True)
class Audit:
    """An answer more that is wanted, or was."""

    worker: PeerId  # whose result is compared; "" in a dispute that nothing was drawn for
    rate: float  # the probability with which this was drawn
    held: tuple[PeerId, ...]  # whose other results wait
    wanted: int  # answers that count and agree


class Audits:
    """All audits of one job that are not over."""

    def __init__(self) -> None:
        self._open: dict[int, Audit] = {}
        self._suspects: Counter[PeerId] = Counter()  # how many of these hold back results of each
        self._spared: dict[int, dict[PeerId, None]] = {}  # units whose coin said no, while they are not final
        self._held: dict[PeerId, dict[int, None]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def of(self, unit: int) -> Audit | None:
        """The unit's audit."""
        return self._open.get(unit)

    def is_spared(self, unit: int, worker: PeerId) -> bool:
        """The coin said no to an audit of this worker's result."""
        return worker in self._spared.get(unit, ())

    def spare(self, unit: int, worker: PeerId) -> None:
        """The coin says no."""
        self._spared.setdefault(unit, {})[worker] = None

    def begin(self, unit: int, audit: Audit) -> None:
        """The coin says yes, or answers differ."""
        self._close(unit)
        self._open[unit] = audit
        self._suspects.update(audit.held)

    def suspect(self, unit: int, workers: Iterable[PeerId]) -> None:
        """Results of these are held back too while the unit is open."""
        audit = self._open[unit]
        more = [worker for worker in workers if worker not in audit.held]
        if more:
            self._open[unit] = replace(audit, held=(*audit.held, *more))
            self._suspects.update(more)

    def _close(self, unit: int) -> Audit | None:
        audit = self._open.pop(unit, None)
        for worker in audit.held if audit is not None else ():
            self._suspects[worker] -= 1
            if not self._suspects[worker]:
                del self._suspects[worker]
        return audit

    def is_open(self, worker: PeerId) -> bool:
        """Some result of the worker is being audited."""
        return worker in self._suspects

    def hold(self, unit: int, worker: PeerId) -> None:
        """A result waits until no audit of its worker is open."""
        self._held.setdefault(worker, {})[unit] = None

    def held(self, worker: PeerId) -> int:
        """How many results of the worker wait."""
        return len(self._held.get(worker, ()))

    def units(self) -> list[int]:
        """All that are audited."""
        return list(self._open)

    def end(self, unit: int) -> list[int]:
        """The unit is final, or begins anew; returns what need not be held any more on its account."""
        self._spared.pop(unit, None)
        audit = self._close(unit)
        freed: set[int] = set()
        for worker in audit.held if audit is not None else ():
            if not self.is_open(worker):
                freed.update(self._held.pop(worker, ()))
        return sorted(freed)

    def end_all(self, worker: PeerId) -> list[int]:
        """The worker was proven wrong: what was believed of it, audited or held."""
        units = [unit for unit, audit in self._open.items() if audit.worker == worker]
        freed = [one for unit in units for one in self.end(unit)]
        spared = [unit for unit, whose in self._spared.items() if worker in whose]
        for unit in spared:
            del self._spared[unit][worker]
        return sorted({*units, *freed, *spared, *self._held.pop(worker, ())})
