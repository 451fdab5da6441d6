"""``python3 run.py bench [--check] [NAME...]``: measures what this version promises about its own cost.

Every row is the median of several repetitions, with an alternative measured in the same run beside it where
there is one. The table goes to stdout, progress to stderr, the figures to ``bench/results.json``.
"""

import argparse
import datetime
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)  # instead of this folder, so that our modules have one name each

from tests.bench import (  # noqa: E402
    arithmetic,
    bulk,
    growth,
    handover,
    idle,
    ledger_audit,
    ledger_cost,
    many_products,
    network,
    noop,
    overhead,
    population,
    product,
    simulated,
    starting,
    work,
)
from tests.bench.page import with_figures  # noqa: E402
from tests.bench.rows import Row, as_json, better, from_json, merge, missed, table  # noqa: E402

PAGE = ROOT / "docs" / "reference" / "benchmarks.md"
RESULTS = ROOT / "bench" / "results.json"
BUSY = 0.5  # load per core, before we have begun, from which on somebody else's work is in the figures

Measurement = Callable[[int], list[Row]]

SECOND_CHANCES = 2

# name -> what it does with its usual number of repetitions
MEASUREMENTS: dict[str, tuple[Measurement, int]] = {
    "status": (starting.status, 40),
    "tui_first_frame": (starting.tui_first_frame, 9),
    "first_contact": (network.first_contact, 15),
    "rpc": (network.rpc, 5),
    "bulk": (bulk.bulk, 9),
    "executor": (work.executor, 300),
    "handover": (handover.handover, 15),
    "arithmetic": (arithmetic.arithmetic, 15),
    "product": (product.product, 5),
    "many_products": (many_products.many_products, 3),
    "units": (work.units, 3),
    "noop_units": (noop.noop_units, 3),
    "overhead": (overhead.overhead, 5),
    "growth": (growth.growth, 3),
    "demo_warm": (starting.demo_warm, 3),
    "idle_node": (idle.idle_node, 3),
    "ledger_audit": (ledger_audit.ledger_audit, 3),
    "ledger_cost": (ledger_cost.ledger_cost, 3),
    "population": (population.population, 1),
    "simulated": (simulated.simulated, 1),
}


def main(arguments: Sequence[str]) -> int:
    """Measures, prints, writes; 1 if ``--check`` was given and a bar was missed or could not be measured."""
    parsed = _parser().parse_args(arguments)
    if parsed.publish:
        return _publish()
    rows: list[Row] = []
    failed: list[str] = []
    if parsed.cold:
        chosen: dict[str, tuple[Measurement, int]] = {"demo_cold": (starting.demo_cold, 1)}
    else:
        chosen = {name: MEASUREMENTS[name] for name in parsed.names or MEASUREMENTS}
    for name, (measure, repeat) in chosen.items():
        began, load = time.monotonic(), os.getloadavg()[0]
        _say(f"{name} ...{' (this machine is busy with something else)' if _is_busy(load) and not rows else ''}")
        try:
            found = _measured(name, measure, max(1, repeat // 3) if parsed.quick else repeat)
        except Exception as error:  # the others can still be measured; --check fails all the same
            _say(f"{name} could not be measured: {type(error).__name__}: {error}")
            failed.append(name)
            continue
        rows += [row.under(load, datetime.date.today().isoformat()) for row in found]
        _say(f"{name} took {time.monotonic() - began:.0f} s")
    document = as_json(rows)
    RESULTS.parent.mkdir(exist_ok=True)
    partial = (parsed.names or parsed.cold) and RESULTS.exists()
    RESULTS.write_text(merge(RESULTS.read_text(), document) if partial else document)
    print(document if parsed.json else table(rows))
    if missed(rows):
        _say("missed: " + ", ".join(missed(rows)))
    if failed:
        _say("not measured: " + ", ".join(failed))
    return 1 if parsed.check and (missed(rows) or failed) else 0


def _publish() -> int:
    """Put the figures of the last runs into the documentation."""
    if not RESULTS.exists():
        _say("there are no figures yet; run 'python3 run.py bench' first")
        return 1
    machine = f"{os.cpu_count()} {platform.machine()} cores, Python {platform.python_version()}"
    try:
        PAGE.write_text(with_figures(PAGE.read_text(), from_json(RESULTS.read_text()), machine))
    except ValueError as error:
        _say(f"the figures cannot be written into {PAGE.relative_to(ROOT)}: {error}")
        return 1
    _say(f"the figures are in {PAGE.relative_to(ROOT)}")
    return 0


def _measured(name: str, measure: Measurement, repeat: int) -> list[Row]:
    """A missed bar is measured again: other programs' work makes figures worse, never better."""
    rows = measure(repeat)
    for _ in range(SECOND_CHANCES):
        if not missed(rows):
            break
        _say(f"{name} missed {', '.join(missed(rows))} (load {os.getloadavg()[0]:.1f}); once more ...")
        rows = better(rows, measure(repeat))
    return rows


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="run.py bench", description="Measure, and hold against the bars.")
    every = ", ".join(MEASUREMENTS)
    parser.add_argument("names", nargs="*", type=_known, metavar="NAME", help=f"of {every} (default: all)")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a bar is missed")
    parser.add_argument("--json", action="store_true", help="print what is written to bench/results.json")
    parser.add_argument("--quick", action="store_true", help="a third of the repetitions")
    parser.add_argument("--publish", action="store_true", help="only write the last figures into the documentation")
    parser.add_argument("--cold", action="store_true", help="only the demo in a fresh clone with empty caches")
    return parser


def _known(name: str) -> str:
    if name not in MEASUREMENTS:
        raise argparse.ArgumentTypeError(f"there is no measurement {name!r}; there are {', '.join(MEASUREMENTS)}")
    return name


def _is_busy(load: float) -> bool:
    return load > BUSY * (os.cpu_count() or 1)


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
