"""Where the sections go: heights for the terminal's size, so that no row is ever cut in half.

Style sheets can stack boxes but not decide which of them a small terminal should rather do without. These
rules do: every section asks for the rows that it wants, the focused one is served first, then the others in
order of importance, row by row; one that gets less than its least is hidden, the last takes what is left.
"""

from collections.abc import Sequence
from dataclasses import dataclass

# Two columns of 48 cells hold every row unshortened; below 28 rows frames would cost more than they give.
WIDE = 96
TALL = 28


@dataclass(frozen=True, slots=True)
class Geometry:
    """What follows from the terminal's size alone."""

    width: int
    height: int

    @property
    def wide(self) -> bool:
        """Two columns instead of one stack."""
        return self.width >= WIDE

    @property
    def boxed(self) -> bool:
        """Sections have a frame; otherwise a rule above them, which costs one row and not two."""
        return self.wide and self.height >= TALL

    @property
    def chrome(self) -> int:
        """Rows of a section that its frame or rule takes."""
        return 2 if self.boxed else 1

    @property
    def columns(self) -> tuple[int, int]:
        """Widths of the left and the right column (both the full width when stacked)."""
        if not self.wide:
            return self.width, self.width
        left = (self.width + 1) // 2
        return left, self.width - left

    def inner(self, column: int) -> int:
        """Cells for text in a section of a column: without frame, padding and scroll bar."""
        return max(10, column - (4 if self.boxed else 2) - 1)


@dataclass(frozen=True, slots=True)
class Want:
    """A section's claim, in rows without its frame. ``least`` is what makes it worth showing at all."""

    name: str
    rows: int
    least: int = 1


def allot(wants: Sequence[Want], available: int, chrome: int, focus: str | None = None) -> dict[str, int]:
    """Heights (with frame) of stacked sections, most important first; hidden ones get 0.

    The sum is exactly ``available`` if anything is shown: the last section shown takes the rest.
    """
    served = sorted(wants, key=lambda want: want.name != focus)
    heights = dict.fromkeys((want.name for want in wants), 0)
    left = available
    for want in served:
        if want.rows and left >= want.least + chrome:
            heights[want.name] = want.least + chrome
            left -= want.least + chrome
    missing = {want.name: want.rows - want.least for want in served if heights[want.name]}
    if focus in missing:
        more = min(left, missing.pop(focus))
        heights[focus] += more
        left -= more
    while left and any(rows > 0 for rows in missing.values()):
        for name in [name for name, rows in missing.items() if rows > 0][:left]:
            heights[name] += 1
            missing[name] -= 1
            left -= 1
    shown = [want.name for want in wants if heights[want.name]]
    if shown:
        heights[shown[-1]] += left
    return heights


def arrange(
    geometry: Geometry, counts: dict[str, int], available: int, *, alone: bool, focus: str | None
) -> dict[str, int]:
    """Heights of units, jobs, peers and log, given how many rows each of the first three has."""
    chrome = geometry.chrome
    log = Want("log", 200 if focus == "log" else 3)
    units, jobs = Want("units", counts["units"]), Want("jobs", counts["jobs"])
    # A cut hint helps nobody; of a list of peers the first row is already worth its rule.
    peers = Want("peers", counts["peers"], least=min(7, counts["peers"]) if alone else 1)
    if not geometry.wide:
        ordered = [peers, units, jobs, log] if alone else [units, jobs, peers, log]
        return allot(ordered, available, chrome, focus)
    log_rows = available // 2 if focus == "log" else max(3 + chrome, available // 3)
    wanted = max(counts["units"] + counts["jobs"] + 2 * chrome, counts["peers"] + chrome)
    upper = max(0, min(max(wanted, available * 2 // 5), available - log_rows))
    heights = allot([units, jobs], upper, chrome, focus)
    return {**heights, "peers": upper if upper > chrome else 0, "log": max(0, available - upper)}
