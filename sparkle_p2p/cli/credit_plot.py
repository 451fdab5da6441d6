"""A balance over time as a figure, for ``sparkle credit --plot``. Needs matplotlib, which a node does without."""

import importlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sparkle_protocol.errors import ConfigError
from sparkle_protocol.work.price import CREDIT

FORMATS = (".svg", ".png")
SIZE_INCHES, DPI = (8.0, 4.0), 150
STYLE = {
    "font.size": 9,
    "svg.fonttype": "path",
    "svg.hashsalt": "sparkle",
    "axes.spines.top": False,
    "axes.spines.right": False,
}
LAST_MS = 253_402_300_000_000  # the end of the year 9999: where dates end


def check_plottable(target: str) -> None:
    """Return if a figure can be drawn into that file.

    Raises:
        ConfigError: the ending names no picture, or matplotlib is not installed.
    """
    if Path(target).suffix.lower() not in FORMATS:
        raise ConfigError(f"a plot is written as .svg or .png, not as '{Path(target).name}'; name such a file")
    _matplotlib()


def plot(document: Mapping[str, Any], target: str) -> None:
    """Draw the history of a credit document.

    Raises:
        ConfigError: the file may not be written.
    """
    mpl, module = _matplotlib()
    points = document["history"]
    moments = [datetime.fromtimestamp(min(point["time_ms"], LAST_MS) / 1000, UTC).astimezone() for point in points]
    balances = [point["balance_micro"] / CREDIT for point in points]
    path = Path(target)
    with mpl.rc_context(STYLE):
        figure = module.Figure(figsize=SIZE_INCHES)
        figure.set_layout_engine("constrained")
        axes = figure.subplots()
        axes.step(moments, balances, where="post", color="#2a6fdb", linewidth=1.4)
        axes.fill_between(moments, balances, step="post", color="#2a6fdb", alpha=0.15, linewidth=0)
        axes.axhline(0, color="#888888", linewidth=0.8)
        axes.set_ylabel("credits")
        axes.set_title(f"Balance of account {document['account'][:12]}")
        dates = importlib.import_module("matplotlib.dates")
        locator = dates.AutoDateLocator(tz=moments[-1].tzinfo)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator, tz=moments[-1].tzinfo))
        try:
            figure.savefig(path, dpi=DPI, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)
        except OSError as error:
            raise ConfigError(f"cannot write {path}: {(error.strerror or str(error)).lower()}") from error


def _matplotlib() -> tuple[Any, Any]:
    try:
        return importlib.import_module("matplotlib"), importlib.import_module("matplotlib.figure")
    except ImportError as error:
        advice = "install it with 'pip install matplotlib'"
        raise ConfigError(f"plots need matplotlib, of the extra 'sim', which is not installed; {advice}") from error
