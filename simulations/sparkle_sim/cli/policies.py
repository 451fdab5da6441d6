"""``sparkle-sim policies``: what policies of trust cost, and what they let through."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sparkle_p2p.api.words import duration
from sparkle_p2p.runtime.program import INTERRUPTED
from sparkle_protocol.errors import ConfigError, NotFound, SparkleError
from sparkle_sim.cli.parser import SEED, add_command, whole_number

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

    from sparkle_sim.cli.parser import Commands
    from sparkle_sim.population.policy_report import WaitsOf
    from sparkle_sim.population.trust_policies import Cell, Figures, Results

ROWS, QUICK_ROWS = 30, 6
QUICK_UNITS = 4000  # of each peer: the patient are seen for less than a life
RUNS, QUICK_RUNS = 300, 50  # short jobs
LOOK_EVERY_S = 0.2
MISSED = 1


def add_parser(commands: "Commands") -> None:
    """The arguments of this command."""
    text = "play policies of trust against cheaters: what each costs, and how many wrong results it lets through"
    parser = add_command(commands, "policies", text, policies)
    parser.add_argument("names", nargs="*", metavar="POLICY", help="only these; 'policies --list' names them")
    parser.add_argument("--list", action="store_true", dest="list_", help="name the policies")
    parser.add_argument("--seed", type=SEED, default=1, metavar="N", help="decides every figure (1)")
    parser.add_argument(
        "--seeds", type=whole_number(2, 1000), metavar="N", help=f"independent runs of each cell ({ROWS})"
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer and shorter runs, with 5 and 20 %% of cheaters only"
    )
    parser.add_argument("--workers", type=whole_number(1, 4096), metavar="N", help="processes (one for each core)")
    parser.add_argument(
        "--publish", type=Path, metavar="FILE", help="rewrite the tables of this page, and its plot in ../pictures"
    )


def policies(arguments: argparse.Namespace) -> int:
    """Play all cells and tell what came of them; 1 if the policy of production misses a bar."""
    from sparkle_sim.cli.progress import MovingLine
    from sparkle_sim.cli.stopping import stopping
    from sparkle_sim.executors import executor
    from sparkle_sim.population import policy_report as report
    from sparkle_sim.population import trust_policies as table

    trials = table.find(arguments.names)
    if arguments.list_:
        _say("\n".join(f"{trial.policy.name:16} {trial.policy.title}" for trial in trials))
        return 0
    if arguments.publish is not None and (arguments.names or arguments.quick):
        raise ConfigError("--publish needs all policies in full: leave out their names and --quick")
    if arguments.publish is not None:
        _page(arguments.publish)
    quick = arguments.quick
    rows = arguments.seeds or (QUICK_ROWS if quick else ROWS)
    most = QUICK_UNITS if quick else table.MOST_MEASURED
    cells = list(table.cells(trials, table.QUICK_SHARES if quick else table.SHARES))
    runs = QUICK_RUNS if quick else RUNS
    with stopping() as stop, executor("local", arguments.workers) as pool, MovingLine() as line:
        playing = Playing(cells, arguments.seed, rows, most)
        playing.run(pool, stop, lambda: line.draw(playing.share, playing.progress_text))
        results = playing.results()
        asked = [] if len(results) < len(cells) else [trial.policy for trial in trials]
        found = [pool.submit(table.finishing, policy, runs, arguments.seed) for policy in asked]
        waits = {policy.name: one.result() for policy, one in zip(asked, found, strict=True)}
    if arguments.json:
        _say(json.dumps(report.as_json(results, waits), ensure_ascii=False, indent=2))
    else:
        _say(report.text(results, waits))
    if len(results) < len(cells):
        sys.stderr.write(f"sparkle-sim: interrupted after {len(results)} of {len(cells)} cells\n")
        return INTERRUPTED
    if arguments.publish is not None:
        _publish(arguments.publish, results, waits)
    return 0 if table.kept(results, waits) else MISSED


class Playing:
    """Cells on an executor; their figures come in the order of the cells, whichever ends first."""

    def __init__(self, cells: "Sequence[Cell]", seed: int, rows: int, most: int) -> None:
        self._cells = cells
        self._settings = (seed, rows, most)
        self._found: dict[Cell, Figures] = {}
        self._began = time.monotonic()

    @property
    def share(self) -> float:
        """Of all cells."""
        return len(self._found) / max(1, len(self._cells))

    def run(self, pool: "Executor", stop: Callable[[], bool], on_progress: Callable[[], None]) -> None:
        """Play all, or as many as there are when somebody stops it."""
        from concurrent.futures import FIRST_COMPLETED, wait
        from concurrent.futures.process import BrokenProcessPool

        from sparkle_sim.population.trust_policies import play

        seed, rows, most = self._settings
        under_way: dict[Future[Figures], Cell] = {
            pool.submit(play, cell, seed, rows, most=most): cell for cell in self._cells
        }
        try:
            while under_way and not stop():
                done, _ = wait(under_way, LOOK_EVERY_S, FIRST_COMPLETED)
                for future in done:
                    self._found[under_way.pop(future)] = future.result()
                on_progress()
        except BrokenProcessPool as error:
            raise SparkleError("a process died, perhaps for want of memory; ask for fewer with --workers") from error

    def results(self) -> "Results":
        """What was played, in order."""
        return {cell: self._found[cell] for cell in self._cells if cell in self._found}

    def progress_text(self) -> str:
        """``12 of 40 cells  ETA 40 s``."""
        ended = len(self._found)
        left_s = (time.monotonic() - self._began) / ended * (len(self._cells) - ended) if ended else None
        return f"{ended} of {len(self._cells)} cells  ETA {duration(left_s)}"


def _page(file: Path) -> str:
    """The page to be rewritten, which has a place for the tables."""
    from sparkle_sim.population.policy_report import with_policies

    try:
        page = file.read_text(encoding="utf-8")
        with_policies(page, {}, {}, "")
    except FileNotFoundError as error:
        raise NotFound(f"there is no page '{file}' to publish in; name one that has the markers") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"'{file}' cannot be read: {error}") from error
    except ValueError as error:
        raise ConfigError(f"'{file}' cannot take the tables: {error}") from error
    return page


def _publish(file: Path, results: "Results", waits: "WaitsOf") -> None:
    from sparkle_sim.population import policy_plots
    from sparkle_sim.population.policy_report import PICTURE, with_policies

    pictures = file.parent.parent / "pictures"
    shown = f"../pictures/{PICTURE}"
    try:
        pictures.mkdir(parents=True, exist_ok=True)
        try:
            policy_plots.draw(results, pictures / PICTURE)
        except ConfigError as error:
            sys.stderr.write(f"{error}\n")
            shown = ""
        file.write_text(with_policies(_page(file), results, waits, shown), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"the page or its plot cannot be written: {error}; name another page") from error


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
