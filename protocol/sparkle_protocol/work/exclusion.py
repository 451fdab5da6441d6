"""Failures that cluster by device class exclude the class from a job, not the units from being computed.

A device class is a short word of the worker about itself, such as ``cpu/x86_64``. One ``Exclusion`` per job:

- **Excluding.** A class gets no more units of the job when 3 of its workers failed on 3 units with one code, none of
  it ever had a result accepted, one of those units was then computed by another class, and by Fisher's exact test
  the chance of so uneven a split of failing and succeeding workers is at most 1/4. That is lenient, since being wrong
  costs little: it ends with the first accepted result of the class, late ones included, and there is probation. It
  means 3 against at least 1 when the other class has no such failures, and far more when it has.
- **Probation.** An excluded class gets one unit after 10 minutes, then after 20, 40, … up to 6 hours.
- **Blame.** Failures of an excluded class say nothing about a unit. Three alike count against it when
  one of their classes has proven itself in this job, or when no class is left that has not failed so and of which
  a worker asked for units in the last 10 minutes. Until then the unit waits for such a class (``avoids``).

The trials of the test are workers, not attempts: one broken machine counts once. A class is what a peer says of
itself, so three liars can have a class excluded in which nobody has an accepted result yet, and nothing worse.
A peer that names no class is taken for one of a kind: it is never excluded, and its failures count.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import comb

from sparkle_protocol.ids import PeerId

NO_CLASS = ""
ALIKE = 3  # workers and units, as for blaming a unit
SIGNIFICANCE = 0.25
MAX_CLASSES = 16  # per job; further ones are treated as NO_CLASS
MAX_SEEN = 64  # workers and units remembered of a class; more evidence changes nothing
FIRST_PROBATION_NS = 600 * 1_000_000_000
MAX_PROBATION_NS = 6 * 3600 * 1_000_000_000
BLIND_NS = 60 * 1_000_000_000  # after a restart: by then the workers that are there have asked for units
PRESENT_NS = 600 * 1_000_000_000  # a class of which nobody asked for work this long is not waited for

Failure = tuple[str, str]  # device class, code


@dataclass(slots=True)
class _Failing:
    """Failures of a class with one code."""

    workers: set[PeerId] = field(default_factory=set)
    units: set[int] = field(default_factory=set)
    solved: set[int] = field(default_factory=set)  # of these units, those that another class computed


@dataclass(slots=True)
class _Class:
    """What is known about a device class in this job."""

    seen_ns: int
    succeeded: set[PeerId] = field(default_factory=set)
    failing: dict[str, _Failing] = field(default_factory=dict)  # by code, of which there are five
    probation_ns: int = FIRST_PROBATION_NS
    retry_ns: int | None = None  # excluded, and when it gets its next unit

    def failing_workers(self, code: str) -> int:
        """Workers that failed with this code and never succeeded."""
        return len(self.failing[code].workers - self.succeeded) if code in self.failing else 0


class Exclusion:
    """Device classes that fail in one job."""

    def __init__(self) -> None:
        self._classes: dict[str, _Class] = {}
        self._blind_until_ns = 0

    # --- what happened ------------------------------------------------------------------------------------

    def restarted(self, now_ns: int) -> None:
        """Which classes are there is not known for a while: who asked before is forgotten."""
        self._blind_until_ns = now_ns + BLIND_NS

    def look_again_ns(self, now_ns: int) -> int:
        """When to look again at a unit that is in doubt now, if nothing is learnt before."""
        return self._blind_until_ns if now_ns < self._blind_until_ns else now_ns + PRESENT_NS

    def seen(self, class_: str, now_ns: int) -> None:
        """A worker of this class asks for units of the job."""
        known = self._known(class_, now_ns)
        if known is not None:
            known.seen_ns = max(known.seen_ns, now_ns)

    def failed(self, worker: PeerId, class_: str, unit: int, code: str, now_ns: int) -> None:
        """A worker could not compute a unit."""
        known = self._known(class_, now_ns)
        if known is None:
            return
        failing = known.failing.setdefault(code, _Failing())
        if len(failing.workers) < MAX_SEEN:
            failing.workers.add(worker)
        if len(failing.units) < MAX_SEEN:
            failing.units.add(unit)
        self._judge(now_ns)

    def succeeded(self, worker: PeerId, class_: str, unit: int, now_ns: int) -> bool:
        """A worker's result of a unit was accepted; True when that is new evidence."""
        known = self._known(class_, now_ns)
        changed = known is not None and worker not in known.succeeded and len(known.succeeded) < MAX_SEEN
        if known is not None and changed:
            known.succeeded.add(worker)
        for other in self._classes.values():
            for failing in other.failing.values():
                if other is not known and unit in failing.units and unit not in failing.solved:
                    failing.solved.add(unit)
                    changed = True
        if changed:
            self._judge(now_ns)
        return changed

    def tried(self, class_: str, now_ns: int) -> None:
        """A worker of an excluded class was given a unit on probation: the next one later, unless it succeeds."""
        known = self._classes.get(class_)
        if known is not None and known.retry_ns is not None:
            known.probation_ns = min(2 * known.probation_ns, MAX_PROBATION_NS)
            known.retry_ns = now_ns + known.probation_ns

    def _known(self, class_: str, now_ns: int) -> _Class | None:
        known = self._classes.get(class_)
        if known is None and class_ != NO_CLASS and len(self._classes) < MAX_CLASSES:
            known = self._classes[class_] = _Class(now_ns)
        return known

    def _judge(self, now_ns: int) -> None:
        """Exclude the classes that there is evidence against, and only those."""
        for known in self._classes.values():
            if self._evidence(known) is None:
                known.retry_ns = None
            elif known.retry_ns is None:
                known.retry_ns = now_ns + known.probation_ns

    def _evidence(self, known: _Class) -> tuple[str, _Failing] | None:
        """The code, and the failures with it, for which the class is to be excluded."""
        if known.succeeded or not known.failing:
            return None
        others = [other for other in self._classes.values() if other is not known]
        succeeded = sum(len(other.succeeded) for other in others)
        for code, failing in known.failing.items():
            if len(failing.workers) < ALIKE or len(failing.units) < ALIKE or not failing.solved:
                continue
            failed = sum(other.failing_workers(code) for other in others)
            if fisher(len(failing.workers), 0, failed, succeeded) <= SIGNIFICANCE:
                return code, failing
        return None

    # --- what follows -------------------------------------------------------------------------------------

    def excluded(self, class_: str, now_ns: int) -> str | None:
        """Why workers of this class get nothing of the job now, in a sentence; None when they may."""
        known = self._classes.get(class_)
        if known is None or known.retry_ns is None or now_ns >= known.retry_ns:
            return None
        return self._sentence(class_, known)

    def all_excluded(self) -> dict[str, str]:
        """Every excluded class, those due for a try as well, and why in a sentence."""
        found = ((name, self._sentence(name, known)) for name, known in self._classes.items())
        return {name: why for name, why in found if why is not None}

    def _sentence(self, class_: str, known: _Class) -> str | None:
        found = self._evidence(known)
        if found is None:
            return None
        code, failing = found
        return (
            f"{len(failing.workers)} devices of class {class_} failed on {len(failing.units)} units ({code}) and none"
            f" succeeded, while others computed {len(failing.solved)} of these units"
        )

    def on_trial(self, class_: str, now_ns: int) -> bool:
        """This class is excluded, but due for a try: give one unit to one worker and call ``tried``."""
        known = self._classes.get(class_)
        return known is not None and known.retry_ns is not None and now_ns >= known.retry_ns

    def next_trial_ns(self) -> int | None:
        """When the next excluded class is due for a try."""
        return min((known.retry_ns for known in self._classes.values() if known.retry_ns is not None), default=None)

    def counted(self, failures: Mapping[PeerId, Failure]) -> dict[PeerId, Failure]:
        """Those of a unit's failures that say something about the unit: not of an excluded class."""
        return {worker: failure for worker, failure in failures.items() if not self._is_excluded(failure[0])}

    def blames_unit(self, failures: Mapping[PeerId, Failure], now_ns: int) -> bool:
        """Whether these failures on one unit, by worker, show that the unit cannot be computed."""
        return any(len(of) >= ALIKE and not self._is_doubtful(of, now_ns) for of in self._alike(failures))

    def avoids(self, class_: str, failures: Mapping[PeerId, Failure], now_ns: int) -> bool:
        """Whether the unit with these failures waits for classes other than this one."""
        return any(
            len(of) >= ALIKE and class_ in of and self._is_doubtful(of, now_ns) for of in self._alike(failures)
        )

    def _is_excluded(self, class_: str) -> bool:
        known = self._classes.get(class_)
        return known is not None and known.retry_ns is not None

    def _alike(self, failures: Mapping[PeerId, Failure]) -> list[list[str]]:
        """For each code the classes of the workers that failed with it; those that count."""
        alike: dict[str, list[str]] = {}
        for class_, code in self.counted(failures).values():
            alike.setdefault(code, []).append(class_ if class_ in self._classes else NO_CLASS)
        return list(alike.values())

    def _is_doubtful(self, classes: list[str], now_ns: int) -> bool:
        """These failures may be the fault of their classes, and a class without them is there to show it."""
        if any(class_ == NO_CLASS or self._classes[class_].succeeded for class_ in classes):
            return False
        if now_ns < self._blind_until_ns:
            return True
        return any(
            now_ns - other.seen_ns < PRESENT_NS and other.retry_ns is None
            for name, other in self._classes.items()
            if name not in classes
        )


def fisher(failed: int, succeeded: int, others_failed: int, others_succeeded: int) -> float:
    """Fisher's exact test, one-sided: the chance of as many failures or more on the left if sides do not matter."""
    left, failures = failed + succeeded, failed + others_failed
    total = left + others_failed + others_succeeded
    ways = sum(comb(left, k) * comb(total - left, failures - k) for k in range(failed, min(left, failures) + 1))
    return ways / comb(total, failures)
