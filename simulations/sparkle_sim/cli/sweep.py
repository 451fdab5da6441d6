"""``sparkle-sim sweep``: many runs of a scenario, one seed per process."""

import argparse
import sys
from typing import TYPE_CHECKING, Any

from sparkle_p2p.runtime.program import INTERRUPTED
from sparkle_sim.cli.parser import SEED, add_command, add_scenario, whole_number

if TYPE_CHECKING:
    from sparkle_sim.cli.parser import Commands

MAX_WORKERS = 4096


def add_parser(commands: "Commands") -> None:
    """The arguments of this command."""
    parser = add_command(commands, "sweep", "run a scenario with many seeds and values, several at a time", sweep)
    add_scenario(parser)
    parser.add_argument(
        "--seeds", metavar="A-B", type=seeds, required=True, help="from A to B, or a single one; as 1-20"
    )
    parser.add_argument(
        "--set", metavar="KEY=V1,V2,...", action="append", default=[], help="values for a key, each with every seed"
    )
    parser.add_argument(
        "--executor", metavar="WHERE", default="local", help="local (default), or dask://HOST:PORT of a scheduler"
    )
    parser.add_argument(
        "--workers", metavar="N", type=whole_number(1, MAX_WORKERS), help="runs at a time (local: one for each core)"
    )
    parser.add_argument("--out", metavar="DIR", help="write sweep.csv there, into a new or empty folder")


def seeds(text: str) -> range:
    """An argument type: ``A-B`` or one number."""
    first, dash, last = text.partition("-")
    low = SEED(first)
    high = SEED(last) if dash else low
    if high < low:
        raise argparse.ArgumentTypeError(f"'{text}' ends before it begins")
    return range(low, high + 1)


def sweep(arguments: argparse.Namespace) -> int:
    """Run them all and tell what came of each group."""
    from pathlib import Path

    from sparkle_sim import outputs
    from sparkle_sim.cli.progress import MovingLine
    from sparkle_sim.cli.stopping import stopping
    from sparkle_sim.executors import executor
    from sparkle_sim.reading import Override
    from sparkle_sim.sweeping import Sweep, plan

    base = [] if arguments.peers is None else [Override("peers.count", arguments.peers, "--peers")]
    if arguments.checker:
        base.append(Override("checks.own", arguments.checker, "--checker"))
    runs = plan(Path(arguments.file), arguments.seeds, arguments.set, base, seconds=arguments.seconds)
    folder = None if arguments.out is None else outputs.new_folder(Path(arguments.out))
    with stopping() as stop, executor(arguments.executor, arguments.workers) as pool, MovingLine() as line:
        done = Sweep(runs, folder)
        done.run(pool, stop, lambda: line.draw(done.share, done.progress_text))
    _tell(done.document(), as_json=arguments.json)
    if done.interrupted:
        kept = f"; their rows stand in {folder}" if folder is not None else ""
        sys.stderr.write(f"sparkle-sim: interrupted after {done.ended} of {len(runs)} runs{kept}\n")
        return INTERRUPTED
    if done.failed:
        sys.stderr.write(f"sparkle-sim: {done.failed} of {len(runs)} runs failed; the first: {done.first_failure}\n")
        return 1
    return 0


def _tell(document: dict[str, Any], *, as_json: bool) -> None:
    import json

    if as_json:
        sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
        return
    from sparkle_sim.cli.telling import table

    groups = document["groups"]
    keys = list(groups[0]["values"]) if groups else []
    swept = [key for key in keys if len({group["values"][key] for group in groups}) > 1]
    rows = [[*(group["values"][key] for key in swept), str(group["runs"]), *group["figures"]] for group in groups]
    sys.stdout.write("\n".join(table([*swept, "runs", *document["measures"]], rows)) + "\n")
    if any(group["runs"] > 1 for group in groups):
        sys.stdout.write("means over the seeds, ± their 95 % intervals\n")
