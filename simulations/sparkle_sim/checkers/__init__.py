"""What is watched during a run and must hold whatever goes wrong.

Each checker is O(1) for every event and looks at everything now and then. ``make`` gives those of a scenario;
``watch`` has a world watched by them. A scenario names checkers of its author's own as ``FILE.py:CLASS``.
"""

from collections.abc import Sequence

from sparkle_protocol.errors import ConfigError
from sparkle_sim.checkers.base import Checker, Finding, job_of, named, unit_of
from sparkle_sim.checkers.credit import Copies, CreditBounds, Settled, Unpunished, ZeroSum
from sparkle_sim.checkers.ending import Bounds, Termination
from sparkle_sim.checkers.evidence import Evidence
from sparkle_sim.checkers.finals import SingleFinal, Unsigned, WrongAccepts
from sparkle_sim.checkers.keeping import Acknowledged, Convergence
from sparkle_sim.checkers.promises import Promises
from sparkle_sim.kernel import SECOND
from sparkle_sim.loading import load
from sparkle_sim.scenario import Scenario
from sparkle_sim.world import World

KINDS: tuple[type[Checker], ...] = (
    Acknowledged, SingleFinal, Termination, Unsigned, Promises, WrongAccepts, Convergence, Bounds,
    ZeroSum, Settled, Copies, Unpunished, CreditBounds,
)  # fmt: skip

__all__ = ["KINDS", "Checker", "Finding", "Watch", "job_of", "make", "named", "own", "unit_of", "watch"]


def make(world: World, scenario: Scenario) -> list[Checker]:
    """The checkers that a scenario names, all that apply if it names none, and those of its author's own.

    Raises:
        ConfigError: there is none of that name.
    """
    known = {kind.name: kind for kind in KINDS}
    unknown = [name for name in scenario.checks.names if name not in known]
    if unknown:
        raise ConfigError(f"checks.names has '{unknown[0]}'; the checkers are {', '.join(known)}")
    evidence = Evidence(world)
    names = scenario.checks.names or [name for name, kind in known.items() if kind.applies(scenario)]
    made = [known[name](world, scenario, evidence) for name in names]
    return made + [own(text)(world, scenario, evidence) for text in scenario.checks.own]


def own(text: str) -> type[Checker]:
    """The checker that ``FILE.py:CLASS`` names. Raises ConfigError, to follow the key that names it."""
    kind = load(text, Checker)
    if not getattr(kind, "name", ""):
        raise ConfigError(f"names {text}, which has no name; give the class name = '...'")
    if kind.name in {one.name for one in KINDS}:
        raise ConfigError(f"names {text}, whose name '{kind.name}' is that of a checker here; give it another")
    return kind


class Watch:
    """Checkers at work on a world."""

    def __init__(self, world: World, checkers: Sequence[Checker], *, every_s: float, stop: bool) -> None:
        self.checkers = checkers
        self._world = world
        self._every_ns = int(every_s * SECOND)
        self._stop = stop
        world.watchers += checkers
        listening = [checker for checker in checkers if checker.listens]
        if listening:
            world.listen(listening[0].evidence)
        for checker in listening:
            world.listen(checker)
        world.kernel.after(self._every_ns, self._look)

    def _look(self) -> None:
        for checker in self.checkers:
            checker.scan()
        if self._stop and self.findings:
            self._world.kernel.stop()
        self._world.kernel.after(self._every_ns, self._look)

    def finish(self) -> list[Finding]:
        """Look at everything once more; returns all that was found, the first first."""
        for checker in self.checkers:
            checker.finish()
        return self.findings

    @property
    def findings(self) -> list[Finding]:
        """All that was found, the first first."""
        return sorted((one for checker in self.checkers for one in checker.findings), key=lambda one: one.at_s)

    def report(self) -> dict[str, dict[str, object]]:
        """What each checker saw."""
        return {checker.name: checker.report() for checker in self.checkers}


def watch(world: World, scenario: Scenario, *, stop: bool = False) -> Watch:
    """Have a world watched; ``stop``: a run ends at the scan after the first finding."""
    checks = scenario.checks
    return Watch(world, make(world, scenario), every_s=checks.scan_every_s, stop=stop)
