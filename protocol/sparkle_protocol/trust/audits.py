"""Results that were believed without a second answer, and those for which one was asked.

::

    believed ──coin: no──▶ final, unless an audit of its worker is open: then it is *held* until that has an end
        └─────coin: yes──▶ audited ──equal──▶ final, and so is what was held
                               └──different──▶ dispute: if its worker loses it, what was held is computed again

The coin falls after the commit and is not told to the worker; an audit is a lease like any other. Holding back what
came while an audit is open costs no work and little time, and ends what a cheater could gain between the draw that
finds it out and its outcome.
"""

from dataclasses import dataclass, field

from sparkle_protocol.ids import PeerId


@dataclass(slots=True)
class Audit:
    """A second answer that is wanted, or was."""

    worker: PeerId  # whose result is compared
    rate: float  # the probability with which this was drawn
    since_ns: int
    auditors: list[PeerId] = field(default_factory=list)  # who may give it, in this order


class Audits:
    """All audits of one job that are not over."""

    def __init__(self) -> None:
        self._open: dict[int, Audit] = {}
        self._spared: dict[int, PeerId] = {}  # units whose coin said no, while they are not final
        self._held: dict[PeerId, dict[int, None]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def of(self, unit: int) -> Audit | None:
        """The unit's audit."""
        return self._open.get(unit)

    def is_spared(self, unit: int, worker: PeerId) -> bool:
        """The coin said no to an audit of this worker's result."""
        return self._spared.get(unit) == worker

    def spare(self, unit: int, worker: PeerId) -> None:
        """The coin says no."""
        self._spared[unit] = worker

    def begin(self, unit: int, audit: Audit) -> None:
        """The coin says yes."""
        self._open[unit] = audit

    def is_open(self, worker: PeerId) -> bool:
        """Some result of the worker is being audited."""
        return any(audit.worker == worker for audit in self._open.values())

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
        """The unit is final, or begins anew: returns what need not be held any more on its account."""
        self._spared.pop(unit, None)
        audit = self._open.pop(unit, None)
        if audit is None or self.is_open(audit.worker):
            return []
        return sorted(self._held.pop(audit.worker, ()))

    def end_all(self, worker: PeerId) -> list[int]:
        """The worker was proven wrong: what was believed of it, audited or held."""
        units = [unit for unit, audit in self._open.items() if audit.worker == worker]
        units += [unit for unit, whose in self._spared.items() if whose == worker]
        units += self._held.pop(worker, ())
        for unit in units:
            self._open.pop(unit, None)
            self._spared.pop(unit, None)
        return sorted(set(units))
