"""Colours escape counts and writes them as PNG."""

from array import array
from bisect import bisect_right
from io import BytesIO
from itertools import accumulate
from math import log

# Position in 0..1 and colour: deep blue, blue, white, gold, brown, back to deep blue.
_STOPS = (
    (0.0, (4, 6, 44)),
    (0.16, (28, 84, 178)),
    (0.42, (228, 246, 252)),
    (0.64, (255, 176, 16)),
    (0.86, (112, 24, 20)),
    (1.0, (4, 6, 44)),
)
_INSIDE = (0, 0, 0)
_ROWS_AT_ONCE = 64
_RIM = 0.995  # share of the outside pixels below the rim, where the palette ends


def png(width: int, height: int, counts: "array[int]", limit: int) -> bytes:
    """A PNG of the counts, row by row; counts of ``limit`` are inside and black.

    A colour follows mostly the logarithm of its count (the few low counts of a wide view then pass gently
    into each other) and partly its rank among all outside pixels (which spreads the counts of a deep one).
    """
    from PIL import Image

    palette = _palette(counts, limit)
    picture = Image.new("RGB", (width, height))
    for top in range(0, height, _ROWS_AT_ONCE):
        rows = min(_ROWS_AT_ONCE, height - top)
        band = counts[top * width : (top + rows) * width]
        colours = b"".join(map(palette.__getitem__, band))
        picture.paste(Image.frombytes("RGB", (width, rows), colours), (0, top))
    file = BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _palette(counts: "array[int]", limit: int) -> list[bytes]:
    """The colour of each count from 0 to ``limit``."""
    histogram = [0] * (limit + 1)
    for count in counts:
        histogram[count] += 1
    below = list(accumulate(histogram[:limit], initial=0))  # below[count]: outside pixels with less
    outside = max(below[-1], 1)
    lowest = max(bisect_right(below, 0) - 1, 1)
    high = max(bisect_right(below, _RIM * outside), lowest + 1)
    scale = log(high / lowest)

    def position(count: int) -> float:
        by_rank = (below[count] / outside) ** 2
        by_growth = min(max(log(max(count, 1) / lowest) / scale, 0.0), 1.0)
        return by_rank / 5 + by_growth * 4 / 5

    return [_colour(position(count)) for count in range(limit)] + [bytes(_INSIDE)]


def _colour(position: float) -> bytes:
    """The palette's colour at a position in 0..1, linear between its stops."""
    upper = min(bisect_right(_STOPS, position, key=lambda stop: stop[0]), len(_STOPS) - 1)
    (left, first), (right, second) = _STOPS[upper - 1], _STOPS[upper]
    share = (position - left) / (right - left)
    return bytes(round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
