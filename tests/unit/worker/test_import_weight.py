"""A node that only submits or keeps work never loads NumPy or Pillow."""

import subprocess
import sys

SCRIPT = """
import struct, sys
from sparkle_worker.kernels.arrays import ArrayType
from sparkle_worker.kernels.registry import ARRAY_KERNELS, KERNELS
for kernel in KERNELS.values():
    params = kernel.validate({})
    units = kernel.default_units(params)
    unit = kernel.unit(params, units, units - 1)
    kernel.max_units(params), kernel.cost(unit), kernel.validate(params)
for kernel in ARRAY_KERNELS.values():
    needed = [name for name in kernel.inputs if name not in kernel.optional_inputs]
    params = kernel.with_arrays({}, {name: ArrayType("float32", (99, 99)) for name in needed})
    units = kernel.default_units(params)
    unit = kernel.unit(params, units, units - 1)
    kernel.max_units(params), kernel.cost(unit), kernel.validate(params), kernel.least_units(params, 10**9)
    kernel.unit_inputs(params, units, 0), kernel.input_types(unit)
    kernel.result_type(unit), kernel.output_type(params)
import sparkle_worker.checks.check, sparkle_worker.checks.projection, sparkle_worker.checks.recompute
KERNELS["monte_carlo_pi"].check_result({"start": 0, "stop": 4, "seed": 0}, struct.pack("<Q", 3))
KERNELS["monte_carlo_pi"].combine({"samples": 4, "seed": 0}, 1, [struct.pack("<Q", 3)])
KERNELS["prime_count"].combine({"start": 0, "stop": 2}, 1, [struct.pack("<Q", 0)])
KERNELS["prime_count"].check_result({"start": 0, "stop": 9}, struct.pack("<Q", 4))
KERNELS["collatz"].check_result({"start": 27, "stop": 28}, struct.pack("<QQ", 27, 111))
KERNELS["collatz"].combine({"start": 27, "stop": 28}, 1, [struct.pack("<QQ", 27, 111)])
picture = KERNELS["mandelbrot"]
params = picture.validate({"width": 1, "height": 1})
picture.check_result(picture.unit(params, 1, 0), struct.pack("<H", 1000))
import sparkle_worker.executor
heavy = {"numpy", "PIL"} & set(sys.modules)
assert not heavy, heavy
# Pillow may be loaded to write a picture, NumPy not even then.
picture.combine(params, 1, [struct.pack("<H", 1000)])
assert "numpy" not in sys.modules
"""


def test_descriptions_splits_and_checks_need_no_numpy():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
