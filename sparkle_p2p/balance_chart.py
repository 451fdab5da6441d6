"""A balance over time as rows of block characters, for commands and the screen. Integers only, however large."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

_BLOCKS = " ▁▂▃▄▅▆▇█"
_STEPS = len(_BLOCKS) - 1
_DAY_S = 86_400
_SHORT_S = 600


@dataclass(frozen=True, slots=True)
class Chart:
    """Rows from the top down, all of one width, between these two balances and moments."""

    rows: tuple[str, ...]
    top_micro: int
    bottom_micro: int
    since_ms: int
    until_ms: int


def chart(points: Sequence[tuple[int, int]], width: int, height: int) -> Chart | None:
    """Draw points (time in ms, balance), times ascending; None when there was no movement to draw.

    Each column shows the balance at the end of its part of the time. The lowest balance still has a mark, so that a
    blank means nothing but "above the balance".
    """
    if len(points) < 2 or width < 1 or height < 1:
        return None
    since, until = points[0][0], points[-1][0]
    columns = _columns(points, width)
    top, bottom = max(columns), min(columns)
    full = height * _STEPS
    if top == bottom:
        levels = [full // 2] * width
    else:
        levels = [1 + (value - bottom) * (full - 1) // (top - bottom) for value in columns]
    rows = []
    for row in range(height - 1, -1, -1):
        rows.append("".join(_BLOCKS[min(_STEPS, max(0, level - row * _STEPS))] for level in levels))
    return Chart(tuple(rows), top, bottom, since, until)


def _columns(points: Sequence[tuple[int, int]], width: int) -> list[int]:
    """The balance at the end of each of so many equal parts of the time."""
    since, span = points[0][0], points[-1][0] - points[0][0]
    columns, at = [], 0
    for column in range(width):
        end = since + span * (column + 1) // width
        while at + 1 < len(points) and points[at + 1][0] <= end:
            at += 1
        columns.append(points[at][1])
    return columns


def times(drawn: Chart) -> tuple[str, str]:
    """When it begins and ends, in this machine's zone: with the day where that differs."""
    ends = [_moment(drawn.since_ms), _moment(drawn.until_ms)]
    if None in ends:
        return "", ""
    first, last = (one for one in ends if one is not None)
    if (last - first).total_seconds() > 30 * _DAY_S:
        form = "%Y-%m-%d"
    elif (last - first).total_seconds() < _SHORT_S:
        form = "%H:%M:%S"
    else:
        form = "%H:%M" if first.date() == last.date() else "%m-%d %H:%M"
    return first.strftime(form), last.strftime(form)


def _moment(time_ms: int) -> datetime | None:
    try:
        return datetime.fromtimestamp(time_ms / 1000).astimezone()
    except (ValueError, OverflowError, OSError):  # what somebody's clock said
        return None
