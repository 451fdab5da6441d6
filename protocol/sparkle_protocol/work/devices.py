"""Device classes of the workers of one job: who said to be of which, and what follows from how they fail.

The rules are in ``exclusion.py``; here they meet workers. A worker counts for the class that it named last: when it
asked for units, or when it failed, which is what others hear of it and what outlives a restart.
"""

from collections.abc import Mapping

from sparkle_protocol.ids import PeerId
from sparkle_protocol.work.exclusion import NO_CLASS, Exclusion, Failure

MAX_WORKERS_KNOWN = 1 << 12  # per job; further ones count as of no class


class Devices:
    """The device classes in one job."""

    def __init__(self) -> None:
        self.exclusion = Exclusion()
        self.fresh: list[tuple[str, str]] = []  # classes excluded in this step, and why, to be told
        self._class_of: dict[PeerId, str] = {}
        self._told: set[str] = set()

    def of(self, worker: PeerId) -> str:
        """The class of a worker."""
        return self._class_of.get(worker, NO_CLASS)

    def asks(self, worker: PeerId, class_: str, now_ns: int) -> bool:
        """A worker of this class asks for units; True when it was of another one before."""
        changed = self.committed(worker, class_)
        if worker in self._class_of:
            self.exclusion.seen(class_, now_ns)
        return changed

    def committed(self, worker: PeerId, class_: str) -> bool:
        """A worker says that it computed something on this class; True when it was of another one before."""
        before = self._class_of.get(worker, NO_CLASS)
        if worker in self._class_of or (class_ != NO_CLASS and len(self._class_of) < MAX_WORKERS_KNOWN):
            self._class_of[worker] = class_
        return self._class_of.get(worker, NO_CLASS) != before

    def failed(self, worker: PeerId, unit: int, code: str, class_: str, now_ns: int) -> None:
        """A worker of this class could not compute a unit."""
        if class_ != NO_CLASS and worker not in self._class_of and len(self._class_of) < MAX_WORKERS_KNOWN:
            self._class_of[worker] = class_
        self.exclusion.failed(worker, self.of(worker), unit, code, now_ns)
        self._tell()

    def succeeded(self, worker: PeerId, unit: int, now_ns: int) -> bool:
        """A worker's result of a unit was accepted; True when that may change whom failures are blamed on."""
        changed = self.exclusion.succeeded(worker, self.of(worker), unit, now_ns)
        if changed:
            self._tell()
        return changed

    def _tell(self) -> None:
        excluded = self.exclusion.all_excluded()
        self.fresh += [(class_, why) for class_, why in excluded.items() if class_ not in self._told]
        self._told = set(excluded)

    def refuses(self, worker: PeerId, now_ns: int) -> str | None:
        """Why this worker gets nothing of the job now, in a sentence; None when it may."""
        return self.exclusion.excluded(self.of(worker), now_ns)

    def on_trial(self, worker: PeerId, now_ns: int) -> bool:
        """The worker's class is excluded, and may have one unit now."""
        return self.exclusion.on_trial(self.of(worker), now_ns)

    def tried(self, worker: PeerId, now_ns: int) -> None:
        """The worker got a unit; of an excluded class nobody gets another one for a while."""
        self.exclusion.tried(self.of(worker), now_ns)

    def with_classes(self, failures: Mapping[PeerId, str]) -> dict[PeerId, Failure]:
        """Failure codes by worker, each with the class of the worker."""
        return {worker: (self.of(worker), code) for worker, code in failures.items()}

    def avoids(self, worker: PeerId, failures: Mapping[PeerId, str], now_ns: int) -> bool:
        """The unit with these failures waits for other classes than this worker's."""
        return bool(failures) and self.exclusion.avoids(self.of(worker), self.with_classes(failures), now_ns)

    def in_doubt(self, failures: Mapping[PeerId, Failure], now_ns: int) -> bool:
        """The failures may be the fault of their classes, and another class is there to show it."""
        classes = {class_ for class_, _ in failures.values()}
        return any(self.exclusion.avoids(class_, failures, now_ns) for class_ in classes)
