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
from collections.abc import Awaitable, Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)  # instead of this folder, so that our modules have one name each

from tests.bench import fits  # noqa: E402
from tests.bench.host_fleet import Fleet  # noqa: E402
from tests.bench.host_phases import Phases  # noqa: E402
from tests.bench.processes import own_cpu_s, scratch  # noqa: E402

FOLDER = ROOT / "simulations" / "recordings"
FORMAT = 1
EACH = 5  # hosts in a process: loading libp2p takes 1.5 s and 80 MB each time
SEED = 1
GONE = 0.2  # share of the processes that is killed, and of the rest that is stopped
CONSTANTS = {  # what is fitted, and what it is called in sparkle_sim.costs
    "dial_path": "DIAL",
    "dial_work": "DIAL_WORK",
    "refused_work": "REFUSED",
    "request_work": "REQUEST",
    "question_work": "ASKING",
    "answer_work": "ANSWERING",
    "hop_path": "PASSING",
    "hop_work": "HEARING",
}
PACKAGES = ("libp2p", "trio", "cryptography", "coincurve", "msgpack")


async def record(hosts: int, less: int) -> dict[str, Any]:
    """All phases; the document that is written."""
    load, began = os.getloadavg(), time.monotonic()
    with scratch() as folder:
        async with Fleet(hosts, EACH, folder / "hosts.log") as fleet:
            phases, others = Phases(fleet, SEED, less), dict[str, float]()
            for name, phase in _phases(phases, fleet):
                busy = _Busy(fleet)
                await phase()
                others[name] = busy.others()
    return {
        "format": FORMAT,
        "recorded": {
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "hosts": hosts,
            "hosts_in_a_process": EACH,
            "killed": phases.killed,
            "stopped": phases.stopped,
            "cores": len(os.sched_getaffinity(0)),
            "machine": platform.machine(),
            "python": platform.python_version(),
            "packages": {name: _version(name) for name in PACKAGES},
            "load_average_before": [round(one, 2) for one in load],
            "took_s": round(time.monotonic() - began),
        },
        "processor_share_of_others": others,
        "fits": {name: fits.lognormal(phases.samples[name]) for name in CONSTANTS},
        "shares": {name: fits.share(*counts) for name, counts in phases.shares.items()},
        "samples": {name: fits.quantiles(values) for name, values in phases.samples.items()},
    }


def _phases(phases: Phases, fleet: Fleet) -> Iterator[tuple[str, Callable[[], Awaitable[None]]]]:
    """What is measured, in this order: while all hosts run; after some were killed; while some hang."""
    processes = -(-len(fleet.peers) // EACH)
    yield "pair", phases.pair
    yield "dial", phases.dial
    yield "few_links", lambda: phases.idle("few_links")
    yield "request", phases.request
    yield "calm", lambda: phases.gossip("calm", 30)
    yield "fresh", lambda: phases.lookups("fresh", fleet.well[::2])
    yield "provide", lambda: phases.provide("well", 20)
    yield "well", lambda: phases.providers("well", 60)
    yield "later", lambda: phases.lookups("later", fleet.well[1::2])
    yield "many_links", lambda: phases.idle("many_links")
    yield "warm", lambda: phases.lookups("warm", [*fleet.well, *fleet.well[::2]])
    yield "busy", phases.question_work
    yield "dense", lambda: phases.gossip("dense", 10)
    yield "healing", lambda: phases.heal(max(1, int(processes * GONE)))
    yield "killed", lambda: phases.lookups("killed", list(fleet.well))
    yield "killed_providers", lambda: phases.providers("killed", 40)
    yield "stopping", lambda: phases.freeze(max(1, int(processes * GONE * (1 - GONE))))
    yield "frozen", lambda: phases.lookups("frozen", list(fleet.well), at_once=4)
    yield "frozen_again", lambda: phases.lookups("frozen_again", list(fleet.well), at_once=4)
    yield "frozen_providers", lambda: phases.providers("frozen", 40, at_once=4)
    yield "frozen_gossip", lambda: phases.gossip("frozen", 10)
    yield "noticing", phases.notice
    yield "dial_frozen", phases.dial_frozen


class _Busy:
    """What share of the machine's processors other programs use."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._began, self._ours = _machine_s(), {pid: own_cpu_s(pid) for pid in (os.getpid(), *fleet.pids)}

    def others(self) -> float:
        """Since the beginning; what hosts used that were killed meanwhile counts as theirs."""
        ours = sum(own_cpu_s(pid) - self._ours[pid] for pid in (os.getpid(), *self._fleet.pids))
        all_s, busy_s = (now - then for now, then in zip(_machine_s(), self._began, strict=True))
        return round(min(1.0, max(0.0, (busy_s - ours) / max(all_s, 1e-9))), 3)


def _machine_s() -> tuple[float, float]:
    """Seconds of all processors so far, and those of them that they were busy."""
    times = psutil.cpu_times()
    all_s = sum(times[:8])
    return all_s, all_s - times.idle - getattr(times, "iowait", 0.0)


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
    if not parsed.json and parsed.out is None and parsed.hosts == 50:
        print("\nsimulations/sparkle_sim/costs.py takes from it:\n")
        for name, constant in CONSTANTS.items():
            found = document["fits"][name]
            print(f"{constant} = Cost({found['median']:.3g}, {found['sigma']:.2g})")
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
