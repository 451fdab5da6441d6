"""Runs a job of an array kernel as the network does: tiles and results travel as bytes. And what cheats do."""

import numpy as np

from sparkle_protocol.errors import VerificationError
from sparkle_worker.checks.check import check
from sparkle_worker.kernels.arrays import array_type


def quiet(_share):
    pass


def inputs_of(kernel, params, units, index, blobs):
    """A unit and its tiles, over read-only memory."""
    unit = kernel.unit(params, units, index)
    places = kernel.unit_inputs(params, units, index)
    return unit, tuple(
        type_.view(blobs[place]) for type_, place in zip(kernel.input_types(unit), places, strict=True)
    )


def described(kernel, params, arrays):
    return kernel.with_arrays(params, {name: array_type(name, array) for name, array in arrays.items()})


def cut_job(kernel, params, arrays, units=None):
    """Full parameters, the number of units, and all tiles as bytes."""
    full = described(kernel, params, arrays)
    assert kernel.validate(full) == full
    units = units or kernel.default_units(full)
    blobs = [tile.tobytes() for tile in kernel.tiles(full, units, arrays)]
    return full, units, blobs


def computed(kernel, unit, tiles):
    out = kernel.result_type(unit).empty()
    out.view(np.uint8).fill(0xAA)  # nothing may rely on what was there
    kernel.compute_into(unit, tiles, out, quiet)
    return out


def run_job(kernel, params, arrays, units=None, on_unit=None):
    """The job's result; ``on_unit(unit, tiles, result)`` sees every unit."""
    full, units, blobs = cut_job(kernel, params, arrays, units)

    def results():
        for index in range(units):
            unit, tiles = inputs_of(kernel, full, units, index, blobs)
            result = computed(kernel, unit, tiles)
            if on_unit:
                on_unit(unit, tiles, result)
            yield result

    out = kernel.output_type(full).empty()
    kernel.assemble(full, units, results(), out)
    return out


def one_unit(kernel, params, **arrays):
    """A job of one unit: the unit, its tiles and the result."""
    full, _, blobs = cut_job(kernel, params, arrays, 1)
    unit, tiles = inputs_of(kernel, full, 1, 0, blobs)
    return unit, tiles, computed(kernel, unit, tiles)


def seeds(count):
    return (number.to_bytes(32, "little") for number in range(count))


def rejected(kernel, unit, tiles, result, seed=bytes(32)):
    """The sentence with which a result is rejected, or None."""
    try:
        check(kernel, unit, tiles, result, seed)
    except VerificationError as error:
        return str(error)
    return None


def random(*shape, dtype="float32", seed=1):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def bfloat16(array):
    """Rounded to the nearest of 8 bits, as float32."""
    bits = array.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def altered(result, changes):
    wrong = result.copy()
    for place, change in changes:
        wrong[place] += change
    return wrong
