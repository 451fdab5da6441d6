"""The kernels that this node knows by name. Importing them loads neither NumPy nor Pillow."""

from collections.abc import Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import TypeVar

from sparkle_protocol.errors import NotFound
from sparkle_worker.kernels.arrays import ArrayKernel
from sparkle_worker.kernels.base import Description, Kernel
from sparkle_worker.kernels.collatz import Collatz
from sparkle_worker.kernels.conv2d import Conv2d
from sparkle_worker.kernels.gemm import Gemm
from sparkle_worker.kernels.mandelbrot import Mandelbrot
from sparkle_worker.kernels.monte_carlo_pi import MonteCarloPi
from sparkle_worker.kernels.nbody import NBody
from sparkle_worker.kernels.prime_count import PrimeCount
from sparkle_worker.kernels.reduce import Reduce
from sparkle_worker.kernels.rowwise import LayerNorm, Softmax

KERNELS: Mapping[str, Kernel] = MappingProxyType(
    {kernel.name: kernel for kernel in (PrimeCount(), Collatz(), Mandelbrot(), MonteCarloPi())}
)
ARRAY_KERNELS: Mapping[str, ArrayKernel] = MappingProxyType(
    {kernel.name: kernel for kernel in (Gemm(), Conv2d(), Reduce(), Softmax(), LayerNorm(), NBody())}
)

_Found = TypeVar("_Found", bound=Description)


def get_kernel(name: str, version: int | None = None, kernels: Mapping[str, Kernel] = KERNELS) -> Kernel:
    """The kernel without arrays called ``name``, in exactly ``version`` if one is given.

    Raises:
        NotFound: no such kernel or version here; the sentence names what there is.
    """
    return _find(name, version, kernels)


def get_array_kernel(
    name: str, version: int | None = None, kernels: Mapping[str, ArrayKernel] = ARRAY_KERNELS
) -> ArrayKernel:
    """The kernel of arrays called ``name``, in exactly ``version`` if one is given.

    Raises:
        NotFound: no such kernel or version here; the sentence names what there is.
    """
    return _find(name, version, kernels)


def _find(name: str, version: int | None, kernels: Mapping[str, _Found]) -> _Found:
    kernel = kernels.get(name) if isinstance(name, str) else None
    if kernel is None:
        shown = ascii(name[:40]) if isinstance(name, str) else "without a name"
        near = get_close_matches(name[:40], kernels, n=3, cutoff=0.5) if isinstance(name, str) else []
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(sorted(kernels))}"
        raise NotFound(f"no kernel {shown} is known here; {hint}")
    if version is not None and version != kernel.version:
        wanted = str(version)[:20] if isinstance(version, int) and abs(version) < 2**63 else "an impossible one"
        raise NotFound(f"{name} is here in version {kernel.version}, not {wanted}; update the older of the two nodes")
    return kernel
