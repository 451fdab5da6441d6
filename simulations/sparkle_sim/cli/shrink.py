"""``sparkle-sim shrink``: the smallest run that still fails, kept as a regression file."""

import argparse
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparkle_sim.shrinking import Step

FOLDER = "tests/sim/regressions"


def add_parser(commands: Any) -> None:
    """The arguments of this command."""
    text = "find the smallest fault list with which a scenario still fails, and keep it as a file"
    parser = commands.add_parser("shrink", help=text, description=text[0].upper() + text[1:] + ".")
    parser.add_argument("file", metavar="FILE", help="a scenario in which a checker finds something")
    parser.add_argument("--seed", metavar="N", type=int, help="of the run that fails (default: the file's)")
    parser.add_argument("--out", metavar="DIR", default=FOLDER, help=f"where the file goes (default: {FOLDER})")
    parser.add_argument("--json", action="store_true", help="print JSON on standard output")
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Shrink the scenario and write the file."""
    from pathlib import Path

    import msgspec

    from sparkle_sim.reading import read_scenario
    from sparkle_sim.seeds import first_finding
    from sparkle_sim.shrinking import shrink, write_regression

    scenario = read_scenario(Path(arguments.file))
    seed = scenario.seed if arguments.seed is None else arguments.seed
    small = shrink(scenario, seed, lambda one: first_finding(one, seed), _show)
    finding = first_finding(small, seed)
    if finding is None:  # the same scenario failed a moment ago
        raise AssertionError("a run differs from itself")
    path = write_regression(Path(arguments.out), small, seed, finding)
    if arguments.json:
        said = {"file": str(path), "faults": len(small.faults), "peers": small.peers.count, "finding": finding}
        sys.stdout.write(msgspec.json.encode(said).decode() + "\n")
    else:
        told = [f"{fault.kind} of peers {fault.peers} at {fault.at_s:g} s" for fault in small.faults]
        sys.stdout.write("\n".join([str(finding), *told, f"wrote {path}"]) + "\n")
    return 0


def _show(step: "Step") -> None:
    fails = "passes" if step.finding is None else "fails"
    size = f"{step.faults} faults, {step.peers} peers, {step.units} units, {step.seconds:g} s"
    sys.stderr.write(f"run {step.runs}: {fails} with {size}\n")
