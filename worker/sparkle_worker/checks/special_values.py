"""The projection check where NaN, infinities or numbers near overflow occur.

What must be so is checked exactly; then everything that is not finite is replaced by zero, on both sides, and the
rest is projected as usual.
"""

from typing import TYPE_CHECKING, Any

from sparkle_protocol.errors import VerificationError
from sparkle_worker.checks.projection import (
    SCRATCH,
    TOUCHED,
    Product,
    as_block,
    judge_rows,
    judge_suspects,
    multiplied,
    suspected_rows,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NEAR = 0.999  # of the largest number: from here on a sum may round to infinity


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
    near_one = _near_one(*_without(clean, result, rows))
    suspects = suspected_rows(*near_one, draws)
    judge_suspects(clean, result, draws, suspects[~overflown[suspects].any(axis=1)])


def _rows_of_a(product: Product) -> "tuple[NDArray[np.bool_], NDArray[np.bool_]]":
    """Which rows, and which columns, of A have a NaN or infinity."""
    import numpy as np

    rows, columns = np.zeros(product.rows, dtype=bool), np.zeros(product.inner, dtype=bool)
    block = as_block(np.empty(max(SCRATCH, product.inner)), product.rows, product.inner)
    for first in range(0, product.rows, len(block)):
        end = min(first + len(block), product.rows)
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
    """The same product with zeros for rows and columns that are not finite."""
    import numpy as np

    b = np.where(np.isfinite(product.b) & ~bad_columns, product.b, product.b.dtype.type(0))
    result = np.where(np.isfinite(claimed) & ~bad_rows[:, None] & ~bad_columns, claimed, claimed.dtype.type(0))

    def rows(first: int, end: int, into: "NDArray[np.float64]") -> None:
        product.a(first, end, into)
        into[bad_rows[first:end]] = 0.0

    return Product(product.dtype, product.rows, b, rows, product.place), result


def _near_one(product: Product, claimed: "NDArray[Any]") -> "tuple[Product, NDArray[Any]]":
    """Rows of float64 multiplied by powers of two, so that no square of a number is too large or too small."""
    import numpy as np

    if product.dtype != "float64":
        return product, claimed
    shift = _exponents(product)

    def rows(first: int, end: int, into: "NDArray[np.float64]") -> None:
        product.a(first, end, into)
        np.ldexp(into, -shift[first:end, None], out=into)

    return Product(product.dtype, product.rows, product.b, rows, product.place), np.ldexp(claimed, -shift[:, None])


def _exponents(product: Product) -> "NDArray[np.intc]":
    """Of each row of A the power of two above its largest number."""
    import numpy as np

    exponents = np.empty(product.rows, dtype=np.intc)
    block = as_block(np.empty(max(SCRATCH, product.inner)), product.rows, product.inner)
    for first in range(0, product.rows, len(block)):
        end = min(first + len(block), product.rows)
        product.a(first, end, block[: end - first])
        exponents[first:end] = np.frexp(np.abs(block[: end - first]).max(axis=1))[1]
    return exponents


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
