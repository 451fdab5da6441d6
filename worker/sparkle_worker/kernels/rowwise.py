"""Kernels that treat each row of an array's last axis alike: ``softmax`` and ``layernorm``.

A tile is a number of whole rows, whatever the other axes are, and so is a result.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sparkle_protocol.errors import ConfigError, LocalProtocolError, VerificationError
from sparkle_worker.kernels.arrays import (
    FLOATS,
    ITEM_BYTES,
    MAX_DIMENSIONS,
    MAX_ELEMENTS,
    MAX_TILES,
    ROUNDING,
    ArrayType,
    check_arrays,
    check_inputs,
    gamma,
    shape_text,
    supported,
    tile,
)
from sparkle_worker.kernels.base import Cost, Params, Progress, Verification
from sparkle_worker.kernels.parameters import check_names, choice, decimal_text, sizes, whole_number
from sparkle_worker.kernels.splitting import check_unit, cut

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

UNIT_ELEMENTS = 2**24  # 0.1 to 0.3 s; moving them takes as long
SHARED_ELEMENTS = 2**18
SHARED_UNITS = 16
BLOCK_ELEMENTS = 2**15  # computed together: the float64 copies stay in the second-level cache
EXP_ROUNDINGS = 8.0  # NumPy's float32 exp is off by 2.5 units in the last place at most, other libraries by up to 4


class _RowKernel(ABC):
    """What the two have in common."""

    name: str
    version = 1
    summary: str
    cost_law: str
    error_law: str
    example: str
    parameters: Mapping[str, str] = MappingProxyType({})
    inputs: Mapping[str, str] = MappingProxyType({"x": "array of float32 or float64; its last axis is a row"})
    optional_inputs: frozenset[str] = frozenset()
    verification: Verification = "tolerance"
    flops_per_element: int

    def own_parameters(self, params: Params) -> dict[str, Any]:
        """The user's parameters, checked."""
        return {}

    @abstractmethod
    def rows_into(self, unit: Params, rows: "NDArray[Any]", out: "NDArray[Any]") -> None:
        """Compute a few rows."""

    @abstractmethod
    def exact_rows(
        self, unit: Params, rows: "NDArray[np.float64]"
    ) -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
        """The same rows in float64, and the error bound of each element."""

    def with_arrays(self, params: Params, arrays: Mapping[str, ArrayType]) -> dict[str, Any]:
        """The user's parameters with ``shape`` and ``dtype`` of the input."""
        check_names(self.name, params, self.parameters)
        check_inputs(self, arrays)
        x = arrays["x"]
        if not x.shape:
            raise ConfigError(f"'x' of {self.name} must have at least one axis, but it is a single number")
        return self.validate({**params, "shape": shape_text(x.shape), "dtype": supported(self.name, "x", x.dtype)})

    def validate(self, params: Params) -> dict[str, Any]:
        """Parameters as ``with_arrays`` made them."""
        check_names(self.name, params, (*self.parameters, "shape", "dtype"))
        shape = sizes(self.name, params, "shape", MAX_DIMENSIONS, MAX_ELEMENTS)
        dtype = choice(self.name, params, "dtype", None, FLOATS)
        return {**self.own_parameters(params), "shape": shape_text(shape), "dtype": dtype}

    def default_units(self, params: Params) -> int:
        """Units of 16 million elements; 16 as long as each has a quarter of a million."""
        rows, length = _rows(params)
        size = rows * length
        wanted = max(-(-size // UNIT_ELEMENTS), min(SHARED_UNITS, size // SHARED_ELEMENTS), 1)
        return min(wanted, self.max_units(params))

    def least_units(self, params: Params, memory_bytes: int) -> int:
        """As many as it takes for the rows of one to fit."""
        rows, length = _rows(params)
        fitting = (memory_bytes - _memory(0, length, params["dtype"])) // (2 * length * ITEM_BYTES[params["dtype"]])
        units = -(-rows // fitting) if fitting > 0 else MAX_TILES + 1
        if units > self.max_units(params):
            needed = _memory(-(-rows // self.max_units(params)), length, params["dtype"])
            raise ConfigError(
                f"the smallest unit of this {self.name} job needs {-(-needed >> 20)} MB, "
                f"but no worker allows more than {memory_bytes >> 20} MB; cut the job into several"
            )
        return int(units)

    def max_units(self, params: Params) -> int:
        """One for each row, as far as a job can name the tiles."""
        return min(_rows(params)[0], MAX_TILES)

    def unit(self, params: Params, units: int, index: int) -> dict[str, Any]:
        """Some of the rows."""
        first, end = self._piece(params, units, index)
        return {
            **self.own_parameters(params),
            "rows": end - first,
            "length": _rows(params)[1],
            "dtype": params["dtype"],
        }

    def cost(self, unit: Params) -> Cost:
        """Proportional to the elements."""
        size = unit["rows"] * unit["length"]
        memory = _memory(unit["rows"], unit["length"], unit["dtype"])
        return Cost(float(self.flops_per_element * size), float(2 * size * ITEM_BYTES[unit["dtype"]]), memory)

    def tiles(self, params: Params, units: int, arrays: "Mapping[str, NDArray[Any]]") -> "Iterator[NDArray[Any]]":
        """Rows in order; inputs that are not in C order are copied as a whole first."""
        rows = arrays["x"].reshape(_rows(params))
        for index in range(units):
            first, end = self._piece(params, units, index)
            yield tile(rows[first:end], params["dtype"])

    def unit_inputs(self, params: Params, units: int, index: int) -> tuple[int, ...]:
        """Each unit has a tile of its own."""
        self._piece(params, units, index)
        return (index,)

    def input_types(self, unit: Params) -> tuple[ArrayType, ...]:
        """The rows."""
        return (self.result_type(unit),)

    def result_type(self, unit: Params) -> ArrayType:
        """As many rows."""
        return ArrayType(unit["dtype"], (unit["rows"], unit["length"]))

    def output_type(self, params: Params) -> ArrayType:
        """Like the input."""
        return ArrayType(params["dtype"], sizes(self.name, params, "shape", MAX_DIMENSIONS, MAX_ELEMENTS))

    def compute_into(
        self, unit: Params, arrays: "tuple[NDArray[Any], ...]", out: "NDArray[Any]", progress: Progress
    ) -> None:
        """Block by block."""
        import numpy as np

        clean = self._unit(unit)
        check_arrays(self, clean, arrays, out)
        step = max(1, BLOCK_ELEMENTS // clean["length"])
        with np.errstate(all="ignore"):
            for first in range(0, clean["rows"], step):
                end = min(first + step, clean["rows"])
                self.rows_into(clean, arrays[0][first:end], out[first:end])
                progress(end / clean["rows"])

    def assemble(self, params: Params, units: int, results: "Iterable[NDArray[Any]]", out: "NDArray[Any]") -> None:
        """Rows after rows."""
        if not out.flags.c_contiguous:
            raise LocalProtocolError("a result is assembled in C order")
        rows, index = out.reshape(_rows(params)), -1
        for index, block in enumerate(results):
            first, end = self._piece(params, units, index)
            rows[first:end] = block
        if index + 1 != units:
            raise VerificationError(f"the job has {units} units but {index + 1} results")

    def positions_together(self, unit: Params) -> int:
        """A row."""
        return int(unit["length"])

    def reference(
        self, unit: Params, arrays: "tuple[NDArray[Any], ...]", positions: "NDArray[np.intp]"
    ) -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
        """From the whole rows in which the positions lie."""
        import numpy as np

        exact, bound = np.empty(len(positions)), np.empty(len(positions))
        row, column = np.divmod(positions, unit["length"])
        wanted, place = np.unique(row, return_inverse=True)
        step = max(1, BLOCK_ELEMENTS // unit["length"])
        with np.errstate(all="ignore"):
            for first in range(0, len(wanted), step):
                here = np.flatnonzero((place >= first) & (place < first + step))
                values = arrays[0][wanted[first : first + step]].astype(np.float64)
                block, limits = self.exact_rows(unit, values)
                # Without finite inputs the kind of the result is certain; otherwise a sum may have overflowed.
                certain = ~np.isfinite(values).all(axis=1, keepdims=True)
                limits = np.where(np.isnan(limits), np.where(certain, 0.0, np.inf), limits)
                exact[here] = block[place[here] - first, column[here]]
                bound[here] = limits[place[here] - first, column[here]]
        if unit["dtype"] == "float64":
            bound *= 2  # the reference is as inexact
        return exact, bound + 4 * float(np.finfo(unit["dtype"]).tiny)

    def _piece(self, params: Params, units: int, index: int) -> tuple[int, int]:
        check_unit(self.name, units, index, self.max_units(params))
        return cut(0, _rows(params)[0], units, index)

    def _unit(self, unit: Params) -> dict[str, Any]:
        name = f"a {self.name} unit"
        check_names(name, unit, (*self.parameters, "rows", "length", "dtype"))
        rows, length = (whole_number(name, unit, key, None, 1, MAX_ELEMENTS) for key in ("rows", "length"))
        return {
            **self.own_parameters(unit),
            "rows": rows,
            "length": length,
            "dtype": choice(name, unit, "dtype", None, FLOATS),
        }


class Softmax(_RowKernel):
    """``softmax(x)``: ``exp(x) / Σ exp(x)`` along the last axis, computed from ``x - max(x)``."""

    name = "softmax"
    summary = "Turns each row of an array into positive shares that add up to 1."
    cost_law = "25 for each element"
    error_law = "y u (|x - max| + Σ y |x - max| + 20), u = 2^-24 (float32) or 2^-53 (float64)"
    example = "sparkle submit softmax --input x=x.npy --wait -o y.npy"
    flops_per_element = 25

    def rows_into(self, unit: Params, rows: "NDArray[Any]", out: "NDArray[Any]") -> None:
        """In the input's precision; only the sums are float64."""
        import numpy as np

        np.subtract(rows, rows.max(axis=1, keepdims=True), out=out)
        np.exp(out, out=out)
        out /= out.sum(axis=1, keepdims=True, dtype=np.float64).astype(out.dtype)

    def exact_rows(
        self, unit: Params, rows: "NDArray[np.float64]"
    ) -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
        """A rounded exponent is off by u times itself, which is what it multiplies the result by."""
        import numpy as np

        u = ROUNDING[unit["dtype"]]
        below = rows - rows.max(axis=1, keepdims=True)
        exact = np.exp(below)
        exact /= exact.sum(axis=1, keepdims=True)
        shift = np.where(exact > 0, np.expm1(u * np.abs(below)), 0.0)
        together = shift + (exact * shift).sum(axis=1, keepdims=True)
        return exact, exact * (together + (2 * EXP_ROUNDINGS + 4) * u + gamma(unit["length"], "float64")) * 1.01


class LayerNorm(_RowKernel):
    """``layernorm(x)``: ``(x - mean) / √(variance + epsilon)`` along the last axis, without weights."""

    name = "layernorm"
    summary = "Shifts and scales each row of an array to mean 0 and variance 1."
    parameters: Mapping[str, str] = MappingProxyType(
        {"epsilon": "added to the variance, between 0 and 1 (default 0.00001)"}
    )
    cost_law = "12 for each element"
    error_law = "u |y| + 2^-53 L (mean|x| / s) (1 + |y|), L = row length, s = √(variance + epsilon), u as for softmax"
    example = "sparkle submit layernorm --input x=x.npy --wait -o y.npy"
    flops_per_element = 12

    def own_parameters(self, params: Params) -> dict[str, Any]:
        """``epsilon`` as decimal text."""
        return {"epsilon": decimal_text(self.name, params, "epsilon", "0.00001", 0, 1)}

    def rows_into(self, unit: Params, rows: "NDArray[Any]", out: "NDArray[Any]") -> None:
        """In float64; only the result is rounded to the input's precision."""
        import numpy as np

        wide = rows.astype(np.float64)
        wide -= wide.mean(axis=1, keepdims=True)
        variance = np.square(wide).mean(axis=1, keepdims=True)
        wide /= np.sqrt(variance + float(unit["epsilon"]))
        out[...] = wide

    def exact_rows(
        self, unit: Params, rows: "NDArray[np.float64]"
    ) -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
        """The mean is off by ``γ_L mean|x|``, which shifts the row and enters the variance."""
        import numpy as np

        u = ROUNDING["float64"]
        off = gamma(unit["length"], "float64") * np.abs(rows).mean(axis=1, keepdims=True)
        centred = rows - rows.mean(axis=1, keepdims=True)
        power = np.square(centred).mean(axis=1, keepdims=True)
        variance = power + float(unit["epsilon"])
        exact = centred / np.sqrt(variance)
        spread = 2 * off * np.abs(centred).mean(axis=1, keepdims=True) + off * off
        spread += gamma(unit["length"] + 2, "float64") * power
        bound = (off + u * np.abs(centred)) / np.sqrt(variance)
        bound += np.abs(exact) * (spread / (2 * variance) + 4 * u + ROUNDING[unit["dtype"]])
        return exact, bound * 1.01


def _rows(params: Params) -> tuple[int, int]:
    """Number and length of the rows of an array."""
    *outer, length = (int(size) for size in params["shape"].split(" x "))
    rows = 1
    for size in outer:
        rows *= size
    return rows, length


def _memory(rows: int, length: int, dtype: str) -> int:
    """Tile, result, and the float64 copies of a block."""
    return 2 * rows * length * ITEM_BYTES[dtype] + 4 * 8 * max(BLOCK_ELEMENTS, length) + 2**22
