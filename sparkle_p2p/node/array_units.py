"""What a unit of a job with arrays consists of: its parameters, its tiles, the type of its result."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sparkle_p2p.blobs.sealing import sealed_bytes
from sparkle_protocol.blobs.tree import BlobId
from sparkle_protocol.errors import ConfigError, VerificationError
from sparkle_protocol.facts import JobSpec, is_encrypted
from sparkle_protocol.ids import HASH_BYTES
from sparkle_worker.kernels.arrays import MAX_TILES, ArrayKernel, ArrayType
from sparkle_worker.kernels.registry import ARRAY_KERNELS, get_array_kernel, get_kernel


@dataclass(frozen=True, slots=True)
class ArrayUnit:
    """One unit as its kernel describes it."""

    kernel: ArrayKernel
    params: Mapping[str, Any]
    tiles: tuple[tuple[BlobId, int], ...]  # the id and size of each blob
    result: ArrayType
    index: int
    positions: tuple[int, ...]  # of the tiles among the job's inputs
    types: tuple[ArrayType, ...]  # of the tiles
    result_bytes: int  # size of the blob that the result becomes

    @property
    def blobs(self) -> tuple[BlobId, ...]:
        """Its tiles by id."""
        return tuple(blob for blob, _ in self.tiles)


def has_arrays(spec: JobSpec) -> bool:
    """Whether the job's results are blobs."""
    return spec.kernel in ARRAY_KERNELS


def array_unit(spec: JobSpec, unit: int) -> ArrayUnit:
    """One unit of a job with arrays. Raises ConfigError when the spec is not acceptable here."""
    kernel = get_array_kernel(spec.kernel, spec.kernel_version)
    params = _checked(kernel, spec)
    one = kernel.unit(params, spec.units, unit)
    positions, types = kernel.unit_inputs(params, spec.units, unit), kernel.input_types(one)
    if any(position >= len(spec.inputs) for position in positions):
        raise ConfigError(f"this {spec.kernel} job names {len(spec.inputs)} inputs, too few for its unit {unit}")
    tiles = ((BlobId(spec.inputs[at]), blob_bytes(spec, type_)) for at, type_ in zip(positions, types, strict=True))
    result = kernel.result_type(one)
    stored = blob_bytes(spec, result)
    return ArrayUnit(kernel, one, tuple(tiles), result, unit, tuple(positions), tuple(types), stored)


def blob_bytes(spec: JobSpec, type_: ArrayType) -> int:
    """How large the blob of such an array of a job is."""
    return sealed_bytes(type_.nbytes) if is_encrypted(spec) else type_.nbytes


def input_sizes(spec: JobSpec) -> tuple[int, ...]:
    """The size of each input's blob in order; empty without inputs. Raises ConfigError when that cannot be told.

    Looks at about ``3 * MAX_TILES`` units at most: tiles are shared in the pattern of a grid at most, so that the
    first ones have all that a row of it shares, and evenly spread ones all that a column does.
    """
    if not spec.inputs:
        return ()
    kernel = get_array_kernel(spec.kernel, spec.kernel_version)
    params = _checked(kernel, spec)
    sizes: dict[int, int] = {}
    spread = range(0, spec.units, max(1, spec.units // MAX_TILES))
    for unit in (*range(min(spec.units, MAX_TILES)), *spread):
        positions = kernel.unit_inputs(params, spec.units, unit)
        if not sizes.keys() >= set(positions):
            types = kernel.input_types(kernel.unit(params, spec.units, unit))
            sizes.update(zip(positions, (blob_bytes(spec, type_) for type_ in types), strict=True))
    if sizes.keys() != set(range(len(spec.inputs))):
        raise ConfigError(f"this {spec.kernel} job names {len(spec.inputs)} inputs and needs {len(sizes)}")
    return tuple(sizes[at] for at in range(len(spec.inputs)))


def result_size(spec: JobSpec, unit: int) -> int:
    """The size of the blob that a unit's result names; 0 without arrays. Raises ConfigError."""
    return array_unit(spec, unit).result_bytes if has_arrays(spec) else 0


def unit_parameters(spec: JobSpec, unit: int) -> dict[str, Any]:
    """Parameters of one unit without arrays. Raises ConfigError when the spec is not acceptable here."""
    kernel = get_kernel(spec.kernel, spec.kernel_version)
    return kernel.unit(_checked(kernel, spec), spec.units, unit)


def check_result(spec: JobSpec, unit: int, result: bytes) -> None:
    """Refuse a result of impossible form; of an array kernel it is the id of a blob. Raises VerificationError."""
    if not has_arrays(spec):
        get_kernel(spec.kernel, spec.kernel_version).check_result(unit_parameters(spec, unit), result)
    elif len(result) != HASH_BYTES:
        raise VerificationError(f"the result is named by {HASH_BYTES} bytes, not {len(result)}")


def _checked(kernel: Any, spec: JobSpec) -> dict[str, Any]:
    params: dict[str, Any] = kernel.validate(spec.params)
    if spec.units > kernel.max_units(params):
        raise ConfigError(f"{spec.kernel} cannot be cut into {spec.units} units")
    return params
