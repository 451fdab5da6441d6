"""The figures of ``docs/reference/benchmarks.md``: written from ``bench/results.json``, never by hand. No I/O."""

from collections.abc import Sequence

from tests.bench.rows import Row, table

BEGIN = "<!-- figures: 'python3 run.py bench --publish' writes them -->"
END = "<!-- end of the figures -->"


def with_figures(page: str, rows: Sequence[Row], machine: str) -> str:
    """The page with this table instead of the one that it has. Raises ValueError: it has no place for one."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page lacks '{BEGIN}' or '{END}'")
    days = sorted({row.measured for row in rows if row.measured})
    when = f", measured {' to '.join(dict.fromkeys((days[0], days[-1])))}" if days else ""
    return f"{before}{BEGIN}\n\n{machine}{when}.\n\n```text\n{table(rows)}\n```\n\n{END}{after}"
