"""Every kernel of arrays once through a pair of nodes: from the command line and from Python, and what is refused.

The references are written out in float64 here; the tolerances are those that ``sparkle kernels`` states.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

import sparkle_p2p
from sparkle_protocol.errors import ConfigError
from tests.e2e.node.processes import NodeProcess, Swarm

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

Array = NDArray[Any]
RANDOM = np.random.default_rng(7)
U32, U64 = 2.0**-24, 2.0**-53


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def owner(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NodeProcess]:
    """One of two nodes that know each other, for all tests here."""
    async with Swarm(tmp_path_factory.mktemp("kernels")) as swarm:
        first, _ = await swarm.start(2)
        yield first


@dataclass
class Case:
    """A job, and what it must give: the exact result and how far each element may be off."""

    inputs: dict[str, Array]
    expected: Callable[..., tuple[Array, Array]]
    params: dict[str, Any] = field(default_factory=dict)
    dtype: str = "float32"

    def check(self, found: Array) -> None:
        wide = {name: array.astype(np.float64) for name, array in self.inputs.items()}
        exact, tolerance = self.expected(**wide)
        assert (found.dtype.name, found.shape) == (self.dtype, exact.shape)
        assert np.all(np.abs(found - exact) <= tolerance)


def gamma(terms: int, u: float) -> float:
    return terms * u / (1 - terms * u)


def product(a: Array, b: Array) -> tuple[Array, Array]:
    return a @ b, gamma(a.shape[1], U32) * (np.abs(a) @ np.abs(b))


def filtered(image: Array, weights: Array) -> tuple[Array, Array]:
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(0, 1))
    exact = np.einsum("hwcij,ij->hwc", windows, weights)
    return exact, gamma(9, U32) * np.einsum("hwcij,ij->hwc", np.abs(windows), np.abs(weights))


def mean(x: Array) -> tuple[Array, Array]:
    exact = x.mean(axis=0)
    return exact, U64 * np.abs(exact) + gamma(len(x), U64) * np.abs(x).mean(axis=0)


def softmax(x: Array) -> tuple[Array, Array]:
    below = x - x.max(axis=-1, keepdims=True)
    exact = np.exp(below)
    exact /= exact.sum(axis=-1, keepdims=True)
    return exact, exact * U32 * (-below - (exact * below).sum(axis=-1, keepdims=True) + 20)


def layernorm(x: Array) -> tuple[Array, Array]:
    spread = np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)
    exact = (x - x.mean(axis=-1, keepdims=True)) / spread
    relative = np.abs(x).mean(axis=-1, keepdims=True) / spread
    return exact, U32 * np.abs(exact) + U64 * x.shape[-1] * relative * (1 + np.abs(exact))


def moved(state: Array) -> tuple[Array, Array]:
    """Leapfrog with G = 1. What is stated holds between machines; this one adds up in another order."""
    exact, dt = state.copy(), 0.001
    for system in exact:
        mass, place, speed = system[:, 0], system[:, 1:4], system[:, 4:]
        for _ in range(20):
            speed += pull(mass, place) * (dt / 2)
            place += speed * dt
            speed += pull(mass, place) * (dt / 2)
    return exact, np.full_like(exact, 1e-12)


def pull(mass: Array, place: Array) -> Array:
    apart = place[None] - place[:, None]
    cube = ((apart**2).sum(axis=-1) + 0.05**2) ** 1.5
    return (mass[None, :, None] * apart / cube[..., None]).sum(axis=1)


def single(*shape: int) -> Array:
    return RANDOM.standard_normal(shape, dtype=np.float32)


SHARPEN = np.array([[0, -1, 0], [-1, 5, -1], [0, -1, 0]], np.float32)
CASES = {
    "gemm": Case({"a": single(300, 50), "b": single(50, 210)}, product),
    "conv2d": Case(
        {"image": RANDOM.integers(0, 256, (40, 30, 3), np.uint8), "weights": SHARPEN}, filtered, {"border": "edge"}
    ),
    "reduce": Case({"x": RANDOM.standard_normal((400, 30))}, mean, {"op": "mean", "axis": 0}, "float64"),
    "softmax": Case({"x": single(4, 60, 100) * 5}, softmax),
    "layernorm": Case({"x": single(50, 200) + 3}, layernorm),
    "nbody": Case({"state": RANDOM.standard_normal((3, 16, 7)) ** 2}, moved, {"steps": 20}, "float64"),
}


@pytest.mark.parametrize("kernel", CASES)
async def test_files_in_a_file_out(owner: NodeProcess, tmp_path: Path, kernel: str) -> None:
    case = CASES[kernel]
    arguments = [f"--param={name}={value}" for name, value in case.params.items()]
    for name, array in case.inputs.items():
        np.save(tmp_path / f"{name}.npy", array)
        arguments += ["--input", f"{name}={tmp_path / name}.npy"]
    out = tmp_path / "out.npy"
    ran = await owner.sparkle("submit", kernel, *arguments, "--wait", "-o", str(out), timeout_s=120)
    assert ran.code == 0, ran
    case.check(np.load(out))


@pytest.mark.parametrize("kernel", CASES)
async def test_arrays_in_an_array_out_however_they_lie_in_memory(owner: NodeProcess, kernel: str) -> None:
    """Columns first, backwards, and in the other byte order."""
    case = CASES[kernel]

    def ask() -> Array:
        layouts = (np.asfortranarray, lambda x: x[::-1].copy()[::-1], lambda x: x.astype(x.dtype.newbyteorder(">")))
        inputs = {
            name: layouts[number % 3](array) for number, (name, array) in enumerate(case.inputs.items(), len(kernel))
        }
        with sparkle_p2p.connect(owner.home, progress=False) as mesh:
            result: Array = mesh.submit(kernel, inputs, **case.params).result(120)
            return result

    case.check(await asyncio.to_thread(ask))


async def test_nan_and_infinity_are_values_like_any_other(owner: NodeProcess) -> None:
    a, b, x = single(40, 30), single(30, 20), single(10, 30)
    a[3, 4], a[5, 6], x[2, 7], x[4, 1] = np.nan, np.inf, np.nan, np.inf

    def ask() -> list[Array]:
        with sparkle_p2p.connect(owner.home, progress=False) as mesh:
            jobs = [
                mesh.submit("gemm", {"a": a, "b": b}),
                mesh.submit("reduce", {"x": x}, op="max", axis=1),
                mesh.submit("softmax", {"x": x}),
                mesh.submit("layernorm", {"x": x}),
            ]
            return [job.result(120) for job in jobs]

    c, largest, shares, shifted = await asyncio.to_thread(ask)
    with np.errstate(all="ignore"):
        wanted = a @ b
    np.testing.assert_array_equal(np.isnan(c), np.isnan(wanted))
    np.testing.assert_array_equal(np.isinf(c), np.isinf(wanted))
    np.testing.assert_array_equal(largest, x.max(axis=1))
    for rows in (shares, shifted):
        np.testing.assert_array_equal(np.isnan(rows).all(axis=1), np.isin(np.arange(10), (2, 4)))
        assert np.isfinite(np.delete(rows, (2, 4), axis=0)).all()


def sparse(path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    """A file of that size without a byte on the disk."""
    open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)._mmap.close()  # type: ignore[attr-defined]


REFUSED: dict[str, tuple[str, dict[str, Array], str]] = {
    "objects": ("softmax", {"x": np.array([[None, 1.0]])}, "holds Python objects|cannot be read"),
    "nothing": ("reduce", {"x": np.zeros((0, 4), np.float32)}, "is empty"),
    "whole numbers": ("layernorm", {"x": np.ones((4, 4), np.int64)}, "convert it, for example with .astype"),
    "complex": ("gemm", {"a": np.ones((2, 2), complex), "b": np.ones((2, 2), complex)}, "real and imaginary"),
    "shapes": ("gemm", {"a": np.ones((4, 5)), "b": np.ones((4, 5))}, "4 x 5"),
    "types": ("gemm", {"a": np.ones((4, 4)), "b": np.ones((4, 4), np.float32)}, "float32"),
    "columns": ("nbody", {"state": np.ones((4, 6))}, "systems x bodies x 7"),
    "channels": ("conv2d", {"image": np.ones((8, 8, 3)), "weights": np.ones((3, 3, 2, 4))}, "channels"),
    "a number": ("softmax", {"x": np.array(1.0)}, "at least one axis"),
}


@pytest.mark.parametrize("what", [*REFUSED, "2^31 elements"])
async def test_what_cannot_work_is_refused_with_one_sentence(owner: NodeProcess, tmp_path: Path, what: str) -> None:
    """By the node itself, whatever asks it."""
    jobs = len(await asyncio.to_thread(owner.client.jobs))
    kernel, inputs, reason = REFUSED.get(what, ("softmax", {}, "at most 2\\^31 - 1"))
    for name, array in inputs.items():
        np.save(tmp_path / f"{name}.npy", array, allow_pickle=True)
    if not inputs:
        sparse(tmp_path / "x.npy", "float32", (2**16, 2**15))
    names = inputs or {"x": None}
    paths = {name: str(tmp_path / f"{name}.npy") for name in names}

    def ask() -> None:
        with sparkle_p2p.connect(owner.home, progress=False) as mesh:
            mesh.submit(kernel, paths)

    with pytest.raises(ConfigError, match=reason) as refusal:
        await asyncio.to_thread(ask)
    assert "\n" not in str(refusal.value)
    assert len(await asyncio.to_thread(owner.client.jobs)) == jobs
