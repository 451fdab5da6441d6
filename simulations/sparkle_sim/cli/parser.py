"""The arguments of ``sparkle-sim``.

Each command is a module of this package with ``add_parser(commands)``, which adds its parser and sets what to call
with the arguments (``set_defaults(command=...)``). The module itself imports next to nothing: a run's parts are
imported when one is made.
"""

import argparse
import difflib
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

from sparkle_protocol.version import __version__

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction["Parser"]

NAMES = (
    "run",
    "sweep",
    "replay",
    "shrink",
    "plot",
    "validate",
    "policies",
    "compile",
)  # in the order in which --help shows them


class Parser(argparse.ArgumentParser):
    """Answers wrong usage with one sentence instead of a page."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where help is; exit code 2."""
        sys.stderr.write(f"{self.prog}: {message}; '{self.prog} --help' shows the usage\n")
        raise SystemExit(2)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The parsed command line; ``command`` in it is what to call with it."""
    parser, names = build()
    if not arguments:
        parser.print_help()
        raise SystemExit(0)
    first = arguments[0]
    if not first.startswith("-") and first not in names:
        near = difflib.get_close_matches(first, names, n=1)
        parser.error(f"there is no command '{first}'" + (f"; did you mean '{near[0]}'?" if near else ""))
    return parser.parse_args(arguments)


def build() -> tuple[Parser, list[str]]:
    """The parser and the names of its commands."""
    parser = Parser(prog="sparkle-sim", description="Simulate thousands of Sparkle peers, repeatably from one seed.")
    parser.add_argument("--version", action="version", version=f"sparkle-sim {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in NAMES:
        importlib.import_module(f"sparkle_sim.cli.{name}").add_parser(commands)
    return parser, list(commands.choices)


def add_command(commands: "Commands", name: str, text: str, run: Callable[[argparse.Namespace], int]) -> "Parser":
    """A command with its help and ``--json``."""
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.add_argument("--json", action="store_true", help="print JSON on standard output")
    parser.set_defaults(command=run)
    return parser


def add_scenario(parser: argparse.ArgumentParser) -> None:
    """The scenario's file, and the flags that change what it says."""
    parser.add_argument("file", metavar="FILE", help="the scenario, a TOML file")
    parser.add_argument("--peers", metavar="N", type=whole_number(1, 10_000_000), help="how many peers take part")
    parser.add_argument(
        "--checker", metavar="FILE.py:CLASS", action="append", default=[], help="a checker of yours; may be repeated"
    )
    parser.add_argument("--seconds", metavar="S", type=positive_number, help="end after so many virtual seconds")


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """An argument type: a whole number in a range, also written as 1e6 or 1_000."""

    def convert(text: str) -> int:
        try:
            value = float(text) if "e" in text.lower() else int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"'{text}' is not a whole number") from None
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not between {low} and {high}")
        if value != int(value):
            raise argparse.ArgumentTypeError(f"'{text}' is not a whole number")
        return int(value)

    return convert


def positive_number(text: str) -> float:
    """An argument type: a number above 0."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number") from None
    if not 0.0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


SEED = whole_number(0, 2**63 - 1)
