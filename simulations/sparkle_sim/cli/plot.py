"""``sparkle-sim plot``: pictures of a run or a sweep."""

import argparse
import sys
from typing import TYPE_CHECKING

from sparkle_sim.cli.parser import add_command

if TYPE_CHECKING:
    from sparkle_sim.cli.parser import Commands


def add_parser(commands: "Commands") -> None:
    """The arguments of this command."""
    parser = add_command(commands, "plot", "draw the plots of a run or a sweep", plot)
    parser.add_argument("folder", metavar="DIR", help="the folder that run or sweep wrote (--out)")
    parser.add_argument("--out", metavar="DIR", help="draw them there (default: the same folder)")
    parser.add_argument("--format", choices=("png", "svg"), default="png", help="of the pictures (default: png)")


def plot(arguments: argparse.Namespace) -> int:
    """Draw them, and name the files."""
    import json
    from pathlib import Path

    from sparkle_sim.plots import plot_folder

    target = None if arguments.out is None else Path(arguments.out)
    made = [str(path) for path in plot_folder(Path(arguments.folder), arguments.format, target)]
    sys.stdout.write((json.dumps({"plots": made}) if arguments.json else "\n".join(made)) + "\n")
    return 0
