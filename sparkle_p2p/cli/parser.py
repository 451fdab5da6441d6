"""The arguments of ``sparkle``. Commands themselves are imported when one is run."""

import argparse
import difflib
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from sparkle_p2p import __version__


class Parser(argparse.ArgumentParser):
    """Answers wrong usage with one sentence instead of a page."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where help is; exit code 2."""
        sys.stderr.write(f"{self.prog}: {message}; '{self.prog} --help' shows the usage\n")
        raise SystemExit(2)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The parsed command line; ``command`` in it is what to call with it."""
    parser, commands = _build()
    if not arguments:
        parser.print_help()
        raise SystemExit(0)
    arguments = _common_flags_last(arguments)
    first = arguments[0]
    if first.startswith("--home"):
        parser.error("name a command")
    if not first.startswith("-") and first not in commands:
        near = difflib.get_close_matches(first, commands, n=1)
        parser.error(f"there is no command '{first}'" + (f"; did you mean '{near[0]}'?" if near else ""))
    parsed, unknown = parser.parse_known_args(arguments)
    if unknown:
        hint = _as_parameters(arguments, unknown[0]) if first == "submit" else ""
        commands.get(first, parser).error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    return parsed


def _as_parameters(arguments: Sequence[str], unknown: str) -> str:
    """A sentence for who takes a kernel's parameters for flags of ours, as in ``submit conv2d --padding 4``."""
    name, given, value = unknown.partition("=")
    behind = arguments[arguments.index(unknown) + 1 :][:1]
    if not given and name.startswith("--") and behind and not behind[0].startswith("-"):
        value = behind[0]
    here = f", here -p {name.lstrip('-')}={value}" if value else ""
    if value.endswith((".npy", ".png")):
        return f"; arrays are given as --input NAME=FILE, here --input {name.lstrip('-')}={value}"
    return f"; parameters of a kernel are given as -p NAME=VALUE{here}"


def _common_flags_last(arguments: Sequence[str]) -> list[str]:
    """``--home DIR`` and ``--json`` may stand before the command too; argparse wants them behind all its words."""
    rest, moved = list(arguments), []
    words: list[str] = []
    while rest:
        if rest[0] == "--home" and len(rest) > 1:
            moved += [rest.pop(0), rest.pop(0)]
        elif rest[0] == "--json" or rest[0].startswith("--home="):
            moved.append(rest.pop(0))
        elif rest[0] == "ledger" and not words:  # what to do with it is a word of the command, too
            words.append(rest.pop(0))
        else:
            break
    return [*words, *rest[:1], *moved, *rest[1:]] if rest else words or moved


def add_home(parser: argparse.ArgumentParser) -> None:
    """The ``--home`` that every command has."""
    parser.add_argument("--home", metavar="DIR", help="the node's directory (default: SPARKLE_HOME or ~/.sparkle)")


def _build() -> tuple[Parser, dict[str, Parser]]:
    """The parser, and those of its commands by their names."""
    parser = Parser(prog="sparkle", description="Use the Sparkle node that runs on this computer.")
    parser.add_argument("--version", action="version", version=f"sparkle {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, where: str, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        add_home(command)
        command.add_argument("--json", action="store_true", help="print JSON on standard output")
        command.set_defaults(command=_lazily(where))
        return command

    _add_demo(add("demo", "demo:demo", "start local peers, run real jobs on them, catch a liar"))
    add("status", "show:status", "show what this node does and why")
    add("peers", "show:peers", "show the connected peers")
    add("kernels", "show:kernels", "show the kernels this node knows")
    _add_submit(add("submit", "work:submit", "submit a job"))
    add("jobs", "show:jobs", "list the jobs of this node, newest first")
    _add_job(add("job", "show:job", "show one job"))
    result = add("result", "work:result", "fetch the result of a finished job")
    _add_job(result)
    result.add_argument("-o", "--output", metavar="FILE", help="write it there, arrays as .npy or .png; '-': stdout")
    _add_job(add("wait", "work:wait", "wait for a job and show its progress"))
    _add_job(add("cancel", "work:cancel", "cancel a job"))
    dead = add("dead", "work:dead", "list units that nobody could compute, or begin them anew")
    dead.add_argument("job", metavar="JOB", nargs="?", help="only this job's")
    dead.add_argument("--requeue", metavar="UNIT", help="begin a unit, as JOB/INDEX, or all of a JOB anew")
    why = add("why", "show:why", "explain the node's state, or a job, unit or peer")
    why.add_argument("subject", nargs="?", help="a job ID, a unit as ID/INDEX, or a peer id")
    add("doctor", "doctor:doctor", "find out what blocks this node, and how to fix it")
    credit = add("credit", "credit:credit", "show an account's balance, where it came from and what is pending")
    credit.add_argument("account", metavar="ACCOUNT", nargs="?", help="an account or a peer id (default: this node)")
    credit.add_argument("--plot", metavar="FILE", help="draw the balance over time into a .svg or .png file")
    _add_ledger(commands.add_parser("ledger", help="audit or export this node's copy of the ledger"))
    key = add("network-key", "network:network_key", "make the key of a private network")
    key.add_argument("file", metavar="FILE", help="where to write it; a file that is there stays as it is")
    add("pause", "show:pause", "stop computing at once")
    add("resume", "show:resume", "compute again")
    return parser, commands.choices


def _add_ledger(ledger: argparse.ArgumentParser) -> None:
    ledger.description = "Read the copy of the ledger in the home directory, whether or not a node runs."
    actions = ledger.add_subparsers(title="actions", metavar="ACTION", required=True)
    for name, text in (
        ("verify", "check all of it from the bytes up"),
        ("export", "write a row for each entry, with what became of it"),
    ):
        action = actions.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        add_home(action)
        action.add_argument("--net", metavar="NAME", help="the network it must be of (default: whichever it is)")
        action.set_defaults(command=_lazily(f"ledger:{name}"))
        if name == "verify":
            action.add_argument("--json", action="store_true", help="print JSON on standard output")
            action.add_argument(
                "--deep", action="store_true", help="verify every signature, not the last of each run"
            )
        else:
            action.add_argument("--format", choices=("csv", "json"), help="csv (default), or an object a line")
            action.add_argument("--json", action="store_true", help="the same as --format json")
            action.add_argument("--out", metavar="FILE", help="write it there (default: standard output)")


def _add_job(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", metavar="ID", help="the job's id; its first characters are enough")


def _add_submit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kernel", metavar="KERNEL", help="what to compute; 'sparkle kernels' lists them")
    parser.add_argument(
        "-p", "--param", metavar="NAME=VALUE", action="append", default=[], help="a parameter of the kernel"
    )
    parser.add_argument(
        "--input",
        metavar="NAME=FILE",
        action="append",
        default=[],
        help="an array of the kernel (.npy or .png)",
    )
    parser.add_argument("--units", metavar="N", type=whole_number(1, 2**20), help="pieces to cut the job into")
    parser.add_argument(
        "--verify",
        choices=("fast", "final", "critical"),
        default="final",
        help="how sure to be: first result, a known worker's or two that agree (default), three that agree",
    )
    parser.add_argument(
        "--free", action="store_true", help="offer no credit: computed where there is nothing better to do"
    )
    parser.add_argument(
        "--sealed", action="store_true", help="store and send the arrays encrypted (private networks only)"
    )
    parser.add_argument("--wait", action="store_true", help="wait for the result and show progress")
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="write the result there, arrays as .npy or .png; '-' is standard output (with --wait)",
    )


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--peers", metavar="N", type=whole_number(2, 32), default=5, help="local peers (default 5)")
    parser.add_argument(
        "--cheaters", metavar="N", type=whole_number(0, 31), default=1, help="of them, liars (default 1)"
    )
    parser.add_argument("--out", metavar="DIR", default=".", help="where mandelbrot.png goes (default: here)")
    parser.add_argument(
        "--stop", metavar="N", type=whole_number(2, 10**12), default=10**9, help="count primes up to N (1e9)"
    )


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """An argument type: a whole number in a range, also written as 1e9 or 1_000."""

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            try:
                number = float(text)
                value = int(number)
            except (ValueError, OverflowError):
                raise argparse.ArgumentTypeError(f"'{text}' is not a whole number") from None
            if value != number:
                raise argparse.ArgumentTypeError(f"'{text}' is not a whole number") from None
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not between {low} and {high}")
        return value

    return convert


def _lazily(where: str) -> Callable[[argparse.Namespace], int]:
    module, _, function = where.partition(":")

    def run(arguments: argparse.Namespace) -> int:
        command: Any = getattr(importlib.import_module(f"sparkle_p2p.cli.{module}"), function)
        return int(command(arguments))

    return run
