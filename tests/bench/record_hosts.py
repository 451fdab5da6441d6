"""``python3 run.py record [--hosts N] [--json]``: what real hosts on loopback cost, and how they fail.

Starts 50 network services of production, five in a process, measures connections, gossip and lookups while all is
well, after a fifth was killed, and while a fifth of the rest hangs, and writes quantiles, fitted distributions and
shares to ``simulations/recordings/hosts-50.json``. The simulator's network has these costs
(``sparkle_sim.costs``); a test compares the two. Takes about six minutes; the figures are worth most on a machine
that does nothing else.
"""

import argparse
import asyncio
import datetime
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)  # instead of this folder, so that our modules have one name each

from tests.bench import fits  # noqa: E402
from tests.bench.host_fleet import Fleet  # noqa: E402
from tests.bench.host_phases import Phases  # noqa: E402
from tests.bench.processes import cpu_s, scratch  # noqa: E402

FOLDER = ROOT / "simulations" / "recordings"
FORMAT = 1
EACH = 5  # hosts in a process: loading libp2p takes 1.5 s and 80 MB each time
SEED = 1
GONE = 0.2  # share of the processes that is killed, and of the rest that is stopped
FITTED = ("dial", "dial_work", "dial_refused", "request", "question_work", "answer_work", "hop", "hop_work")
PACKAGES = ("libp2p", "trio", "cryptography", "coincurve", "msgpack")


async def record(hosts: int, less: int) -> dict[str, Any]:
    """All phases; the document that is written."""
    processes = -(-hosts // EACH)
    load, began = os.getloadavg(), time.monotonic()
    with scratch() as folder:
        async with Fleet(hosts, EACH, folder / "hosts.log") as fleet:
            busy = _Busy(fleet.pids)
            phases = Phases(fleet, SEED, less)
            await _well(phases, fleet)
            others = busy.others()  # before some are killed, whose processor time would count as that of others
            await _gone(phases, fleet, max(1, int(processes * GONE)), max(1, int(processes * GONE * (1 - GONE))))
    return {
        "format": FORMAT,
        "recorded": {
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "hosts": hosts,
            "hosts_in_a_process": EACH,
            "cores": len(os.sched_getaffinity(0)),
            "machine": platform.machine(),
            "python": platform.python_version(),
            "packages": {name: _version(name) for name in PACKAGES},
            "load_average_before": [round(one, 2) for one in load],
            "processor_share_of_others": others,
            "took_s": round(time.monotonic() - began),
        },
        "fits": {name: fits.lognormal(phases.samples[name]) for name in FITTED},
        "shares": {name: fits.share(*counts) for name, counts in phases.shares.items()},
        "samples": {name: fits.quantiles(values) for name, values in phases.samples.items()},
    }


async def _well(phases: Phases, fleet: Fleet) -> None:
    """While all hosts run."""
    await phases.pair()
    await phases.dial()
    await phases.idle("few_links")
    await phases.request()
    await phases.gossip("calm", 30)
    await phases.lookups("fresh", fleet.well[::2])
    await phases.provide("well", 20)
    await phases.providers("well", 60)
    await phases.lookups("later", fleet.well[1::2])
    await phases.idle("many_links")
    await phases.lookups("warm", [*fleet.well, *fleet.well[::2]])
    await phases.question_work()
    await phases.gossip("dense", 10)


async def _gone(phases: Phases, fleet: Fleet, killed: int, stopped: int) -> None:
    """After some are gone, and while some hang."""
    await phases.heal(killed)
    await phases.lookups("killed", list(fleet.well))
    await phases.providers("killed", 40)
    left = await phases.freeze(stopped)
    await phases.lookups("frozen", left, at_once=4)
    await phases.lookups("frozen_again", left, at_once=4)
    await phases.providers("frozen", 40, at_once=4)
    await phases.gossip("frozen", 10)
    await phases.notice()
    await phases.dial_frozen()


class _Busy:
    """What share of the machine's processors others use."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = [*pids, os.getpid()]
        self._began = self._now()

    def _now(self) -> tuple[float, float, float]:
        times = psutil.cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0)
        return sum(times[:8]), idle, sum(map(cpu_s, self._pids[:-1]))

    def others(self) -> float:
        """Since the beginning."""
        (all0, idle0, ours0), (all1, idle1, ours1) = self._began, self._now()
        busy = (all1 - all0) - (idle1 - idle0)
        return round(max(0.0, busy - max(0.0, ours1 - ours0)) / max(1e-9, all1 - all0), 3)


def as_text(document: dict[str, Any]) -> str:
    """JSON with a line for each thing that was measured."""
    parts = []
    for name, value in document.items():
        entries = value.items() if isinstance(value, dict) else ()
        lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(one)}" for key, one in entries)
        parts.append(f" {json.dumps(name)}: " + (f"{{\n{lines}\n }}" if entries else json.dumps(value)))
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except ImportError:
        return None


def main(arguments: Sequence[str]) -> int:
    """Record, print, write; the exit code for the shell."""
    parsed = _parser().parse_args(arguments)
    path = parsed.out or FOLDER / f"hosts-{parsed.hosts}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        document = asyncio.run(record(parsed.hosts, parsed.less))
        text = as_text(document)
        path.write_text(text)
    except KeyboardInterrupt:
        print("\nrecord: interrupted; nothing was written", file=sys.stderr)
        return 130
    except (OSError, RuntimeError) as error:
        print(f"record: {error}; nothing was written", file=sys.stderr)
        return 1
    print(text if parsed.json else fits.table(document))
    print(f"record: written to {path}", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="run.py record", description="Record what real hosts cost and how they fail."
    )
    parser.add_argument("--hosts", type=_hosts, default=50, metavar="N", help="how many (default: 50)")
    parser.add_argument("--less", type=int, default=1, metavar="N", help="a trial: so many times less of everything")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to (default: simulations/recordings)")
    parser.add_argument("--json", action="store_true", help="print what is written")
    return parser


def _hosts(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if not 2 * EACH < number <= 200:
        raise argparse.ArgumentTypeError(f"{text} is no number of hosts between {2 * EACH + 1} and 200")
    return number


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
