"""``python3 run.py soak [--simulated] [--seeds N] [--first SEED] [--minutes M] [--at-once N] [--json]``: chaos runs.

Each seed starts real nodes behind relays, lets its faults strike and checks every node's database afterwards. A run
with violations is reported in full on stderr, with the command that runs it again. stdout gets one summary.
``--simulated``: the same on virtual time, of runs that the simulator makes up (``simulated.py``).
"""

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if not __package__:
    sys.path[0] = str(ROOT)  # instead of this folder, so that our modules have one name each

from sparkle_p2p.runtime.program import INTERRUPTED, guarded  # noqa: E402
from tests.e2e.chaos.chaos_run import Outcome, chaos  # noqa: E402
from tests.e2e.chaos.schedule import make_schedule, nodes_of  # noqa: E402
from tests.soak.simulated import SEEDS, Hunt  # noqa: E402

REAL_SEEDS = 5
LENGTH_S = 30.0
FOLDER = "soak-findings"


def main(arguments: Sequence[str]) -> int:
    """Runs the seeds; 1 if any violated something, 130 if it was interrupted and none did."""
    parser = _parser()
    parsed = parser.parse_args(arguments)
    if parsed.simulated:
        for name in ("nodes", "length", "verbose"):
            if getattr(parsed, name):
                parser.error(f"--{name} has no effect with --simulated")
        return guarded(lambda: _simulate(parsed), "soak")
    if parsed.out is not None:
        parser.error("--out is for --simulated: seeds of real nodes are not kept as files")
    parsed.seeds, parsed.at_once = parsed.seeds or REAL_SEEDS, parsed.at_once or 1
    parsed.length = parsed.length or LENGTH_S
    outcomes: list[Outcome] = []
    interrupted = False
    began = time.monotonic()
    try:
        # One directory around all: an interrupt between two seeds leaves nothing behind.
        with tempfile.TemporaryDirectory(prefix="sparkle-soak-") as scratch:
            asyncio.run(_run_seeds(parsed, Path(scratch), outcomes, began))
    except KeyboardInterrupt:
        interrupted = True
    summary = _summary(outcomes, time.monotonic() - began, interrupted=interrupted)
    print(json.dumps(summary) if parsed.json else _in_words(summary))
    if not outcomes and not interrupted:
        _say("no seed was run, which shows nothing")
        return 1
    return 1 if summary["violating_seeds"] else INTERRUPTED * interrupted


def _simulate(parsed: argparse.Namespace) -> int:
    seeds = range(parsed.first, parsed.first + (parsed.seeds or SEEDS))
    hunt = Hunt(seeds, Path(parsed.out or FOLDER), parsed.minutes)
    hunt.run(parsed.at_once or len(os.sched_getaffinity(0)))
    print(json.dumps(hunt.summary()) if parsed.json else hunt.in_words())
    if not hunt.ended and not hunt.interrupted:
        _say("no seed was run, which shows nothing")
        return 1
    return 1 if hunt.found else INTERRUPTED * hunt.interrupted


async def _run_seeds(parsed: argparse.Namespace, scratch: Path, outcomes: list[Outcome], began: float) -> None:
    seeds = iter(range(parsed.first, parsed.first + parsed.seeds))

    async def one_after_the_other() -> None:
        for seed in seeds:
            if parsed.minutes is not None and time.monotonic() - began > parsed.minutes * 60:
                _say(f"{parsed.minutes:g} minutes are over")
                return
            directory = scratch / str(seed)
            directory.mkdir()
            schedule = make_schedule(seed, parsed.nodes or nodes_of(seed), parsed.length)
            outcomes.append(await chaos(schedule, directory))
            shutil.rmtree(directory)
            _tell(outcomes[-1], parsed, began, len(outcomes))

    async with asyncio.TaskGroup() as group:
        for _ in range(parsed.at_once):
            group.create_task(one_after_the_other())


def _tell(outcome: Outcome, parsed: argparse.Namespace, began: float, done: int) -> None:
    plan = outcome.schedule
    if outcome.violations or parsed.verbose:
        _say(outcome.report())
    left_s = (time.monotonic() - began) / done * (parsed.seeds - done)
    if parsed.minutes is not None:
        left_s = min(left_s, max(0.0, began + parsed.minutes * 60 - time.monotonic()))
    _say(
        f"seed {plan.seed} ({done} of {parsed.seeds}): {'VIOLATED' if outcome.violations else 'ok'}, "
        f"{len(plan.nodes)} nodes, {len(plan.faults)} faults, {outcome.jobs} jobs, {outcome.units} units "
        f"in {outcome.seconds:.0f} s, settled in {outcome.settle_s:.0f} s; about {_duration(left_s)} left"
    )


def _summary(outcomes: list[Outcome], seconds: float, *, interrupted: bool) -> dict[str, object]:
    faults = Counter(fault.kind for outcome in outcomes for fault in outcome.schedule.faults)
    violated = [outcome for outcome in outcomes if outcome.violations]
    return {
        "seeds": len(outcomes),
        "violating_seeds": [outcome.schedule.seed for outcome in violated],
        "violations": {outcome.schedule.seed: outcome.violations for outcome in violated},
        "faults": dict(sorted(faults.items())),
        "jobs": sum(outcome.jobs for outcome in outcomes),
        "units": sum(outcome.units for outcome in outcomes),
        "longest_settle_s": round(max((outcome.settle_s for outcome in outcomes), default=0.0), 1),
        "seconds": round(seconds, 1),
        "interrupted": interrupted,
        "commands": [outcome.command for outcome in violated],
    }


def _in_words(summary: dict[str, object]) -> str:
    faults = summary["faults"]
    assert isinstance(faults, dict)
    lines = [
        f"{summary['seeds']} seeds{' (interrupted)' if summary['interrupted'] else ''}: "
        f"{len(summary['violating_seeds'])} with violations, "  # type: ignore[arg-type]
        f"{summary['jobs']} jobs with {summary['units']} units, {sum(faults.values())} faults",
        "  " + ", ".join(f"{count} {kind}" for kind, count in faults.items()),
        f"  longest time from the last fault to the last job's end: {summary['longest_settle_s']} s",
        *(f"  again: {command}" for command in summary["commands"]),  # type: ignore[attr-defined]
    ]
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def _say(text: str) -> None:
    print(f"soak: {text}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="run.py soak", description="Chaos runs of real nodes, each with the faults of its seed."
    )
    parser.add_argument("--simulated", action="store_true", help="runs that the simulator makes up, on virtual time")
    parser.add_argument(
        "--seeds", type=_positive, metavar="N", help=f"how many (default {REAL_SEEDS}; simulated: {SEEDS})"
    )
    parser.add_argument("--first", type=int, default=1, metavar="SEED", help="the first seed (default 1)")
    parser.add_argument("--minutes", type=float, metavar="M", help="begin no further seed after this long")
    parser.add_argument(
        "--at-once", type=_positive, metavar="N", help="seeds run together (default 1; simulated: one for each core)"
    )
    parser.add_argument(
        "--out", metavar="DIR", help=f"where scenarios of failing simulated seeds go (default: {FOLDER})"
    )
    parser.add_argument("--nodes", type=_positive, metavar="N", help="nodes of each run (default: 4 to 7)")
    parser.add_argument("--length", type=float, metavar="S", help=f"seconds of faults (default {LENGTH_S:g})")
    parser.add_argument("--verbose", action="store_true", help="report seeds without violations in full, too")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


if __name__ == "__main__":
    os.environ.pop("SPARKLE_HOME", None)
    sys.exit(main(sys.argv[1:]))
