"""What the demo computes, by one process that trusts itself."""

from typing import Any

from sparkle_worker.kernels.registry import get_kernel


def compute(name: str, given: dict[str, Any]) -> Any:
    """A kernel's combined result."""
    kernel = get_kernel(name)
    params = kernel.validate(given)
    units = kernel.default_units(params)
    parts = [kernel.compute(kernel.unit(params, units, index), lambda _share: None) for index in range(units)]
    return kernel.combine(params, units, parts).value


if __name__ == "__main__":
    print(compute("prime_count", {"start": 0, "stop": 10**9}))
    print(compute("mandelbrot", {}))
