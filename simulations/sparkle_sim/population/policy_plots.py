"""A plot of the policies: what each costs against what it lets through."""

from __future__ import annotations

from math import log10
from typing import TYPE_CHECKING

from sparkle_protocol.errors import ConfigError
from sparkle_sim.population.trust_policies import BARS, CHOSEN, Results, worst

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes as Panel

    from sparkle_sim.population.trust_policies import Bar

WIDE, HIGH = 9.6, 4.6  # inches
CHOSEN_COLOUR, OTHER_COLOUR, BAR_COLOUR = "#D55E00", "#0072B2", "#009E73"  # Okabe and Ito: for all eyes
LEAST, MOST = 1e-5, 1.0  # shares of wrong results that are shown
DECADE, LINE = 54.0, 9.0  # points that a decade and a line of text take
BESIDE = 0.3  # labels of points that are nearer than this must not lie on each other
LACKING = "plots need matplotlib, which is not installed; install it with 'pip install matplotlib'"


def draw(results: Results, file: Path) -> None:
    """Write the plot; the name's ending says as what. Raises ConfigError where matplotlib is not installed."""
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(LACKING) from error
    with matplotlib.rc_context({"svg.hashsalt": "policies", "font.size": 10, "svg.fonttype": "path"}):
        figure = Figure(figsize=(WIDE, HIGH), layout="constrained")
        FigureCanvasAgg(figure)
        for panel, bar in zip(figure.subplots(1, len(BARS), sharey=True), BARS, strict=True):
            _panel(panel, results, bar)
        dated = {"Date": None} if file.suffix == ".svg" else None  # the same figures give the same file
        figure.savefig(file, dpi=150, metadata=dated)


def _panel(panel: Panel, results: Results, bar: Bar) -> None:
    """Every policy with one share of cheaters, and the corner in which a policy is to be."""
    points: list[tuple[float, float, str]] = []  # wrong, work, name
    for trial in dict.fromkeys(cell.trial for cell in results):
        found = worst(results, trial, bar.share)
        if found is None:
            continue
        work, wrong = results[found[0]].work.value, results[found[1]].wrong
        chosen = trial.policy == CHOSEN
        value = max(wrong.value, LEAST)
        reach = [[max(0.0, value - wrong.low)], [max(0.0, wrong.high - value)]]
        panel.errorbar(
            [work], [value], yerr=reach, fmt="o", markersize=5, capsize=2, color=_colour(chosen=chosen),
            zorder=3 if chosen else 2,
        )  # fmt: skip
        points.append((value, work, trial.policy.name))
    _label(panel, points)
    panel.set_yscale("log")
    panel.set_ylim(LEAST, MOST)
    panel.margins(x=0.2)
    panel.fill_between([1.0, bar.work], LEAST, bar.wrong, color=BAR_COLOUR, alpha=0.15, label="wanted")
    panel.set_xlabel("executions for each FINAL unit, worst kind")
    panel.set_ylabel("wrong FINAL units, worst kind")
    panel.set_title(f"{bar.share:.0%} of the peers cheat")
    panel.grid(visible=True, alpha=0.3)
    panel.legend(frameon=False, fontsize=8, loc="lower right")


def _colour(*, chosen: bool) -> str:
    return CHOSEN_COLOUR if chosen else OTHER_COLOUR


def _label(panel: Panel, points: list[tuple[float, float, str]]) -> None:
    """Names beside the points, moved up where another one is already."""
    taken: list[tuple[float, float]] = []  # work, height
    for value, work, name in sorted(points):
        at = height = DECADE * log10(value)
        for other, there in taken:
            if abs(other - work) < BESIDE and height < there + LINE:
                height = there + LINE
        taken.append((work, height))
        panel.annotate(
            name, (work, value), xytext=(9, height - at - 3), textcoords="offset points", fontsize=8,
            color=_colour(chosen=name == CHOSEN.name),
        )  # fmt: skip
