"""The matrix product, cut into blocks of the result.

``c = a b`` with ``a`` of m rows and ``b`` of n columns is cut into a grid of ``p · q`` blocks. Block (i, j) needs
the i-th row panel of ``a`` and the j-th column panel of ``b``, so a job has ``p + q`` tiles. What is moved,
``k (q m + p n)`` elements, is least for blocks that are nearly square; of all grids with the wanted number of
units that one is taken. The inner dimension is never cut: a block is the sum of all its terms, in the order in
which the machine's BLAS adds them, which is why results of two machines differ in their last digits.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sparkle_protocol.errors import ConfigError, VerificationError
from sparkle_worker.kernels.arrays import (
    FLOATS,
    ITEM_BYTES,
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
from sparkle_worker.kernels.parameters import check_names, choice, whole_number
from sparkle_worker.kernels.splitting import check_unit, cut

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sparkle_worker.checks.projection import Product

UNIT_FLOPS = 3 * 10**10  # 0.3 to 1 s of a core
SHARED_FLOPS = 2 * 10**9  # smaller units are not worth the transfer of their tiles
SHARED_UNITS = 16
UNIT_MEMORY = 2**28
STEP_FLOPS = 2 * 10**10  # between two reports of progress; a BLAS call cannot be interrupted
BLAS_MEMORY = 2**25  # OpenBLAS packs panels into buffers of its own

_SIZES = ("m", "k", "n")


class Gemm:
    """``gemm(a, b)``: the matrix product of two arrays of float32 or float64.

    A unit's result is one block, rows of which follow each other. Both inputs have one type, the result has it too.
    """

    name = "gemm"
    version = 1
    summary = "Multiplies two matrices."
    parameters: Mapping[str, str] = MappingProxyType({})
    inputs: Mapping[str, str] = MappingProxyType(
        {
            "a": "matrix of m rows and k columns, float32 or float64",
            "b": "matrix of k rows and n columns, of the same type",
        }
    )
    optional_inputs: frozenset[str] = frozenset()
    verification: Verification = "algebraic"
    cost_law = "2 m k n"
    error_law = "k u / (1 - k u) · (|a| |b|) for each element, u = 2^-24 (float32) or 2^-53 (float64)"
    example = "sparkle submit gemm --input a=a.npy --input b=b.npy --wait -o c.npy"

    def with_arrays(self, params: Params, arrays: Mapping[str, ArrayType]) -> dict[str, Any]:
        """``m``, ``k``, ``n`` and ``dtype`` of two matrices that can be multiplied."""
        check_names(self.name, params, self.parameters)
        check_inputs(self, arrays)
        a, b = arrays["a"], arrays["b"]
        for name, array in (("a", a), ("b", b)):
            supported(self.name, name, array.dtype)
            if len(array.shape) != 2:
                raise ConfigError(f"'{name}' of gemm must be a matrix, but its shape is {shape_text(array.shape)}")
        if a.shape[1] != b.shape[0]:
            raise ConfigError(
                f"gemm cannot multiply {shape_text(a.shape)} by {shape_text(b.shape)}: "
                f"'a' has {a.shape[1]} columns, 'b' has {b.shape[0]} rows"
            )
        if a.dtype != b.dtype:
            raise ConfigError(
                f"'a' of gemm is {a.dtype} and 'b' is {b.dtype}; convert one of them, "
                "for example with .astype('float64')"
            )
        return self.validate({"m": a.shape[0], "k": a.shape[1], "n": b.shape[1], "dtype": a.dtype})

    def validate(self, params: Params) -> dict[str, Any]:
        """``m``, ``k``, ``n`` and ``dtype``, as ``with_arrays`` made them."""
        check_names(self.name, params, (*_SIZES, "dtype"))
        sizes = {name: whole_number(self.name, params, name, None, 1, MAX_ELEMENTS) for name in _SIZES}
        clean = {**sizes, "dtype": choice(self.name, params, "dtype", None, FLOATS)}
        for rows, columns, what in (("m", "k", "'a'"), ("k", "n", "'b'"), ("m", "n", "the result")):
            if sizes[rows] * sizes[columns] > MAX_ELEMENTS:
                raise ConfigError(
                    f"{what} of gemm would have {sizes[rows]} x {sizes[columns]} elements; 2^31 - 1 fit"
                )
        return clean

    def default_units(self, params: Params) -> int:
        """Units of about 3·10^10 operations and at most 256 MiB; 16 as long as each is worth its transfer."""
        flops = 2 * params["m"] * params["k"] * params["n"]

        def fits(p: int, q: int) -> bool:
            share = flops / (p * q)
            small = share <= UNIT_FLOPS and _memory(params, p, q) <= UNIT_MEMORY
            return small and (p * q >= SHARED_UNITS or share <= SHARED_FLOPS)

        p, q = _finer_until(params, fits)
        return p * q

    def least_units(self, params: Params, memory_bytes: int) -> int:
        """Halves the longer side of the blocks until tiles, result and BLAS's buffers fit."""
        p, q = _finer_until(params, lambda p, q: _memory(params, p, q) <= memory_bytes)
        if _memory(params, p, q) > memory_bytes:
            raise ConfigError(
                f"the smallest unit of this gemm job needs {-(-_memory(params, p, q) >> 20)} MB, "
                f"but no worker allows more than {memory_bytes >> 20} MB; cut the job into several"
            )
        return p * q

    def max_units(self, params: Params) -> int:
        """One for each element, as far as a job can name the panels."""
        p, q = _finest(params)
        return p * q

    def unit(self, params: Params, units: int, index: int) -> dict[str, Any]:
        """A smaller gemm: the sizes of one block."""
        rows, columns = _block(params, units, index)
        return {**params, "m": rows[1] - rows[0], "n": columns[1] - columns[0]}

    def cost(self, unit: Params) -> Cost:
        """A multiplication and an addition for each term."""
        m, k, n = (unit[name] for name in _SIZES)
        moved = (m * k + k * n + m * n) * ITEM_BYTES[unit["dtype"]]
        return Cost(flops=2.0 * m * k * n, bytes=float(moved), memory_bytes=_memory(unit, 1, 1))

    def tiles(self, params: Params, units: int, arrays: "Mapping[str, NDArray[Any]]") -> "Iterator[NDArray[Any]]":
        """Row panels of ``a``, then column panels of ``b``."""
        p, q = grid(params["m"], params["n"], units)
        for i in range(p):
            first, end = cut(0, params["m"], p, i)
            yield tile(arrays["a"][first:end], params["dtype"])
        for j in range(q):
            first, end = cut(0, params["n"], q, j)
            yield tile(arrays["b"][:, first:end], params["dtype"])

    def unit_inputs(self, params: Params, units: int, index: int) -> tuple[int, ...]:
        """One panel of ``a`` and one of ``b``."""
        check_unit(self.name, units, index, self.max_units(params))
        p, q = grid(params["m"], params["n"], units)
        return index // q, p + index % q

    def input_types(self, unit: Params) -> tuple[ArrayType, ...]:
        """Tiles of m x k and k x n."""
        m, k, n = (unit[name] for name in _SIZES)
        return ArrayType(unit["dtype"], (m, k)), ArrayType(unit["dtype"], (k, n))

    def result_type(self, unit: Params) -> ArrayType:
        """A block of m x n."""
        return ArrayType(unit["dtype"], (unit["m"], unit["n"]))

    def output_type(self, params: Params) -> ArrayType:
        """The m x n of the whole job."""
        return self.result_type(params)

    def compute_into(
        self, unit: Params, arrays: "tuple[NDArray[Any], ...]", out: "NDArray[Any]", progress: Progress
    ) -> None:
        """The product by the machine's BLAS."""
        import numpy as np

        clean = self.validate(unit)
        check_arrays(self, clean, arrays, out)
        a, b = arrays
        step = max(1, STEP_FLOPS // (2 * clean["k"] * clean["n"]))
        with np.errstate(all="ignore"):  # overflow and NaN are values of the result
            for first in range(0, clean["m"], step):
                end = min(first + step, clean["m"])
                np.matmul(a[first:end], b, out=out[first:end])
                progress(end / clean["m"])

    def assemble(self, params: Params, units: int, results: "Iterable[NDArray[Any]]", out: "NDArray[Any]") -> None:
        """Every block to its place."""
        place = -1
        for place, block in enumerate(results):
            rows, columns = _block(params, units, place)
            out[rows[0] : rows[1], columns[0] : columns[1]] = block
        if place + 1 != units:
            raise VerificationError(f"the job has {units} units but {place + 1} results")

    def gather(self, params: Params, units: int, results: "Iterable[NDArray[Any]]") -> Iterator[memoryview]:
        """Row by row of the blocks that lie side by side."""
        _, q = grid(params["m"], params["n"], units)
        count, side_by_side = 0, []
        for block in results:
            count += 1
            side_by_side.append((block.data.cast("B"), block.shape[1] * block.itemsize))
            if len(side_by_side) < q:
                continue
            for row in range(block.shape[0]):
                for content, width in side_by_side:
                    yield content[row * width : (row + 1) * width]
            side_by_side = []
        if count != units:
            raise VerificationError(f"the job has {units} units but {count} results")

    def reference(
        self, unit: Params, arrays: "tuple[NDArray[Any], ...]", positions: "NDArray[np.intp]"
    ) -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
        """Dot products in float64, and γ_k times those of the absolute values."""
        import numpy as np

        rows, columns = np.divmod(positions, unit["n"])
        exact, bound = np.empty(len(positions)), np.empty(len(positions))
        with np.errstate(all="ignore"):
            for at in range(0, len(positions), 64):
                some = slice(at, at + 64)
                left = arrays[0][rows[some]].astype(np.float64)
                right = arrays[1][:, columns[some]].T.astype(np.float64)
                exact[some] = np.einsum("ij,ij->i", left, right)
                bound[some] = np.einsum("ij,ij->i", np.abs(left), np.abs(right))
        # In float64 the reference has the same error again.
        factor = gamma(unit["k"], unit["dtype"]) + gamma(unit["k"], "float64")
        return exact, factor * bound + unit["k"] * float(np.finfo(unit["dtype"]).tiny)

    def product(self, unit: Params, arrays: "tuple[NDArray[Any], ...]") -> "Product":
        """The unit as the product that its check projects."""
        from sparkle_worker.checks.projection import Product

        a, b = arrays

        def rows(first: int, end: int, into: "NDArray[np.float64]") -> None:
            into[...] = a[first:end]

        return Product(unit["dtype"], unit["m"], b, rows, lambda row, column: f"element ({row}, {column})")


def _memory(params: Params, p: int, q: int) -> int:
    """Bytes that the largest block of a grid takes: its tiles, its result, and what BLAS copies."""
    rows, columns = -(-params["m"] // p), -(-params["n"] // q)
    elements = rows * params["k"] + params["k"] * columns + rows * columns
    return int(elements * ITEM_BYTES[params["dtype"]]) + BLAS_MEMORY


def _finest(params: Params) -> tuple[int, int]:
    """The grid with the most blocks that a job's tiles allow."""
    p = min(params["m"], max(MAX_TILES // 2, MAX_TILES - params["n"]))
    return p, min(params["n"], MAX_TILES - p)


def _finer_until(params: Params, fits: Any) -> tuple[int, int]:
    """The first grid that fits, of those that come from cutting the longer side of the blocks once more."""
    p = q = 1
    while not fits(p, q):
        by_rows = p < params["m"] and (params["m"] * q >= params["n"] * p or q >= params["n"])
        if p + q >= MAX_TILES or not (by_rows or q < params["n"]):
            break
        p, q = (p + 1, q) if by_rows else (p, q + 1)
    return p, q


@lru_cache(maxsize=64)
def grid(m: int, n: int, units: int) -> tuple[int, int]:
    """Rows and columns of the grid of ``units`` blocks for which the least is moved.

    Raises:
        ConfigError: no grid has so many blocks; names the next smaller number that one has.
    """
    found = _grid(m, n, units)
    if found is None:
        fewer = next(count for count in range(units - 1, 0, -1) if _grid(m, n, count))
        raise ConfigError(f"a gemm job of {m} x {n} cannot be cut into {units} units; {fewer} would do")
    return found


def _grid(m: int, n: int, units: int) -> tuple[int, int] | None:
    best: tuple[int, int] | None = None
    for p in range(1, min(units, m, MAX_TILES) + 1):
        q = units // p
        if p * q != units or q > n or p + q > MAX_TILES:
            continue
        if best is None or q * m + p * n < best[1] * m + best[0] * n:
            best = p, q
    return best


def _block(params: Params, units: int, index: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Rows and columns of the block that is unit ``index``."""
    p, q = _finest(params)
    check_unit("gemm", units, index, p * q)
    p, q = grid(params["m"], params["n"], units)
    return cut(0, params["m"], p, index // q), cut(0, params["n"], q, index % q)
