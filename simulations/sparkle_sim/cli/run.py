"""``sparkle-sim run``: one run of a scenario."""

import argparse
import sys
from typing import TYPE_CHECKING

from sparkle_p2p.runtime.program import INTERRUPTED
from sparkle_sim.cli.parser import SEED, add_command, add_scenario

if TYPE_CHECKING:
    from sparkle_sim.cli.parser import Commands
    from sparkle_sim.running import Outcome


def add_parser(commands: "Commands") -> None:
    """The arguments of this command."""
    parser = add_command(commands, "run", "run a scenario once", run)
    add_scenario(parser)
    parser.add_argument("--seed", metavar="N", type=SEED, help="decides all that is random (default: the file's)")
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="another value for a key, as peers.count=200"
    )
    parser.add_argument("--out", metavar="DIR", help="write the run there, into a new or empty folder")
    parser.add_argument(
        "--trace", action="store_true", help="write down all that happens too, for replay (with --out)"
    )
    parser.add_argument("--parquet", action="store_true", help="write the metrics as Parquet too (with --out)")


def run(arguments: argparse.Namespace) -> int:
    """Run the scenario and tell what came of it."""
    from pathlib import Path

    from sparkle_protocol.errors import ConfigError
    from sparkle_sim import outputs
    from sparkle_sim.cli.progress import ProgressLine
    from sparkle_sim.cli.stopping import stopping
    from sparkle_sim.reading import Override, parse_override, read_scenario
    from sparkle_sim.running import run_scenario

    for flag in ("trace", "parquet"):
        if getattr(arguments, flag) and arguments.out is None:
            raise ConfigError(f"--{flag} needs a folder to write to; name one with --out")
    overrides = [parse_override(text) for text in arguments.set]
    if arguments.peers is not None:
        overrides.append(Override("peers.count", arguments.peers, "--peers"))
    if arguments.checker:
        overrides.append(Override("checks.own", arguments.checker, "--checker"))
    scenario = read_scenario(Path(arguments.file), overrides, seconds=arguments.seconds)
    seed = scenario.seed if arguments.seed is None else arguments.seed
    if arguments.parquet:
        outputs.parquet_modules()  # better said before a long run than after it
    folder = None if arguments.out is None else outputs.new_folder(Path(arguments.out))
    with stopping() as stop, ProgressLine(scenario.name) as line:
        outcome = run_scenario(scenario, seed, folder=folder, trace=arguments.trace, on_progress=line.show, stop=stop)
    if arguments.parquet and folder is not None:
        outputs.write_parquet(folder / outputs.METRICS)
    _tell(outcome, folder, as_json=arguments.json)
    if outcome.interrupted:
        return INTERRUPTED
    return 1 if outcome.findings else 0


def _tell(outcome: "Outcome", folder: object, *, as_json: bool) -> None:
    import json

    if as_json:
        manifest = {name: value for name, value in outcome.manifest.items() if name != "scenario"}
        sys.stdout.write(json.dumps({**manifest, "summary": outcome.summary}, ensure_ascii=False) + "\n")
    else:
        from sparkle_sim.cli.telling import told

        sys.stdout.write("\n".join(told(outcome)) + "\n")
    kept = f"; what there is by then stands in {folder}" if folder is not None else ""
    if outcome.interrupted:
        at_s = outcome.manifest["virtual_seconds"]
        sys.stderr.write(f"sparkle-sim: interrupted after {at_s:g} virtual seconds{kept}\n")
    elif folder is not None:
        sys.stderr.write(f"wrote {folder}\n")
    for finding in outcome.findings:
        sys.stderr.write(f"sparkle-sim: found {finding}\n")
