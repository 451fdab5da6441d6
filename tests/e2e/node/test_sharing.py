"""Peers that found each other share jobs, check each other, and survive what peers do."""

import asyncio
import signal
from pathlib import Path

from tests.e2e.node.processes import PROGRAMS, Swarm

PRIMES_TO_1E9 = 50_847_534
PRIMES_TO_5E9 = 234_954_223
LONG = {"stop": 5 * 10**9}  # fifty units take some seconds of two cores: time for things to happen meanwhile


async def test_four_nodes_started_by_hand_share_a_job(swarm: Swarm) -> None:
    """Two bootstrapped from the first, the fourth found by mDNS: all get units accepted, the answer is right."""
    program = [str(PROGRAMS / "sparkle-node")]
    first, second, third, fourth = (swarm.node(name) for name in ("first", "second", "third", "fourth"))
    await asyncio.gather(first.spawn(program=program), fourth.spawn(program=program))
    await first.wait_ready()
    for node in (second, third):
        await node.spawn("--no-mdns", "--bootstrap", first.address, program=program)
    for node in (second, third, fourth):
        await node.wait_ready()
        await first.event("peer_up", peer=node.peer_id)
    job = await first.submit("prime_count", 300, stop=10**9)
    document = await first.done(job)
    assert document["result"] == PRIMES_TO_1E9
    assert set(document["workers"]) == {node.peer_id for node in swarm.nodes}
    assert document["units"] == {**dict.fromkeys(document["units"], 0), "total": 300, "final": 300}
    assert document["rejected"] == 0
    peers = await first.peers()
    assert all(peers[node.peer_id]["units_accepted"] > 0 for node in (second, third, fourth))
    # Each worker was told what became of its results, and says so itself.
    for node in swarm.nodes:
        accepted = document["workers"][node.peer_id]
        await swarm.until(lambda n=node, a=accepted: n.count("result_accepted") == a, f"{node.name} heard of all")
        assert (await node.status())["units_verified"] == accepted
    exits = await asyncio.gather(*(node.terminate() for node in swarm.nodes))
    assert exits == [0, 0, 0, 0]


async def test_a_liar_is_rejected_with_evidence_and_the_answer_is_right(swarm: Swarm) -> None:
    """The node that submits computes nothing, so workers alone find the liar out."""
    nodes = await swarm.start(4, liars=1, arguments_of={0: ["--no-work"]})
    owner, liar = nodes[0], nodes[3]
    job = await owner.submit("prime_count", 60, stop=10**9)
    document = await owner.done(job)
    assert document["result"] == PRIMES_TO_1E9
    assert liar.peer_id not in document["workers"]
    assert document["rejected"] >= 1
    evidence = document["rejections"][0]
    assert evidence["worker"] == liar.peer_id
    assert "computed it independently and agree" in evidence["reason"]["sentence"]
    peers = await owner.peers()
    assert peers[liar.peer_id]["standing"] == "rejected"
    assert all(peers[node.peer_id]["standing"] == "ok" for node in nodes[1:3])
    told = await owner.why(liar.peer_id)
    assert "proven wrong here" in told
    assert "agree on" in told
    unit = await owner.why(f"{job}/{evidence['unit']}")
    assert unit.startswith("Accepted:")
    assert liar.peer_id[-8:] in unit
    shown = await owner.sparkle("job", job)
    assert shown.code == 0
    assert f"unit {evidence['unit']} of {liar.peer_id}" in shown.out


async def test_a_frozen_peer_delays_nobody_else(swarm: Swarm) -> None:
    """SIGSTOP: connected, and reads nothing. The others answer at once and finish the job; thawed, it works again."""
    owner, frozen, other = await swarm.start(3)
    job = await owner.submit("prime_count", 50, **LONG)
    await owner.job_when(job, lambda d: frozen.peer_id in d["workers"], "the peer to be frozen has worked")
    frozen.signal(signal.SIGSTOP)
    try:
        async with asyncio.timeout(5):
            await asyncio.gather(owner.status(), other.status(), owner.peers(), owner.why(job))
        # What it holds waits for its lease to run out; all else is done.
        await owner.job_when(job, lambda d: d["units"]["final"] >= 44, "all but the frozen units")
        document = await owner.done(job)
    finally:
        frozen.signal(signal.SIGCONT)
    assert document["result"] == PRIMES_TO_5E9
    assert (await frozen.status())["state"] in ("working", "idle")
    # A peer that reads nothing may be recorded as such; the healthy ones accuse nobody else.
    accused = [e for node in (owner, other) for e in node.events if e["event"] == "violation"]
    assert [event for event in accused if event["peer"] != frozen.peer_id] == []


async def test_a_frozen_submitter_does_not_keep_workers_from_others(swarm: Swarm) -> None:
    """A keeper that stops answering must cost its workers neither their time nor a processor."""
    frozen, owner, worker = await swarm.start(3)
    await owner.event("peer_up", peer=worker.peer_id)
    long = await frozen.submit("prime_count", 200, stop=4 * 10**10)
    await worker.event("unit_computed", job=long)
    frozen.signal(signal.SIGSTOP)
    try:
        job = await owner.submit("prime_count", 100, stop=10**9)
        document = await owner.done(job, 30)
    finally:
        frozen.signal(signal.SIGCONT)
    assert document["result"] == PRIMES_TO_1E9
    assert (await frozen.sparkle("cancel", long)).code == 0


async def test_the_others_come_back_to_a_restarted_bootstrap_node(swarm: Swarm) -> None:
    """Same home and port; one of them knows it by configuration, the other by what it remembers of peers."""
    first, second = await swarm.start(2)
    third = swarm.node("third")
    await third.spawn("--no-mdns", "--bootstrap", second.address)
    await third.wait_ready()
    await third.event("peer_up", peer=first.peer_id)  # learnt from the second
    port = first.address.split("/")[4]
    await first.kill()
    for node in (second, third):
        await node.event("peer_down", peer=first.peer_id)
    await first.spawn("--no-mdns", "--listen", f"/ip4/127.0.0.1/tcp/{port}")
    await first.wait_ready()
    for node in (second, third):
        await first.event("peer_up", peer=node.peer_id)
    job = await first.submit("prime_count", 60, stop=10**9)
    assert len((await first.done(job))["workers"]) >= 2


async def test_a_node_finds_its_network_again_without_any_bootstrap(swarm: Swarm) -> None:
    """The last run's peers are remembered."""
    first, second = await swarm.start(2)
    assert await second.terminate() == 0
    await second.spawn("--no-mdns")
    await second.wait_ready()
    await second.event("peer_up", peer=first.peer_id)


async def test_a_peer_of_another_network_is_refused(swarm: Swarm, tmp_path: Path) -> None:
    """Both say why, neither counts the other as a peer, and neither is hurt."""
    (owner,) = await swarm.start(1)
    async with Swarm(tmp_path / "other") as others:
        others.directory.mkdir()
        stranger = others.node("stranger")
        await stranger.spawn("--no-mdns", "--bootstrap", owner.address)
        await stranger.wait_ready()
        unreachable = await stranger.event("bootstrap_unreachable")
        assert f"belongs to the network '{swarm.net}'" in unreachable["reason"]
        violation = await owner.event("violation", peer=stranger.peer_id)
        assert violation["reason"] == "wrong network"
        assert (await owner.peers(), await stranger.peers()) == ({}, {})
        assert "Wrong network" in await owner.why(stranger.peer_id)
        assert (await owner.status())["network"] == "alone"


async def test_bootstraps_that_cannot_work_are_named(swarm: Swarm, unused_tcp_port: int) -> None:
    """Nobody there, somebody else there, ourselves there: the node lives on, says what is wrong, tries again."""
    first, second = swarm.node("first"), swarm.node("second")
    await first.spawn("--no-mdns")
    await first.wait_ready()
    dead = f"/ip4/127.0.0.1/tcp/{unused_tcp_port}/p2p/{first.peer_id}"
    wrong = f"{first.address.rpartition('/')[0]}/12D3KooWHrTvH4VQ24pGBZYPKnk61sCSgzFDGEy3FbFGezvmwW7B"
    await second.spawn("--no-mdns", "--bootstrap", dead, "--bootstrap", wrong)
    await second.wait_ready()
    for address in (dead, wrong):
        told = await second.event("bootstrap_unreachable", address=address, attempt=2)
        assert len(told["reason"]) > 10
    assert (await second.status())["network"] == "alone"
    assert (await first.peers()) == {}
    own = second.address
    assert await second.terminate() == 0
    await second.spawn("--no-mdns", "--bootstrap", own)
    await second.wait_ready()
    warnings = [line["text"] for line in (await second.view())["log"] if line["level"] == "warning"]
    assert f"The bootstrap address {own} is this node itself" in warnings
    assert "Traceback" not in second.log.read_text()
