"""Many runs: every combination of values with every seed, and what each group of them comes to."""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice, product
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import msgspec

from sparkle_p2p.api.words import duration
from sparkle_protocol.errors import ConfigError, SparkleError
from sparkle_protocol.version import __version__
from sparkle_sim import outputs
from sparkle_sim.reading import Override, parse_value, read_scenario
from sparkle_sim.scenario import Scenario

log = logging.getLogger(__name__)

FILE = "sweep.csv"
MAX_RUNS = 1_000_000
UNDER_WAY = 1000  # runs that wait at the executor; the others wait here
LOOK_EVERY_S = 0.2  # whether somebody wants to stop

MEASURES = (
    "units_final", "wrong_finals", "makespan_s", "units_per_s", "replicas_per_unit", "rejected", "messages_per_unit",
    "bytes_per_unit", "latency_p50_s", "latency_p99_s",
)  # fmt: skip
SHOWN = ("units_per_s", "makespan_s", "wrong_finals", "replicas_per_unit")
_T95 = (12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)


@dataclass(frozen=True, slots=True)
class Planned:
    """A run of a sweep."""

    values: tuple[tuple[str, Any], ...]  # keys that are set
    seed: int
    scenario: bytes  # as JSON


def plan(
    path: Path, seeds: Sequence[int], settings: Sequence[str], base: Sequence[Override], *, seconds: float | None
) -> list[Planned]:
    """All runs, in the order in which they are listed. Raises ConfigError before the first one is made."""
    keys = [_several(text) for text in settings]
    combinations = list(product(*(values for _, values in keys)))
    if len(combinations) * len(seeds) > MAX_RUNS:
        raise ConfigError(f"that would be {len(combinations) * len(seeds)} runs; a sweep has at most {MAX_RUNS}")
    runs = []
    for combination in combinations:
        values = tuple((key, value) for (key, _), value in zip(keys, combination, strict=True))
        overrides = [*base, *(Override(key, value) for key, value in values)]
        raw = msgspec.json.encode(read_scenario(path, overrides, seconds=seconds))
        runs += [Planned(values, seed, raw) for seed in seeds]
    return runs


def _several(text: str) -> tuple[str, list[Any]]:
    """``key=v1,v2,...``; commas inside brackets and quotes belong to a value."""
    key, given, values = text.partition("=")
    if not given or not key.strip():
        raise ConfigError(f"--set takes KEY=V1,V2,..., as peers.count=100,200, not '{text}'")
    return key.strip(), [parse_value(value.strip()) for value in _split(values)]


def _split(text: str) -> list[str]:
    parts, depth, quote = [""], 0, ""
    for character in text:
        if character == "," and not depth and not quote:
            parts.append("")
            continue
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        else:
            depth += (character in "[{") - (character in "]}")
        parts[-1] += character
    return parts


def run_one(scenario: bytes, seed: int) -> bytes:
    """What a worker does: one run; its figures, or what went wrong."""
    from sparkle_sim.running import run_scenario

    try:
        outcome = run_scenario(msgspec.json.decode(scenario, type=Scenario), seed)
    except SparkleError as error:
        return msgspec.json.encode({"error": str(error)})
    except Exception as error:  # a bug, in this one run; the sweep goes on
        log.exception("seed %s", seed)
        return msgspec.json.encode({"error": f"a bug in the simulator: {type(error).__name__}: {error}"})
    findings: Any = outcome.findings
    latency: Any = outcome.summary.get("latency_s") or {}
    figures = {
        **outcome.summary, "latency_p50_s": latency.get("p50"), "latency_p99_s": latency.get("p99")
    }  # fmt: skip
    about = {name: outcome.manifest[name] for name in ("trace_hash", "virtual_seconds", "wall_seconds", "events")}
    about |= {"findings": len(findings), "error": findings[0] if findings else None}
    return msgspec.json.encode(
        {
            **about,
            **{name: figures.get(name) for name in MEASURES},
            "findings": len(findings),
            "error": findings[0] if findings else None,
        }
    )


class Sweep:
    """Runs of a plan on an executor. Rows are in the order of the plan, whichever run ends first.

    Args:
        runs: what ``plan`` made.
        folder: where ``sweep.csv`` and ``manifest.json`` are written; None: nowhere.
    """

    COLUMNS = ("seed", "trace_hash", "virtual_seconds", "wall_seconds", "events", *MEASURES, "findings", "error")

    def __init__(self, runs: Sequence[Planned], folder: Path | None) -> None:
        self.runs = runs
        self.interrupted = False
        self.failed = 0
        self.first_failure = ""
        self._folder = folder
        self._keys = [key for key, _ in runs[0].values] if runs else []
        self._rows: dict[int, dict[str, Any]] = {}
        self._written = 0
        self._began = time.monotonic()
        self._table = None
        if folder is not None:
            self._table = outputs.Table(folder / FILE, (*self._keys, *self.COLUMNS))

    @property
    def ended(self) -> int:
        """Runs that are over."""
        return len(self._rows)

    @property
    def share(self) -> float:
        """Of all runs."""
        return self.ended / max(1, len(self.runs))

    def run(self, pool: Executor, stop: Callable[[], bool], on_progress: Callable[[], None]) -> None:
        """Make all runs, or as many as there are when somebody stops it."""
        waiting = iter(enumerate(self.runs))
        under_way: dict[Future[bytes], int] = {}
        try:
            while not stop():
                for number, one in islice(waiting, UNDER_WAY - len(under_way)):
                    under_way[pool.submit(run_one, one.scenario, one.seed)] = number
                if not under_way:
                    break
                done, _ = wait(under_way, LOOK_EVERY_S, FIRST_COMPLETED)
                for future in [future for future in under_way if future in done]:
                    self._take(under_way.pop(future), future)
                on_progress()
        except BrokenProcessPool as error:
            raise SparkleError(
                f"a process of the sweep died after {self.ended} runs, perhaps for want of memory; "
                "ask for fewer with --workers"
            ) from error
        finally:
            self.interrupted = self.ended < len(self.runs)
            self._finish()

    def _take(self, number: int, future: "Future[bytes]") -> None:
        self._rows[number] = row = msgspec.json.decode(future.result())
        if row["error"]:
            self.failed += 1
            self.first_failure = self.first_failure or f"seed {self.runs[number].seed}: {row['error']}"
        while self._written in self._rows:
            self._write(self._written)
            self._written += 1

    def _write(self, number: int) -> None:
        if self._table is not None:
            row, one = self._rows[number], self.runs[number]
            values = [value if isinstance(value, int | float | str) else str(value) for _, value in one.values]
            self._table.add([*values, one.seed, *(row.get(name) for name in self.COLUMNS[1:])])

    def _finish(self) -> None:
        """Write what no turn came for, and what the sweep was."""
        for number in sorted(number for number in self._rows if number >= self._written):
            self._write(number)
        if self._table is not None:
            self._table.close()
        if self._folder is not None:
            about = {
                "sweep": {
                    key: list(dict.fromkeys(str(dict(run.values)[key]) for run in self.runs)) for key in self._keys
                },
                "runs": len(self.runs),
                "ended": self.ended,
                "failed": self.failed,
                "interrupted": self.interrupted,
                "version": __version__,
                "wall_seconds": round(time.monotonic() - self._began, 3),
                "scenario": msgspec.json.decode(self.runs[0].scenario) if self.runs else None,
            }
            outputs.write_json(self._folder / outputs.MANIFEST, about)

    # --- telling ------------------------------------------------------------------------------------------------

    def progress_text(self) -> str:
        """``12 of 40 runs, 1 failed  ETA 40 s``."""
        left_s = (time.monotonic() - self._began) / self.ended * (len(self.runs) - self.ended) if self.ended else None
        failed = f", {self.failed} failed" if self.failed else ""
        return f"{self.ended} of {len(self.runs)} runs{failed}  ETA {duration(left_s)}"

    def document(self) -> dict[str, Any]:
        """All figures, and means over the seeds of each combination of values."""
        groups: dict[tuple[tuple[str, str], ...], list[dict[str, Any]]] = {}
        for number in sorted(self._rows):
            values = tuple((key, str(value)) for key, value in self.runs[number].values)
            groups.setdefault(values, []).append(self._rows[number])
        return {
            "interrupted": self.interrupted,
            "failed": self.failed,
            "measures": list(SHOWN),
            "groups": [
                {
                    "values": dict(values),
                    "runs": len(rows),
                    "figures": [figure(_column(rows, name)) for name in SHOWN],
                }
                for values, rows in groups.items()
            ],
            "runs": [
                {"values": dict(self.runs[number].values), "seed": self.runs[number].seed, **self._rows[number]}
                for number in sorted(self._rows)
            ],
        }


def _column(rows: Sequence[dict[str, Any]], name: str) -> list[float]:
    return [row[name] for row in rows if row.get(name) is not None]


def interval(values: Sequence[float]) -> float:
    """Half the width of the 95 % interval of the mean (Student's t); 0 for a single value."""
    count = len(values)
    if count < 2:
        return 0.0
    factor = _T95[count - 2] if count - 2 < len(_T95) else 1.96 + 2.4 / (count - 1)  # within 0.3 % of the tables
    return factor * stdev(values) / sqrt(count)


def figure(values: Sequence[float]) -> str:
    """``12.3 ± 0.4``; without an interval for a single value, and a dash for none."""
    if len(values) < 2:
        return f"{values[0]:.4g}" if values else "–"
    half = interval(values)
    return f"{fmean(values):.4g} ± {half:.2g}" if half < 100 else f"{fmean(values):.4g} ± {half:.0f}"
