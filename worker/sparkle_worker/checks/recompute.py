"""Checks results of the tolerance class: drawn elements against float64, and replicas against each other.

A sample finds results that are wrong in many places: another precision, another unit's result, zeros. A single
wrong element among millions it finds only by luck; against those stands the second replica.
"""

from typing import TYPE_CHECKING, Any

from sparkle_protocol.errors import VerificationError
from sparkle_worker.kernels.arrays import ROUNDING, ArrayKernel, Tolerant
from sparkle_worker.kernels.base import Params

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SHARE = 32  # one element of as many is recomputed
LEAST_GROUPS, MOST_ELEMENTS = 32, 2**20
CLOSE = 2.0  # replicas that differ by at most as many roundings of their value need no arbiter


def check_sample(
    kernel: Tolerant,
    unit: Params,
    arrays: "tuple[NDArray[Any], ...]",
    result: "NDArray[Any]",
    draws: "np.random.Generator",
) -> None:
    """Accept ``result`` if drawn elements are within the kernel's error bound of their float64 values.

    Raises:
        VerificationError: names the worst of them.
    """
    import numpy as np

    group = kernel.positions_together(unit)
    groups = result.size // group
    count = min(groups, max(LEAST_GROUPS, groups // SHARE), max(1, MOST_ELEMENTS // group))
    chosen = np.sort(draws.choice(groups, count, replace=False)) if count < groups else np.arange(groups)
    positions = (chosen[:, None] * group + np.arange(group)).ravel()
    exact, bound = kernel.reference(unit, arrays, positions)
    _compare(result, positions, exact, bound)


def agree(
    kernel: ArrayKernel,
    unit: Params,
    arrays: "tuple[NDArray[Any], ...]",
    first: "NDArray[Any]",
    second: "NDArray[Any]",
) -> None:
    """Accept that two replicas, in checked form, are results of the same honest computation.

    Where they differ by more than a rounding, both are held against float64.

    Raises:
        VerificationError: names the element and by how much it is off.
    """
    import numpy as np

    with np.errstate(all="ignore"):
        one, other = first.reshape(-1), second.reshape(-1)
        same = (one == other) | (np.isnan(one) & np.isnan(other))
        near = 2 * CLOSE * ROUNDING[first.dtype.name] * np.minimum(np.abs(one), np.abs(other))
        apart = np.flatnonzero(~(same | (np.abs(one - other) <= near)))
    for start in range(0, len(apart), MOST_ELEMENTS):
        positions = apart[start : start + MOST_ELEMENTS]
        exact, bound = kernel.reference(unit, arrays, positions)
        for result in (first, second):
            _compare(result, positions, exact, bound)


def _compare(
    result: "NDArray[Any]",
    positions: "NDArray[np.intp]",
    exact: "NDArray[np.float64]",
    bound: "NDArray[np.float64]",
) -> None:
    """Raise VerificationError for the element that is farthest outside its bound."""
    import numpy as np

    with np.errstate(all="ignore"):
        found = result.reshape(-1)[positions].astype(np.float64)
        off = np.abs(found - exact)
        same = (found == exact) | (np.isnan(found) & np.isnan(exact))
        # a value beyond the largest number of the type is an infinity
        same |= np.isinf(found) & (np.sign(found) * exact + bound > float(np.finfo(result.dtype).max))
        same |= np.isinf(bound)  # where a sum of absolute values overflows, nothing can be said
        error = np.where(same, 0.0, np.divide(off, bound, out=np.full(len(off), np.inf), where=bound > 0))
        error[np.isnan(error)] = np.inf
    worst = int(error.argmax())
    if error[worst] > 1:
        place = tuple(int(index) for index in np.unravel_index(int(positions[worst]), result.shape))
        raise VerificationError(
            f"element {place} is {found[worst]:.9g} but should be {exact[worst]:.9g}: it is off by {off[worst]:.2g}, "
            f"where the kernel's error is at most {bound[worst]:.2g}"
        )
