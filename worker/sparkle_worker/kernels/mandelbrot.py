"""Draws the Mandelbrot set in fixed-point integers, so that every machine gets the same bits.

Numbers are 64-bit integers in units of 2^-28. With ``|c| <= 4`` in each coordinate, a point that has not
escaped has ``|z| <= 2``, so the next coordinates are at most 4 + 4 = 8 and their squares at most
64 · 2^56 = 2^62: nothing overflows before the escape test sees it.
"""

import hashlib
import sys
from array import array
from collections.abc import Mapping, Sequence
from fractions import Fraction
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from sparkle_protocol.errors import ConfigError, VerificationError
from sparkle_worker.kernels.base import Combined, Cost, Params, Progress
from sparkle_worker.kernels.mandelbrot_png import png
from sparkle_worker.kernels.parameters import check_names, decimal_text, whole_number
from sparkle_worker.kernels.splitting import FAIR_UNITS, check_unit, cut

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FRACTION_BITS = 28
ONE = 1 << FRACTION_BITS
COORDINATE_LIMIT = 4  # see above
FINEST_STEP = 8  # a pixel is at least 8 units wide: below, rounding would show as blocks
MAX_RESULT_BYTES = 64_000  # so that a result and its envelope fit one 64 KiB message
MAX_SIDE = 32_000  # one row must fit one result
MAX_PIXELS = 2**26  # the combined picture is made in memory: 128 MB of counts, 192 MB of colours
MAX_ITER = 2**16 - 1
BAND_PIXELS = 2**14  # pixels computed together: eight 128 kB arrays fit a second-level cache

_LITTLE = sys.byteorder == "little"


class Mandelbrot:
    """``mandelbrot(width, height, x, y, scale, max_iter)``: escape counts of a view of the Mandelbrot set.

    Result bytes of a unit: its rows from top to bottom, each pixel from left to right as a little-endian
    unsigned 16-bit count. A pixel's count is the least ``n`` with ``|z_n| > 2``, where ``z_0 = 0`` and
    ``z_{n+1} = z_n² + c``, or ``max_iter`` if there is none below it; ``worker/README.md`` has the rounding.
    """

    name = "mandelbrot"
    version = 1
    summary = "Draws a view of the Mandelbrot set as a picture."
    parameters: Mapping[str, str] = MappingProxyType(
        {
            "width": "pixels from left to right (default 1600)",
            "height": "pixels from top to bottom (default 1200)",
            "x": "real part of the centre (default -0.65)",
            "y": "imaginary part of the centre (default 0)",
            "scale": "width of the view in the complex plane (default 3.2)",
            "max_iter": "iterations after which a point counts as inside, at most 65535 (default 1000)",
        }
    )
    verification: Literal["exact", "algebraic", "tolerance", "homogeneous"] = "exact"
    cost_law = "10 width height max_iter / 4 (a quarter of the whole view lies inside)"
    example = "sparkle submit mandelbrot -p x=-0.7436 -p y=0.1318 -p scale=0.01 -p max_iter=4000 --wait -o m.png"

    def validate(self, params: Params) -> dict[str, Any]:
        """Sizes as integers; ``x``, ``y``, ``scale`` as exact decimal text; the view within ±4."""
        check_names(self.name, params, self.parameters)
        width = whole_number(self.name, params, "width", 1600, 1, MAX_SIDE)
        height = whole_number(self.name, params, "height", 1200, 1, MAX_SIDE)
        clean: dict[str, Any] = {
            "width": width,
            "height": height,
            "x": decimal_text(self.name, params, "x", "-0.65", -COORDINATE_LIMIT, COORDINATE_LIMIT),
            "y": decimal_text(self.name, params, "y", "0", -COORDINATE_LIMIT, COORDINATE_LIMIT),
            "scale": decimal_text(self.name, params, "scale", "3.2", 0, 2 * COORDINATE_LIMIT),
            "max_iter": whole_number(self.name, params, "max_iter", 1000, 1, MAX_ITER),
        }
        if width * height > MAX_PIXELS:
            raise ConfigError(f"a picture of {width} x {height} is too large; at most {MAX_PIXELS} pixels fit")
        _check_view(_view(clean))
        return clean

    def default_units(self, params: Params) -> int:
        """As many as the result size demands, at least 64 if there are so many rows, more if deep."""
        # 4e8 iterations take 2 to 4 s: what a unit has if all its pixels are inside
        rows = max(1, 4 * 10**8 // (params["width"] * params["max_iter"]))
        units = max(self._least_units(params), -(-params["height"] // rows), FAIR_UNITS)
        return int(min(units, self.max_units(params)))

    def max_units(self, params: Params) -> int:
        """One unit for each row."""
        return int(params["height"])

    def unit(self, params: Params, units: int, index: int) -> dict[str, Any]:
        """Rows ``row_start`` to ``row_stop`` of the picture; the view as integers in units of 2^-28."""
        check_unit(self.name, units, index, self.max_units(params))
        least = self._least_units(params)
        if units < least:
            raise ConfigError(f"this picture needs at least {least} units, because a unit's result is at most 64 kB")
        first, end = cut(0, params["height"], units, index)
        return {**_view(params), "max_iter": params["max_iter"], "row_start": first, "row_stop": end}

    def cost(self, unit: Params) -> Cost:
        """Ten integer operations for each iteration; a quarter of the pixels need all of them."""
        pixels = unit["width"] * (unit["row_stop"] - unit["row_start"])
        flops = 10 * pixels * max(unit["max_iter"], 4) // 4
        return Cost(flops=float(flops), bytes=float(2 * pixels), memory_bytes=2**22 + 8 * unit["width"] + 2 * pixels)

    def compute(self, unit: Params, progress: Progress) -> bytes:
        """Counts of the unit's rows."""
        import numpy as np

        clean = _check_unit_params(unit)
        width, first, end = clean["width"], clean["row_start"], clean["row_stop"]
        real, imaginary = _axes(clean)
        counts = np.empty((end - first, width), dtype="<u2")
        band = max(1, BAND_PIXELS // width)
        for row in range(first, end, band):
            rows = slice(row - first, min(row + band, end) - first)
            c_imaginary = np.repeat(imaginary[first:end][rows], width)
            c_real = np.tile(real, len(c_imaginary) // width)
            counts[rows] = _escape_counts(c_real, c_imaginary, clean["max_iter"]).reshape(-1, width)
            progress(rows.stop / (end - first))
        return counts.tobytes()

    def check_result(self, unit: Params, result: bytes) -> None:
        """Two bytes for each pixel, every count between 1 and ``max_iter``."""
        expected = 2 * unit["width"] * (unit["row_stop"] - unit["row_start"])
        if len(result) != expected:
            raise VerificationError(f"these rows of the picture have {expected} bytes, not {len(result)}")
        counts = _counts(result)
        if min(counts) < 1 or max(counts) > unit["max_iter"]:
            raise VerificationError(f"a count of the picture is not between 1 and {unit['max_iter']}")

    def combine(self, params: Params, units: int, results: Sequence[bytes]) -> Combined:
        """The picture as PNG, and its size, range of counts and the SHA-256 of all result bytes."""
        width, height, limit = params["width"], params["height"], params["max_iter"]
        pixels = b"".join(results)
        if len(results) != units or len(pixels) != 2 * width * height:
            raise VerificationError(f"{len(results)} results with {len(pixels)} bytes do not make this picture")
        counts = _counts(pixels)
        summary = {
            "width": width,
            "height": height,
            "min": min(counts),
            "max": max(counts),
            "inside": counts.count(limit),
            "sha256": hashlib.sha256(pixels).hexdigest(),
        }
        return Combined(summary, "image/png", png(width, height, counts, limit))

    def _least_units(self, params: Params) -> int:
        """Fewest units whose results stay within the limit."""
        rows = MAX_RESULT_BYTES // (2 * params["width"])
        return int(-(-params["height"] // rows))


def _counts(pixels: bytes) -> "array[int]":
    """Little-endian 16-bit counts as machine integers."""
    counts = array("H", pixels)
    if not _LITTLE:
        counts.byteswap()
    return counts


def _view(params: Params) -> dict[str, int]:
    """The view in integers: rounded to the nearest unit of 2^-28, halves to even."""
    fixed = {f"{name}_fixed": round(Fraction(params[name]) * ONE) for name in ("x", "y", "scale")}
    return {"width": params["width"], "height": params["height"], **fixed}


def _check_view(view: Mapping[str, int]) -> None:
    """Refuse a view that is too fine for the number format or leaves the plane's part of ±4.

    Raises:
        ConfigError: says what to change.
    """
    width, height, scale = view["width"], view["height"], view["scale_fixed"]
    if scale < FINEST_STEP * width:
        smallest = FINEST_STEP * width / ONE
        raise ConfigError(f"'scale' of mandelbrot is too small for {width} pixels; use at least {smallest:.1g}")
    reach_x = abs(view["x_fixed"]) + scale // 2
    reach_y = abs(view["y_fixed"]) + scale * height // (2 * width)
    if max(reach_x, reach_y) >= COORDINATE_LIMIT * ONE:
        raise ConfigError("the view of mandelbrot must lie within ±4; choose a smaller 'scale' or another centre")


def _check_unit_params(unit: Params) -> dict[str, int]:
    """A unit's parameters as it came from ``unit``; anything else is refused.

    Raises:
        ConfigError: a name, type or range is wrong.
    """
    bound = 2 * COORDINATE_LIMIT * ONE
    limits = {
        "width": (1, MAX_SIDE),
        "height": (1, MAX_SIDE),
        "x_fixed": (-bound, bound),
        "y_fixed": (-bound, bound),
        "scale_fixed": (1, bound),
        "max_iter": (1, MAX_ITER),
        "row_start": (0, MAX_SIDE),
        "row_stop": (1, MAX_SIDE),
    }
    check_names("a mandelbrot unit", unit, limits)
    clean = {n: whole_number("a mandelbrot unit", unit, n, None, low, high) for n, (low, high) in limits.items()}
    _check_view(clean)
    rows = clean["row_stop"] - clean["row_start"]
    if rows < 1 or clean["row_stop"] > clean["height"] or 2 * clean["width"] * rows > MAX_RESULT_BYTES:
        raise ConfigError("the rows of a mandelbrot unit must lie in the picture and fit 64 kB")
    return clean


def _axes(unit: Mapping[str, int]) -> tuple["NDArray[np.int64]", "NDArray[np.int64]"]:
    """Real parts of the columns and imaginary parts of the rows, at pixel centres, rounded down."""
    import numpy as np

    width, height, scale = unit["width"], unit["height"], unit["scale_fixed"]
    columns = 2 * np.arange(width, dtype=np.int64) + 1 - width
    rows = height - 1 - 2 * np.arange(height, dtype=np.int64)
    return unit["x_fixed"] + columns * scale // (2 * width), unit["y_fixed"] + rows * scale // (2 * width)


def _escape_counts(
    c_real: "NDArray[np.int64]", c_imaginary: "NDArray[np.int64]", max_iter: int
) -> "NDArray[np.uint16]":
    """Escape count of every point; escaped points leave the arrays at once."""
    import numpy as np

    counts = np.full(len(c_real), max_iter, dtype=np.uint16)
    place = np.arange(len(c_real))
    real, imaginary = c_real.copy(), c_imaginary.copy()  # z_1
    for iteration in range(1, max_iter):
        real_squared = (real * real) >> FRACTION_BITS
        imaginary_squared = (imaginary * imaginary) >> FRACTION_BITS
        stays = real_squared + imaginary_squared <= 4 * ONE
        if not stays.all():
            counts[place[~stays]] = iteration
            place, c_real, c_imaginary = place[stays], c_real[stays], c_imaginary[stays]
            real, imaginary = real[stays], imaginary[stays]
            real_squared, imaginary_squared = real_squared[stays], imaginary_squared[stays]
            if not len(place):
                break
        imaginary *= real
        imaginary >>= FRACTION_BITS - 1
        imaginary += c_imaginary
        np.subtract(real_squared, imaginary_squared, out=real)
        real += c_real
    return counts
