"""Private networks and sealed jobs of real processes: members compute, strangers hear nothing, disks tell nothing."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sparkle_p2p.network_key import make_network_key
from tests.e2e.node.processes import NodeProcess, Swarm, run
from tests.e2e.node.test_arrays import assert_product, product, save, submit
from tests.e2e.node.test_bad_start import check_sentence, start

pytestmark = pytest.mark.timeout(400)

SMALL = ("--memory-mb", "64")
SAMPLE_BYTES = 48  # of a row of random numbers: nothing else looks like them


async def test_members_compute_and_strangers_get_nothing(swarm: Swarm, tmp_path: Path) -> None:
    """A fourth node has no key, a fifth another one; both know where the first listens, and keep trying."""
    ran = await run("sparkle", "network-key", str(tmp_path / "network.key"), "--json")
    fingerprint = ran.document["fingerprint"]
    make_network_key(tmp_path / "other.key")
    owner, *members = await swarm.start(3, "--network-key", str(tmp_path / "network.key"))
    keyless, foreign = swarm.node("keyless"), swarm.node("foreign")
    await keyless.spawn("--no-mdns", "--bootstrap", owner.address)
    await foreign.spawn("--no-mdns", "--bootstrap", owner.address, "--network-key", str(tmp_path / "other.key"))
    await asyncio.gather(keyless.wait_ready(), foreign.wait_ready())
    job = await owner.submit("prime_count", 6, stop=300_000)
    document = await owner.done(job)
    assert document["result"] == 25_997
    assert set(document["workers"]) <= {node.peer_id for node in (owner, *members)}

    await swarm.until(lambda: "another network key, or none" in foreign.log.read_text(), "the foreign node was told")
    await swarm.until(lambda: "or has a network key" in keyless.log.read_text(), "the node without a key was told")
    told = [event for event in owner.events if event["event"] == "violation"]
    assert [event["peer"] for event in told] == [None]  # both come from one address, and it is told of once
    assert "without the key of this private network" in told[0]["reason"]
    for stranger in (keyless, foreign):
        assert stranger.count("peer_up") == 0
        assert (await stranger.status())["peers"] == 0
        assert not await stranger.peers()
    assert set(await owner.peers()) == {node.peer_id for node in members}
    assert all(
        node.count("peer_up", peer=other.peer_id) == 0 for node in (owner, *members) for other in (keyless, foreign)
    )
    assert "Traceback" not in "".join(node.log.read_text() for node in swarm.nodes)

    status = await owner.status()
    assert (status["private"], status["network_key"]) == (True, fingerprint)
    assert f"(private, key {fingerprint})" in (await owner.sparkle("status")).out
    assert ((await keyless.status())["private"], (await keyless.status())["network_key"]) == (False, None)
    assert "key" in (await foreign.status())["reason"]["sentence"]
    secret = (tmp_path / "network.key").read_text().split()[-1]
    assert not any(secret in node.log.read_text() for node in swarm.nodes)


async def test_a_sealed_product_leaves_no_plain_bytes_on_any_disk(swarm: Swarm, tmp_path: Path) -> None:
    """A worker that rounds is found out as ever. The same job unsealed shows that the test looks."""
    inputs, a, b = save(tmp_path, m=1024, k=256, n=1024)
    make_network_key(tmp_path / "network.key")
    options = (*SMALL, "--network-key", str(tmp_path / "network.key"))
    owner, honest, liar = await swarm.start(3, *options, liars=1, arguments_of={0: ["--no-work"]})
    job = await submit(owner, inputs, units=4, sealed=True)
    document = await owner.done(job, 240)
    assert document["sealed"]
    assert set(document["workers"]) == {honest.peer_id}
    assert {(one["worker"], one["reason"]["code"]) for one in document["rejections"]} == {(liar.peer_id, "check")}
    c = await product(owner, job)
    assert_product(c, a, b)
    for node in swarm.nodes:
        assert sum(path.stat().st_size for path in (node.home / "blobs").iterdir()) > a.nbytes / 4, node.name
        assert found_on_disk(node, a, b, c) == [False, False, False], node.name
        assert not list((node.home / "blobs").glob(".new-*")), node.name

    plain = await submit(owner, inputs, units=4)
    assert not (await owner.done(plain, 240))["sealed"]
    assert found_on_disk(owner, a, b, await product(owner, plain)) == [True, True, True]


def found_on_disk(node: NodeProcess, *arrays: NDArray[np.float32]) -> list[bool]:
    """Whether some row of each array begins anywhere in what the node stores, its database included."""
    files = [*(node.home / "blobs").iterdir(), *node.home.glob("node.db*")]
    stored = b"\n".join(path.read_bytes() for path in files)
    return [
        any(
            row[at : at + SAMPLE_BYTES // 4].tobytes() in stored
            for row in array[::128]
            for at in (0, array.shape[1] // 2)
        )
        for array in arrays
    ]


async def test_the_command_line_seals_and_says_when_it_cannot(swarm: Swarm, tmp_path: Path) -> None:
    inputs, a, b = save(tmp_path, m=64, k=32, n=64)
    given = [word for name, path in inputs.items() for word in ("--input", f"{name}={path}")]
    make_network_key(tmp_path / "network.key")
    (private,) = await swarm.start(1, *SMALL, "--network-key", str(tmp_path / "network.key"))
    ran = await private.sparkle("submit", "gemm", *given, "--sealed", "--wait", "-o", str(tmp_path / "c.npy"))
    assert ran.code == 0, ran
    assert_product(np.load(tmp_path / "c.npy"), a, b)
    ran = await private.sparkle("submit", "prime_count", "-p", "stop=1000", "--sealed")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "has no arrays to seal" in ran.err
    (public,) = await swarm.start(1, *SMALL)
    ran = await public.sparkle("submit", "gemm", *given, "--sealed")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "needs a private network" in ran.err


async def test_a_key_that_cannot_be_used(tmp_path: Path) -> None:
    """Code 2 and one sentence that names the flag and the file."""
    (tmp_path / "swarm.key").write_text("no key")
    (tmp_path / "swarm.key").chmod(0o600)
    for file, words in (("swarm.key", "no network key"), ("missing.key", "no such file")):
        ended = await start(tmp_path / "home", "--network-key", str(tmp_path / file))
        check_sentence(ended, 2, "--network-key", file, words)
