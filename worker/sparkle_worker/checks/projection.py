"""Checks a claimed product ``C = A B`` in a few passes over its data, without multiplying (after Freivalds 1977).

**Projection.** For Gaussian vectors r the residual ``A (B r) - C r``, in float64, is what the errors E of C do to r:
given E, the residual of row i is normal with variance ``|E_i|²``. Four vectors at once give its square sum, a
χ² of four degrees of freedom. (Vectors of ±1 let half of all pairs of opposite errors cancel.)

**How large honest errors are** cannot be said from the shapes: it depends on the data and on the order in which a
BLAS adds. The rigorous bound ``γ_k |A||B|`` is thousands of times too wide for random data. So each row is held
against ``level · Σ_l a_il² |b_l|²`` (columns of B are brought to one size first, lest a large one hide the others).
``level`` is what most rows of this result show, but at most what rows recomputed in order show: summing in order is
the worst that is done in practice.

**Nobody is rejected by statistics alone.** A row above its limit is only suspected. Suspected rows are multiplied out
in float64 and judged element by element: an element is wrong if it is off by more than ``γ_k (|A||B|)_ij``, or by
more than ``MARGIN`` times what this very row shows when its terms are added in any of the orders that machines use
(forward, backward, in blocks, in lanes, pairwise). Work for a false suspicion is lost, nothing else.

**NaN and infinities.** Where a row of A or a column of B has one, every element of that row or column of C must
be NaN or infinite, and of the right kind where it is looked at more closely. Elsewhere C must be finite, unless
``(|A||B|)_ij`` exceeds the largest number, so that a partial sum may have overflowed.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sparkle_protocol.errors import VerificationError
from sparkle_worker.kernels.arrays import ROUNDING, gamma

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ROUNDS = 4
SCRATCH = 150_000  # float64 numbers converted at once: about the second-level cache, and OpenBLAS's fast path
SCALE_TERMS = 128  # of a row's terms that its scale is estimated from
SCALE_ROWS = 32  # of B that show how large its columns are
SCALE_ROWS_OF_A = 8
LARGEST = 1e300
FALSE_SUSPICION = 0.01  # of an honest result with normal residuals having a suspected row at all
CALIBRATION_ROWS, CALIBRATION_COLUMNS = 3, 32
SUSPECTS = 256  # rows that are multiplied out at most: half of them the worst, half drawn
JUDGED_TOGETHER = 32
JUDGED_COLUMNS = 64  # of a suspected row, half of them the worst, whose terms are added in several orders
MARGIN = 8.0
ALWAYS_ALLOWED = 4.0  # an error of 4 u (|A||B|)_ij is never suspicious
TOUCHED = 64  # rows and columns with NaN or infinities whose kinds are looked at


@dataclass(frozen=True, slots=True)
class Product:
    """``C = A B``: what a result claims.

    ``a(first, end, into)`` writes rows of A, which need not exist as a whole, as float64; ``place(row, column)``
    names an element of C.
    """

    dtype: str
    rows: int
    b: "NDArray[Any]"
    a: "Callable[[int, int, NDArray[np.float64]], None]"
    place: Callable[[int, int], str]

    @property
    def inner(self) -> int:
        """Terms of each element."""
        return int(self.b.shape[0])

    @property
    def underflow(self) -> float:
        """What an element may lose below the normal numbers, where some machines flush every term to zero."""
        import numpy as np

        return self.inner * float(np.finfo(self.dtype).tiny)

    @property
    def columns(self) -> int:
        """Columns of B and C."""
        return int(self.b.shape[1])

    def projected(
        self, vectors: "NDArray[np.float64]", weights: "NDArray[np.float64]", scratch: "NDArray[np.float64]"
    ) -> "Iterator[tuple[int, int, NDArray[np.float64], NDArray[np.float64]]]":
        """By blocks of rows: first, end, ``A @ vectors`` and an estimate of ``A² @ weights``, in new arrays.

        ``scratch`` is overwritten; its contents need not outlive a step.
        """
        import numpy as np

        every = max(1, self.inner // SCALE_TERMS)
        few = np.ascontiguousarray(weights[::every]) * every
        block = as_block(scratch, self.rows, self.inner)
        terms = np.empty((len(block), len(few)))
        for first in range(0, self.rows, len(block)):
            size = min(len(block), self.rows - first)
            self.a(first, first + size, block[:size])
            np.square(block[:size, ::every], out=terms[:size])
            yield first, first + size, block[:size] @ vectors, terms[:size] @ few

    def picked(self, rows: "NDArray[np.intp]") -> "NDArray[np.float64]":
        """Some rows of A."""
        import numpy as np

        found = np.empty((len(rows), self.inner))
        for place, row in enumerate(rows.tolist()):
            self.a(row, row + 1, found[place : place + 1])
        return found


def check_product(product: Product, claimed: "NDArray[Any]", draws: "np.random.Generator") -> None:
    """Accept ``claimed``, of ``product.rows`` rows, as the product.

    ``draws`` must follow from a seed that was not known when the result was committed to.

    Raises:
        VerificationError: names an element that no honest computation gives.
    """
    import numpy as np

    with np.errstate(all="ignore"):
        found = _Projection.of(product, claimed, draws)
        if np.isfinite(found.scale).all() and np.isfinite(found.power).all():
            judge_suspects(product, claimed, draws, _suspects(product, draws, found))
            return
        from sparkle_worker.checks.special_values import check_special_values

        check_special_values(product, claimed, draws)


def judge_suspects(
    product: Product, claimed: "NDArray[Any]", draws: "np.random.Generator", suspects: "NDArray[np.intp]"
) -> None:
    """``judge_rows`` of the suspects in turn, so that a wrong result is mostly found among the first.

    Raises:
        VerificationError: names an element that no honest computation gives.
    """
    for first in range(0, len(suspects), JUDGED_TOGETHER):
        judge_rows(product, claimed, draws, suspects[first : first + JUDGED_TOGETHER])


def suspected_rows(product: Product, claimed: "NDArray[Any]", draws: "np.random.Generator") -> "NDArray[np.intp]":
    """Rows of a result without NaN and infinities that ought to be looked at closely."""
    return _suspects(product, draws, _Projection.of(product, claimed, draws))


@dataclass(frozen=True, slots=True)
class _Projection:
    """Of each row the mean square of its residuals, and the scale that it is held against.

    Columns of very different size count alike: each is multiplied by its ``column_factor`` first.
    """

    power: "NDArray[np.float64]"
    scale: "NDArray[np.float64]"
    row_power: "NDArray[np.float64]"  # estimates |b_l|², with the columns' factors
    column_factor: "NDArray[np.float64]"

    @classmethod
    def of(cls, product: Product, claimed: "NDArray[Any]", draws: "np.random.Generator") -> "_Projection":
        """One pass over each of the three matrices."""
        import numpy as np

        factor = _column_factors(product)
        vectors = draws.standard_normal((product.columns, ROUNDS)) * factor[:, None]
        # One piece of memory for all three: fresh pages cost more than the conversion that fills them.
        scratch = np.empty(max(SCRATCH, product.inner, product.columns))
        projected = _times(product.b, vectors, scratch)
        row_power = np.square(projected).mean(axis=1)
        power, scale = np.empty(product.rows), np.empty(product.rows)
        for first, end, residual, sizes in product.projected(projected, row_power, scratch):
            beneath = (sizes == 0) & residual.any(axis=1)  # its squares are too small for float64
            residual -= _times(claimed[first:end], vectors, scratch)
            power[first:end] = np.square(residual, out=residual).mean(axis=1)
            power[first:end][beneath] = np.inf
            scale[first:end] = sizes
        return cls(power, scale, row_power, factor)


def _column_factors(product: Product) -> "NDArray[np.float64]":
    """The inverse size of each column of B, as far as some of its rows show it.

    Columns whose products with A underflow are not raised to the size of others: their honest errors are as large
    as they are.
    """
    import numpy as np

    some = product.b[:: max(1, product.inner // SCALE_ROWS)]
    size = np.abs(some).max(axis=0).astype(np.float64)
    left = np.abs(product.picked(np.arange(0, product.rows, max(1, product.rows // SCALE_ROWS_OF_A))))
    largest = float(left.max(where=np.isfinite(left), initial=0.0)) or 1.0
    least = float(np.finfo(product.dtype).tiny) / ROUNDING[product.dtype] / largest
    usable = np.isfinite(size) & (size > 0)
    usual = float(np.median(size[usable])) if usable.any() else 1.0
    return 1.0 / np.where(usable, size, usual).clip(least, LARGEST)


def as_block(scratch: "NDArray[np.float64]", rows: int, columns: int) -> "NDArray[np.float64]":
    """As many whole rows of a matrix as the scratch has room for."""
    step = max(1, min(len(scratch) // columns, rows))
    return scratch[: step * columns].reshape(step, columns)


def _times(
    matrix: "NDArray[Any]", vectors: "NDArray[np.float64]", scratch: "NDArray[np.float64]"
) -> "NDArray[np.float64]":
    """``matrix @ vectors`` in float64, by blocks of rows."""
    import numpy as np

    rows, columns = matrix.shape
    result = np.empty((rows, ROUNDS))
    block = as_block(scratch, rows, columns)
    for first in range(0, rows, len(block)):
        end = min(first + len(block), rows)
        block[: end - first] = matrix[first:end]
        np.matmul(block[: end - first], vectors, out=result[first:end])
    return result


def _suspects(product: Product, draws: "np.random.Generator", found: _Projection) -> "NDArray[np.intp]":
    """Rows whose residuals are larger than honest rounding makes them, the worst and some drawn."""
    import numpy as np

    limit = chi_square_limit(FALSE_SUSPICION / product.rows) / ROUNDS * _level(product, found, draws)
    suspects = np.flatnonzero(found.power > limit * found.scale)
    if not len(suspects):
        return suspects
    excess = found.power[suspects] / np.maximum(found.scale[suspects], np.finfo(np.float64).tiny)
    suspects = suspects[np.argsort(-excess)]
    if len(suspects) > SUSPECTS:
        drawn = draws.choice(suspects[SUSPECTS // 2 :], SUSPECTS // 2, replace=False)
        suspects = np.concatenate([suspects[: SUSPECTS // 2], drawn])
    if product.inner >= 2 * SCALE_TERMS:  # their scales were estimated from some of their terms
        suspects = suspects[found.power[suspects] > limit * (np.square(product.picked(suspects)) @ found.row_power)]
    return suspects


def _level(product: Product, found: _Projection, draws: "np.random.Generator") -> float:
    """How large squared residuals of honest rows are, relative to their scale."""
    import numpy as np

    # The check's own arithmetic; float64 results are not measured more finely than this.
    least = (16 * ROUNDING["float64"]) ** 2 * (product.inner + product.columns)
    if product.dtype == "float64":
        return least
    relative = found.power[found.scale > 0] / found.scale[found.scale > 0]
    if not len(relative):
        return least
    # The lower quartile of χ²_4 / 4 is 0.48: as long as a quarter of the rows is honest, it is their level.
    quarter = len(relative) // 4
    shown = float(np.partition(relative, quarter)[quarter]) / 0.48
    # An element's error of random data is about u k / 3 terms, so a row's level at most about u² k / 9.
    if shown > ROUNDING[product.dtype] ** 2 * product.inner:
        shown = min(shown, _level_in_order(product, found, draws))
    return max(least, shown)


def _level_in_order(product: Product, found: _Projection, draws: "np.random.Generator") -> float:
    """The level of rows whose terms are added one after the other in the result's own precision."""
    import numpy as np

    rows = draws.integers(0, product.rows, CALIBRATION_ROWS)
    width = min(CALIBRATION_COLUMNS, product.columns)
    first = int(draws.integers(0, product.columns - width + 1))
    right = np.ascontiguousarray(product.b[:, first : first + width])
    factor = found.column_factor[first : first + width]
    left = product.picked(rows)
    exact = left @ right.astype(np.float64)
    highest = 0.0
    for row, truth in zip(left, exact, strict=True):
        terms = row.astype(product.dtype)[:, None] * right
        in_order = terms.sum(axis=0) if width > 1 else np.cumsum(terms)[-1:]
        scale = float(np.square(row) @ found.row_power)
        error = np.maximum(np.abs(in_order - truth) - product.underflow, 0.0) * factor
        if scale > 0:
            highest = max(highest, float(np.square(error).mean()) * product.columns / scale)
    return 2 * highest


def chi_square_limit(chance: float) -> float:
    """What a χ² variable of four degrees of freedom exceeds with this chance."""
    low, high = 0.0, 2000.0
    for _ in range(60):
        middle = (low + high) / 2
        if math.exp(-middle / 2) * (1 + middle / 2) > chance:
            low = middle
        else:
            high = middle
    return high


def judge_rows(
    product: Product,
    claimed: "NDArray[Any]",
    draws: "np.random.Generator",
    rows: "NDArray[np.intp]",
    skip: "NDArray[np.bool_] | None" = None,
) -> None:
    """Multiply some rows out and compare them element by element; those marked in ``skip`` do not count.

    Raises:
        VerificationError: names the worst element.
    """
    import numpy as np

    u = ROUNDING[product.dtype]
    left = product.picked(rows)
    exact, size = multiplied(left, product.b)
    shown = claimed[rows].astype(np.float64)
    off = np.abs(shown - exact)
    over = np.maximum(off - product.underflow, 0.0)
    error = np.divide(over, u * size, out=np.where(over > 0, np.inf, 0.0), where=size > 0)
    error[np.isnan(error)] = np.inf
    if skip is not None:
        error[skip] = 0.0
    most = gamma(product.inner, product.dtype) / u * (1 + 1e-6)
    if product.dtype == "float64":
        most *= 2  # the product that it is compared with is as inexact
    for at, row in enumerate(rows.tolist()):
        limit = np.full(product.columns, most)
        if product.dtype != "float64" and error[at].max() > ALWAYS_ALLOWED:
            limit = np.minimum(limit, _limits(product, draws, left[at], exact[at], size[at], error[at]))
        wrong = error[at] / limit
        worst = int(wrong.argmax())
        if wrong[worst] > 1:
            allowed = limit[worst] * u * size[at, worst]
            raise VerificationError(
                f"{product.place(row, worst)} is {shown[at, worst]:.9g} but should be {exact[at, worst]:.9g}: "
                f"it is off by {off[at, worst]:.2g}, where honest rounding gives at most {allowed:.2g}"
            )


def _limits(
    product: Product,
    draws: "np.random.Generator",
    row: "NDArray[np.float64]",
    exact: "NDArray[np.float64]",
    size: "NDArray[np.float64]",
    error: "NDArray[np.float64]",
) -> "NDArray[np.float64]":
    """Limits for a row's errors in units of ``u (|A||B|)``, finite for the judged columns."""
    import numpy as np

    worst = np.argsort(-error)[: JUDGED_COLUMNS // 2]
    columns = np.union1d(worst, draws.integers(0, len(error), JUDGED_COLUMNS // 2))
    columns = columns[size[columns] > 0]
    limit = np.full(len(error), np.inf)
    if not len(columns):
        return limit
    terms: NDArray[Any] = row.astype(product.dtype)[:, None] * product.b[:, columns]
    seen = np.array([np.abs(total - exact[columns]) for total in sums_in_orders(terms)])
    seen /= ROUNDING[product.dtype] * size[columns]
    usual = np.sqrt(np.square(seen).mean())
    limit[columns] = np.maximum(MARGIN * np.maximum(seen.max(axis=0), usual), ALWAYS_ALLOWED)
    limit[np.isnan(limit)] = np.inf  # a sum in some order has overflowed: the rigorous bound remains
    return limit


def multiplied(left: "NDArray[np.float64]", b: "NDArray[Any]") -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
    """``left @ b`` and ``|left| @ |b|`` in float64, by blocks of rows of ``b``."""
    import numpy as np

    inner, columns = b.shape
    exact, size = np.zeros((len(left), columns)), np.zeros((len(left), columns))
    step = max(1, 2**20 // columns)
    for first in range(0, inner, step):
        block = b[first : first + step].astype(np.float64)
        some = left[:, first : first + step]
        exact += some @ block
        size += np.abs(some) @ np.abs(block)
    return exact, size


def sums_in_orders(terms: "NDArray[Any]") -> "Iterator[NDArray[Any]]":
    """Sums over the first axis in the precision of ``terms``, added as different machines do."""
    import numpy as np

    yield np.cumsum(terms, axis=0)[-1]
    yield np.cumsum(terms[::-1], axis=0)[-1]
    for lanes in (4, 16, 64):  # vector registers of 4 to 16 numbers, up to 4 of them in turn
        yield _by_lanes(terms, lanes)
    for block in (64, 384):  # inner blocks of BLAS libraries have a few hundred terms
        yield _by_lanes(_padded(terms, block).reshape(-1, block, terms.shape[1]).swapaxes(0, 1), 0)
    while len(terms) > 1:  # pairwise
        even = _padded(terms, 2)
        terms = even[::2] + even[1::2]
    yield terms[0]


def _by_lanes(terms: "NDArray[Any]", lanes: int) -> "NDArray[Any]":
    """Every ``lanes``-th term is added to one partial sum; the partial sums in order."""
    import numpy as np

    grouped = _padded(terms, lanes).reshape(-1, lanes, terms.shape[1]) if lanes else terms
    total: NDArray[Any] = np.cumsum(np.cumsum(grouped, axis=0)[-1], axis=0)[-1]
    return total


def _padded(terms: "NDArray[Any]", multiple: int) -> "NDArray[Any]":
    """With zeros to a whole multiple."""
    import numpy as np

    return np.pad(terms, ((0, -len(terms) % multiple), (0, 0)))
