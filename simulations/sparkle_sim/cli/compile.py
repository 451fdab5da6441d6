"""``sparkle-sim compile``: make runs faster."""

import json
import os
import sys
from argparse import ArgumentParser, Namespace
from time import monotonic
from typing import TYPE_CHECKING

from sparkle_sim.cli.parser import add_command

if TYPE_CHECKING:
    from sparkle_sim.cli.parser import Commands


def add_parser(commands: "Commands") -> None:
    """Add the command."""
    text = "compile the cores once, so that runs take about two thirds of the time"
    parser: ArgumentParser = add_command(commands, "compile", text, run)
    parser.add_argument("--where", action="store_true", help="only say where the build of these sources lies")


def run(arguments: Namespace) -> int:
    """Build, unless there is a build of these sources; 1 with ``--where`` if there is none."""
    from sparkle_sim import compiled

    if arguments.where:
        built = compiled.folder(os.environ)
        _say(arguments, str(built), 0.0)
        return 0 if built.is_dir() or compiled.in_use() else 1
    began = monotonic()
    built = compiled.build(_tell)
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
    _say(arguments, str(built), monotonic() - began)
    return 0


def _say(arguments: Namespace, built: str, seconds: float) -> None:
    if arguments.json:
        sys.stdout.write(json.dumps({"folder": built, "seconds": round(seconds, 1)}) + "\n")
    elif arguments.where:
        sys.stdout.write(f"{built}\n")
    else:
        sys.stdout.write(f"compiled in {seconds:.0f} s; sparkle-sim uses it from now on, until the sources change\n")


def _tell(seconds: float) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[Kcompiling for {seconds:.0f} s; it takes some minutes")
        sys.stderr.flush()
