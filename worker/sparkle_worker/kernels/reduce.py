"""Sums, means, maxima and minima along one axis or over everything.

An array of any shape is ``outer x length x inner`` around the axis that goes away. Jobs are cut along the outer
axes, or else the inner ones, or else the reduced axis itself, whose partial results are combined at the end.
Sums are kept in float64 until the end and rounded once.
"""

from collections.abc import Iterable, Iterator, Mapping
from math import prod
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from sparkle_protocol.errors import ConfigError, LocalProtocolError, VerificationError
from sparkle_worker.kernels.arrays import (
    FLOATS,
    ITEM_BYTES,
    MAX_DIMENSIONS,
    MAX_ELEMENTS,
    MAX_TILES,
    ArrayType,
    check_arrays,
    check_inputs,
    gamma,
    shape_text,
    supported,
    tile,
)
from sparkle_worker.kernels.base import Cost, Params, Progress, Verification
from sparkle_worker.kernels.parameters import check_names, choice, show, sizes, whole_number
from sparkle_worker.kernels.splitting import check_unit, cut

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

OPERATIONS = ("sum", "mean", "max", "min")
UNIT_ELEMENTS = 2**25
SHARED_ELEMENTS = 2**20
SHARED_UNITS = 16
BLOCK_ELEMENTS = 2**20

Axis = Literal["outer", "length", "inner"]
_AXES: tuple[Axis, ...] = ("outer", "length", "inner")


class Reduce:
    """``reduce(x, op, axis)``: the sum, mean, maximum or minimum of an array's elements.

    A unit's result is a matrix ``outer x inner``, of float64 for sums and means, of the input's type otherwise.
    NaN wins over every number.
    """

    name = "reduce"
    version = 1
    summary = "Adds up an array, or finds its mean, maximum or minimum, along one axis or as a whole."
    parameters: Mapping[str, str] = MappingProxyType(
        {
            "op": "sum, mean, max or min (default sum)",
            "axis": "the axis that goes away, counted from 0 or from the end (-1), or all (default all)",
        }
    )
    inputs: Mapping[str, str] = MappingProxyType({"x": "array of float32 or float64"})
    optional_inputs: frozenset[str] = frozenset()
    verification: Verification = "tolerance"
    cost_law = "1 for each element"
    error_law = "u |y| + γ Σ|x| for sum (mean: / L), 0 for max and min; γ = L 2^-53 / (1 - L 2^-53), L = terms"
    example = "sparkle submit reduce -p op=mean -p axis=0 --input x=x.npy --wait -o y.npy"

    def with_arrays(self, params: Params, arrays: Mapping[str, ArrayType]) -> dict[str, Any]:
        """The user's parameters with ``shape`` and ``dtype`` of the input; ``axis`` counted from 0."""
        check_names(self.name, params, self.parameters)
        check_inputs(self, arrays)
        x = arrays["x"]
        if not x.shape:
            raise ConfigError("'x' of reduce must have at least one axis, but it is a single number")
        return self.validate({**params, "shape": shape_text(x.shape), "dtype": supported(self.name, "x", x.dtype)})

    def validate(self, params: Params) -> dict[str, Any]:
        """Parameters as ``with_arrays`` made them."""
        check_names(self.name, params, (*self.parameters, "shape", "dtype"))
        shape = sizes(self.name, params, "shape", MAX_DIMENSIONS, MAX_ELEMENTS)
        axis = params.get("axis", "all")
        if axis != "all":
            place = whole_number(self.name, params, "axis", None, -MAX_DIMENSIONS, MAX_DIMENSIONS - 1)
            if not -len(shape) <= place < len(shape):
                raise ConfigError(
                    f"'x' of reduce has {len(shape)} axes ({shape_text(shape)}), so no axis {show(place)}"
                )
            axis = str(place % len(shape))
        return {
            "op": choice(self.name, params, "op", "sum", OPERATIONS),
            "axis": axis,
            "shape": shape_text(shape),
            "dtype": choice(self.name, params, "dtype", None, FLOATS),
        }

    def default_units(self, params: Params) -> int:
        """Units of 32 million elements; 16 as long as each has a million."""
        size = prod(_extent(params))
        wanted = max(-(-size // UNIT_ELEMENTS), min(SHARED_UNITS, size // SHARED_ELEMENTS), 1)
        return min(wanted, self.max_units(params))

    def least_units(self, params: Params, memory_bytes: int) -> int:
        """As many as it takes for the tile and the result of one to fit."""
        most = self.max_units(params)
        low, high = 1, most  # the last unit is as large as any, and falls as units rise along one axis
        while low < high:
            middle = (low + high) // 2
            if self.cost(self.unit(params, middle, middle - 1)).memory_bytes <= memory_bytes:
                high = middle
            else:
                low = middle + 1
        needed = self.cost(self.unit(params, high, high - 1)).memory_bytes
        if needed > memory_bytes:
            raise ConfigError(
                f"the smallest unit of this reduce job needs {-(-needed >> 20)} MB, "
                f"but no worker allows more than {memory_bytes >> 20} MB; cut the job into several"
            )
        return high

    def max_units(self, params: Params) -> int:
        """As many as the longest of the three axes allows, as far as a job can name the tiles."""
        return min(max(_extent(params)), MAX_TILES)

    def unit(self, params: Params, units: int, index: int) -> dict[str, Any]:
        """Sizes of a piece. A mean's unit is a sum."""
        check_unit(self.name, units, index, self.max_units(params))
        extent: dict[str, Any] = dict(zip(_AXES, _extent(params), strict=True))
        axis = _cut_axis(params, units)
        first, end = cut(0, extent[axis], units, index)
        op = "sum" if params["op"] == "mean" else params["op"]
        return {"op": op, **extent, axis: end - first, "dtype": params["dtype"]}

    def cost(self, unit: Params) -> Cost:
        """One operation for each element."""
        size = unit["outer"] * unit["length"] * unit["inner"]
        moved = size * ITEM_BYTES[unit["dtype"]] + self.result_type(unit).nbytes
        return Cost(float(size), float(moved), moved + self.result_type(unit).nbytes + 8 * BLOCK_ELEMENTS)

    def tiles(self, params: Params, units: int, arrays: "Mapping[str, NDArray[Any]]") -> "Iterator[NDArray[Any]]":
        """Pieces in order; inputs that are not in C order are copied as a whole first."""
        whole = arrays["x"].reshape(_extent(params))
        axis = _AXES.index(_cut_axis(params, units))
        for index in range(units):
            first, end = cut(0, whole.shape[axis], units, index)
            yield tile(whole[(slice(None),) * axis + (slice(first, end),)], params["dtype"])

    def unit_inputs(self, params: Params, units: int, index: int) -> tuple[int, ...]:
        """Each unit has a tile of its own."""
        check_unit(self.name, units, index, self.max_units(params))
        return (index,)

    def input_types(self, unit: Params) -> tuple[ArrayType, ...]:
        """A box of outer x length x inner."""
        return (ArrayType(unit["dtype"], (unit["outer"], unit["length"], unit["inner"])),)

    def result_type(self, unit: Params) -> ArrayType:
        """The box without its length."""
        return ArrayType("float64" if unit["op"] == "sum" else unit["dtype"], (unit["outer"], unit["inner"]))

    def output_type(self, params: Params) -> ArrayType:
        """The input's shape without the axis."""
        shape = [int(size) for size in params["shape"].split(" x ")]
        if params["axis"] == "all":
            return ArrayType(params["dtype"], ())
        del shape[int(params["axis"])]
        return ArrayType(params["dtype"], tuple(shape))

    def compute_into(
        self, unit: Params, arrays: "tuple[NDArray[Any], ...]", out: "NDArray[Any]", progress: Progress
    ) -> None:
        """Block by block, sums in float64."""
        import numpy as np

        clean = _unit(unit)
        check_arrays(self, clean, arrays, out)
        outer, length, inner = arrays[0].shape
        together = max(1, BLOCK_ELEMENTS // (length * inner))
        step = max(1, BLOCK_ELEMENTS // inner)
        with np.errstate(all="ignore"):
            for low in range(0, outer, together):
                high = min(low + together, outer)
                for first in range(0, length, step):
                    piece = _reduced(clean["op"], arrays[0][low:high, first : first + step])
                    if first:
                        _combine(clean["op"], out[low:high], piece)
                    else:
                        out[low:high] = piece
                    progress((low + (high - low) * min(first + step, length) / length) / outer)

    def assemble(self, params: Params, units: int, results: "Iterable[NDArray[Any]]", out: "NDArray[Any]") -> None:
        """Pieces to their places, or combined if the reduced axis was cut; then means, and one rounding."""
        import numpy as np

        if not out.flags.c_contiguous:
            raise LocalProtocolError("a result is assembled in C order")
        outer, length, inner = _extent(params)
        axis = _cut_axis(params, units)
        op = "sum" if params["op"] == "mean" else params["op"]
        divisor = length if params["op"] == "mean" else 1
        target, index = out.reshape(outer, inner), -1
        total: NDArray[Any] | None = None
        with np.errstate(all="ignore"):
            for index, block in enumerate(results):
                if axis == "length":
                    total = block.copy() if total is None else total
                    if index:
                        _combine(op, total, block)
                    continue
                first, end = cut(0, outer if axis == "outer" else inner, units, index)
                place = target[first:end] if axis == "outer" else target[:, first:end]
                place[...] = block / divisor if divisor > 1 else block
            if total is not None:
                target[...] = total / divisor if divisor > 1 else total
        if index + 1 != units:
            raise VerificationError(f"the job has {units} units but {index + 1} results")

    def positions_together(self, unit: Params) -> int:
        """Every element has terms of its own."""
        return 1

    def reference(
        self, unit: Params, arrays: "tuple[NDArray[Any], ...]", positions: "NDArray[np.intp]"
    ) -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
        """From the terms of each position, gathered in blocks: a tile may be most of what a checker may use."""
        import numpy as np

        outer, inner = np.divmod(positions, unit["inner"])
        exact, bound = np.empty(len(positions)), np.zeros(len(positions))
        step = max(1, BLOCK_ELEMENTS // unit["length"])
        with np.errstate(all="ignore"):
            for first in range(0, len(positions), step):
                some = slice(first, first + step)
                exact[some], size = _gathered(unit, arrays[0], outer[some], inner[some])
                if unit["op"] == "sum":
                    bound[some] = 2 * gamma(unit["length"], "float64") * size
        return exact, bound


def _unit(unit: Params) -> dict[str, Any]:
    name = "a reduce unit"
    check_names(name, unit, ("op", *_AXES, "dtype"))
    extent: dict[str, Any] = {axis: whole_number(name, unit, axis, None, 1, MAX_ELEMENTS) for axis in _AXES}
    op = choice(name, unit, "op", None, ("sum", "max", "min"))
    return {"op": op, **extent, "dtype": choice(name, unit, "dtype", None, FLOATS)}


def _extent(params: Params) -> tuple[int, int, int]:
    """The array as outer x length x inner around the axis that goes away."""
    shape = [int(size) for size in params["shape"].split(" x ")]
    if params["axis"] == "all":
        return 1, prod(shape), 1
    axis = int(params["axis"])
    return prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])


def _cut_axis(params: Params, units: int) -> Axis:
    """Which axis a job of so many units is cut along."""
    outer, _, inner = _extent(params)
    if outer >= units:
        return "outer"
    return "inner" if inner >= units else "length"


def _reduced(op: str, box: "NDArray[Any]") -> "NDArray[Any]":
    """Without the middle axis."""
    import numpy as np

    if op == "sum":
        total: NDArray[Any] = np.add.reduce(box, axis=1, dtype=np.float64)
        return total
    extreme: NDArray[Any] = box.max(axis=1) if op == "max" else box.min(axis=1)
    return extreme


def _gathered(
    unit: Params, box: "NDArray[Any]", outer: "NDArray[np.intp]", inner: "NDArray[np.intp]"
) -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
    """The results of some elements, and the sums of the sizes of their terms: 0 where a term is not finite."""
    import numpy as np

    total, size, finite = np.empty(len(outer)), np.zeros(len(outer)), np.ones(len(outer), bool)
    for first in range(0, unit["length"], BLOCK_ELEMENTS):
        terms = box[outer, first : first + BLOCK_ELEMENTS, inner].astype(np.float64)
        piece = _reduced(unit["op"], terms[:, :, None])[:, 0]
        if first:
            _combine(unit["op"], total, piece)
        else:
            total[:] = piece
        size += np.abs(terms).sum(axis=1)
        finite &= np.isfinite(terms).all(axis=1)
    # An infinite sum of finite terms has overflowed, which depends on the order.
    return total, np.where(finite, size, 0.0)


def _combine(op: str, total: "NDArray[Any]", piece: "NDArray[Any]") -> None:
    """Two partial results into the first."""
    import numpy as np

    {"sum": np.add, "max": np.maximum, "min": np.minimum}[op](total, piece, out=total)
