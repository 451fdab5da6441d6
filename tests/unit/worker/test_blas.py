"""What BLAS is told on which processor."""

from pathlib import Path

import pytest

from sparkle_worker import blas

ZEN4 = "processor\t: 0\nvendor_id\t: AuthenticAMD\nflags\t\t: fpu avx2 avx512f avx512dq\n\nprocessor\t: 1\n"
ZEN3 = "processor\t: 0\nvendor_id\t: AuthenticAMD\nflags\t\t: fpu avx2\n\n"
XEON = "processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu avx2 avx512f\n\n"


def told(folder: Path, processor: str, *, thin: bool = False, **given: str) -> dict[str, str]:
    described = folder / "cpuinfo"
    described.write_text(processor)
    environment = dict(given)
    blas.set_up(environment, thin=thin, cpu_info=described)
    return environment


@pytest.mark.parametrize(("processor", "chosen"), [(ZEN4, "Haswell"), (ZEN3, None), (XEON, None)])
def test_large_products_get_other_kernels_on_amd_with_avx512(tmp_path: Path, processor: str, chosen: str) -> None:
    assert told(tmp_path, processor).get(blas.CORE_TYPE) == chosen


def test_thin_products_and_what_the_user_chose_are_left_alone(tmp_path: Path) -> None:
    assert blas.CORE_TYPE not in told(tmp_path, ZEN4, thin=True)
    assert told(tmp_path, ZEN4, OPENBLAS_CORETYPE="Zen")[blas.CORE_TYPE] == "Zen"


def test_one_thread_on_any_system(tmp_path: Path) -> None:
    environment = {"OMP_NUM_THREADS": "8"}
    blas.set_up(environment, cpu_info=tmp_path / "no such file")
    assert {environment[name] for name in blas.THREADS} == {"1"}
    assert blas.CORE_TYPE not in environment
