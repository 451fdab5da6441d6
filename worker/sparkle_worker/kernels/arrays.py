"""Kernels of arrays: how inputs become tiles, and tiles a result.

::

    submitter                                   worker                       submitter
    with_arrays(params, types) -> params
    tiles(params, units, arrays) ─ blobs ─────► compute_into(unit, arrays,
      tile 0, tile 1, ...                         out, progress) ── blob ──► assemble(params, units,
    unit_inputs(params, units, index)           input_types, result_type       results, out)

A job's ``inputs`` are its tiles, in the order in which ``tiles`` yields them. A unit needs the tiles at the
positions ``unit_inputs``, in that order, and yields one array of ``result_type``. Tiles and results travel as
the plain bytes of C-ordered little-endian arrays; their types follow from the unit's parameters alone, so
nothing describes them on the wire. Tiles are made one at a time: an input may be a memory-mapped file that is
larger than memory.

NaN and infinities are values like any other: they are computed with and appear in the result.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from sparkle_protocol.errors import ConfigError, LocalProtocolError
from sparkle_worker.kernels.base import Description, Params, Progress
from sparkle_worker.kernels.parameters import show

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sparkle_worker.checks.projection import Product

MAX_TILES = 1024  # inputs that a job's spec can name
MAX_ELEMENTS = 2**31 - 1  # of one array: beyond it, BLAS libraries with 32-bit integers give wrong results
MAX_DIMENSIONS = 8
ITEM_BYTES: Mapping[str, int] = {"uint8": 1, "float32": 4, "float64": 8}
FLOATS = ("float32", "float64")
ROUNDING: Mapping[str, float] = {"float32": 2.0**-24, "float64": 2.0**-53}  # u: half the gap above 1


@dataclass(frozen=True, slots=True)
class ArrayType:
    """Element type and shape of an array."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Length of the array's bytes."""
        return self.size * ITEM_BYTES[self.dtype]

    def __str__(self) -> str:
        return f"{self.dtype} {shape_text(self.shape)}"

    def view(self, data: "bytes | bytearray | memoryview[Any]") -> "NDArray[Any]":
        """An array over ``data`` without a copy, read-only if ``data`` is.

        Raises:
            ConfigError: ``data`` has another length.
        """
        import numpy as np

        length = memoryview(data).nbytes
        if length != self.nbytes:
            raise ConfigError(f"an array of {self} has {self.nbytes} bytes, not {length}")
        return np.frombuffer(data, dtype=np.dtype(self.dtype).newbyteorder("<")).reshape(self.shape)

    def empty(self) -> "NDArray[Any]":
        """A new array of this type, with arbitrary contents."""
        import numpy as np

        return np.empty(self.shape, dtype=np.dtype(self.dtype).newbyteorder("<"))


class ArrayKernel(Description, Protocol):
    """A kernel with arrays as inputs and as result.

    ``inputs`` names them for the user; those in ``optional_inputs`` may be left out. ``error_law`` is the stated
    error bound in words; ``reference`` is the same bound as a function.
    """

    inputs: Mapping[str, str]
    optional_inputs: frozenset[str]
    error_law: str

    def with_arrays(self, params: Params, arrays: Mapping[str, ArrayType]) -> dict[str, Any]:
        """The job's full parameters: the user's own, and what follows from the inputs. ``validate`` keeps them.

        Raises:
            ConfigError: an input is missing, unknown, or of an impossible shape or type.
        """
        ...

    def least_units(self, params: Params, memory_bytes: int) -> int:
        """The fewest units of which each needs at most ``memory_bytes``.

        Raises:
            ConfigError: even the smallest unit needs more.
        """
        ...

    def tiles(self, params: Params, units: int, arrays: "Mapping[str, NDArray[Any]]") -> "Iterator[NDArray[Any]]":
        """The job's inputs in order, each C-ordered, little-endian and made when it is asked for."""
        ...

    def unit_inputs(self, params: Params, units: int, index: int) -> tuple[int, ...]:
        """Positions among the tiles of those that the unit needs."""
        ...

    def input_types(self, unit: Params) -> tuple[ArrayType, ...]:
        """Types of the unit's tiles."""
        ...

    def result_type(self, unit: Params) -> ArrayType:
        """Type of the unit's result."""
        ...

    def compute_into(
        self, unit: Params, arrays: "tuple[NDArray[Any], ...]", out: "NDArray[Any]", progress: Progress
    ) -> None:
        """Compute the unit into ``out``; the inputs are not modified."""
        ...

    def output_type(self, params: Params) -> ArrayType:
        """Type of the job's result."""
        ...

    def assemble(self, params: Params, units: int, results: "Iterable[NDArray[Any]]", out: "NDArray[Any]") -> None:
        """Write the units' results, which come in index order, into ``out``, an array of ``output_type``."""
        ...

    def reference(
        self, unit: Params, arrays: "tuple[NDArray[Any], ...]", positions: "NDArray[np.intp]"
    ) -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
        """The result's elements at flat ``positions`` in float64, and by how much an honest one may be off."""
        ...


@runtime_checkable
class Algebraic(ArrayKernel, Protocol):
    """An array kernel whose result is a matrix product."""

    def product(self, unit: Params, arrays: "tuple[NDArray[Any], ...]") -> "Product":
        """The unit as the product that its check projects; the result in C order is the product's rows."""
        ...


@runtime_checkable
class Tolerant(ArrayKernel, Protocol):
    """An array kernel whose results are compared with float64 at drawn positions."""

    def positions_together(self, unit: Params) -> int:
        """How many elements that follow each other cost ``reference`` no more than one of them."""
        ...


@runtime_checkable
class Gathering(ArrayKernel, Protocol):
    """An array kernel whose results can be put together by writing pieces of them one after the other."""

    def gather(self, params: Params, units: int, results: "Iterable[NDArray[Any]]") -> Iterator[memoryview]:
        """What ``assemble`` makes of them, as bytes in C order; a few results at a time are held.

        Raises:
            VerificationError: there are more or fewer results than units.
        """
        ...


@runtime_checkable
class Resumable(ArrayKernel, Protocol):
    """An array kernel whose units can be carried on by another process, or another machine."""

    def resume_into(
        self,
        unit: Params,
        arrays: "tuple[NDArray[Any], ...]",
        out: "NDArray[Any]",
        progress: Progress,
        checkpoint: bytes | None,
        save: Callable[[bytes], None],
    ) -> None:
        """As ``compute_into``, from ``checkpoint`` on; ``save`` gets a new one now and then.

        Raises:
            ConfigError: this is no checkpoint of the unit.
        """
        ...


def array_type(name: str, array: Any) -> ArrayType:
    """The type of a user's array; byte order and strides do not matter, since tiles are made by copying.

    Raises:
        ConfigError: it is not an array that can be sent: the sentence says why and what to do.
    """
    import numpy as np

    if isinstance(array, np.ma.MaskedArray):
        raise ConfigError(f"the input '{name}' is a masked array; fill its gaps first, for example with .filled(0)")
    if not isinstance(array, np.ndarray):
        raise ConfigError(f"the input '{name}' must be a NumPy array, not a {type(array).__name__[:40]}")
    if array.dtype.hasobject:
        raise ConfigError(f"the input '{name}' holds Python objects; convert it, for example with .astype('float64')")
    if array.dtype.fields is not None:
        raise ConfigError(f"the input '{name}' holds records; pass one of its fields as an array")
    if array.ndim > MAX_DIMENSIONS:
        raise ConfigError(f"the input '{name}' has {array.ndim} dimensions; at most {MAX_DIMENSIONS} are supported")
    if array.size == 0:
        raise ConfigError(f"the input '{name}' is empty (its shape is {shape_text(array.shape)})")
    if array.size > MAX_ELEMENTS:
        raise ConfigError(
            f"the input '{name}' has {array.size} elements; an array may have at most 2^31 - 1, "
            "so cut the work into several jobs"
        )
    return ArrayType(array.dtype.newbyteorder("=").name, tuple(int(size) for size in array.shape))


def check_inputs(kernel: ArrayKernel, arrays: Mapping[str, ArrayType]) -> None:
    """Refuse inputs that the kernel does not have, and the lack of one that it needs.

    Raises:
        ConfigError: names them.
    """
    known = ", ".join(kernel.inputs)
    for name in arrays:
        if name not in kernel.inputs:
            raise ConfigError(f"{kernel.name} has no input {show(name)}; it takes {known}")
    for name in kernel.inputs:
        if name not in arrays and name not in kernel.optional_inputs:
            raise ConfigError(f"{kernel.name} needs the input '{name}' ({kernel.inputs[name]})")


def supported(kernel: str, name: str, dtype: str, allowed: tuple[str, ...] = FLOATS) -> str:
    """``dtype`` if the kernel computes with it.

    Raises:
        ConfigError: it does not; the sentence says what to do.
    """
    if dtype in allowed:
        return dtype
    if dtype.startswith("complex"):
        advice = "pass its real and imaginary parts as arrays of their own"
    elif dtype.startswith(("str", "bytes", "void", "datetime", "timedelta")):
        advice = "pass numbers"
    else:
        better = "float64" if dtype in ("int32", "int64", "uint32", "uint64", "float128", "longdouble") else "float32"
        advice = f"convert it, for example with .astype('{better}')"
    raise ConfigError(f"{kernel} computes with {' or '.join(allowed)}, but '{name}' is {dtype[:40]}; {advice}")


def tile(array: "NDArray[Any]", dtype: str) -> "NDArray[Any]":
    """A C-ordered little-endian piece of an input, copied only if it is not that already."""
    import numpy as np

    return np.ascontiguousarray(np.asarray(array), dtype=np.dtype(dtype).newbyteorder("<"))


def check_arrays(kernel: ArrayKernel, unit: Params, arrays: "tuple[NDArray[Any], ...]", out: "NDArray[Any]") -> None:
    """Refuse arrays that are not the unit's: a mistake of ours, never the user's.

    Raises:
        LocalProtocolError: names the first that differs.
    """
    wanted = (*kernel.input_types(unit), kernel.result_type(unit))
    if len(arrays) + 1 != len(wanted):
        raise LocalProtocolError(f"a unit of {kernel.name} has {len(wanted) - 1} tiles, not {len(arrays)}")
    for position, (type_, array) in enumerate(zip(wanted, (*arrays, out), strict=True)):
        if array.shape != type_.shape or array.dtype != type_.dtype:
            which = "result" if position == len(arrays) else f"tile {position}"
            raise LocalProtocolError(
                f"the {which} of a {kernel.name} unit is {type_}, not {array.dtype.name} {shape_text(array.shape)}"
            )


def shape_text(shape: Iterable[int]) -> str:
    """``4 x 5``, or ``scalar``."""
    return " x ".join(map(str, shape)) or "scalar"


def gamma(terms: int, dtype: str) -> float:
    """γ_n = n·u / (1 − n·u): what n roundings in a row amount to at most (Higham 2002, lemma 3.1)."""
    share = terms * ROUNDING[dtype]
    return share / (1 - share) if share < 0.5 else 1.0
