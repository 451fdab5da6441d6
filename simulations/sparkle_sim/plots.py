"""Plots that a paper could print, from the folder of a run or of a sweep.

Colours are those of Okabe and Ito (2008), which people with any kind of colour vision can tell apart; lines differ in
their dashes too. The same folder gives the same file.
"""

import csv
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from sparkle_protocol.errors import ConfigError
from sparkle_sim import outputs, sweeping

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = ("png", "svg")
SIZE_INCHES = (3.5, 2.6)  # one column of a page with two
PANEL_INCHES = 1.7  # of several above each other
DPI = 300
MOST_STEPS = 100  # of an average over time
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
GREY = "#999999"
STYLE: dict[str, Any] = {
    "font.size": 8.0,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "grid.linewidth": 0.4,
    "grid.alpha": 0.5,
    "lines.linewidth": 1.2,
    "legend.frameon": False,
    "legend.fontsize": 7.0,
    "svg.hashsalt": "sparkle-sim",  # or ids in the file would differ each time
    "svg.fonttype": "none",  # text stays text
}

Columns = Mapping[str, Sequence[float]]


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure of a run that can be drawn against what was swept."""

    column: str
    label: str


MEASURES = (
    Measure("units_per_s", "throughput (units/s)"),
    Measure("makespan_s", "makespan (s)"),
    Measure("wrong_finals", "wrong results accepted"),
    Measure("replicas_per_unit", "replicas per unit"),
    Measure("messages_per_unit", "messages per unit"),
    Measure("latency_p50_s", "median time to final (s)"),
)


def plot_folder(folder: Path, format_: str, target: Path | None = None) -> list[Path]:
    """Draw all plots of a run's or a sweep's folder, and name them.

    Args:
        folder: what ``run`` or ``sweep`` wrote.
        format_: one of ``FORMATS``.
        target: the folder that they go to; None: the same.

    Raises:
        ConfigError: it is no such folder, there is nothing in it to draw, or matplotlib is not installed.
        StorageError: the disk does not take them.
    """
    manifest = outputs.read_json(folder / outputs.MANIFEST)
    plots = _of_sweep(folder, manifest) if "sweep" in manifest else _of_run(folder, manifest)
    made = folder if target is None else outputs.folder(target)
    return [_save(made / f"{name}.{format_}", panels) for name, panels in plots.items()]


Draw = Callable[["Axes"], None]
Plots = dict[str, Sequence[Draw]]  # by name; several are drawn above each other, over the same axis


def _save(path: Path, panels: Sequence[Draw]) -> Path:
    """A figure in a file; made without pyplot, which would keep the figure, and without a screen."""
    mpl, module = _matplotlib()
    about = {"Date": None} if path.suffix == ".svg" else {"Software": None}
    width, height = SIZE_INCHES
    with mpl.rc_context(STYLE):
        figure = module.Figure(figsize=(width, height if len(panels) == 1 else PANEL_INCHES * len(panels)))
        figure.set_layout_engine("constrained")
        all_axes = figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
        for axes, draw in zip(all_axes, panels, strict=True):
            draw(axes)
        for axes in all_axes[1:]:
            axes.set_title("")
        for axes in all_axes[:-1]:
            axes.set_xlabel("")
        figure.align_ylabels()
        try:
            figure.savefig(path, dpi=DPI, metadata=about)
        except OSError as error:
            raise outputs.refused(path, error) from error
    return path


def _matplotlib() -> tuple[Any, Any]:
    """It and its figures. Raises ConfigError where it is not installed."""
    try:
        return importlib.import_module("matplotlib"), importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise ConfigError("plots need matplotlib: install it with 'pip install matplotlib'") from error


# --- a run ------------------------------------------------------------------------------------------------------


def _of_run(folder: Path, manifest: Mapping[str, Any]) -> Plots:
    columns = outputs.read_columns(folder / outputs.METRICS)
    if not columns.get("time_s"):
        raise ConfigError(f"{folder / outputs.METRICS} has no samples; the run was stopped before the first one")
    title = f"{manifest.get('name', '')}: {manifest.get('peers', '?')} peers, seed {manifest.get('seed', '?')}"
    if manifest.get("interrupted"):
        title += " (interrupted)"
    times, unit = _in_unit(columns["time_s"])
    scale = columns["time_s"][-1] / times[-1]
    faults = _faults((manifest.get("scenario") or {}).get("faults", ()), columns["time_s"][-1])

    def over_time(draw: Draw) -> Draw:
        def run(axes: "Axes") -> None:
            for begin_s, end_s in faults:
                axes.axvspan(begin_s / scale, end_s / scale, color=GREY, alpha=0.25, linewidth=0, label="fault")
            axes.set_title(title, fontsize=8.0)
            axes.set_xlabel(f"virtual time ({unit})")
            draw(axes)
            axes.set_ylim(bottom=0)
            axes.set_xlim(0, times[-1])

        return run

    plots: dict[str, Draw] = {
        "units": over_time(lambda axes: _units(axes, times, columns)),
        "online": over_time(lambda axes: _online(axes, times, columns)),
    }
    if "messages" in columns:
        plots["messages"] = over_time(lambda axes: _messages(axes, times, columns))
    if "paid_micro" in columns:
        plots["credit"] = over_time(lambda axes: _credit(axes, times, columns))
    overview = list(plots.values())
    path = folder / outputs.LATENCY
    latency = outputs.read_columns(path) if path.exists() else {}
    if latency.get("units"):
        plots["latency"] = lambda axes: _latency(axes, title, latency)
    return {"overview": overview, **{name: [draw] for name, draw in plots.items()}}


def _faults(faults: Sequence[Mapping[str, Any]], end_s: float) -> list[tuple[float, float]]:
    """When something is wrong, of what the run came to, each time once; what never ends is shown where it begins."""
    least_s = end_s / 200  # or it could not be seen
    spans = sorted((fault["at_s"], fault["at_s"] + max(least_s, fault["for_s"])) for fault in faults)
    found: list[tuple[float, float]] = []
    for begin_s, until_s in spans:
        if found and begin_s <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], until_s)
        elif begin_s < end_s:
            found.append((begin_s, until_s))
    return found


def _in_unit(seconds: Sequence[float]) -> tuple[list[float], str]:
    """Times in the unit that gives readable numbers."""
    for unit, length, least in (("d", 86_400.0, 4.0), ("h", 3600.0, 3.0), ("min", 60.0, 10.0)):
        if seconds[-1] >= least * length:
            return [second / length for second in seconds], unit
    return list(seconds), "s"


def _units(axes: "Axes", times: Sequence[float], columns: Columns) -> None:
    axes.plot(times, columns["units_final"], color=BLUE, label="final")
    axes.plot(times, columns["replicas"], color=ORANGE, linestyle="--", label="computed (replicas)")
    if max(columns["wrong_finals"]) > 0:
        axes.plot(times, columns["wrong_finals"], color=RED, linestyle=":", label="final, but wrong")
    if max(columns.get("rejected", [0])) > 0:
        axes.plot(times, columns["rejected"], color=GREEN, linestyle="-.", label="results rejected")
    axes.set_ylabel("units")
    rows = _legend(axes)
    axes.set_ylim(top=max(*columns["replicas"], *columns["units_final"], 1) * (1.05 + 0.12 * rows))  # for the legend


def _legend(axes: "Axes") -> int:
    """Each word once; returns how many there are."""
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(reversed(labels), reversed(handles), strict=True))
    names = list(dict.fromkeys(label for label in labels if label != "fault")) + ["fault"] * ("fault" in once)
    axes.legend([once[name] for name in names], names, loc="upper left")
    return len(names)


def _online(axes: "Axes", times: Sequence[float], columns: Columns) -> None:
    axes.plot(times, columns["online"], color=BLUE, drawstyle="steps-post")
    axes.set_ylabel("peers online")


def _messages(axes: "Axes", times: Sequence[float], columns: Columns) -> None:
    """Of each peer that was online, second by second, averaged so that chance does not hide the course."""
    seconds, online = columns["time_s"], columns["online"]
    step = max(1, len(seconds) // MOST_STEPS)
    marks = [*range(0, len(seconds) - step, step), len(seconds) - 1]
    points = [
        (times[stop], (columns["messages"][stop] - columns["messages"][start]) / spent)
        for start, stop in pairwise(marks)
        if (spent := sum(online[k] * (seconds[k] - seconds[k - 1]) for k in range(start + 1, stop + 1))) > 0
    ]
    axes.plot([at for at, _ in points], [rate for _, rate in points], color=BLUE)
    axes.set_ylabel("messages/s per peer")


def _credit(axes: "Axes", times: Sequence[float], columns: Columns) -> None:
    """What is set aside, and what of it was paid."""
    for column, label, colour, dashes in (
        ("held_micro", "set aside", ORANGE, "--"),
        ("paid_micro", "paid", BLUE, "-"),
    ):
        credits_ = [micro / 1e6 for micro in columns[column]]
        axes.plot(times, credits_, dashes, color=colour, drawstyle="steps-post", label=label)
    axes.set_ylabel("credits")
    axes.legend(loc="upper left")


def _latency(axes: "Axes", title: str, columns: Columns) -> None:
    total = columns["units"][-1]
    bounds, unit = _in_unit(columns["within_s"])
    axes.plot(bounds, [units / total for units in columns["units"]], color=BLUE, drawstyle="steps-post")
    axes.set_title(title, fontsize=8.0)
    axes.set_xlabel(f"from submission to final ({unit})")
    axes.set_ylabel("share of units")
    axes.set_ylim(0, 1.02)
    axes.set_xlim(left=0)


# --- a sweep ----------------------------------------------------------------------------------------------------


def _of_sweep(folder: Path, manifest: Mapping[str, Any]) -> Plots:
    keys, rows = _rows(folder / sweeping.FILE)
    if not keys or not rows:
        raise ConfigError(
            f"{folder} is a sweep over seeds alone, or without a run; sweep a key with --set to plot it"
        )
    key = keys[0]
    scenario = manifest.get("scenario") or {}
    title = f"interrupted after {len(rows)} of {manifest.get('runs')} runs" if manifest.get("interrupted") else ""
    plots: Plots = {}
    for measure in MEASURES:
        lines = _lines(rows, key, keys[1:], measure.column)
        if lines:
            plots[f"sweep-{measure.column.replace('_', '-')}"] = [
                _against(_in_words(key, scenario), measure, lines, title)
            ]
    return plots


Row = Mapping[str, str]
Lines = dict[str, dict[str, list[float]]]  # by the values of the other keys, then by that of the first


def _rows(path: Path) -> tuple[list[str], list[Row]]:
    """What was swept, and all runs."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            table = csv.DictReader(file)
            rows: list[Row] = [row for row in table if not row.get("error")]
            names = list(table.fieldnames or ())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} is damaged: {error}") from error
    return names[: names.index("seed")] if "seed" in names else [], rows


def _lines(rows: Sequence[Row], key: str, others: Sequence[str], column: str) -> Lines:
    lines: Lines = {}
    for row in rows:
        if row.get(column):
            label = ", ".join(f"{other} = {row[other]}" for other in others if len({one[other] for one in rows}) > 1)
            lines.setdefault(label, {}).setdefault(row[key], []).append(float(row[column]))
    return lines


def _in_words(key: str, scenario: Mapping[str, Any]) -> str:
    """A key as the label of an axis, with its unit."""
    part, _, last = key.rpartition(".")
    if part.startswith("adversaries.") and last == "share":
        entries, number = scenario.get("adversaries", []), int(part.removeprefix("adversaries."))
        return f"share of adversaries ({entries[number]['kind'].rpartition(':')[2]})"
    for ending, unit in (("_ms", "ms"), ("_s", "s"), ("_h", "h"), ("_bytes", "bytes"), ("_mbps", "Mbit/s")):
        if key.endswith(ending):
            return f"{key.removesuffix(ending)} ({unit})"
    return key


def _against(label: str, measure: Measure, lines: Lines, title: str) -> Draw:
    """Means over the seeds with their 95 % intervals, and each seed as a thin line: it has the same machines in all.

    Words stand side by side in their order.
    """
    words = list(dict.fromkeys(value for line in lines.values() for value in line))
    numbers = [_float(word) for word in words]
    ordered = None not in numbers
    place = {
        word: float(number if ordered and number is not None else at)
        for at, (word, number) in enumerate(zip(words, numbers, strict=True))
    }

    def draw(axes: "Axes") -> None:
        looks = zip(
            lines.items(), (BLUE, ORANGE, GREEN, RED) * len(lines), ("-", "--", "-.", ":") * len(lines), strict=False
        )
        for (name, line), colour, dashes in looks:
            points = sorted((place[word], values) for word, values in line.items())
            places = [at for at, _ in points]
            if len({len(values) for _, values in points}) == 1:  # all seeds ended with all values
                for seed in zip(*(values for _, values in points), strict=True):
                    axes.plot(places, seed, color=colour, linewidth=0.6, alpha=0.3)
            axes.errorbar(
                places,
                [fmean(values) for _, values in points],
                [sweeping.interval(values) for _, values in points],
                color=colour, linestyle=dashes if ordered else "none", marker="o", markersize=3, capsize=2,
                label=name,
            )  # fmt: skip
        if not ordered:
            axes.set_xticks(list(place.values()), [word.rpartition(":")[2] for word in words])  # without files
            axes.set_xlim(-0.5, len(words) - 0.5)
        axes.set_title(title, fontsize=8.0)
        axes.set_xlabel(label)
        axes.set_ylabel(measure.label)
        axes.set_ylim(bottom=0)
        if len(lines) > 1:
            axes.legend()

    return draw


def _float(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None
