"""Long units go on where they were interrupted, and units go only to those that have room for them."""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from sparkle_protocol.errors import SparkleError
from sparkle_worker.kernels.nbody import NBody
from tests.e2e.node.processes import NodeProcess, Swarm
from tests.e2e.node.test_arrays import product, submit

pytestmark = pytest.mark.timeout(300)

EAGER = [sys.executable, "-P", str(Path(__file__).with_name("eager_node.py"))]
BODIES = {"bodies": 64, "systems": 120, "steps": 200}  # one unit of several seconds, a checkpoint with each system


def checkpoints(node: NodeProcess) -> list[Path]:
    folder = node.home / "checkpoints"
    return [path for path in folder.glob("*") if not path.suffix] if folder.exists() else []


async def test_a_unit_survives_its_process_and_its_node(swarm: Swarm) -> None:
    """``kill -9`` of the process that computes it, then of the node: each time it goes on, and ends right."""
    owner, worker = swarm.node("owner"), swarm.node("worker")
    await owner.spawn("--no-mdns", "--no-work")
    await owner.wait_ready()
    await worker.spawn("--no-mdns", "--bootstrap", owner.address, program=EAGER)
    await owner.event("peer_up", peer=(await worker.event("ready"))["peer_id"])
    job = await submit(owner, {}, "nbody", params=BODIES, units=1, verify="fast")

    await swarm.until(lambda: checkpoints(worker), "a checkpoint")
    os.kill(worker.executors()[0], signal.SIGKILL)
    first = (await worker.event("unit_resumed", job=job, unit=0))["progress"]
    assert 0 < first < 1
    written = checkpoints(worker)[0].stat().st_mtime_ns
    await swarm.until(lambda: checkpoints(worker)[0].stat().st_mtime_ns > written, "a further checkpoint")

    await worker.kill()
    await worker.spawn("--no-mdns", "--bootstrap", owner.address, program=EAGER)
    again = await worker.event("unit_resumed", job=job, unit=0)
    assert first < again["progress"] < 1
    assert f"goes on from its checkpoint, {again['progress']:.0%} done" in worker.log.read_text()
    await owner.done(job, 200)
    assert not checkpoints(worker)

    kernel = NBody()
    params = kernel.with_arrays(BODIES, {})
    result = await product(owner, job)
    for system in (0, BODIES["systems"] // 2, BODIES["systems"] - 1):  # before, between and after the interruptions
        unit = kernel.unit(params, BODIES["systems"], system)
        expected = kernel.result_type(unit).empty()
        kernel.compute_into(unit, (), expected, lambda _: None)
        np.testing.assert_array_equal(result[system], expected[0])


async def test_what_a_worker_has_no_room_for_it_is_not_given(swarm: Swarm, tmp_path: Path) -> None:
    """Not even once; its own ``why`` says so. What nobody has room for is refused."""
    owner, small, able = await swarm.start(3, arguments_of={0: ["--no-work"], 1: ["--memory-mb", "64"]})
    np.save(tmp_path / "a.npy", np.ones((2000, 2000), np.float32))
    inputs = {"a": str(tmp_path / "a.npy"), "b": str(tmp_path / "a.npy")}
    await able.sparkle("pause")
    job = await submit(owner, inputs, units=1)

    async def told() -> str:
        text = await small.why()
        return text if f"a unit of {job[:8]} needs" in text else ""

    assert "limit of 64 MB is below the" in await swarm.until(told, "the small worker knows why")
    assert (await owner.job(job))["units"]["pending"] == 1
    await able.sparkle("resume")
    document = await owner.done(job, 120)
    assert set(document["workers"]) == {able.peer_id}
    assert (await small.view())["units_done"] == 0

    await able.kill()
    await owner.event("peer_down", peer=able.peer_id)
    with pytest.raises(SparkleError, match="but no worker that is known here allows more than 64 MB"):
        await submit(owner, inputs, units=1)
