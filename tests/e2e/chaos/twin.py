"""Real chaos runs and their simulated twins, compared.

``python -m tests.e2e.chaos.twin [--seeds N] [--first SEED] [--simulated N] [--stored] [--store] [--json]``

Each seed is a schedule (``twin_run.py``): real processes play it once, the simulator ``--simulated`` times. stdout
gets the comparison, stderr what is going on. ``--store`` keeps the real runs in ``twin_runs.json``, each when it is
over; ``--stored`` takes them from there, which needs a minute instead of many. Exits with 1 where they do not agree,
or where a checker of chaos runs found a violation.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import msgspec

from sparkle_protocol.errors import ConfigError, SparkleError
from tests.e2e.chaos.twin_run import JOBS, KINDS, NODES, UNIT_S, Played, Simulated, play, simulate, twin_schedule

STORED = Path(__file__).with_name("twin_runs.json")
FORMAT = 1
TWINS = 10  # simulated runs of each real one
# Over all seeds the simulator may be off by so much. Runs of one schedule differ by chance: their standard deviation
# is about 7 % of the makespan and 2 % of the replicas, so that the mean of five real runs is known to 3 % and 1 %.
# The rest is for what the model leaves out: a processor shared with other work, and how late a start is noticed.
OVERALL = {"replicas": 0.08, "makespan_s": 0.10}
# A single real run is one draw: it may be as far from the mean of its twins as three of their standard deviations,
# and the tolerance on top.
DEVIATIONS = 3.0


@dataclass(frozen=True, slots=True)
class Compared:
    """One figure of one seed, or of all."""

    real: float
    twin: float  # mean over the simulated runs
    spread: float  # their standard deviation

    @property
    def off(self) -> float:
        """How much more the simulator says, as a share."""
        return self.twin / self.real - 1.0

    def agrees(self, tolerance: float) -> bool:
        """The real run could be one of the simulated, but for the tolerance."""
        return abs(self.twin - self.real) <= tolerance * self.real + DEVIATIONS * self.spread


@dataclass(frozen=True, slots=True)
class Pair:
    """A real run beside its twins."""

    played: Played
    twins: tuple[Simulated, ...]

    def compared(self, name: str) -> Compared:
        """One figure: ``replicas`` or ``makespan_s``."""
        units = self.played.units
        twins = [one.computed / units if name == "replicas" else one.makespan_s for one in self.twins]
        real = self.played.replicas if name == "replicas" else self.played.makespan_s
        return Compared(real, mean(twins), stdev(twins) if len(twins) > 1 else 0.0)


def overall(pairs: Sequence[Pair], name: str) -> Compared:
    """Means over the seeds."""
    each = [pair.compared(name) for pair in pairs]
    spread = mean(one.spread**2 for one in each) ** 0.5 / len(each) ** 0.5
    return Compared(mean(one.real for one in each), mean(one.twin for one in each), spread)


def disagreements(pairs: Sequence[Pair]) -> list[str]:
    """What is outside the tolerances, as sentences."""
    found = []
    for name, tolerance in OVERALL.items():
        whole = overall(pairs, name)
        if abs(whole.off) > tolerance:
            found.append(f"{name} is off by {whole.off:+.1%} over all seeds; at most {tolerance:.0%} is allowed")
        for pair in pairs:
            if not pair.compared(name).agrees(tolerance):
                one = pair.compared(name)
                found.append(f"seed {pair.played.seed}: {name} is {one.real:.2f}, and {one.twin:.2f} simulated")
    return found


# --- stored runs ------------------------------------------------------------------------------------------


def settings() -> dict[str, Any]:
    """What stored runs are runs of."""
    return {"format": FORMAT, "nodes": NODES, "unit_s": UNIT_S, "jobs": JOBS, "kinds": KINDS}


def store(played: Iterable[Played], path: Path = STORED) -> None:
    """Keep real runs."""
    document = {**settings(), "runs": [asdict(one) for one in played]}
    path.write_text(json.dumps(document, indent=1) + "\n")


def stored(path: Path = STORED) -> list[Played]:
    """Real runs that were kept. Raises ConfigError when they are of another time."""
    again = "; 'python -m tests.e2e.chaos.twin --seeds 5 --store' makes it anew"
    try:
        document = json.loads(path.read_text())
        runs = msgspec.convert(document.pop("runs"), list[Played])
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise ConfigError(f"{path} cannot be read ({error}){again}") from error
    if document != json.loads(json.dumps(settings())) or not all(map(_is_of_its_seed, runs)):
        raise ConfigError(f"{path} holds runs of other schedules than those of now{again}")
    return runs


def _is_of_its_seed(played: Played) -> bool:
    """The faults that struck are those of the seed's schedule."""
    kinds = {"stop": "freeze", "kill": "kill", "vanish": "kill"}
    faults = twin_schedule(played.seed).faults
    planned = sorted((int(fault.target[1:]), fault.at_s, kinds[fault.kind]) for fault in faults)
    return planned == sorted((one.node, one.from_s, one.kind) for one in played.absences)


# --- the command ------------------------------------------------------------------------------------------


def main(arguments: Sequence[str]) -> int:
    """Compare, print, and say by the exit code whether they agree."""
    parsed = _parser().parse_args(arguments)
    pairs: list[Pair] = []
    interrupted = False
    try:
        runs = stored() if parsed.stored else None
        seeds = [one.seed for one in runs] if runs is not None else range(parsed.first, parsed.first + parsed.seeds)
        began_s = time.monotonic()
        for number, seed in enumerate(seeds):
            played = runs[number] if runs is not None else _played(seed)
            twins = tuple(simulate(played, one) for one in range(1, parsed.simulated + 1))
            pairs.append(Pair(played, twins))
            if parsed.store:
                store(pair.played for pair in pairs)
            left_s = (time.monotonic() - began_s) / (number + 1) * (len(seeds) - number - 1)
            _say(f"seed {seed} ({number + 1} of {len(seeds)}) is done; about {left_s / 60:.0f} min left")
    except KeyboardInterrupt:
        interrupted = True
    except SparkleError as error:
        _say(str(error))
        return 1
    if not pairs:
        return 130
    found = [*disagreements(pairs), *(text for pair in pairs for text in pair.played.violations)]
    print(json.dumps(document(pairs, found)) if parsed.json else table(pairs, found))
    return 1 if found else 130 * interrupted


def _played(seed: int) -> Played:
    schedule = twin_schedule(seed)
    _say(f"seed {seed}: {len(schedule.faults)} faults strike {NODES} real nodes, which takes a minute or two")
    with tempfile.TemporaryDirectory(prefix="sparkle-twin-") as scratch:
        played = asyncio.run(play(schedule, Path(scratch)))
    _say(f"seed {seed}: {played.replicas:.2f} replicas, {played.makespan_s:.1f} s; now its simulated twins")
    return played


def table(pairs: Sequence[Pair], found: Sequence[str]) -> str:
    """The comparison as Markdown."""
    lines = [
        "| seed | kills | freezes | replicas: real | simulated | off | makespan: real | simulated | off | load |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for pair in pairs:
        kills = sum(one.kind == "kill" for one in pair.played.absences)
        cells = [str(pair.played.seed), str(kills), str(len(pair.played.absences) - kills)]
        lines.append(_row([*cells, *_cells(pair), f"{pair.played.load:.1f}"]))
    whole = [overall(pairs, name) for name in OVERALL]
    lines.append(_row(["**all**", "", "", *_figures(*whole), ""]))
    lines += ["", *(found or ["They agree within the tolerances."])]
    return "\n".join(lines)


def _cells(pair: Pair) -> list[str]:
    return _figures(pair.compared("replicas"), pair.compared("makespan_s"))


def _figures(replicas: Compared, makespan: Compared) -> list[str]:
    return [
        f"{replicas.real:.2f}", f"{replicas.twin:.2f} ± {replicas.spread:.2f}", f"{replicas.off:+.1%}",
        f"{makespan.real:.1f} s", f"{makespan.twin:.1f} ± {makespan.spread:.1f} s", f"{makespan.off:+.1%}",
    ]  # fmt: skip


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def document(pairs: Sequence[Pair], found: Sequence[str]) -> dict[str, Any]:
    """The comparison for programs."""
    return {
        "runs": [
            {
                **asdict(pair.played),
                **{name: {**asdict(pair.compared(name)), "off": pair.compared(name).off} for name in OVERALL},
                "simulated": [asdict(one) for one in pair.twins],
            }
            for pair in pairs
        ],
        "overall": {name: {**asdict(overall(pairs, name)), "off": overall(pairs, name).off} for name in OVERALL},
        "tolerances": OVERALL,
        "disagreements": list(found),
    }


def _say(text: str) -> None:
    print(f"twin: {text}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.e2e.chaos.twin", description="Chaos runs of real nodes beside their simulated twins."
    )
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="how many (default 3)")
    parser.add_argument("--first", type=int, default=1, metavar="SEED", help="the first seed (default 1)")
    parser.add_argument(
        "--simulated", type=int, default=TWINS, metavar="N", help=f"twins of each real run (default {TWINS})"
    )
    parser.add_argument("--stored", action="store_true", help="take the real runs from twin_runs.json")
    parser.add_argument("--store", action="store_true", help="keep the real runs in twin_runs.json")
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
