"""Jobs with arrays over real processes: larger than a worker's memory, a worker that rounds, a killed owner."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sparkle_protocol.errors import SparkleError
from tests.e2e.node.processes import NodeProcess, Swarm

MEMORY_MB = 64  # of which BLAS takes 32
SMALL = ("--memory-mb", str(MEMORY_MB))
M, K, N = 3072, 512, 3072  # the product alone is 38 MB; with its factors 50 MB

pytestmark = pytest.mark.timeout(400)  # megabytes through several processes on a machine that may be busy

Array = NDArray[np.float32]


def save(folder: Path, seed: int = 1, m: int = M, k: int = K, n: int = N) -> tuple[dict[str, str], Array, Array]:
    random = np.random.default_rng(seed)
    a, b = (random.standard_normal(shape, dtype=np.float32) for shape in ((m, k), (k, n)))
    inputs = {}
    for name, array in (("a", a), ("b", b)):
        path = folder / f"{name}{seed}.npy"
        np.save(path, array)
        inputs[name] = str(path)
    return inputs, a, b


async def ask(node: NodeProcess, method: str, path: str, document: Any = None) -> Any:
    body = b"" if document is None else json.dumps(document).encode()
    answer = await asyncio.to_thread(node.client.request, method, f"/api/v1/jobs{path}", body, 120.0)
    return json.loads(answer)


async def submit(node: NodeProcess, inputs: dict[str, str], kernel: str = "gemm", **more: Any) -> str:
    document = {"kernel": kernel, "params": {}, "inputs": inputs, **more}
    return str((await ask(node, "POST", "", document))["job"])


async def product(node: NodeProcess, job: str) -> Array:
    result = await ask(node, "GET", f"/{job}/result")
    assert result["media_type"] == "application/x-npy"
    array: Array = np.load(result["value"]["path"], mmap_mode="r", allow_pickle=False)
    assert (array.dtype.name, list(array.shape)) == (result["value"]["dtype"], result["value"]["shape"])
    return array


def assert_product(c: Array, a: Array, b: Array) -> None:
    k = a.shape[1]
    bound = k * 2.0**-24 * (np.abs(a) @ np.abs(b)) * 1.01
    assert np.all(np.abs(c - a.astype(np.float64) @ b.astype(np.float64)) <= 2 * bound)


async def test_a_product_larger_than_a_worker_may_use_and_a_worker_that_rounds(swarm: Swarm, tmp_path: Path) -> None:
    """Three nodes; the one that owns the job computes nothing; one of the workers drops digits and is named."""
    inputs, a, b = save(tmp_path, m=4096, n=4096)
    assert a.nbytes + b.nbytes + 4096 * 4096 * 4 > MEMORY_MB << 20
    owner, honest, liar = await swarm.start(3, *SMALL, liars=1, arguments_of={0: ["--no-work"]})
    job = await submit(owner, inputs)
    document = await owner.done(job, 240)
    assert document["units"]["total"] > 1
    assert set(document["workers"]) == {honest.peer_id}
    assert document["rejected"] >= 1
    evidence = document["rejections"][0]
    assert (evidence["worker"], evidence["reason"]["code"]) == (liar.peer_id, "check")
    assert "wrong result" in await owner.why(f"{job}/{evidence['unit']}")
    assert document["result"]["shape"] == [4096, 4096]
    assert_product(await product(owner, job), a, b)


async def test_an_owner_that_is_killed_has_its_result_after_a_restart(swarm: Swarm, tmp_path: Path) -> None:
    """``kill -9`` as soon as the job is acknowledged."""
    inputs, a, b = save(tmp_path)
    owner, *_ = await swarm.start(3, *SMALL, arguments_of={0: ["--no-work"]})
    job = await submit(owner, inputs)
    for path in inputs.values():
        os.unlink(path)  # the job does not need them any more
    await owner.kill()
    await owner.spawn("--no-mdns", *SMALL, "--no-work")
    await owner.wait_ready()
    await owner.done(job, 240)
    assert_product(await product(owner, job), a, b)


async def test_keepers_check_results_while_the_owner_is_away(swarm: Swarm, tmp_path: Path) -> None:
    """They have its inputs, judge by their own checks, and give the results to the owner when it is back."""
    inputs, a, b = save(tmp_path, m=2048, n=2048)
    owner, *others = await swarm.start(4, *SMALL, arguments_of={0: ["--no-work"]})
    await asyncio.gather(
        *(node.event("peer_up", peer=other.peer_id) for node in others for other in swarm.nodes if other is not node)
    )
    job = await submit(owner, inputs)
    units = (await owner.job(job))["units"]["total"]
    await owner.kill()
    await others[0].event("unit_final", timeout_s=240, job=job, count=units)
    assert not list((owner.home / "results").glob("*.npy"))
    await owner.spawn("--no-mdns", *SMALL, "--no-work")
    await owner.wait_ready()
    document = await owner.done(job, 120)
    assert document["units"]["final"] == units
    assert_product(await product(owner, job), a, b)


async def test_alone_a_node_computes_its_own_arrays(swarm: Swarm, tmp_path: Path) -> None:
    """And what cannot work is refused with one sentence."""
    (owner,) = await swarm.start(1, *SMALL)
    image = np.random.default_rng(2).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "image.png")
    np.save(tmp_path / "weights.npy", np.full((3, 3), 1 / 9, np.float32))
    inputs = {"image": str(tmp_path / "image.png"), "weights": str(tmp_path / "weights.npy")}
    job = await submit(owner, inputs, "conv2d", params={"border": "edge"})
    await owner.done(job, 120)
    blurred = await product(owner, job)
    assert blurred.shape == (300, 400, 3)
    middle = image[100:103, 200:203].astype(np.float64).mean(axis=(0, 1))
    np.testing.assert_allclose(blurred[101, 201], middle, rtol=1e-5)
    np.save(tmp_path / "objects.npy", np.array([None, 1]), allow_pickle=True)
    ran = await refused(owner, {"a": str(tmp_path / "objects.npy"), "b": str(tmp_path / "objects.npy")})
    assert "Python objects" in ran
    assert "does not exist" in await refused(owner, {"a": "/nowhere/a.npy", "b": "/nowhere/b.npy"})
    assert "needs the input 'b'" in await refused(owner, {"a": inputs["image"]})


async def refused(owner: NodeProcess, inputs: dict[str, str]) -> str:
    try:
        await submit(owner, inputs)
    except SparkleError as error:
        return str(error)
    raise AssertionError("it was accepted")
