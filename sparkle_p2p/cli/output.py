"""How things look in a terminal: aligned tables, short ids, human numbers, colour only where it is wanted."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from sparkle_p2p.api.words import clean as clean
from sparkle_p2p.api.words import duration as duration
from sparkle_p2p.api.words import short_job as short_job

_COLOURS = {"good": "32", "bad": "31", "warn": "33", "dim": "2", "bold": "1"}
_STATE_COLOURS = {
    "working": "good",
    "done": "good",
    "ok": "good",
    "running": "warn",
    "paused": "warn",
    "stopping": "warn",
    "failed": "bad",
    "rejected": "bad",
    "cancelled": "dim",
    "idle": "dim",
}


def wants_colour(stream: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the stream is a terminal whose user has not said no (no-color.org)."""
    return not environ.get("NO_COLOR") and environ.get("TERM") != "dumb" and stream.isatty()


def paint(text: str, colour: str, *, enabled: bool) -> str:
    """``text`` in a colour, if enabled."""
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if enabled and colour in _COLOURS else text


def paint_state(state: str, *, enabled: bool) -> str:
    """A state's word in the colour that it has everywhere."""
    return paint(state, _STATE_COLOURS.get(state, ""), enabled=enabled)


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None) + "\n")


def table(heads: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[int] = ()) -> list[str]:
    """Lines of a table with columns as wide as their widest cell; ``right`` lists right-aligned columns."""
    cells = [[clean(cell) for cell in row] for row in rows]
    widths = [max(len(line[column]) for line in [list(heads), *cells]) for column in range(len(heads))]
    lines = []
    for line in [list(heads), *cells]:
        padded = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        lines.append("  ".join(padded).rstrip())
    return lines


def print_table(heads: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[int] = ()) -> None:
    """The table on stdout, its head dimmed, words of state coloured."""
    colour = wants_colour(sys.stdout)
    head, *body = table(heads, rows, right=right)
    print(paint(head, "dim", enabled=colour))
    for line in body:
        print(_colour_states(line) if colour else line)


def _colour_states(line: str) -> str:
    for state in ("done", "running", "failed", "rejected", "cancelled"):
        before, found, after = line.partition(f"  {state}")
        if found and (not after or after.startswith("  ")):
            return f"{before}  {paint_state(state, enabled=True)}{after}"
    return line


def short_peer(peer: str) -> str:
    """The end of a peer's id: all begin alike."""
    return "…" + peer[-8:] if len(peer) > 9 else peer


def size(size_bytes: float) -> str:
    """``512 B``, ``1.5 kB``, ``100 MB``: decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 999.5 or unit == "GB":
            return f"{size_bytes:.0f} {unit}" if size_bytes >= 99.5 or unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return ""


def numbers(values: Mapping[str, Any]) -> str:
    """``name value`` pairs of a reason, or nothing."""
    return ", ".join(f"{clean(key)} {clean(value)}" for key, value in values.items())


def many(count: int, noun: str, plural: str = "") -> str:
    """``1 unit``, ``2 units``."""
    return f"{count} {noun}" if count == 1 else f"{count} {plural or noun + 's'}"
