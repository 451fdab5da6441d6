"""How much of a core's arithmetic the kernels get, and what checking their results costs."""

import shutil
import subprocess
import sys
from pathlib import Path

from sparkle_worker import blas
from tests.bench.processes import ROOT, Child, environment, scratch
from tests.bench.rows import Row, median_row

PEAK_SOURCE = Path(__file__).with_name("fma_peak.c")
PEAK = "FMA peak of the core, by a loop in C"
GIGA = 1e9


def arithmetic(repeat: int) -> list[Row]:
    """gemm and conv2d against the peak, the projection check against the gemm that it checks; processor time."""
    with scratch() as folder:
        library, lacking = _peak_library(folder)
        command = [sys.executable, "-P", "-m", "tests.bench.one_core", *([library] if library else [])]
        with (
            Child(command, folder / "computing.log", _blas(thin=False)) as computing,
            Child(command, folder / "checking.log", _blas(thin=True)) as checking,
        ):
            rounds = [_round(computing, checking) for _ in range(repeat + 1)][1:]  # the first warms up
    peaks = [found["peak"] / GIGA for found in rounds if found["peak"]]

    def share(name: str, bar: float, stretch: float) -> Row:
        rates = [found[name] / GIGA for found in rounds]
        limits = {"bar": bar, "stretch": stretch}
        return median_row(
            name, "GFLOP/s", rates, peaks, judged="ratio", at_least=True, against=PEAK, lacking=lacking, **limits
        )

    def check(size: int, bar: float | None, stretch: float | None) -> Row:
        took, whole = ([found[f"{what}_{size}_s"] * 1e3 for found in rounds] for what in ("check", "gemm"))
        return median_row(
            f"check_{size}", "ms", took, whole, bar=bar, stretch=stretch, judged="ratio", against=f"gemm {size}²"
        )

    return [
        share("gemm_1024", 0.84, 0.88),
        share("gemm_2048", 0.84, 0.88),
        share("conv2d", 0.58, 0.85),
        check(1024, None, None),
        check(2048, 0.05, 0.03),
    ]


def _blas(*, thin: bool) -> dict[str, str]:
    """The environment as in a process that computes, or that checks."""
    env = environment(PYTHONPATH=str(ROOT))
    blas.set_up(env, thin=thin)
    return env


def _round(computing: Child, checking: Child) -> dict[str, float]:
    """What each takes for its own part, one after the other."""
    found, checks = computing.ask("next"), checking.ask("next")
    return {**found, **{name: took for name, took in checks.items() if name.startswith("check")}}


def _peak_library(folder: Path) -> tuple[Path | None, str]:
    """The loop compiled for this processor, or why there is none."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        return None, "no C compiler here"
    library = folder / "fma_peak.so"
    flags = ["-O2", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC"]
    done = subprocess.run([compiler, *flags, str(PEAK_SOURCE), "-o", str(library)], capture_output=True, timeout=60)
    return (library, "") if done.returncode == 0 else (None, f"{Path(compiler).name} could not compile fma_peak.c")
