"""Work from Python against a node that answers: values, arrays, waiting, interruption, and what is refused."""

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sparkle_p2p as sparkle
from sparkle_p2p.api.session import job_view
from sparkle_protocol.errors import (
    ComputeError,
    ConfigError,
    NodeNotRunning,
    NotFound,
    RequestTimeout,
    SparkleError,
    StorageError,
)
from tests.unit.api.array_node import ArrayNode, interrupt, serving

# --- values ---------------------------------------------------------------------------------------------------


def test_a_job_is_submitted_followed_and_read(mesh: sparkle.Mesh) -> None:
    job = mesh.submit("prime_count", units=4, stop=100)
    assert (len(job.id), job.state) == (64, "running")
    assert 0 < job.progress < 1
    assert job.result(timeout=20) == {"count": 25}
    assert job.wait().units.final == 4
    assert (job.state, job.progress, job.view().rejected) == ("done", 1.0, 1)
    assert mesh.jobs() == [job]
    assert mesh.job(job.id[:8]) == job
    assert job.file() == b""
    assert [kernel.name for kernel in mesh.kernels()] == ["prime_count", "gemm"]
    assert mesh.status()["net"] == "test"


def test_a_job_may_make_a_file(mesh: sparkle.Mesh) -> None:
    job = mesh.submit("mandelbrot")
    assert job.result() == {"width": 16}
    assert job.file().startswith(b"\x89PNG")


def test_numbers_of_numpy_are_numbers(mesh: sparkle.Mesh, node: ArrayNode) -> None:
    mesh.submit("prime_count", units=np.int32(3), stop=np.int64(7), part=np.float32(0.5), flag=np.True_, word="x")
    assert node.submitted[0].params == {"stop": 7, "part": 0.5, "flag": True, "word": "x"}
    assert node.submitted[0].units == 3


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"kernel": "zebra"}, "there is no kernel 'zebra'"),
        ({"kernel": len}, "a kernel has a name"),
        ({"kernel": "prime_count", "stop": np.arange(3)}, r"pass arrays as inputs={'stop': array}"),
        ({"kernel": "prime_count", "stop": float("nan")}, "pass a finite number"),
        ({"kernel": "prime_count", "stop": [1]}, "cannot be a list"),
        ({"kernel": "prime_count", "units": 1.5}, "units is a whole number"),
        ({"kernel": "prime_count", "units": 0}, "units, not 0"),
        ({"kernel": "prime_count", "verify": "never"}, "verify is one of fast, final, critical, not 'never'"),
        ({"kernel": "prime_count", "inputs": 1000}, r"as inputs={'a': array}, not a int; parameters are"),
        ({"kernel": "gemm", "inputs": [np.ones(3)]}, r"as inputs={'a': array}, not a list"),
    ],
)
def test_what_cannot_work_is_one_sentence(
    mesh: sparkle.Mesh, node: ArrayNode, arguments: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(sentence) if "{" in sentence else sentence):
        mesh.submit(**arguments)
    assert not node.submitted


def test_unknown_jobs_and_other_networks_are_refused(mesh: sparkle.Mesh, node: ArrayNode) -> None:
    with pytest.raises(NotFound, match="no job 'ffff'"):
        mesh.job("ffff")
    with pytest.raises(ConfigError, match="is in the network 'test', not 'other'"):
        sparkle.connect(node.home, net="other")
    sparkle.connect(node.home, net="test").close()


def test_a_job_that_ended_badly_has_no_result(mesh: sparkle.Mesh) -> None:
    job = mesh.submit("endless")
    assert job.cancel().state == "cancelled"
    with pytest.raises(ComputeError, match="was cancelled; 'sparkle why"):
        job.result()
    assert job.wait().state == "cancelled"


def test_waiting_ends_in_time_and_the_job_goes_on(mesh: sparkle.Mesh) -> None:
    job = mesh.submit("endless")
    for timeout in (0, 0.05):
        with pytest.raises(RequestTimeout, match="has not ended within"):
            job.wait(timeout=timeout)
    assert job.state == "running"


def test_a_node_that_has_gone_is_one_sentence(tmp_path: Path) -> None:
    with serving(tmp_path / "home") as node:
        mesh = sparkle.connect(node.home)
        job = mesh.submit("endless")
    with pytest.raises(NodeNotRunning, match="no node is running in"):
        job.wait()
    with pytest.raises(NodeNotRunning):
        mesh.jobs()


def test_an_answer_of_another_version_is_one_sentence() -> None:
    with pytest.raises(SparkleError, match="another version of Sparkle"):
        job_view({"job": 1})


# --- interruption ---------------------------------------------------------------------------------------------


def test_ctrl_c_cancels_the_job_that_is_waited_for(mesh: sparkle.Mesh, node: ArrayNode) -> None:
    job = mesh.submit("endless")
    node.on_look = _once(node, interrupt)
    with pytest.raises(KeyboardInterrupt):
        job.result()
    assert job.state == "cancelled"


def test_ctrl_c_leaves_a_job_that_is_to_go_on(mesh: sparkle.Mesh, node: ArrayNode) -> None:
    job = mesh.submit("endless")
    node.on_look = _once(node, interrupt)
    with pytest.raises(KeyboardInterrupt):
        job.wait(cancel_on_interrupt=False)
    assert job.state == "running"


def test_ctrl_c_while_submitting_leaves_no_job_behind(mesh: sparkle.Mesh, node: ArrayNode) -> None:
    node.on_submit = interrupt
    with pytest.raises(KeyboardInterrupt):
        mesh.submit("endless")
    assert [job.state for job in mesh.jobs()] == ["cancelled"]


def _once(node: ArrayNode, act: Any) -> Any:
    def look() -> None:
        node.on_look = lambda: None
        act()

    return look


# --- asyncio --------------------------------------------------------------------------------------------------


async def test_the_awaitable_twin_does_the_same(node: ArrayNode) -> None:
    async with sparkle.aconnect(node.home) as mesh:
        job = await mesh.submit("prime_count", stop=100)
        assert await job.state == "running"
        assert await asyncio.gather(job.result(), job.wait()) == [{"count": 25}, await job.view()]
        assert await job.progress == 1.0
        assert await mesh.jobs() == [await mesh.job(job.id[:8])]
        assert (await mesh.status())["net"] == "test"
        assert [kernel.name for kernel in await mesh.kernels()] == ["prime_count", "gemm"]
        assert (await (await mesh.submit("mandelbrot")).wait()).state == "done"
        product = await mesh.gemm(np.eye(2), np.ones((2, 2)))
        assert product.tolist() == [[1, 1], [1, 1]]
        assert np.array_equal(await mesh.conv2d(np.ones((3, 3)), np.ones((1, 1))), np.ones((3, 3)))


async def test_cancelling_the_task_cancels_the_job(node: ArrayNode) -> None:
    async with sparkle.aconnect(node.home) as mesh:
        job, kept = await mesh.submit("endless"), await mesh.submit("endless")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await job.result()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await kept.result(cancel_on_interrupt=False)
        assert (await job.state, await kept.state) == ("cancelled", "running")


async def test_cancelling_a_submission_leaves_no_job_behind(node: ArrayNode) -> None:
    async with sparkle.aconnect(node.home) as mesh:
        loop, asked = asyncio.get_running_loop(), asyncio.Event()
        node.on_submit = lambda: loop.call_soon_threadsafe(asked.set)
        submission = asyncio.ensure_future(mesh.submit("endless"))
        await asyncio.wait_for(asked.wait(), 20)
        submission.cancel()
        with pytest.raises(asyncio.CancelledError):
            await submission
        assert [await job.state for job in await mesh.jobs()] == ["cancelled"]


async def test_a_mesh_that_is_not_entered_says_so(tmp_path: Path) -> None:
    with pytest.raises(NodeNotRunning, match="async with aconnect"):
        await sparkle.aconnect(tmp_path).status()


# --- arrays ---------------------------------------------------------------------------------------------------

GRID = np.arange(12.0).reshape(3, 4)


@pytest.mark.parametrize(
    "array",
    [
        pytest.param(GRID, id="plain"),
        pytest.param(GRID.T, id="columns first"),
        pytest.param(GRID[::-1, ::2], id="negative strides"),
        pytest.param(GRID.astype(">f4"), id="foreign byte order"),
        pytest.param(np.array([np.nan, np.inf, -np.inf]), id="not finite"),
        pytest.param(np.broadcast_to(np.float32(2), (3, 3)), id="read-only, no strides"),
        pytest.param(np.arange(5, dtype=np.uint8), id="bytes"),
        pytest.param(np.array(3.5), id="scalar"),
    ],
)
def test_arrays_arrive_as_they_are_and_nothing_is_left(
    mesh: sparkle.Mesh, node: ArrayNode, array: np.ndarray[Any, Any]
) -> None:
    job = mesh.submit("softmax", inputs={"x": array})
    assert np.array_equal(node.given["x"], array, equal_nan=array.dtype.kind == "f")
    assert node.modes == {0o600, 0o700}
    assert list((node.home / "inputs").iterdir()) == []
    result = job.result()
    assert np.array_equal(result, array, equal_nan=array.dtype.kind == "f")
    assert type(result) is np.ndarray
    assert result.flags.writeable
    mapped = job.result(copy=False)
    assert (type(mapped), mapped.flags.writeable) == (np.memmap, False)


def test_products_and_filters_are_calls_of_their_own(mesh: sparkle.Mesh, node: ArrayNode) -> None:
    a, b = GRID.astype(np.float32), GRID.T.astype(np.float32)
    assert np.array_equal(mesh.gemm(a, b), a @ b)
    mesh.conv2d(GRID, np.ones((3, 3)), stride=2, padding=1, border="edge", verify="fast")
    request = node.submitted[-1]
    assert (request.kernel, request.verify) == ("conv2d", "fast")
    assert request.params == {"stride": 2, "padding": 1, "border": "edge"}


async def test_sealed_is_asked_for_and_not_otherwise(mesh: sparkle.Mesh, node: ArrayNode) -> None:
    grid = GRID.astype(np.float32)
    mesh.gemm(grid, grid.T, sealed=True)
    mesh.conv2d(GRID, np.ones((3, 3)), sealed=True)
    mesh.submit("softmax", {"x": GRID}, sealed=True)
    async with sparkle.aconnect(node.home) as twin:
        await twin.gemm(grid, grid.T, sealed=True)
        await twin.conv2d(GRID, np.ones((3, 3)), sealed=True)
        await twin.submit("softmax", {"x": GRID}, sealed=True)
    assert [request.sealed for request in node.submitted] == [True] * 6
    mesh.gemm(grid, grid.T)
    assert not node.submitted[-1].sealed
    assert "sealed" not in node.submitted[-1].params


async def test_free_work_is_asked_for_and_not_otherwise(mesh: sparkle.Mesh, node: ArrayNode) -> None:
    grid = GRID.astype(np.float32)
    mesh.gemm(grid, grid.T, free=True)
    mesh.conv2d(GRID, np.ones((3, 3)), free=True)
    mesh.submit("softmax", {"x": GRID}, free=True)
    async with sparkle.aconnect(node.home) as twin:
        await twin.gemm(grid, grid.T, free=True)
        await twin.conv2d(GRID, np.ones((3, 3)), free=True)
        await twin.submit("softmax", {"x": GRID}, free=True)
    assert [request.free for request in node.submitted] == [True] * 6
    mesh.gemm(grid, grid.T)
    assert not node.submitted[-1].free


def test_files_are_named_not_copied(mesh: sparkle.Mesh, node: ArrayNode, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", GRID)
    mesh.submit("softmax", inputs={"x": tmp_path / "x.npy"})
    assert node.submitted[0].inputs == {"x": str(tmp_path / "x.npy")}
    assert not (node.home / "inputs").exists()


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (np.array([object()]), "holds Python objects"),
        (np.ma.masked_array([1.0, 2.0], [True, False]), "masked array"),
        (np.zeros((0, 3)), "is empty"),
        (np.zeros(3, dtype=[("x", "f4")]), "holds records"),
        ([1.0, 2.0], "must be a NumPy array, not a list"),
        ("no-such-file.npy", "there is no file"),
    ],
)
def test_impossible_arrays_are_refused_before_anything_is_written(
    mesh: sparkle.Mesh, node: ArrayNode, value: Any, sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        mesh.submit("gemm", inputs={"a": GRID, "b": value})
    assert not (node.home / "inputs").exists()
    assert not node.submitted


def test_a_refusal_of_the_node_leaves_no_files(mesh: sparkle.Mesh, node: ArrayNode) -> None:
    node.refuses_arrays = True
    with pytest.raises(ConfigError, match="3 columns"):
        mesh.gemm(GRID, GRID)
    assert list((node.home / "inputs").iterdir()) == []


def test_what_a_killed_program_left_is_removed(mesh: sparkle.Mesh, node: ArrayNode) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(20)
    left, own = node.home / "inputs" / f"{gone.pid}-x", node.home / "inputs" / "1-x"
    for folder in (left, own):
        folder.mkdir(parents=True)
        (folder / "0.npy").write_bytes(b"x")
    mesh.submit("softmax", inputs={"x": GRID})
    assert (left.exists(), own.exists()) == (False, True)


def test_a_full_disk_is_one_sentence(mesh: sparkle.Mesh, node: ArrayNode) -> None:
    (node.home / "inputs").write_text("in the way")
    with pytest.raises(StorageError, match="cannot make a directory for the inputs"):
        mesh.submit("softmax", inputs={"x": GRID})


def test_a_result_that_was_removed_is_one_sentence(mesh: sparkle.Mesh, node: ArrayNode, tmp_path: Path) -> None:
    from sparkle_p2p.api.arrays import load_array

    for content in (None, b"", b"no array", b"\x93NUMPY\x01\x00"):
        path = tmp_path / "result.npy"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(StorageError, match="cannot read the result"):
            load_array({"path": str(path)})


# --- the façade -----------------------------------------------------------------------------------------------


def test_the_package_loads_only_what_is_used() -> None:
    program = (
        "import sys, json, sparkle_p2p; before = 'sparkle_p2p.api.mesh' in sys.modules; sparkle_p2p.connect;"
        "print(json.dumps([before, 'numpy' in sys.modules, 'msgspec' in sys.modules, dir(sparkle_p2p)]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    loaded, numpy_loaded, msgspec_loaded, names = json.loads(done.stdout)
    assert (loaded, numpy_loaded, msgspec_loaded) == (False, False, True)
    assert {"connect", "aconnect", "Mesh", "__version__"} <= set(names)
    with pytest.raises(AttributeError, match="no attribute 'conect'"):
        sparkle.conect  # noqa: B018


def test_a_node_that_is_starting_is_waited_for(node: ArrayNode) -> None:
    node.at_first = [{"network": "starting"}, {"state": "stopping"}]  # or is leaving, before its successor starts
    sparkle.connect(node.home).close()
    assert node.at_first == []
