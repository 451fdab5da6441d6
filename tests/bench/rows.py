"""What a measurement says, and whether that is good enough: figures, bars, the table, the JSON. No I/O."""

import contextlib
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Row:
    """One figure.

    ``bar`` and ``stretch`` are limits of the ratio if ``judged`` says so, else of the value: upper ones, or lower
    ones of an ``at_least`` row. Without a bar the row only informs. A figure exactly at its bar passes; a bar on the
    ratio is missed while the alternative is ``lacking``.
    """

    name: str
    value: float
    unit: str
    baseline: float | None = None
    bar: float | None = None
    stretch: float | None = None
    judged: Literal["value", "ratio"] = "value"
    against: str = ""  # what the baseline is
    spread: tuple[float, float] | None = None  # of the middle half of the repetitions
    least: float | None = None  # of all repetitions: what other programs' work has disturbed the least
    repeated: int = 1
    attempts: int = 1  # how often all repetitions were done
    load: float | None = None  # of the machine when the measurement began, per minute
    at_least: bool = False  # more is better
    lacking: str = ""  # why the alternative could not be measured
    measured: str = ""  # on which day

    def __post_init__(self) -> None:
        if self.judged == "ratio" and self.bar is not None and not (self.baseline or self.lacking):
            raise ValueError(f"{self.name} is judged by its ratio but has nothing to compare with")

    @property
    def ratio(self) -> float | None:
        """Value over baseline."""
        return self.value / self.baseline if self.baseline else None

    @property
    def figure(self) -> float:
        """What the bar is about."""
        return self.value if self.judged == "value" or self.ratio is None else self.ratio

    @property
    def ok(self) -> bool | None:
        """Whether the bar is kept; None without one."""
        if self.bar is None:
            return None
        return not (self.lacking and self.judged == "ratio") and self._keeps(self.bar)

    def _keeps(self, limit: float) -> bool:
        return self.figure >= limit if self.at_least else self.figure <= limit

    def beats(self, other: "Row") -> bool:
        """Whether this is the better figure of the two."""
        return self.figure > other.figure if self.at_least else self.figure < other.figure

    @property
    def verdict(self) -> str:
        """In a word."""
        if self.ok is None:
            return ""
        if not self.ok:
            return "MISS"
        return "pass+" if self.stretch is not None and self._keeps(self.stretch) else "pass"

    def under(self, load: float, day: str = "") -> "Row":
        """The same row, measured on this day while the machine had this load."""
        return replace(self, load=round(load, 2), measured=day)


def median_row(
    name: str,
    unit: str,
    values: Sequence[float],
    baselines: Sequence[float] = (),
    *,
    bar: float | None = None,
    stretch: float | None = None,
    judged: Literal["value", "ratio"] = "value",
    against: str = "",
    at_least: bool = False,
    lacking: str = "",
) -> Row:
    """A row of the medians, with the quartiles as its spread."""
    return Row(
        name,
        statistics.median(values),
        unit,
        statistics.median(baselines) if baselines else None,
        bar,
        stretch,
        judged,
        against,
        quartiles(values),
        min(values),
        len(values),
        at_least=at_least,
        lacking=lacking,
    )


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """First and third; of fewer than four values the extremes."""
    if len(values) < 4:
        return min(values), max(values)
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share (0 to 1) of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    rank = -int(-share * len(ordered) // 1)
    return ordered[max(0, rank - 1)]


def missed(rows: Sequence[Row]) -> list[str]:
    """Names of the rows beyond their bar."""
    return [row.name for row in rows if row.ok is False]


def better(first: Sequence[Row], second: Sequence[Row]) -> list[Row]:
    """Of two attempts at the same rows the better of each that has a bar, else the later one."""
    earlier = {row.name: row for row in first}
    chosen = []
    for row in second:
        known = earlier.get(row.name, row)
        best = known if row.ok is not None and known.beats(row) else row
        chosen.append(replace(best, attempts=known.attempts + 1))
    return chosen


def as_json(rows: Sequence[Row]) -> str:
    """The rows as a JSON list."""
    return json.dumps([_document(row) for row in rows], indent=1) + "\n"


def _document(row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "value": _rounded(row.value),
        "unit": row.unit,
        "baseline": _rounded(row.baseline),
        "ratio": _rounded(row.ratio),
        "bar": row.bar,
        "ok": row.ok,
        "stretch": row.stretch,
        "judged": row.judged,
        "against": row.against or None,
        "spread": None if row.spread is None else [_rounded(edge) for edge in row.spread],
        "least": _rounded(row.least),
        "repeated": row.repeated,
        "attempts": row.attempts,
        "load": row.load,
        "at_least": row.at_least,
        "lacking": row.lacking or None,
        "measured": row.measured or None,
    }


def from_json(text: str) -> list[Row]:
    """The rows of such a list, as exact as it says. Raises ValueError: it is none, or of another version."""
    try:
        documents = json.loads(text)
        if not isinstance(documents, list):
            raise TypeError("it is no list")
        return [_row(document) for document in documents]
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"no figures of this version: {error}") from error


def _row(document: dict[str, Any]) -> Row:
    known = {field.name for field in fields(Row)}
    values = {name: value for name, value in document.items() if name in known}
    for name in ("against", "lacking", "measured"):
        values[name] = values.get(name) or ""
    if values["spread"] is not None:
        values["spread"] = tuple(values["spread"])
    return Row(**values)


def merge(old: str, new: str) -> str:
    """The old list with the new one's rows in the places of those of the same name: a partial run keeps the rest."""
    rows: dict[str, Any] = {}
    with contextlib.suppress(ValueError, TypeError, KeyError):  # a file of another version, or cut off
        rows = {document["name"]: document for document in json.loads(old)}
    rows |= {document["name"]: document for document in json.loads(new)}
    return json.dumps(list(rows.values()), indent=1) + "\n"


def _rounded(number: float | None) -> float | None:
    return None if number is None else float(f"{number:.4g}")


def table(rows: Sequence[Row]) -> str:
    """The rows for people."""
    head = ("name", "value", "spread", "least", "unit", "baseline", "ratio", "bar", "stretch", "", "against")
    lines = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    right = {1, 2, 3, 5, 6, 7, 8}
    text = [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([text[0], "─" * max(map(len, text)), *text[1:]])


def _cells(row: Row) -> tuple[str, ...]:
    sign = "×" if row.judged == "ratio" else ""
    limit = "≥" if row.at_least else "≤"
    return (
        row.name,
        _short(row.value),
        "" if row.spread is None else f"{_short(row.spread[0])}–{_short(row.spread[1])}",
        _short(row.least),
        row.unit,
        _short(row.baseline),
        "" if row.ratio is None else f"{_short(row.ratio)}×",
        "" if row.bar is None else f"{limit} {_short(row.bar)}{sign}",
        "" if row.stretch is None else f"{limit} {_short(row.stretch)}{sign}",
        row.verdict,
        f"{row.against} ({row.lacking})" if row.lacking else row.against,
    )


def _short(number: float | None) -> str:
    """Three significant figures, without an exponent."""
    if number is None:
        return ""
    if abs(number) >= 100:
        return f"{number:.0f}"
    return f"{number:.3g}"
