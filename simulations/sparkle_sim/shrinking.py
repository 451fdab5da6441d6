"""The smallest run that still fails: of a failing scenario, as little as is needed to see the failure.

The fault list shrinks by delta debugging (Zeller and Hildebrandt 2002, "Simplifying and isolating failure-inducing
input"), and so does that of adversaries; churn and bad wires go if they can; then whom each fault hits, how many
peers there are, units and seconds, by halves. As every fault and peer draws numbers of its own, what is left does
what it did before, as far as nothing that was taken out made it do so.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from sparkle_protocol.errors import ConfigError, StorageError
from sparkle_sim import faults
from sparkle_sim.checkers import Finding
from sparkle_sim.consistency import mistakes
from sparkle_sim.engine import build_world
from sparkle_sim.scenario import Churn, Fault, Scenario

Fails = Callable[[Scenario], Finding | None]
T = TypeVar("T")
FEWEST_PEERS = 2
END_S = 1.0  # a run goes on for so long after its failure
ROUNDS = 8  # of all ways to make it smaller; each ends when none works any more


@dataclass(frozen=True, slots=True)
class Step:
    """One attempt."""

    runs: int  # so far
    faults: int
    peers: int
    units: int
    seconds: float
    finding: Finding | None  # None: it does not fail


def shrink(scenario: Scenario, seed: int, fails: Fails, on_step: Callable[[Step], None] = lambda _: None) -> Scenario:
    """The smallest scenario found in which the same checker finds something.

    Args:
        scenario: one that fails with this seed.
        seed: of its runs.
        fails: makes a run and tells what was found first, if anything.
        on_step: told after each run.

    Raises:
        ConfigError: it does not fail.
    """
    return _Shrinking(seed, fails, on_step).shrink(scenario)


class _Shrinking:
    def __init__(self, seed: int, fails: Fails, on_step: Callable[[Step], None]) -> None:
        self._seed = seed
        self._fails = fails
        self._on_step = on_step
        self._checker = ""
        self._runs = 0

    def shrink(self, scenario: Scenario) -> Scenario:
        """All ways to make it smaller, until none works."""
        finding = self._run(scenario)
        if finding is None:
            raise ConfigError(
                f"scenario '{scenario.name}' does not fail with seed {self._seed}; shrink one that does"
            )
        self._checker = finding.checker
        pinned = faults.pinned(build_world(scenario, self._seed), scenario)
        if self._still(pinned):
            scenario = pinned
        for _ in range(ROUNDS):
            before = scenario
            for way in (
                self._fewer_faults, self._fewer_adversaries, self._calmer, self._fewer_hit, self._fewer_peers,
                self._less_work, self._less_time,
            ):  # fmt: skip
                scenario = way(scenario)
            if scenario == before:
                break
        return scenario

    def _run(self, scenario: Scenario) -> Finding | None:
        self._runs += 1
        finding = self._fails(scenario)
        units = sum(plan.units * plan.repeat for plan in scenario.jobs)
        place = len(scenario.faults), scenario.peers.count, units, scenario.seconds
        self._on_step(Step(self._runs, *place, finding))
        return finding

    def _still(self, scenario: Scenario) -> bool:
        if any(mistakes(scenario, _said(scenario))):  # a file of it could not be read
            return False
        finding = self._run(scenario)
        return finding is not None and finding.checker == self._checker

    # --- ways to make it smaller ------------------------------------------------------------------------------

    def _fewer_faults(self, scenario: Scenario) -> Scenario:
        return replace(
            scenario, faults=ddmin(scenario.faults, lambda some: self._still(replace(scenario, faults=some)))
        )

    def _fewer_adversaries(self, scenario: Scenario) -> Scenario:
        some = ddmin(scenario.adversaries, lambda some: self._still(replace(scenario, adversaries=some)))
        scenario = replace(scenario, adversaries=some)
        for index, entry in enumerate(scenario.adversaries):
            whole = scenario

            def only(peers: list[int], index: int = index, whole: Scenario = whole) -> Scenario:
                entries = [*whole.adversaries]
                entries[index] = replace(entries[index], peers=peers)
                return replace(whole, adversaries=entries)

            if len(entry.peers) > 1:
                scenario = only(ddmin(entry.peers, lambda some: bool(some) and self._still(only(some))))
        return scenario

    def _calmer(self, scenario: Scenario) -> Scenario:
        wires = replace(scenario.wires, loss=0.0, twice=0.0, nat_share=0.0, symmetric_share=0.0)
        for calmer in (
            replace(scenario, peers=replace(scenario.peers, churn=Churn())),
            replace(scenario, wires=wires),
        ):
            if calmer != scenario and self._still(calmer):
                return self._calmer(calmer)
        return scenario

    def _fewer_hit(self, scenario: Scenario) -> Scenario:
        for index in range(len(scenario.faults)):
            whole = scenario

            def hitting(peers: list[int], index: int = index, whole: Scenario = whole) -> Scenario:
                faults = [*whole.faults]
                faults[index] = replace(faults[index], peers=peers)
                return replace(whole, faults=faults)

            if len(scenario.faults[index].peers) > 1:
                found = ddmin(scenario.faults[index].peers, lambda some: bool(some) and self._still(hitting(some)))
                scenario = hitting(found)
        return scenario

    def _fewer_peers(self, scenario: Scenario) -> Scenario:
        count = scenario.peers.count
        for smaller in (count // 2, count * 3 // 4, count - 1):
            fewer = _with_peers(scenario, smaller)
            if fewer is not None and self._still(fewer):
                return self._fewer_peers(fewer)
        return scenario

    def _less_work(self, scenario: Scenario) -> Scenario:
        if len(scenario.jobs) > 1:
            jobs = ddmin(scenario.jobs, lambda some: bool(some) and self._still(replace(scenario, jobs=some)))
            scenario = replace(scenario, jobs=jobs)
        for index, plan in enumerate(scenario.jobs):
            while plan.units * plan.repeat > 1:
                plan = replace(plan, units=max(1, plan.units // 2), repeat=max(1, plan.repeat // 2))
                jobs = [*scenario.jobs]
                jobs[index] = plan
                smaller = replace(scenario, jobs=jobs)
                if not self._still(smaller):
                    break
                scenario = smaller
        return scenario

    def _less_time(self, scenario: Scenario) -> Scenario:
        while scenario.seconds > 1.0:
            shorter = _ending_at(scenario, float(ceil(scenario.seconds / 2)))
            if shorter.seconds == scenario.seconds or not self._still(shorter):
                break
            scenario = shorter
        return scenario


def ddmin(whole: Sequence[T], fails: Callable[[list[T]], bool]) -> list[T]:
    """A part of a list that still fails, and of which no single element can be left out."""
    found, parts = [*whole], 2
    if found and fails([]):
        return []
    while len(found) >= 2:
        size = ceil(len(found) / parts)
        rest = ([*found[:at], *found[at + size :]] for at in range(0, len(found), size))
        smaller = next((one for one in rest if fails(one)), None)
        if smaller is not None:
            found, parts = smaller, max(parts - 1, 2)
        elif size == 1:
            break
        else:
            parts = min(parts * 2, len(found))
    return found


def _ending_at(scenario: Scenario, seconds: float) -> Scenario:
    """The scenario cut off: faults are over by then, and those to come never happen."""
    wrong: list[Fault] = []
    for fault in scenario.faults:
        left_s = int((seconds - fault.at_s) * 1000 - 0.5) / 1000  # what a file can say, and not a bit more
        if left_s > 0.0:
            wrong.append(replace(fault, for_s=min(fault.for_s, left_s)))
    return replace(scenario, seconds=seconds, faults=wrong)


def _with_peers(scenario: Scenario, count: int) -> Scenario | None:
    """The scenario with only its first peers; None if it cannot be without the others."""
    if (
        count < FEWEST_PEERS
        or count >= scenario.peers.count
        or any(plan.submitter >= count for plan in scenario.jobs)
    ):
        return None
    wrong = [replace(fault, peers=[one for one in fault.peers if one < count]) for fault in scenario.faults]
    false = [replace(some, peers=[one for one in some.peers if one < count]) for some in scenario.adversaries]
    return replace(
        scenario,
        peers=replace(scenario.peers, count=count),
        faults=[fault for fault in wrong if fault.peers or fault.share or fault.regions],
        adversaries=[some for some in false if some.peers or some.share],
    )


# --- regression files -------------------------------------------------------------------------------------------


def write_regression(folder: Path, scenario: Scenario, seed: int, finding: Finding) -> Path:
    """Keep a failing run as ``NAME.toml``, from which it is made again. Raises StorageError."""
    path = folder / f"{scenario.name}.toml"
    small = replace(scenario, seed=seed, title=str(finding))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(to_toml(small), encoding="utf-8")
    except OSError as error:
        text = f"{path} cannot be written ({error.strerror or error}); name another folder with --out"
        raise StorageError(text) from error
    return path


def to_toml(scenario: Scenario) -> str:
    """A scenario as a file says it; what has its usual value is left out."""
    return "\n".join(_table("", _said(scenario))) + "\n"


def _said(part: msgspec.Struct) -> dict[str, Any]:
    """What a file must say of a part."""
    found: dict[str, Any] = {}
    for field in msgspec.structs.fields(part):
        value = getattr(part, field.name)
        usual = field.default
        if field.default_factory is not msgspec.NODEFAULT:
            usual = field.default_factory()
        if value == usual:
            continue
        if isinstance(value, msgspec.Struct):
            found[field.name] = _said(value)
        elif isinstance(value, list):
            found[field.name] = [_said(one) if isinstance(one, msgspec.Struct) else one for one in value]
        else:
            found[field.name] = value
    return found


def _table(at: str, table: dict[str, Any]) -> list[str]:
    lines = [f"{name} = {_value(value)}" for name, value in table.items() if not _is_table(value)]
    for name, value in table.items():
        path = f"{at}.{name}" if at else name
        if isinstance(value, dict):
            lines += ["", f"[{path}]", *_table(path, value)]
        elif _is_table(value):
            for one in value:
                lines += ["", f"[[{path}]]", *_table(path, one)]
    return lines


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def _value(value: Any) -> str:
    """A TOML value: strings, numbers and lists are as in JSON."""
    return msgspec.json.encode(value).decode()
