"""Plain text that is safe to draw: every function here returns printable text of a known width.

Widths are terminal cells, not characters: a CJK character or an emoji takes two.
"""

import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from rich.cells import cell_len

# A peer chooses its agent string and the words of its errors; more than this is not read at all.
_REMOTE_TEXT_MAX = 2000
_BLOCKS = " ▁▂▃▄▅▆▇█"
_STEPS = len(_BLOCKS) - 1


def cells(text: str) -> int:
    """Width of ``text`` on a terminal."""
    return cell_len(text)


@lru_cache(maxsize=2048)
def clean(text: str) -> str:
    """One printable line: no control or bidirectional characters, no stacked marks, no line breaks."""
    kept: list[str] = []
    for character in unicodedata.normalize("NFC", text[:_REMOTE_TEXT_MAX]):
        category = unicodedata.category(character)
        if character.isspace():
            kept.append(" ")
        elif category in ("Cc", "Cs", "Co", "Cn"):
            kept.append("\N{REPLACEMENT CHARACTER}")
        elif category not in ("Cf", "Mn", "Me"):
            kept.append(character)
    return "".join(kept).strip()


def take(text: str, width: int) -> str:
    """The longest prefix of ``text`` that is at most ``width`` cells wide."""
    if cells(text) <= width:
        return text
    used = 0
    for position, character in enumerate(text):
        used += cells(character)
        if used > width:
            return text[:position]
    return text


def shorten(text: str, width: int) -> str:
    """``text`` in at most ``width`` cells; what does not fit becomes an ellipsis."""
    if cells(text) <= width:
        return text
    if width < 1:
        return ""
    return take(text, width - 1).rstrip() + "…"


def pad(text: str, width: int, *, right: bool = False) -> str:
    """``text`` in exactly ``width`` cells, shortened or filled with spaces."""
    text = shorten(text, width)
    fill = " " * (width - cells(text))
    return fill + text if right else text + fill


def wrap(text: str, width: int, *, lines: int | None = None) -> list[str]:
    """``text`` broken between words into rows of at most ``width`` cells.

    With ``lines`` the last of so many rows ends in an ellipsis if words are left over.
    """
    width = max(1, width)
    rows: list[str] = []
    row = ""
    for word in text.split():
        if row and cells(row) + 1 + cells(word) <= width:
            row = f"{row} {word}"
            continue
        if row:
            rows.append(row)
        while cells(word) > width:
            head = take(word, width) or word[0]  # a wide character in a one-cell column still moves on
            rows.append(head)
            word = word[len(head) :]
        row = word
    if row:
        rows.append(row)
    if lines is not None and len(rows) > lines:
        return [*rows[: lines - 1], shorten(" ".join(rows[lines - 1 :]), width)]
    return rows


def plural(count: int, noun: str) -> str:
    """``1 unit``, ``2 units``."""
    return f"{number(count)} {noun}" if count == 1 else f"{number(count)} {noun}s"


def number(value: int) -> str:
    """An integer with thin groups of three digits: ``12 345``."""
    return f"{value:,}".replace(",", " ") if abs(value) >= 10_000 else str(value)


def tally(value: int) -> str:
    """An integer in at most four characters: ``9999``, ``12k``, ``3.4M``."""
    if value < 10_000:
        return str(value)
    for scale, unit in ((1_000, "k"), (1_000_000, "M"), (1_000_000_000, "G")):
        if value < 1_000 * scale:
            return f"{value / scale:.1f}{unit}" if value < 10 * scale else f"{value // scale}{unit}"
    return "many"


def clock_time(seconds: float) -> str:
    """How long something runs, compact and steady in width: ``7 s``, ``3:05``, ``2 h 14``."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d}"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d}"
    return f"{min(999, whole // 86400)} d"


def roughly(seconds: float) -> str:
    """A duration as people say it: ``8 s``, ``3 min``, ``2 h``, ``4 days``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 90 * 60:
        return f"{round(whole / 60)} min"
    if whole < 36 * 3600:
        return f"{round(whole / 3600)} h"
    return f"{round(whole / 86400)} days"


def size(byte_count: int) -> str:
    """Memory in MB, or GB from 10 GB on."""
    megabytes = byte_count / 1e6
    return f"{megabytes:.0f} MB" if megabytes < 10_000 else f"{megabytes / 1000:.1f} GB"


def latency(milliseconds: float | None) -> str:
    """A round trip: ``0.4 ms``, ``12 ms``, ``1.3 s``; a dash while it is unknown."""
    if milliseconds is None:
        return "–"
    if milliseconds < 1:
        return f"{milliseconds:.1f} ms"
    return f"{milliseconds:.0f} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.1f} s"


def credit(micro: int) -> str:
    """Credit with two decimals, never more than there is, so rounded towards zero; below 0.01 exactly."""
    sign = "-" if micro < 0 else ""
    if 0 < abs(micro) < 10_000:
        return f"{sign}0.{abs(micro):06}".rstrip("0")
    cents = abs(micro) // 10_000
    return f"{sign}{number(cents // 100)}.{cents % 100:02d}"


def bar(share: float, width: int) -> tuple[str, str]:
    """A progress bar as its done and its open part; they differ in shape, not only in colour."""
    halves = round(min(1.0, max(0.0, share)) * width * 2)
    done = "━" * (halves // 2) + ("╸" if halves % 2 else "")
    return done, "─" * (width - len(done))


def sparkline(values: Sequence[float], width: int, rows: int = 1) -> list[str]:
    """The newest ``width`` values (0 to 100) as block characters, top row first, the newest at the right."""
    shown = list(values)[-width:]
    levels = [
        # The lowest row never goes blank: a flat line at the bottom says "measured, idle".
        max(1, min(rows * _STEPS, round(min(100.0, max(0.0, value)) / 100 * rows * _STEPS)))
        for value in shown
    ]
    picture = []
    for row in range(rows - 1, -1, -1):
        blocks = (_BLOCKS[min(_STEPS, max(0, level - row * _STEPS))] for level in levels)
        picture.append("".join(blocks).rjust(width))
    return picture
