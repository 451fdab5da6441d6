"""``sparkle-sim replay``: steps through what happened in a run, at a peer or to a unit, and shows what was found."""

import argparse
import sys
from typing import Any


def add_parser(commands: Any) -> None:
    """The arguments of this command."""
    text = "run a scenario again and show what happens, at a peer or to a unit"
    parser = commands.add_parser("replay", help=text, description=text[0].upper() + text[1:] + ".")
    parser.add_argument("file", metavar="FILE|DIR", help="a scenario, or the folder of a run")
    parser.add_argument("--seed", metavar="N", type=int, help="of the run (default: the file's)")
    parser.add_argument("--peer", metavar="N", type=int, action="append", help="only what happens at this peer")
    parser.add_argument("--unit", metavar="JOB/UNIT", help="only what happens to this unit; a job's first digits do")
    parser.add_argument("--from", metavar="S", dest="from_s", type=float, default=0.0, help="from this second on")
    parser.add_argument("--to", metavar="S", dest="to_s", type=float, help="up to this second")
    parser.add_argument("--limit", metavar="N", type=int, default=1000, help="of lines (default: 1000)")
    parser.add_argument("--json", action="store_true", help="print JSON on standard output, one object a line")
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Run it once more and print."""
    from pathlib import Path

    import msgspec

    from sparkle_sim.replaying import Window, of_file, replay

    scenario, seed = of_file(Path(arguments.file), arguments.seed)
    window = Window.of(arguments.peer, arguments.unit, arguments.from_s, arguments.to_s, arguments.limit)

    def show(at_s: float, peer: int, what: str, detail: str) -> None:
        if arguments.json:
            line = msgspec.json.encode({"at_s": at_s, "peer": peer, "what": what, "detail": detail}).decode()
        else:
            line = f"{at_s:12.6f}  {peer:5d}  {what:<22} {detail}".rstrip()
        sys.stdout.write(line + "\n")

    replayed = replay(scenario, seed, window, show)
    if replayed.left_out:
        sys.stderr.write(f"{replayed.left_out} more lines; a later --from or a larger --limit shows them\n")
    for finding in replayed.findings:
        sys.stderr.write(f"found: {finding}\n")
    return 1 if replayed.findings else 0
