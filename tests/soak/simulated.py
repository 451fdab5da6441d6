"""``python3 run.py soak --simulated``: runs that seeds make up, in the simulator, some thousands in an hour.

Each failing seed is kept as a scenario, which ``sparkle-sim replay`` shows and ``sparkle-sim shrink`` makes small.
"""

import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from sparkle_p2p.api.words import duration
from sparkle_protocol.errors import SparkleError
from sparkle_sim.checkers import Finding
from sparkle_sim.cli.progress import MovingLine
from sparkle_sim.cli.stopping import stopping
from sparkle_sim.executors import executor
from sparkle_sim.running import Stop
from sparkle_sim.scenario import Scenario
from sparkle_sim.seeds import PAID_EVERY, examine, paid_scenario_of, scenario_of
from sparkle_sim.shrinking import write_regression

SEEDS = 10_000
WAITING = 4  # seeds for each process that the executor holds; the others wait here
LOOK_EVERY_S = 0.2  # whether somebody wants to stop


@dataclass
class Hunt:
    """What many seeds came to.

    Args:
        seeds: those that are to be run.
        folder: where failing ones are kept; made when there is one.
        minutes: begin no further seed after so long.
    """

    seeds: range
    folder: Path
    minutes: float | None = None
    ended: int = 0
    found: dict[int, tuple[str, Path]] = field(default_factory=dict)  # by seed: what, and its file
    began_s: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self.began_s

    @property
    def interrupted(self) -> bool:
        """Somebody stopped it."""
        return self.ended < len(self.seeds) and not self._is_late

    @property
    def _is_late(self) -> bool:
        return self.minutes is not None and self.seconds > self.minutes * 60

    def run(self, processes: int) -> None:
        """Run the seeds, several at a time, until all are or somebody stops it. What was found by then is kept.

        Raises:
            SparkleError: a process died, or a file cannot be written.
        """
        with executor("local", processes) as pool, stopping() as stop, MovingLine() as line:
            try:
                self._run(pool, processes, stop, line)
            except BrokenProcessPool as error:
                text = f"a process died after {self.ended} seeds, perhaps for want of memory"
                raise SparkleError(f"{text}; ask for fewer at a time with --at-once") from error

    def _run(self, pool: Executor, processes: int, stop: Stop, line: MovingLine) -> None:
        under_way: dict[Future[bytes], int] = {}
        waiting = iter(self.seeds)
        while not stop.wanted:
            for seed in self._next(waiting, WAITING * processes - len(under_way)):
                under_way[pool.submit(examined, seed)] = seed
            if not under_way:
                return
            done, _ = wait(under_way, LOOK_EVERY_S, FIRST_COMPLETED)
            for future in [future for future in under_way if future in done]:
                self._take(under_way.pop(future), future, line)
            line.draw(self.ended / len(self.seeds), self.progress)

    def _next(self, waiting: Iterator[int], count: int) -> Iterator[int]:
        for _ in range(0 if self._is_late else count):
            seed = next(waiting, None)
            if seed is not None:
                yield seed

    def _take(self, seed: int, future: "Future[bytes]", line: MovingLine) -> None:
        raw = future.result()
        self.ended += 1
        found = msgspec.json.decode(raw, type=tuple[Scenario, Finding] | None)  # type: ignore[arg-type]
        if found is None:
            return
        scenario, finding = found
        file = write_regression(self.folder, scenario, seed, finding)
        self.found[seed] = str(finding), file
        line.say(f"soak: seed {seed}: {finding}\nsoak:   sparkle-sim shrink {file} --out {self.folder / 'small'}")

    # --- telling ----------------------------------------------------------------------------------------------

    def progress(self) -> str:
        """``3412 of 10000 seeds, 1 failed  4.1 seeds/s  ETA 26 min 47 s``."""
        rate = self.ended / max(self.seconds, 1e-9)
        left_s = (len(self.seeds) - self.ended) / rate if rate else None
        if self.minutes is not None and left_s is not None:
            left_s = min(left_s, max(0.0, self.minutes * 60 - self.seconds))
        failed = f", {len(self.found)} failed" if self.found else ""
        return f"{self.ended} of {len(self.seeds)} seeds{failed}  {rate:.1f} seeds/s  ETA {duration(left_s)}"

    def summary(self) -> dict[str, object]:
        """For scripts."""
        return {
            "seeds": self.ended,
            "first": self.seeds.start,
            "failing_seeds": [
                {"seed": seed, "finding": text, "file": str(file)}
                for seed, (text, file) in sorted(self.found.items())
            ],
            "seconds": round(self.seconds, 1),
            "interrupted": self.interrupted,
        }

    def in_words(self) -> str:
        """For a person."""
        cut = " (interrupted)" if self.interrupted else ""
        lines = [f"{self.ended} seeds{cut} in {duration(self.seconds)}: {len(self.found)} failed"]
        lines += [f"  seed {seed}: {text}; kept as {file}" for seed, (text, file) in sorted(self.found.items())]
        return "\n".join(lines)


def examined(seed: int) -> bytes:
    """What a process does: the run of one seed; the scenario and what was found in it, if anything was."""
    made = paid_scenario_of if seed % PAID_EVERY == 0 else scenario_of
    return msgspec.json.encode(examine(made(seed), seed))
