"""One run from beginning to end: lets virtual time pass, samples, writes the run's folder, stops when asked to."""

import gc
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from sparkle_protocol.errors import ConfigError
from sparkle_sim import checkers, outputs
from sparkle_sim.engine import Run
from sparkle_sim.guard import no_outside
from sparkle_sim.kernel import SECOND
from sparkle_sim.metrics import COLUMNS, CREDIT_COLUMNS, Metrics, sample_every_s
from sparkle_sim.scenario import Scenario
from sparkle_sim.trace import Trace
from sparkle_sim.trace_file import FILE, TraceWriter

if TYPE_CHECKING:
    from sparkle_sim.credit_metrics import CreditMetrics
    from sparkle_sim.workflows import Workflow

ROUND = 200_000  # objects between two looks for garbage: events make many that die at once, and hardly a cycle


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is."""

    virtual_s: float
    end_s: float
    wall_s: float
    events: int
    units: tuple[int, int] | None = None  # that are final, of those submitted; None: not counted


@dataclass(slots=True)
class Stop:
    """Somebody may want a run to end before it is over; may be called from a signal handler."""

    wanted: bool = False
    at_once: list[Callable[[], None]] = field(default_factory=list)  # ends what is going on

    def request(self) -> None:
        """End it."""
        self.wanted = True
        for call in self.at_once:
            call()

    def __call__(self) -> bool:
        """Whether it is to end."""
        return self.wanted


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to."""

    manifest: dict[str, Any]
    summary: dict[str, Any]

    @property
    def interrupted(self) -> bool:
        """It was stopped before it was over."""
        return bool(self.manifest["interrupted"])

    @property
    def findings(self) -> list[str]:
        """What the checkers found that must not be."""
        return [str(one) for one in self.summary.get("findings") or ()]


OnProgress = Callable[[Progress], None]


def run_scenario(
    scenario: Scenario,
    seed: int,
    *,
    folder: Path | None = None,
    trace: bool = False,
    on_progress: OnProgress = lambda _: None,
    stop: Stop | None = None,
    clients: Sequence[tuple[int, "Workflow"]] = (),
) -> Outcome:
    """Run a scenario until it is over or somebody stops it.

    Args:
        scenario: what happens.
        seed: decides everything else.
        folder: where it is written down, empty; None: nowhere.
        trace: whether all that happens is written there too.
        on_progress: told after each piece of virtual time.
        stop: ends the run early; what there is by then is kept and marked.
        clients: peers, and the programs that run beside their nodes; for the full engine.

    Raises:
        StorageError: the folder does not take what is written.
    """
    manifest = outputs.manifest(scenario, seed)
    if folder is not None:
        outputs.write_json(folder / outputs.MANIFEST, manifest)
    began = time.perf_counter()
    try:
        if scenario.engine == "population":
            if clients:
                raise ConfigError("clients need engine = 'full': the population engine knows no single peers")
            found, summary = _population(scenario, seed, folder, trace, on_progress, stop or Stop())
        else:
            found, summary = _full(scenario, seed, folder, trace, on_progress, stop or Stop(), clients)
    except ConfigError:
        if folder is not None and not (folder / outputs.METRICS).exists():
            for name in (outputs.MANIFEST, FILE):  # nothing was run: the folder is free for another try
                (folder / name).unlink(missing_ok=True)
        raise
    manifest |= {**found, "wall_seconds": round(time.perf_counter() - began, 3)}
    summary = {"name": scenario.name, "seed": seed, "interrupted": manifest["interrupted"], **summary}
    if folder is not None:
        outputs.write_json(folder / outputs.SUMMARY, summary)
        outputs.write_json(folder / outputs.MANIFEST, manifest)
    return Outcome(manifest, summary)


Found = tuple[dict[str, Any], dict[str, Any]]  # for the manifest, and the summary


def _full(
    scenario: Scenario,
    seed: int,
    folder: Path | None,
    trace: bool,
    on_progress: OnProgress,
    stop: Stop,
    clients: Sequence[tuple[int, "Workflow"]],
) -> Found:
    every_s, clock = sample_every_s(scenario.seconds), time.perf_counter
    submitters = [*(plan.submitter for plan in scenario.jobs), *(number for number, _ in clients)]
    metrics, began = Metrics(every_s, submitters), clock()
    with ExitStack() as stack:
        keep = None
        if trace and folder is not None:
            about = {"seed": seed, "scenario": outputs.manifest(scenario, seed)["scenario"]}
            keep = stack.enter_context(TraceWriter(folder / FILE, about)).write
        run = Run(scenario, seed, trace=Trace(keep), watchers=[metrics], clients=clients)
        kernel, watch = run.world.kernel, checkers.watch(run.world, scenario)
        credit = _credit_metrics(run, submitters) if scenario.credit.enabled else None
        columns = (*COLUMNS, *(CREDIT_COLUMNS if credit is not None else ()))
        stop.at_once.append(kernel.stop)
        stack.callback(stop.at_once.remove, kernel.stop)
        table = None
        if folder is not None:
            table = outputs.Table(folder / outputs.METRICS, columns)
            stack.callback(table.close)
        until_s, over = 0.0, False
        # Threads of others (a Dask worker's) need their clock and their collector; a process of our own does without.
        alone = threading.current_thread() is threading.main_thread()
        with few_collections() if alone else nullcontext(), no_outside() if alone else nullcontext():
            while not over and not stop():
                until_s = min(until_s + every_s, scenario.seconds)
                over = run.advance(until_s)
                if table is not None:
                    table.add((*metrics.sample(run.world), *(credit.sample() if credit is not None else ())))
                units = metrics.finals, metrics.units
                on_progress(Progress(kernel.now / SECOND, scenario.seconds, clock() - began, kernel.events, units))
        if folder is not None:
            _write_latencies(folder, metrics.latencies.table())
        found = {
            "interrupted": not over,
            "trace_hash": run.world.trace.hash,
            "trace_entries": run.world.trace.count,
            "events": kernel.events,
            "virtual_seconds": kernel.now / SECOND,
        }
        findings = watch.finish() if over else watch.findings  # of half a run nobody can say what it would come to
        checked = {"findings": [str(one) for one in findings], "checks": watch.report()}
        if credit is not None:
            checked["credit"] = credit.summary()
        return found, {**run.summary(), **metrics.summary(run.world), **checked}


def _credit_metrics(run: Run, submitters: Sequence[int]) -> "CreditMetrics":
    """What counts credit. The ledger is loaded for those who have one."""
    from sparkle_sim.credit_metrics import CreditMetrics

    return CreditMetrics(run.world, submitters)


def _population(
    scenario: Scenario, seed: int, folder: Path | None, trace: bool, on_progress: OnProgress, stop: Stop
) -> Found:
    """Its trace's hash is that of its time series: it knows no single events."""
    if trace:
        raise ConfigError("--trace needs engine = 'full': the population engine knows no single events")
    from sparkle_sim.population import run_population  # NumPy is loaded for it alone

    began, tables, hasher = time.perf_counter(), list[outputs.Table](), blake3()
    with ExitStack() as stack:

        def take(virtual_s: float, row: Mapping[str, float]) -> None:
            told = population_row(row)
            hasher.update(repr(told).encode())
            if folder is not None:
                if not tables:
                    tables.append(outputs.Table(folder / outputs.METRICS, tuple(told)))
                    stack.callback(tables[0].close)
                tables[0].add(told.values())
            on_progress(Progress(virtual_s, scenario.seconds, time.perf_counter() - began, 0))

        result = run_population(scenario, seed, take, stop)
    summary: dict[str, Any] = result.summary
    found = {
        "interrupted": not summary["complete"],
        "trace_hash": hasher.hexdigest(),
        "events": summary["steps"],
        "virtual_seconds": summary["virtual_seconds"],
    }
    return found, population_summary(summary)


def population_row(row: Mapping[str, float]) -> dict[str, float]:
    """A row of the population engine in the columns that both engines have, followed by its own."""
    done = int(row["units_done"])
    shared = {
        "time_s": float(row["t_s"]),
        "online": int(row["online"]),
        "units_final": done,
        "units_per_s": float(row["units_per_s"]),
        "replicas": round(row["replicas_per_unit"] * (done + row["dead"])),
        "wrong_finals": int(row["wrong_final"]),
    }
    own = ("computing", "dead", "open_units", "wasted_share")
    return {**shared, **{name: row[name] for name in own}}


def population_summary(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Its summary with the names that both engines have."""
    jobs: list[dict[str, Any]] = summary["jobs"]
    ends = [job["ended_s"] for job in jobs]
    span_s = max(ends) - min(job["submitted_s"] for job in jobs) if ends and None not in ends else None
    other = {
        name: value
        for name, value in summary.items()
        if name not in ("seed", "complete", "units_done", "wrong_final")
    }
    return {
        **other,
        "units": sum(job["units"] for job in jobs),
        "units_final": summary["units_done"],
        "wrong_finals": summary["wrong_final"],
        "makespan_s": span_s,
        "rejected": summary["results_outvoted"],
    }


def _write_latencies(folder: Path, bins: list[tuple[float, int]]) -> None:
    table = outputs.Table(folder / outputs.LATENCY, ("within_s", "units"))
    seen = 0
    for bound_s, count in bins:
        seen += count
        table.add((bound_s, seen))
    table.close()


@contextmanager
def few_collections() -> Iterator[None]:
    """Look for garbage rarely, and not among what stands already: it would take a third of the time."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(ROUND, 20, 50)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
