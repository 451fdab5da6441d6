"""A plot of each law: its curve, what it allows, and our figures with their intervals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sparkle_protocol.errors import ConfigError
from sparkle_sim.laws.law import Outcome, Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Panel

WIDE, HIGH = 6.4, 4.2  # inches
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")  # Okabe and Ito: for all eyes
LACKING = "plots need matplotlib, which is not installed; install it with 'pip install matplotlib'"


def draw(outcome: Outcome, file: Path) -> None:
    """Write a plot; the name's ending says as what. Raises ConfigError where matplotlib is not installed."""
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(LACKING) from error
    law = outcome.law
    with matplotlib.rc_context({"svg.hashsalt": law.name, "font.size": 10, "svg.fonttype": "path"}):
        figure = Figure(figsize=(WIDE, HIGH), layout="constrained")
        FigureCanvasAgg(figure)
        panel = figure.add_subplot()
        series: dict[str, list[Point]] = {}
        for point in outcome.points:
            if point.x is not None:
                series.setdefault(point.series, []).append(point)
        for number, (name, points) in enumerate(series.items()):
            _curve(panel, name, points, COLOURS[number % len(COLOURS)])
        panel.set_title(law.title)
        panel.set_xlabel(law.axes.x)
        panel.set_ylabel(law.axes.y)
        if law.axes.log_x:
            panel.set_xscale("log", base=10)
        if law.axes.log_y:
            panel.set_yscale("log")
        panel.grid(visible=True, alpha=0.3)
        panel.legend(frameon=False, fontsize=8)
        dated = {"Date": None} if file.suffix == ".svg" else None  # the same figures give the same file
        figure.savefig(file, dpi=150, metadata=dated)


def _curve(panel: Panel, name: str, points: list[Point], colour: str) -> None:
    points = sorted(points, key=lambda point: point.x or 0.0)
    where = [point.x or 0.0 for point in points]
    panel.plot(where, [point.expected for point in points], color=colour, linewidth=1, label=f"{name}: law")
    inf = float("inf")
    if all(-inf < point.least < point.most < inf for point in points):
        panel.fill_between(
            where, [point.least for point in points], [point.most for point in points], color=colour, alpha=0.12
        )
    ours = [point.ours for point in points]
    reach = [[one.value - one.low for one in ours], [one.high - one.value for one in ours]]
    panel.errorbar(
        where, [one.value for one in ours], yerr=reach, fmt="o", markersize=4, capsize=3, color=colour,
        label=f"{name}: ours",
    )  # fmt: skip
