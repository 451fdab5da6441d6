"""Work from Python through real nodes: one that runs, and one that is started for the duration."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

import sparkle_p2p as sparkle
from sparkle_p2p.runtime.locate import is_locked
from sparkle_protocol.errors import ConfigError, NodeNotRunning
from tests.e2e.node.processes import NodeProcess, Swarm, children, computing, is_gone

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]  # some start nodes, one by one

PRIMES_TO_1E6 = 78_498
LONG = 10**12  # far more than a test waits for
END_S = 80.0
POLL_S = 0.05


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NodeProcess]:
    """A node that is ready, connected to nobody."""
    async with Swarm(tmp_path_factory.mktemp("python")) as swarm:
        (started,) = await swarm.start(1)
        yield started


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home without a node; one that starts there keeps to loopback and is gone after the test."""
    path = tmp_path / "own"
    path.mkdir(mode=0o700)
    (path / "config.toml").write_text('net = "test-other"\nlisten = ["/ip4/127.0.0.1/tcp/0"]\nmdns = false\n')
    monkeypatch.setenv("SPARKLE_HOME", str(path))
    yield path
    assert not is_locked(str(path))


def compute(home: Path, net: str) -> tuple[int, str, str]:
    """A job's value, its state, and the network, through ``connect``."""
    with sparkle.connect(home, net) as mesh:
        job = mesh.submit("prime_count", stop=10**6)
        return job.result(timeout=END_S), job.state, mesh.status()["net"]


async def test_connect_uses_the_node_that_runs(node: NodeProcess) -> None:
    assert await asyncio.to_thread(compute, node.home, node.swarm.net) == (PRIMES_TO_1E6, "done", node.swarm.net)
    assert node.running
    with pytest.raises(ConfigError, match=f"is in the network '{node.swarm.net}', not 'other'"):
        await asyncio.to_thread(sparkle.connect, node.home, "other")


async def test_aconnect_uses_the_node_that_runs(node: NodeProcess) -> None:
    async with sparkle.aconnect(node.home) as mesh:
        jobs = [await mesh.submit("prime_count", stop=10**6), await mesh.submit("collatz", stop=1000)]
        values = await asyncio.gather(*(job.result(timeout=END_S) for job in jobs))
        assert values[0] == PRIMES_TO_1E6
        assert (await jobs[1].view()).result == values[1]
        assert jobs[0] in await mesh.jobs()
        assert "prime_count" in [kernel.name for kernel in await mesh.kernels()]
    assert node.running


def product_and_picture(home: Path) -> None:
    random = np.random.default_rng(7)
    a, b = (random.standard_normal(shape, dtype=np.float32) for shape in ((300, 200), (200, 100)))
    image, box = random.integers(0, 256, (40, 30, 3), dtype=np.uint8), np.full((3, 3), 1 / 9, np.float32)
    with sparkle.connect(home) as mesh:
        product = mesh.gemm(a[::-1], np.asfortranarray(b))
        assert (product.dtype, product.shape) == (np.float32, (300, 100))
        bound = 200 * 2.0**-24 * 1.01 * (np.abs(a[::-1]) @ np.abs(b))
        assert np.all(np.abs(product - a[::-1].astype(np.float64) @ b.astype(np.float64)) <= 2 * bound)
        blurred = mesh.conv2d(image, box, border="edge")
        assert (blurred.dtype, blurred.shape) == (np.float32, (40, 30, 3))
        around = np.pad(image.astype(np.float64), ((1, 1), (1, 1), (0, 0)), mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(around, (3, 3), axis=(0, 1))
        assert np.allclose(blurred, windows.mean(axis=(-1, -2)), atol=1e-3)
        total = mesh.submit("reduce", inputs={"x": a.astype(np.float64)}, op="sum").result()
        assert np.allclose(total, a.astype(np.float64).sum())
        with pytest.raises(ConfigError, match="gemm") as caught:
            mesh.gemm(a, a)
        assert "\n" not in str(caught.value)
    assert list((home / "inputs").iterdir()) == []


async def test_arrays_go_in_and_come_out(node: NodeProcess) -> None:
    await asyncio.to_thread(product_and_picture, node.home)


async def test_cancelling_ends_the_work(node: NodeProcess) -> None:
    async with sparkle.aconnect(node.home) as mesh:
        job = await mesh.submit("prime_count", stop=LONG)
        waiting = asyncio.create_task(job.result())
        await computing(node)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await job.state == "cancelled"


INTERRUPTED = """
import sys, sparkle_p2p as sparkle
with sparkle.connect() as mesh:
    job = mesh.submit("prime_count", stop=10**12)
    print(job.id, flush=True)
    job.result()
"""


async def test_ctrl_c_in_a_program_cancels_its_job(node: NodeProcess) -> None:
    async with program(INTERRUPTED, node.home) as process:
        assert process.stdout is not None
        job = (await asyncio.wait_for(process.stdout.readline(), END_S)).decode().strip()
        await computing(node)
        process.send_signal(signal.SIGINT)
        _, errors = await asyncio.wait_for(process.communicate(), END_S)
    assert errors.decode().strip().endswith("KeyboardInterrupt")
    assert (await node.job(job))["state"] == "cancelled"


async def test_without_a_node_one_is_started_for_the_duration(home: Path) -> None:
    assert await asyncio.to_thread(compute, home, "test-own") == (PRIMES_TO_1E6, "done", "test-own")
    assert not is_locked(str(home))
    assert not children_of_ours()
    # asyncio's twin finds the default home, with the jobs of before
    async with sparkle.aconnect(net="test-own") as mesh:
        (before,) = await mesh.jobs()
        assert await before.result() == PRIMES_TO_1E6
    with pytest.raises(NodeNotRunning):
        await before.state


EMBEDDING = """
import os, signal, sparkle_p2p as sparkle
mesh = sparkle.connect()
print(mesh.status()["pid"], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


async def test_a_node_of_a_killed_program_leaves(home: Path) -> None:
    async with program(EMBEDDING, home) as process:
        assert process.stdout is not None
        pid = int(await asyncio.wait_for(process.stdout.readline(), END_S))
        await process.wait()
    async with asyncio.timeout(END_S):
        while not is_gone(pid):
            await look_again()


async def test_two_programs_that_start_at_once_share_a_node(home: Path) -> None:
    first, second = sparkle.aconnect(home), sparkle.aconnect(home)
    await asyncio.gather(first.__aenter__(), second.__aenter__())
    try:
        assert (await first.status())["pid"] == (await second.status())["pid"]
        assert len(children_of_ours()) == 1
    finally:
        await asyncio.gather(first.close(), second.close())


async def test_a_bad_configuration_is_one_sentence(home: Path) -> None:
    (home / "config.toml").write_text("slots = 0\n")
    with pytest.raises(ConfigError, match=r"config\.toml: slots") as caught:
        await asyncio.to_thread(sparkle.connect, home)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="is not a directory; choose another"):
        await asyncio.to_thread(sparkle.connect, home / "config.toml" / "inside")


async def test_a_start_that_is_given_up_leaves_nothing(home: Path) -> None:
    mesh = sparkle.aconnect(home)
    entering = asyncio.create_task(mesh.__aenter__())
    async with asyncio.timeout(END_S):
        while not children_of_ours():
            await look_again()
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    assert not children_of_ours()


def children_of_ours() -> list[int]:
    """Embedded nodes that this process has started and that live."""
    found = []
    for pid in children(os.getpid()):
        with contextlib.suppress(OSError):
            if b"embedded_node" in Path(f"/proc/{pid}/cmdline").read_bytes() and not is_gone(pid):
                found.append(pid)
    return found


async def look_again() -> None:
    """Let some time pass before the next look at a process."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(POLL_S):
            await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def program(text: str, home: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A Python program that is gone after the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", text, env={**os.environ, "SPARKLE_HOME": str(home)},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
