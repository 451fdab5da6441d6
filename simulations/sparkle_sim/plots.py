"""Plots that a paper could print, from the folder of a run or of a sweep.

Colours are those of Okabe and Ito (2008), which people with any kind of colour vision can tell apart; lines differ in
their dashes too. The same folder gives the same file.
"""

import csv
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from sparkle_protocol.errors import ConfigError
from sparkle_sim import outputs, sweeping

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = ("png", "svg")
SIZE_INCHES = (3.5, 2.6)  # one column of a page with two
DPI = 300
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
STYLE: dict[str, Any] = {
    "font.size": 8.0,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "grid.linewidth": 0.4,
    "grid.alpha": 0.5,
    "lines.linewidth": 1.2,
    "legend.frameon": False,
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


def plot_folder(folder: Path, format_: str) -> list[Path]:
    """Draw all plots of a run's or a sweep's folder into it, and name them.

    Raises:
        ConfigError: it is no such folder, there is nothing in it to draw, or matplotlib is not installed.
        StorageError: the disk does not take them.
    """
    manifest = outputs.read_json(folder / outputs.MANIFEST)
    draw = _of_sweep(folder) if "sweep" in manifest else _of_run(folder, manifest)
    return [_save(folder / f"{name}.{format_}", how) for name, how in draw.items()]


Draw = Callable[["Axes"], None]


def _save(path: Path, draw: Draw) -> Path:
    """One pair of axes in a file; made without pyplot, which would keep the figure, and without a screen."""
    mpl, module = _matplotlib()
    about = {"Date": None} if path.suffix == ".svg" else {"Software": None}
    with mpl.rc_context(STYLE):
        figure = module.Figure(figsize=SIZE_INCHES, layout="constrained")
        draw(figure.add_subplot())
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


def _of_run(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Draw]:
    columns = outputs.read_columns(folder / outputs.METRICS)
    if not columns.get("time_s"):
        raise ConfigError(f"{folder / outputs.METRICS} has no samples; the run was stopped before the first one")
    title = f"{manifest.get('name', '')}: {manifest.get('peers', '?')} peers, seed {manifest.get('seed', '?')}"
    if manifest.get("interrupted"):
        title += " (interrupted)"
    times, unit = _in_unit(columns["time_s"])

    def over_time(draw: Callable[["Axes"], None]) -> Draw:
        def run(axes: "Axes") -> None:
            axes.set_title(title, fontsize=8.0)
            axes.set_xlabel(f"virtual time ({unit})")
            draw(axes)
            axes.set_ylim(bottom=0)

        return run

    plots = {
        "units": over_time(lambda axes: _units(axes, times, columns)),
        "online": over_time(lambda axes: _online(axes, times, columns)),
    }
    if "messages" in columns:
        plots["messages"] = over_time(lambda axes: _messages(axes, times, columns))
    path = folder / outputs.LATENCY
    latency = outputs.read_columns(path) if path.exists() else {}
    if latency.get("units"):
        plots["latency"] = lambda axes: _latency(axes, title, latency)
    return plots


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
    axes.legend()


def _online(axes: "Axes", times: Sequence[float], columns: Columns) -> None:
    axes.plot(times, columns["online"], color=BLUE, drawstyle="steps-post")
    axes.set_ylabel("peers online")


def _messages(axes: "Axes", times: Sequence[float], columns: Columns) -> None:
    """So far, for each unit that is final by then; before the first one there is nothing to say."""
    pairs = [
        (at, sent / finals)
        for at, sent, finals in zip(times, columns["messages"], columns["units_final"], strict=True)
        if finals > 0
    ]
    axes.plot([at for at, _ in pairs], [ratio for _, ratio in pairs], color=BLUE)
    axes.set_ylabel("messages per final unit")
    if len(pairs) > 1 and pairs[0][1] > 20 * pairs[-1][1]:
        axes.set_yscale("log")


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


def _of_sweep(folder: Path) -> dict[str, Draw]:
    keys, rows = _rows(folder / sweeping.FILE)
    if not keys or not rows:
        raise ConfigError(
            f"{folder} is a sweep over seeds alone, or without a run; sweep a key with --set to plot it"
        )
    key = keys[0]
    plots = {}
    for measure in MEASURES:
        lines = _lines(rows, key, keys[1:], measure.column)
        if lines:
            plots[f"sweep-{measure.column.replace('_', '-')}"] = _against(key, measure, lines)
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
            label = ", ".join(f"{other} = {row[other]}" for other in others)
            lines.setdefault(label, {}).setdefault(row[key], []).append(float(row[column]))
    return lines


def _against(key: str, measure: Measure, lines: Lines) -> Draw:
    """Means over the seeds with their 95 % intervals; words stand side by side in their order."""
    words = list(dict.fromkeys(value for line in lines.values() for value in line))
    try:
        place = {word: float(word) for word in words}
    except ValueError:
        place = {word: float(number) for number, word in enumerate(words)}

    def draw(axes: "Axes") -> None:
        looks = zip(
            lines.items(), (BLUE, ORANGE, GREEN, RED) * len(lines), ("-", "--", "-.", ":") * len(lines), strict=False
        )
        for (label, line), colour, dashes in looks:
            points = sorted((place[word], values) for word, values in line.items())
            axes.errorbar(
                [at for at, _ in points],
                [fmean(values) for _, values in points],
                [sweeping.interval(values) for _, values in points],
                color=colour, linestyle=dashes, marker="o", markersize=3, capsize=2, label=label,
            )  # fmt: skip
        if any(place[word] != _float(word) for word in words):
            axes.set_xticks(list(place.values()), words)
        axes.set_xlabel(key)
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
