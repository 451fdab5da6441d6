"""The projection check where NaN, infinities or numbers near overflow occur.

What must be so is checked exactly; then everything that is not finite is replaced by zero, on both sides, and the
rest is projected as usual.
"""

from typing import TYPE_CHECKING, Any

from sparkle_protocol.errors import VerificationError
from sparkle_worker.checks.projection import TOUCHED, Product, block_rows, check_product, judge_rows, multiplied

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NEAR = 0.999  # of the largest number: from here on a sum may round to infinity
HUGE = 1e100  # squares of float64 numbers above it are in danger of overflow


def check_special_values(product: Product, claimed: "NDArray[Any]", draws: "np.random.Generator") -> None:
    """As ``check_product``, for any values.

    Raises:
        VerificationError: a NaN or infinity where there is none, none where there is one, one of the wrong kind,
            or a wrong finite element.
    """
    import numpy as np

    bad_rows, bad_in_a = _rows_of_a(product)
    finite_b = np.isfinite(product.b)
    bad_columns = ~finite_b.all(axis=0)
    finite = np.isfinite(claimed)
    touched = bad_rows[:, None] | bad_columns
    if (finite & touched).any():
        row, column = _first(finite & touched)
        raise VerificationError(
            f"{product.place(row, column)} is {claimed[row, column]:.9g} but its inputs have a NaN or infinity"
        )
    inner = np.flatnonzero(bad_in_a | ~finite_b.all(axis=1))
    _check_kinds(product, claimed, draws, bad_rows, bad_columns, inner)
    overflown = ~finite & ~touched
    clean, result = _cleaned(product, claimed, bad_rows, bad_columns)
    rows = np.flatnonzero(overflown.any(axis=1))
    for first in range(0, len(rows), TOUCHED):
        some = rows[first : first + TOUCHED]
        _check_overflow(product, claimed, some, overflown[some], bad_columns)
        judge_rows(clean, result, draws, some, overflown[some])
    kept, result = _without(clean, result, rows)
    check_product(kept, result, draws)


def _rows_of_a(product: Product) -> "tuple[NDArray[np.bool_], NDArray[np.bool_]]":
    """Which rows, and which columns, of A have a NaN or infinity."""
    import numpy as np

    rows, columns = np.zeros(product.rows, dtype=bool), np.zeros(product.inner, dtype=bool)
    step = min(block_rows(product.inner), product.rows)
    block = np.empty((step, product.inner))
    for first in range(0, product.rows, step):
        end = min(first + step, product.rows)
        product.a(first, end, block[: end - first])
        bad = ~np.isfinite(block[: end - first])
        rows[first:end] = bad.any(axis=1)
        columns |= bad.any(axis=0)
    return rows, columns


def _check_kinds(
    product: Product,
    claimed: "NDArray[Any]",
    draws: "np.random.Generator",
    bad_rows: "NDArray[np.bool_]",
    bad_columns: "NDArray[np.bool_]",
    inner: "NDArray[np.intp]",
) -> None:
    """NaN, +infinity and -infinity are where the inputs make them, in some rows and columns."""
    import numpy as np

    right = product.b[inner].astype(np.float64)
    rows = _some(np.flatnonzero(bad_rows), draws)
    columns = _some(np.flatnonzero(bad_columns), draws)
    every = np.arange(product.rows)
    step = max(1, 2**22 // max(1, product.inner))
    chosen: list[tuple[NDArray[np.intp], NDArray[np.intp]]] = [(rows, np.arange(product.columns))]
    chosen += [(every[first : first + step], columns) for first in range(0, product.rows, step) if len(columns)]
    for some_rows, some_columns in chosen:
        if not len(some_rows):
            continue
        left = product.picked(some_rows)
        # Whatever is finite does not change the kind of a sum that has a NaN or infinity, unless it overflows.
        expected = left[:, inner] @ right[:, some_columns]
        found = claimed[np.ix_(some_rows, some_columns)]
        same = (np.isnan(expected) & np.isnan(found)) | (expected == found)
        same |= np.isfinite(expected) & ~(bad_rows[some_rows][:, None] | bad_columns[some_columns])
        if same.all():
            continue
        size = _finite_size(left, product.b[:, some_columns])
        same |= size >= NEAR * float(np.finfo(product.dtype).max)
        if not same.all():
            row, column = _first(~same)
            raise VerificationError(
                f"{product.place(int(some_rows[row]), int(some_columns[column]))} is {found[row, column]} "
                f"but should be {expected[row, column]}"
            )


def _check_overflow(
    product: Product,
    claimed: "NDArray[Any]",
    rows: "NDArray[np.intp]",
    overflown: "NDArray[np.bool_]",
    bad_columns: "NDArray[np.bool_]",
) -> None:
    """A NaN or infinity from finite inputs is honest only where the sum of absolute values overflows."""
    import numpy as np

    left = product.picked(rows)
    size = _finite_size(left, product.b)
    invented = overflown & ~(size >= NEAR * float(np.finfo(product.dtype).max))
    if invented.any():
        row, column = _first(invented)
        exact, _ = multiplied(left[row : row + 1], product.b[:, column : column + 1])
        raise VerificationError(
            f"{product.place(int(rows[row]), column)} is {claimed[rows[row], column]} but should be {exact[0, 0]:.9g}"
        )


def _finite_size(left: "NDArray[np.float64]", b: "NDArray[Any]") -> "NDArray[np.float64]":
    """``|left| |b|`` of what is finite."""
    import numpy as np

    return multiplied(np.where(np.isfinite(left), left, 0.0), np.where(np.isfinite(b), b, b.dtype.type(0)))[1]


def _cleaned(
    product: Product, claimed: "NDArray[Any]", bad_rows: "NDArray[np.bool_]", bad_columns: "NDArray[np.bool_]"
) -> "tuple[Product, NDArray[Any]]":
    """The same product with zeros for rows and columns that are not finite, and far from overflow."""
    import numpy as np

    b = np.where(np.isfinite(product.b) & ~bad_columns, product.b, product.b.dtype.type(0))
    result = np.where(np.isfinite(claimed) & ~bad_rows[:, None] & ~bad_columns, claimed, claimed.dtype.type(0))
    shift_a, shift_b = _shift(product, bad_rows), 0
    if product.dtype == "float64" and float(np.abs(b).max()) > HUGE:
        shift_b = int(np.frexp(np.abs(b).max())[1])
    # Powers of two change no digit. What becomes too small for float64 was 10^100 times smaller than the largest.
    b = np.ldexp(b, -shift_b) if shift_b else b
    if shift_a or shift_b:
        result = np.ldexp(np.ldexp(result, -shift_a), -shift_b)

    def rows(first: int, end: int, into: "NDArray[np.float64]") -> None:
        product.a(first, end, into)
        into[bad_rows[first:end]] = 0.0
        if shift_a:
            np.ldexp(into, -shift_a, out=into)

    return Product(product.dtype, product.rows, b, rows, product.place), result


def _shift(product: Product, bad_rows: "NDArray[np.bool_]") -> int:
    """The power of two above A's largest number, or 0 if that is harmless."""
    import numpy as np

    if product.dtype != "float64":
        return 0
    largest = 0.0
    step = min(block_rows(product.inner), product.rows)
    block = np.empty((step, product.inner))
    for first in range(0, product.rows, step):
        end = min(first + step, product.rows)
        product.a(first, end, block[: end - first])
        block[: end - first][bad_rows[first:end]] = 0.0
        largest = max(largest, float(np.abs(block[: end - first]).max()))
    return int(np.frexp(largest)[1]) if largest > HUGE else 0


def _without(product: Product, result: "NDArray[Any]", rows: "NDArray[np.intp]") -> "tuple[Product, NDArray[Any]]":
    """Zeros in these rows, which have been looked at."""
    import numpy as np

    if not len(rows):
        return product, result
    gone = np.zeros(product.rows, dtype=bool)
    gone[rows] = True

    def kept(first: int, end: int, into: "NDArray[np.float64]") -> None:
        product.a(first, end, into)
        into[gone[first:end]] = 0.0

    result = result.copy()
    result[rows] = 0
    return Product(product.dtype, product.rows, product.b, kept, product.place), result


def _some(indices: "NDArray[np.intp]", draws: "np.random.Generator") -> "NDArray[np.intp]":
    return indices if len(indices) <= TOUCHED else draws.choice(indices, TOUCHED, replace=False)


def _first(marked: "NDArray[np.bool_]") -> tuple[int, int]:
    import numpy as np

    row, column = np.unravel_index(int(marked.argmax()), marked.shape)
    return int(row), int(column)
