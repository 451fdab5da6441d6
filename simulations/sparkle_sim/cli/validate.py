"""``sparkle-sim validate``: the simulator against published laws."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparkle_protocol.errors import ConfigError, NotFound

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from sparkle_sim.laws.law import Law, Outcome, Point

DISAGREES = 1


def add_parser(subparsers: Any) -> None:
    """Add the command; ``command`` in its namespace takes that and returns the exit code."""
    parser: ArgumentParser = subparsers.add_parser(
        "validate",
        help="hold the simulator against published laws",
        description="Measure what published laws predict and say whether the simulator agrees. Exits with 1 if not.",
    )
    parser.add_argument("names", nargs="*", metavar="LAW", help="only these laws; 'validate --list' names them")
    parser.add_argument("--list", action="store_true", dest="list_", help="name the laws and their sources")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller runs: wider intervals")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="decides every figure (1)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write laws.csv and one plot for each law there")
    parser.add_argument(
        "--publish", type=Path, metavar="FILE", help="rewrite the table of this page, and its plots in ../pictures"
    )
    parser.set_defaults(command=run)


def run(arguments: Namespace) -> int:
    """Measure, print and write; 0 if the simulator agrees with every law."""
    from sparkle_sim.laws import report
    from sparkle_sim.laws.run import find, validate

    laws = find(arguments.names)
    if arguments.list_:
        _say("\n".join(f"{law.name:14} {law.formula}\n{'':14} {law.source}" for law in laws))
        return 0
    if arguments.publish is not None and (arguments.names or arguments.quick):
        raise ConfigError("--publish needs all laws in full: leave out their names and --quick")
    page = None if arguments.publish is None else _page(arguments.publish)
    if arguments.out is not None:
        _folder(arguments.out)
    outcomes = validate([law.name for law in laws], arguments.quick, _progress, arguments.seed)
    _clear_line()
    if arguments.json:
        _say(json.dumps(report.as_json(outcomes), ensure_ascii=False, indent=2))
    else:
        _say(report.table(outcomes))
        bad = [outcome.law.name for outcome in outcomes if not outcome.agrees]
        _say(
            f"\n{len(outcomes) - len(bad)} of {len(outcomes)} laws hold" + (f"; not: {', '.join(bad)}" if bad else "")
        )
    if arguments.out is not None:
        _write(arguments.out / "laws.csv", report.as_csv(outcomes))
        _draw(outcomes, [arguments.out / f"{outcome.law.name}.png" for outcome in outcomes])
    if page is not None:
        _publish(arguments.publish, page, outcomes)
    return 0 if all(outcome.agrees for outcome in outcomes) else DISAGREES


def _page(file: Path) -> str:
    """The page to be rewritten, looked at before anything is measured."""
    from sparkle_sim.laws.report import with_laws

    try:
        page = file.read_text(encoding="utf-8")
        with_laws(page, [], "")
    except FileNotFoundError as error:
        raise NotFound(f"there is no page '{file}' to publish in; name one that has the markers") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"'{file}' cannot be read: {error}") from error
    except ValueError as error:
        raise ConfigError(f"'{file}' cannot take the table: {error}") from error
    return page


def _publish(file: Path, page: str, outcomes: Sequence[Outcome]) -> None:
    from sparkle_sim.laws.report import picture_name, with_laws

    pictures = file.parent.parent / "pictures"
    _folder(pictures)
    drawn = _draw(outcomes, [pictures / picture_name(outcome) for outcome in outcomes])
    _write(file, with_laws(page, outcomes, "../pictures" if drawn else ""))


def _draw(outcomes: Sequence[Outcome], files: Sequence[Path]) -> bool:
    """Plots, if they can be drawn here; else one sentence."""
    from sparkle_sim.laws.plots import draw

    try:
        for outcome, file in zip(outcomes, files, strict=True):
            draw(outcome, file)
    except ConfigError as error:
        _note(f"{error}\n")
        return False
    except OSError as error:
        raise ConfigError(f"the plots cannot be written: {error}; name another folder") from error
    return True


def _folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
        (folder / ".writable").unlink()
    except OSError as error:
        raise ConfigError(f"nothing can be written to '{folder}': {error}; name another folder") from error


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"'{file}' cannot be written: {error}") from error


def _progress(law: Law, point: Point | None) -> None:
    """What is being measured, on one line that is overwritten, if somebody looks."""
    if sys.stderr.isatty():
        doing = f"{law.name}: {point.setting}" if point is not None else law.name
        _note(f"\r\x1b[K{doing}")


def _clear_line() -> None:
    if sys.stderr.isatty():
        _note("\r\x1b[K")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _note(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
