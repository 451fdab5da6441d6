"""Whether a result is right: one function for every array kernel.

=========  ==================================================================================================
algebraic  random combinations of the result's columns against the same of the inputs (``projection.py``)
tolerance  elements at random positions against float64 (``recompute.py``)
exact      the form only: equal results are found by their hashes
=========  ==================================================================================================

Arithmetic runs where the kernel's does, in the worker process.
"""

import hashlib
from typing import TYPE_CHECKING, Any

from sparkle_protocol.errors import LocalProtocolError, VerificationError
from sparkle_worker.kernels.arrays import Algebraic, ArrayKernel, Tolerant, shape_text
from sparkle_worker.kernels.base import Params

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SEED_BYTES = 32


def check(
    kernel: ArrayKernel, unit: Params, arrays: "tuple[NDArray[Any], ...]", result: "NDArray[Any]", seed: bytes
) -> None:
    """Accept ``result`` as what ``kernel`` makes of the unit's tiles.

    Args:
        kernel: whose result it is said to be.
        unit: the unit's parameters.
        arrays: its tiles.
        result: what the worker committed to.
        seed: 32 bytes that nobody knew when it did.

    Raises:
        VerificationError: one sentence that names the worst element and by how much it is off.
    """
    wanted = kernel.result_type(unit)
    if result.dtype != wanted.dtype or result.shape != wanted.shape:
        raise VerificationError(f"the result is {result.dtype.name} {shape_text(result.shape)}, not {wanted}")
    draws = drawn_from(seed)
    if kernel.verification == "algebraic":
        from sparkle_worker.checks.projection import check_product

        if not isinstance(kernel, Algebraic):
            raise LocalProtocolError(f"{kernel.name} does not say what its result is the product of")
        product = kernel.product(unit, arrays)
        check_product(product, result.reshape(product.rows, product.columns), draws)
    elif kernel.verification == "tolerance":
        from sparkle_worker.checks.recompute import check_sample

        if not isinstance(kernel, Tolerant):
            raise LocalProtocolError(f"{kernel.name} does not say which positions are recomputed together")
        check_sample(kernel, unit, arrays, result, draws)


def drawn_from(seed: bytes) -> "np.random.Generator":
    """Random numbers that everybody who knows the seed can draw."""
    import numpy as np

    if len(seed) != SEED_BYTES:
        raise LocalProtocolError(f"the seed of a check has {SEED_BYTES} bytes, not {len(seed)}")
    key = int.from_bytes(hashlib.blake2b(seed, digest_size=16, person=b"sparkle check").digest(), "little")
    return np.random.Generator(np.random.Philox(key=key))
