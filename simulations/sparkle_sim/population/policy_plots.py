"""A plot of the policies: what each costs against what it lets through."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparkle_protocol.errors import ConfigError
from sparkle_sim.population.trust_policies import BARS, CHOSEN, Results, worst

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes as Panel

    from sparkle_sim.population.trust_policies import Bar

WIDE, HIGH = 9.6, 4.6  # inches
CHOSEN_COLOUR, OTHER_COLOUR, BAR_COLOUR = "#D55E00", "#0072B2", "#009E73"  # Okabe and Ito: for all eyes
NONE_SEEN = 1e-7  # where a policy stands of which no wrong result was seen
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
    for trial in dict.fromkeys(cell.trial for cell in results):
        found = worst(results, trial, bar.share)
        if found is None:
            continue
        work, wrong = results[found[0]].work.value, results[found[1]].wrong
        colour = CHOSEN_COLOUR if trial.policy == CHOSEN else OTHER_COLOUR
        value = max(wrong.value, NONE_SEEN)
        reach = [[max(0.0, value - wrong.low)], [max(0.0, wrong.high - value)]]
        panel.errorbar([work], [value], yerr=reach, fmt="o", markersize=5, capsize=2, color=colour)
        panel.annotate(
            trial.policy.name, (work, value), xytext=(5, 3), textcoords="offset points", fontsize=8, color=colour
        )
    panel.set_yscale("log")
    panel.fill_between([1.0, bar.work], NONE_SEEN / 2, bar.wrong, color=BAR_COLOUR, alpha=0.15, label="wanted")
    panel.set_xlabel("executions for each FINAL unit, worst kind")
    panel.set_ylabel("wrong FINAL units, worst kind")
    panel.set_title(f"{bar.share:.0%} of the peers cheat")
    panel.grid(visible=True, alpha=0.3)
    panel.legend(frameon=False, fontsize=8, loc="lower right")
