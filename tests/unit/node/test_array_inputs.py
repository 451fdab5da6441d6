"""Files become arrays, or one sentence; arrays become blobs that stay until nobody needs them."""

import os
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from sparkle_p2p.blobs.store import BlobStore
from sparkle_p2p.node import array_inputs
from sparkle_p2p.node.array_inputs import CutJob, choose_units, cut_job, open_array
from sparkle_p2p.node.array_units import input_sizes
from sparkle_p2p.node.memory import UnitMemory
from sparkle_p2p.node.results import make_array_spec
from sparkle_p2p.view import SubmitRequest
from sparkle_protocol.blobs.tree import BlobId
from sparkle_protocol.errors import ConfigError, StorageError
from sparkle_protocol.identity import Identity
from sparkle_worker.kernels.arrays import ArrayType, array_type
from sparkle_worker.kernels.registry import ARRAY_KERNELS, get_array_kernel

MB = 1 << 20


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs", 64 * MB)


def limit(memory_mb: int) -> UnitMemory:
    return UnitMemory(memory_mb * MB, memory_mb * MB)


LIMIT = limit(64)


def stored(folder: Path, name: str, array: Any) -> str:
    path = folder / f"{name}.npy"
    np.save(path, array, allow_pickle=True)
    return str(path)


def opened(name: str, path: str, store: BlobStore) -> Any:
    with ExitStack() as copies:
        return open_array(name, path, store, copies, threading.Event())


def test_a_file_of_numbers_is_mapped_and_what_happens_to_it_later_does_not_matter(
    tmp_path: Path, store: BlobStore
) -> None:
    path = stored(tmp_path, "a", np.arange(12.0).reshape(3, 4))
    with ExitStack() as copies:
        array = open_array("a", path, store, copies, threading.Event())
        os.truncate(path, 0)
        assert isinstance(array, np.memmap)
        assert not array.flags.writeable
        assert array[2, 3] == 11
    assert not list((tmp_path / "blobs").iterdir())
    assert store.used_bytes == 0


@pytest.mark.parametrize("change", ["shorter", "written"])
def test_a_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, store: BlobStore, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """Between the second piece and the third somebody cuts the file, or writes to it."""
    path, read, pieces = stored(tmp_path, "a", np.zeros(2 * MB)), array_inputs.read_into, 0
    os.utime(path, ns=(0, 0))

    def reads(descriptor: int, buffer: memoryview, offset: int) -> int:
        nonlocal pieces
        pieces += 1
        if pieces == 3 and change == "shorter":
            os.truncate(path, 5 * MB)
        elif pieces == 3:
            with open(path, "r+b") as file:
                file.write(b"x")
        return read(descriptor, buffer, offset)

    monkeypatch.setattr(array_inputs, "read_into", reads)
    with pytest.raises(ConfigError, match=r"the input 'a' changed while it was read: .*; submit the job again"):
        opened("a", path, store)
    assert pieces > 2
    assert store.used_bytes == 0


def test_layouts_do_not_matter(tmp_path: Path, store: BlobStore) -> None:
    """Columns first, and the other byte order: the tiles are what was meant."""
    wanted = np.arange(12, dtype=np.float32).reshape(3, 4)
    for number, array in enumerate((np.asfortranarray(wanted), wanted.astype(">f4"))):
        inputs = {"a": stored(tmp_path, f"a{number}", array), "b": stored(tmp_path, "b", np.eye(4, dtype=np.float32))}
        cut = cut_job(SubmitRequest("gemm", {}, 1, inputs=inputs), store, LIMIT, threading.Event(), lambda *_: None)
        np.testing.assert_array_equal(store.open_array(cut.inputs[0], "<f4", (3, 4)), wanted)


@pytest.mark.parametrize(
    ("mode", "shape"), [("L", (5, 7)), ("RGB", (5, 7, 3)), ("RGBA", (5, 7, 4)), ("1", (5, 7)), ("P", (5, 7, 3))]
)
def test_pictures_have_their_channels_last(
    tmp_path: Path, store: BlobStore, mode: str, shape: tuple[int, ...]
) -> None:
    path = tmp_path / "picture.png"
    Image.new(mode, (7, 5)).save(path)
    array = opened("image", str(path), store)
    assert (array.dtype, array.shape) == (np.uint8, shape)


def bad_files(folder: Path) -> dict[str, tuple[str, str]]:
    """Why each is refused, and its path."""
    cut_short = Path(stored(folder, "short", np.zeros(1000)))
    cut_short.write_bytes(cut_short.read_bytes()[:-8])
    text = folder / "text.npy"
    text.write_text("1 2 3")
    broken = folder / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    header = folder / "header.npy"
    header.write_bytes(b"\x93NUMPY\x01\x00\x10\x00{'descr': 'nope'\n")
    deep = folder / "deep.png"
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(deep)
    return {
        "does not exist": ("missing", str(folder / "none.npy")),
        "whole path": ("relative", "a.npy"),
        "ends too early": ("short", str(cut_short)),
        "neither a .npy nor a .png": ("text", str(text)),
        "cannot be read": ("broken", str(broken)),
        "no array that NumPy can read": ("header", str(header)),
        "more than 8 bits": ("deep", str(deep)),
    }


def test_what_is_no_array_is_refused_with_its_reason(tmp_path: Path, store: BlobStore) -> None:
    for reason, (name, path) in bad_files(tmp_path).items():
        with pytest.raises(ConfigError, match=reason) as refused:
            opened(name, path, store)
        assert f"'{name}'" in str(refused.value)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.array([None, "x"]), "Python objects"),
        (np.zeros((0, 3)), "empty"),
        (np.zeros(3, [("a", "f4"), ("b", "f4")]), "records"),
        (np.array(["text"]), "pass numbers"),
        (np.zeros((2, 2), np.int64), "astype"),
        (np.zeros((2, 2), np.complex64), "real and imaginary"),
    ],
)
def test_arrays_that_cannot_be_computed_with_are_refused(tmp_path: Path, array: Any, reason: str) -> None:
    store = BlobStore(tmp_path / "blobs", 64 * MB)
    inputs = {name: stored(tmp_path, name, array) for name in ("a", "b")}
    with pytest.raises(ConfigError, match=reason):
        cut_job(SubmitRequest("gemm", {}, inputs=inputs), store, LIMIT, threading.Event(), lambda *_: None)
    assert not store.ids()


def arrays_of(kernel: str) -> dict[str, Any]:
    random = np.random.default_rng(1)
    shapes: dict[str, dict[str, tuple[int, ...]]] = {
        "gemm": {"a": (300, 40), "b": (40, 500)},
        "conv2d": {"image": (90, 80, 3), "weights": (5, 5)},
        "nbody": {"state": (12, 30, 7)},
    }
    given = shapes.get(kernel, {"x": (700, 33)})
    return {name: random.random(shape, dtype=np.float64).astype("f8" if kernel == "nbody" else "f4")
            for name, shape in given.items()}  # fmt: skip


@pytest.mark.parametrize("units", [1, 6, 12])
@pytest.mark.parametrize("kernel", sorted(ARRAY_KERNELS))
def test_how_large_inputs_are_is_known_from_the_spec_alone(
    tmp_path: Path, store: BlobStore, kernel: str, units: int
) -> None:
    inputs = {name: stored(tmp_path, name, array) for name, array in arrays_of(kernel).items()}
    given = {"steps": 2, "dt": 0.1} if kernel == "nbody" else {}
    request = SubmitRequest(kernel, given, units, inputs=inputs)
    cut = cut_job(request, store, LIMIT, threading.Event(), lambda *_: None)
    spec = make_array_spec(request, cut, Identity.generate())
    assert input_sizes(spec) == tuple(store.size(blob) for blob in cut.inputs)
    too_many = msgspec.structs.replace(spec, inputs=[*spec.inputs, b"x" * 32])
    with pytest.raises(ConfigError, match="inputs and needs"):
        input_sizes(too_many)


@pytest.mark.parametrize(("m", "n"), [(512, 512), (1000, 24), (3, 1000)])
def test_a_job_of_many_units_tells_as_well(m: int, n: int) -> None:
    kernel = get_array_kernel("gemm")
    types = {"a": ArrayType("float32", (m, 8)), "b": ArrayType("float32", (8, n))}
    params = kernel.with_arrays({}, types)
    cut = CutJob(kernel, params, m * n, tuple(BlobId(at.to_bytes(32, "big")) for at in range(m + n)))
    spec = make_array_spec(SubmitRequest("gemm", {}), cut, Identity.generate())
    assert sum(input_sizes(spec)) == 4 * 8 * (m + n)


def test_units_fit_the_memory_that_workers_have() -> None:
    kernel = get_array_kernel("gemm")
    types = {name: array_type(name, np.broadcast_to(np.float32(0), (4096, 4096))) for name in ("a", "b")}
    params = kernel.with_arrays({}, types)
    for memory_mb in (48, 64, 256, 4096):
        units = choose_units(kernel, params, None, limit(memory_mb))
        needs = max(kernel.cost(kernel.unit(params, units, index)).memory_bytes for index in range(units))
        assert needs <= memory_mb * MB
    with pytest.raises(ConfigError, match="cut it into"):
        choose_units(kernel, params, 1, limit(64))
    with pytest.raises(ConfigError):
        choose_units(kernel, params, None, limit(32))


def test_what_does_not_fit_the_quota_leaves_nothing_pinned(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs", 3 * MB)
    random = np.random.default_rng(1).standard_normal((1024, 1024)).astype(np.float32)
    inputs = {name: stored(tmp_path, name, random + at) for at, name in enumerate("ab")}
    with pytest.raises(StorageError, match="does not fit"):
        cut_job(SubmitRequest("gemm", {}, 4, inputs=inputs), store, LIMIT, threading.Event(), lambda *_: None)
    store.put_bytes(bytes(2 * MB))  # evicts what was stored in vain


def test_a_job_that_nobody_wants_any_more_is_not_cut_further(tmp_path: Path) -> None:
    store, stopped = BlobStore(tmp_path / "blobs", 64 * MB), threading.Event()
    inputs = {name: stored(tmp_path, name, np.eye(64, dtype=np.float32)) for name in ("a", "b")}
    told: list[int] = []

    def first(tiles: int, _size: int) -> None:
        told.append(tiles)
        stopped.set()

    with pytest.raises(ConfigError, match="given up"):
        cut_job(SubmitRequest("gemm", {}, 4, inputs=inputs), store, LIMIT, stopped, first)
    assert told == [1]
