"""How BLAS is set up in a process of ours: by environment variables, which it reads when NumPy is loaded.

- One thread: two of them beside other work collapse.
- On AMD processors with AVX-512 OpenBLAS picks kernels that were made for Intel's. Its AVX2 kernels multiply large
  matrices 8 % faster there (0.91 of the core's peak instead of 0.84), but thin ones at half the speed: processes that
  compute get the former, processes that check, whose products are thin, keep the latter.
"""

from collections.abc import MutableMapping
from pathlib import Path

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
CORE_TYPE = "OPENBLAS_CORETYPE"
CPU_INFO = Path("/proc/cpuinfo")
READ_BYTES = 1 << 14  # the first processor is like the others


def set_up(environment: MutableMapping[str, str], *, thin: bool = False, cpu_info: Path = CPU_INFO) -> None:
    """Set what BLAS is to read; a core type that the user has chosen stays.

    Args:
        environment: of the process that will load NumPy.
        thin: its products have few columns.
        cpu_info: where Linux describes the processor.
    """
    for name in THREADS:
        environment[name] = "1"
    if not thin and CORE_TYPE not in environment and _is_amd_with_avx512(cpu_info):
        environment[CORE_TYPE] = "Haswell"


def _is_amd_with_avx512(cpu_info: Path) -> bool:
    try:
        with cpu_info.open("rb") as file:
            first = file.read(READ_BYTES).partition(b"\n\n")[0]
    except OSError:
        return False  # no Linux: OpenBLAS knows best
    return b"AuthenticAMD" in first and b"avx512f" in first.split()
