"""Looking at a run again: it is made once more, and what happens in it is shown.

Nothing need have been recorded: the seed says it all. ``of_file`` takes a scenario's file, or the folder of a run,
whose manifest has the scenario and the seed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from sparkle_protocol.errors import ConfigError
from sparkle_sim.checkers import Finding
from sparkle_sim.kernel import SECOND
from sparkle_sim.reading import read_scenario
from sparkle_sim.scenario import Scenario
from sparkle_sim.seeds import outcome
from sparkle_sim.trace import Entry, Trace

MANIFEST = "manifest.json"
SHORT = 8  # digits of a job's name in a trace
Show = Callable[[float, int, str, str], None]


@dataclass(frozen=True, slots=True)
class Window:
    """What of a run is shown.

    Args:
        peers: what happens at these, or is said to them; empty: at all.
        job: first digits of a job's name; empty: of all.
        unit: of that job; None: all.
        from_s: from then on.
        to_s: up to then.
        limit: so many entries.
    """

    peers: tuple[int, ...] = ()
    job: str = ""
    unit: int | None = None
    from_s: float = 0.0
    to_s: float = float("inf")
    limit: int = 1000

    @classmethod
    def of(
        cls, peers: Sequence[int] | None, unit: str | None, from_s: float, to_s: float | None, limit: int
    ) -> "Window":
        """As a command line says it. Raises ConfigError."""
        job, _, number = (unit or "").partition("/")
        if unit is not None and (not job or not number.isdecimal() or set(job) - set("0123456789abcdef")):
            raise ConfigError(f"'{unit}' is no unit; write JOB/UNIT, as 3fa9c2/17")
        last_s = float("inf") if to_s is None else to_s
        return cls(tuple(peers or ()), job, int(number) if number else None, from_s, last_s, limit)

    def shows(self, entry: Entry) -> bool:
        """Whether an entry is looked for."""
        if not self.from_s <= entry.at_ns / SECOND <= self.to_s:
            return False
        if self.peers and entry.peer not in self.peers:
            words = entry.what.split(" ", 1)[0]
            said_to = entry.detail if words in ("send", "reply", "up", "down") else ""
            if said_to not in [str(peer) for peer in self.peers]:
                return False
        return not self.job or self._speaks_of_unit(entry)

    def _speaks_of_unit(self, entry: Entry) -> bool:
        if "job=" in entry.detail:
            fields = dict(word.partition("=")[::2] for word in entry.detail.split(" "))
            return fields.get("job", "").startswith(self.job) and fields.get("unit") in (str(self.unit), None)
        job, slash, rest = entry.detail.partition("/")
        if not slash:
            return False
        number = rest.split(".")[0]
        return job[:SHORT].startswith(self.job[:SHORT]) and number == str(self.unit)


@dataclass(slots=True)
class Replayed:
    """What came of it."""

    shown: int = 0
    left_out: int = 0
    findings: list[Finding] = field(default_factory=list)


def of_file(path: Path, seed: int | None = None) -> tuple[Scenario, int]:
    """A scenario and its seed, from its file or from the folder of a run. Raises ConfigError."""
    if not path.is_dir():
        scenario = read_scenario(path)
        return scenario, scenario.seed if seed is None else seed
    try:
        manifest = msgspec.json.decode((path / MANIFEST).read_bytes())
        scenario = msgspec.convert(manifest["scenario"], Scenario)
        return scenario, int(manifest["seed"]) if seed is None else seed
    except (OSError, KeyError, TypeError, ValueError) as error:  # what msgspec raises is a ValueError
        raise ConfigError(f"{path} is no folder of a run: its {MANIFEST} cannot be read ({error})") from error


def replay(scenario: Scenario, seed: int, window: Window, show: Show) -> Replayed:
    """Make a run again, show what of it is looked for, and tell what its checkers find."""
    replayed = Replayed()

    def keep(entry: Entry) -> None:
        if not window.shows(entry):
            return
        if replayed.shown < window.limit:
            replayed.shown += 1
            show(entry.at_ns / SECOND, entry.peer, entry.what, entry.detail)
        else:
            replayed.left_out += 1

    replayed.findings = outcome(scenario, seed, trace=Trace(keep))
    return replayed
