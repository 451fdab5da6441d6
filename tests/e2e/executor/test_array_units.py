"""Units of arrays in a real worker process: files in, a file out, and nothing that a file does ends the process."""

import asyncio
import os
import re
import resource
import signal
from pathlib import Path

import numpy as np
import pytest

from sparkle_p2p.blobs.store import BlobStore
from sparkle_protocol.errors import ComputeError, ExecutorCrashed
from sparkle_worker.executor import MAX_RUNS, Executor
from sparkle_worker.kernels.registry import ARRAY_KERNELS
from tests.unit.worker.array_jobs import bfloat16, computed, cut_job, inputs_of, random

ODD_KERNELS = f"{Path(__file__).parent / 'odd_kernels.py'}:ODD"
SEED = bytes(range(32))


def quiet(_share):
    pass


def maps_of(pid):
    return Path(f"/proc/{pid}/maps").read_text()


@pytest.fixture
async def executor():
    """Knows the odd kernels; its process must be gone afterwards."""
    executor = Executor(kernels=ODD_KERNELS, idle_priority=False, memory_mb=512, checkpoint_seconds=0.0)
    yield executor
    await executor.stop()
    assert executor.pid is None


class Job:
    """A job of real arrays, its tiles in files."""

    def __init__(self, folder, name, params, units=None, **arrays):
        self.kernel = ARRAY_KERNELS[name]
        self.params, self.units, self.blobs = cut_job(self.kernel, params, arrays, units)
        self._folder = folder
        self.paths = [folder / f"tile{place}" for place in range(len(self.blobs))]
        for path, blob in zip(self.paths, self.blobs, strict=True):
            path.write_bytes(blob)

    def unit(self, index=0):
        """Parameters, paths of the tiles, and the result that this process computes."""
        unit, tiles = inputs_of(self.kernel, self.params, self.units, index, self.blobs)
        places = self.kernel.unit_inputs(self.params, self.units, index)
        return unit, [self.paths[place] for place in places], computed(self.kernel, unit, tiles)

    async def run(self, executor, index=0, **more):
        """The array that the worker process computes."""
        unit, paths, _ = self.unit(index)
        result = self._folder / f"result{index}"
        result.touch()
        await executor.run_arrays(self.kernel.name, 1, unit, paths, result, quiet, **more)
        return np.fromfile(result, self.kernel.result_type(unit).dtype).reshape(self.kernel.result_type(unit).shape)

    async def check(self, executor, result, index=0):
        """What the worker process says of a result."""
        unit, paths, _ = self.unit(index)
        path = self._folder / "claimed"
        path.write_bytes(result.tobytes())
        return await executor.check(self.kernel.name, 1, unit, paths, path, SEED)


JOBS = {
    "gemm": ({}, {"a": random(150, 200), "b": random(200, 130, seed=2)}, 4),
    "conv2d": ({}, {"image": random(40, 50, 3), "weights": random(3, 3, 3, 8)}, 3),
    "reduce": ({"axis": "0"}, {"x": random(300, 40, dtype="float64")}, 3),
    "softmax": ({}, {"x": random(30, 40)}, 2),
    "layernorm": ({}, {"x": random(30, 40)}, 2),
    "nbody": ({"bodies": "16", "systems": "4", "steps": "20"}, {}, 2),
}


@pytest.mark.parametrize("name", JOBS)
async def test_units_are_computed_and_found_right_as_in_this_process(executor, tmp_path, name):
    params, arrays, units = JOBS[name]
    job = Job(tmp_path, name, params, units, **arrays)
    for index in range(units):
        result = await job.run(executor, index)
        np.testing.assert_allclose(result, job.unit(index)[2], atol=1e-3)  # BLAS may sum in another order
        assert await job.check(executor, result, index) == ""


async def test_tiles_and_results_may_be_blobs_of_the_store(executor, tmp_path):
    job = Job(tmp_path, "gemm", {}, 1, a=random(600, 700), b=random(700, 500, seed=2))  # more than one chunk each
    unit, paths, wanted = job.unit()
    store = BlobStore(tmp_path / "blobs")
    blobs = [store.path(store.put_file(path)) for path in paths]
    (tmp_path / "result").touch()
    await executor.run_arrays("gemm", 1, unit, blobs, tmp_path / "result", quiet)
    name = store.put_file(tmp_path / "result")
    np.testing.assert_allclose(store.open_array(name, "float32", wanted.shape), wanted, atol=1e-3)
    assert await executor.check("gemm", 1, unit, blobs, store.path(name), SEED) == ""
    swapped = await executor.check("gemm", 1, unit, blobs, blobs[0], SEED)
    assert swapped == "the result of gemm has 1680000 bytes, but float32 600 x 500 has 1200000"


async def test_many_units_wait_in_the_pipe_with_units_of_numbers_among_them(executor, tmp_path):
    job = Job(tmp_path, "gemm", {}, 16, a=random(128, 64), b=random(64, 128, seed=2))
    begun = []
    runs = [job.run(executor, index, on_begin=lambda index=index: begun.append(index)) for index in range(16)]
    primes = [executor.run("prime_count", 1, {"start": 0, "stop": 100}, quiet) for _ in range(MAX_RUNS - 16)]
    results = await asyncio.gather(*runs, *primes)
    for index in range(16):
        np.testing.assert_allclose(results[index], job.unit(index)[2], atol=1e-3)
    assert set(results[16:]) == {(25).to_bytes(8, "little")}
    assert begun == [*range(16)]


WRONG = {
    "rounded to bfloat16": (bfloat16, "should be"),
    "transposed": (lambda right: right.T.copy(), "should be"),
    "zeros": (np.zeros_like, "is 0 but should be"),
    "NaN": (lambda right: np.full_like(right, np.nan), "nan"),
    "one infinity": (lambda right: np.where(np.arange(right.size).reshape(right.shape) == 77, np.inf, right), "inf"),
    "shorter": (lambda right: right[1:], "bytes"),
    "longer": (lambda right: np.vstack([right, right[:1]]), "bytes"),
    "nothing": (lambda right: right[:0], "has 0 bytes"),
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_why_a_product_is_wrong_arrives_as_one_sentence(executor, tmp_path, wrong):
    job = Job(tmp_path, "gemm", {}, 1, a=random(128, 96), b=random(96, 128, seed=2))
    change, words = WRONG[wrong]
    right = job.unit()[2]
    text = await job.check(executor, change(right).astype("float32"))
    assert words in text
    assert text.isprintable()
    assert len(text) < 300
    assert await job.check(executor, right) == ""


async def test_the_right_result_of_another_unit_is_wrong(executor, tmp_path):
    job = Job(tmp_path, "gemm", {}, 4, a=random(128, 96), b=random(96, 128, seed=2))
    assert "should be" in await job.check(executor, job.unit(1)[2], 0)
    rows = Job(tmp_path, "softmax", {}, 2, x=random(64, 64))
    assert "should be" in await rows.check(executor, rows.unit(1)[2], 0)


REFUSED = {
    "a tile is shorter": ("copy", {"size": 11}, "tile 0 of copy has 80 bytes, but float64 11 has 88"),
    "a tile is longer": ("copy", {"size": 9}, "tile 0 of copy has 80 bytes"),
    "a tile is missing": (
        "copy",
        {"size": 10, "tile": "nowhere"},
        "tile 0 of copy cannot be opened: there is no such",
    ),
    "a tile is a folder": ("copy", {"size": 10, "tile": "."}, "tile 0 of copy is no ordinary file"),
    "tiles are written": ("disturb", {"size": 10}, "read-only"),
    "an unknown kernel": ("copi", {"size": 10}, "did you mean copy"),
    "a kernel without arrays": ("prime_count", {"start": 0, "stop": 1}, "no kernel 'prime_count' is known here"),
    "no unit at all": ("gemm", {}, "this is no unit of gemm: KeyError: 'm'"),
    "another kernel's unit": ("softmax", {"m": 1, "k": 1, "n": 1, "dtype": "float32"}, "this is no unit of softmax"),
    "a size of text": ("copy", {"size": "10"}, "no unit of copy"),
    "a negative size": ("copy", {"size": -1}, "no unit of copy"),
    "a size of nothing": ("copy", {"size": 0}, "no unit of copy"),
    "a true size": ("copy", {"size": True}, "no unit of copy"),
    "an endless size": ("copy", {"size": 2**60}, "no unit of copy"),
    "too many tiles": ("takes", {"size": 10}, "0 tiles, not 1"),
    "too few tiles": ("gemm", {"m": 1, "k": 1, "n": 1, "dtype": "float32"}, "2 tiles, not 1"),
    "too large": ("copy", {"size": 2**26}, "more memory than the 512 MB that this node allows"),
    "too dear": ("copy", {"size": 10, "memory": 513 * 2**20}, "more memory than the 512 MB that this node allows"),
}


@pytest.mark.parametrize("why", REFUSED)
async def test_a_unit_that_cannot_be_computed_costs_nothing_but_itself(executor, tmp_path, why):
    kernel, unit, words = REFUSED[why]
    (tmp_path / "tile0").write_bytes(np.arange(10.0).tobytes())
    (tmp_path / "result").touch()
    tile = tmp_path / {"a tile is missing": "nowhere", "a tile is a folder": "."}.get(why, "tile0")
    result = tmp_path / "result"
    await executor.start()
    pid = executor.pid
    with pytest.raises(ComputeError) as caught:
        await executor.run_arrays(kernel, 1, unit, [tile], result, quiet)
    assert words in str(caught.value)
    assert not isinstance(caught.value, ExecutorCrashed)
    if why != "tiles are written":
        with pytest.raises(ComputeError, match=re.escape(words)):
            await executor.check(kernel, 1, unit, [tile], result, SEED)
    await executor.run_arrays("copy", 1, {"size": 10}, [tmp_path / "tile0"], result, quiet)
    np.testing.assert_array_equal(np.fromfile(result), np.arange(10.0))
    assert executor.pid == pid


async def test_a_result_needs_a_file_that_is_there(executor, tmp_path):
    (tmp_path / "tile0").write_bytes(bytes(80))
    for ask in (
        executor.run_arrays("copy", 1, {"size": 10}, [tmp_path / "tile0"], tmp_path / "no" / "result", quiet),
        executor.check("copy", 1, {"size": 10}, [tmp_path / "tile0"], tmp_path / "no" / "result", SEED),
    ):
        with pytest.raises(ComputeError, match="the result of copy cannot be opened: there is no such file"):
            await ask


async def test_the_result_file_gets_the_length_of_the_result(executor, tmp_path):
    (tmp_path / "tile0").write_bytes(np.arange(1000.0).tobytes())
    result = tmp_path / "result"
    for before in (0, 10, 8000, 100_000):
        result.write_bytes(b"x" * before)
        await executor.run_arrays("copy", 1, {"size": 1000}, [tmp_path / "tile0"], result, quiet)
        np.testing.assert_array_equal(np.fromfile(result), np.arange(1000.0))


async def test_a_limit_on_files_is_said_in_one_sentence(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, hard))  # the process inherits it: a disk with a MiB of room
    executor = Executor(kernels=ODD_KERNELS, idle_priority=False)
    try:
        await executor.start()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    try:
        result = tmp_path / "result"
        result.touch()
        with pytest.raises(
            ComputeError, match=r"^the result of takes cannot get the 1048584 bytes .*: it would exceed"
        ):
            await executor.run_arrays("takes", 1, {"size": 2**17 + 1, "takes": 2**21}, [], result, quiet)
        assert result.stat().st_size == 0
        await executor.run_arrays("takes", 1, {"size": 2**17, "takes": 2**21}, [], result, quiet)
        assert set(np.fromfile(result)) == {2.0**20}
    finally:
        await executor.stop()


async def test_memory_that_was_asked_for_is_there_and_no_more(executor, tmp_path):
    """Also when files of other units are mapped still."""
    most, size = 512 * 2**20, 2**24
    other, result = tmp_path / "tile0", tmp_path / "result"
    other.write_bytes(bytes(8 * size))
    result.touch()
    await executor.run_arrays("copy", 1, {"size": size}, [other], result, quiet)
    pid = executor.pid
    for _ in range(2):
        await executor.run_arrays("takes", 1, {"size": 1000, "takes": most, "memory": most}, [], result, quiet)
    assert await executor.run("takes_plain", 1, {"takes": most}, quiet) == b"done"
    with pytest.raises(ComputeError, match="needs more memory than the 512 MB that this node allows"):
        await executor.run_arrays("takes", 1, {"size": 1000, "takes": most + 2**28}, [], result, quiet)
    await executor.run_arrays("takes", 1, {"size": size, "takes": most, "memory": most}, [], result, quiet)
    assert executor.pid == pid


async def test_a_gemm_that_takes_all_the_memory_it_may_is_computed_and_checked(tmp_path):
    job = Job(tmp_path, "gemm", {}, 1, a=random(500, 1500), b=random(1500, 900, seed=2))
    memory_mb = -(-job.kernel.cost(job.unit()[0]).memory_bytes // 2**20)
    executor = Executor(idle_priority=False, memory_mb=memory_mb)
    result = await job.run(executor)
    np.testing.assert_allclose(result, job.unit()[2], atol=1e-3)
    assert await job.check(executor, result) == ""
    assert "should be" in await job.check(executor, bfloat16(result))
    await executor.stop()
    executor = Executor(idle_priority=False, memory_mb=memory_mb - 1)
    with pytest.raises(ComputeError, match=f"needs more memory than the {memory_mb - 1} MB"):
        await job.run(executor)
    await executor.stop()


async def test_one_thread_computes(executor, tmp_path):
    job = Job(tmp_path, "gemm", {}, 1, a=random(500, 500), b=random(500, 500, seed=2))
    (tmp_path / "numbers").write_bytes(bytes(80))
    (tmp_path / "state").touch()
    assert await job.check(executor, await job.run(executor)) == ""
    await executor.run_arrays("state", 1, {"size": 10}, [tmp_path / "numbers"], tmp_path / "state", quiet)
    threads, tiles, *_ = np.fromfile(tmp_path / "state")
    assert threads == 1
    assert tiles == 2  # those of the unit before stay mapped


async def test_files_are_let_go_of_when_nothing_is_computed(executor, tmp_path):
    job = Job(tmp_path, "gemm", {}, 1, a=random(500, 500), b=random(500, 500, seed=2))
    await job.run(executor)
    assert "/tile0" in maps_of(executor.pid)
    never = asyncio.get_running_loop().create_future()
    async with asyncio.timeout(30):
        while "/tile0" in maps_of(executor.pid):
            await asyncio.wait([never], timeout=0.05)


async def test_a_removed_tile_and_a_new_one_in_its_place_are_not_confused(executor, tmp_path):
    tile, result = tmp_path / "tile0", tmp_path / "result"
    result.touch()
    for number in range(4):
        tile.unlink(missing_ok=True)
        tile.write_bytes(np.full(1000, float(number)).tobytes())
        await executor.run_arrays("copy", 1, {"size": 1000}, [tile], result, quiet)
        assert set(np.fromfile(result)) == {float(number)}


async def test_a_process_that_dies_in_a_unit_of_arrays_is_replaced(executor, tmp_path):
    (tmp_path / "result").touch()
    with pytest.raises(ExecutorCrashed, match="SIGKILL"):
        await executor.run_arrays("dies", 1, {"size": 10}, [], tmp_path / "result", quiet)
    await executor.run_arrays("takes", 1, {"size": 10, "takes": 80}, [], tmp_path / "result", quiet)


class Counting:
    """The kernel that counts, its checkpoint and its result."""

    def __init__(self, executor, folder):
        self._executor = executor
        self.checkpoint = folder / "checkpoint"
        self._result = folder / "result"
        self._result.touch()
        self.resumed = []

    async def run(self, **unit):
        """Where it began, and where it ended."""
        await self._executor.run_arrays(
            "counts", 1, {"count": 10, "dies": 0, **unit}, [], self._result, quiet,
            checkpoint=self.checkpoint, on_resume=self.resumed.append,
        )  # fmt: skip
        return tuple(np.fromfile(self._result))


async def test_a_killed_process_is_carried_on_by_the_next(executor, tmp_path):
    counting = Counting(executor, tmp_path)
    with pytest.raises(ExecutorCrashed):
        await counting.run(dies=7)
    assert not counting.resumed
    assert await counting.run(dies=7) == (7, 10)
    assert counting.resumed == [0.7]
    assert not counting.checkpoint.exists()  # and is not needed any more
    assert await counting.run() == (0, 10)


@pytest.mark.parametrize("damage", ["another unit", "torn", "empty", "one bit", "refused by the kernel"])
async def test_what_is_no_checkpoint_of_the_unit_costs_only_time(executor, tmp_path, damage):
    counting = Counting(executor, tmp_path)
    refused = {"refused": True} if damage == "refused by the kernel" else {}
    with pytest.raises(ExecutorCrashed):
        await counting.run(dies=7, **refused)
    whole = counting.checkpoint.read_bytes()
    counting.checkpoint.write_bytes(
        {"torn": whole[:-1], "empty": b"", "one bit": whole[:-1] + bytes([whole[-1] ^ 1])}.get(damage, whole)
    )
    if damage == "another unit":
        assert await counting.run(count=20) == (0, 20)
    else:
        with pytest.raises(ExecutorCrashed):
            await counting.run(dies=7, **refused)
    assert not counting.resumed


async def test_a_checkpoint_that_cannot_be_written_costs_nothing(executor, tmp_path):
    counting = Counting(executor, tmp_path)
    counting.checkpoint = tmp_path / "nowhere" / "checkpoint"
    assert await counting.run() == (0, 10)


async def test_checkpoints_are_written_at_most_every_so_often(tmp_path):
    executor = Executor(kernels=ODD_KERNELS, idle_priority=False)
    counting = Counting(executor, tmp_path)
    with pytest.raises(ExecutorCrashed):
        await counting.run(dies=7)
    assert not counting.checkpoint.exists()  # 30 s are not over
    await executor.stop()


async def test_bodies_end_where_they_would_have_without_the_crash(executor, tmp_path):
    job = Job(tmp_path, "nbody", {"bodies": "64", "systems": "60", "steps": "20"}, 1)
    checkpoint = tmp_path / "checkpoint"
    running = asyncio.create_task(job.run(executor, checkpoint=checkpoint))
    async with asyncio.timeout(60):
        while not checkpoint.exists() and not running.done():
            await asyncio.wait([running], timeout=0.01)
    os.kill(executor.pid, signal.SIGKILL)
    with pytest.raises(ExecutorCrashed):
        await running
    assert checkpoint.exists()
    np.testing.assert_array_equal(await job.run(executor, checkpoint=checkpoint), job.unit()[2])
    assert not checkpoint.exists()
