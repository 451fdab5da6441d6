"""What a validation found, as a table, as CSV and as a part of a page. No I/O."""

import csv
import io
from collections.abc import Sequence

from sparkle_sim.laws.law import Outcome, Point

BEGIN = "<!-- laws: 'sparkle-sim validate --publish' writes them -->"
END = "<!-- end of the laws -->"
HEADINGS = ("law", "setting", "expected", "ours", "verdict")
COLUMNS = ("law", "series", "setting", "x", "expected", "least", "most", "ours", "ours_low", "ours_high", "verdict")


def table(outcomes: Sequence[Outcome]) -> str:
    """One line for each figure, in columns."""
    rows = [HEADINGS, *(row for outcome in outcomes for row in _rows(outcome))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def as_csv(outcomes: Sequence[Outcome]) -> str:
    """All figures with all that is known of them."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for outcome in outcomes:
        for point in outcome.points:
            writer.writerow(as_row(outcome, point).values())
    return text.getvalue()


def as_row(outcome: Outcome, point: Point) -> dict[str, str | float | None]:
    """A figure by the names of ``COLUMNS``; nothing infinite is in it."""
    ours = point.ours
    values = (
        outcome.law.name, point.series, point.setting, point.x, point.expected,
        _finite(point.least), _finite(point.most), ours.value, _finite(ours.low), _finite(ours.high), point.verdict,
    )  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def as_json(outcomes: Sequence[Outcome]) -> list[dict[str, object]]:
    """The same as plain values, with what each law says and where it is from."""
    return [
        {
            "law": outcome.law.name,
            "formula": outcome.law.formula,
            "source": outcome.law.source,
            "criterion": outcome.law.criterion,
            "verdict": outcome.verdict,
            "figures": [as_row(outcome, point) for point in outcome.points],
        }
        for outcome in outcomes
    ]


def with_laws(page: str, outcomes: Sequence[Outcome], pictures: str) -> str:
    """The page with these outcomes instead of the ones that it has.

    Args:
        page: Markdown with the two markers.
        outcomes: of all laws.
        pictures: where the plots are, as the page sees it; empty: there are none.

    Raises:
        ValueError: the page has no place for them.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page lacks '{BEGIN}' or '{END}'")
    sections = "\n".join(_section(outcome, pictures) for outcome in outcomes)
    return f"{before}{BEGIN}\n\n{sections}\n{END}{after}"


def _section(outcome: Outcome, pictures: str) -> str:
    law = outcome.law
    lines = [
        f"### {law.title}",
        "",
        f"`{law.formula}`",
        "",
        f"- **Source**: {law.source}.",
        f"- **Experiment**: {law.experiment}",
        f"- **Agrees when**: {law.criterion}",
        f"- **Verdict**: {outcome.verdict}.",
        "",
        "| setting | expected | ours | verdict |",
        "|---|---|---|---|",
        *(f"| {' | '.join(row[1:])} |" for row in _rows(outcome)),
        "",
    ]
    if pictures:
        lines += [f"![{law.title}]({pictures}/{picture_name(outcome)})", ""]
    return "\n".join(lines)


def picture_name(outcome: Outcome) -> str:
    """The file of a law's plot in the documents."""
    return f"law-{outcome.law.name}.svg"


def _rows(outcome: Outcome) -> list[tuple[str, ...]]:
    return [
        (outcome.law.name, point.setting, _expected(point), _ours(point), point.verdict) for point in outcome.points
    ]


def _expected(point: Point) -> str:
    value = f"{point.expected:.4g}"
    if point.least == point.most:
        return value
    if _finite(point.least) is None:
        return f"≤ {value}"
    return f"{value} ({point.least:.4g} to {point.most:.4g})"


def _ours(point: Point) -> str:
    ours = point.ours
    return f"{ours.value:.4g} ({ours.low:.4g} to {ours.high:.4g})"


def _finite(value: float) -> float | None:
    return value if abs(value) < float("inf") else None
