"""Nodes and their worker processes die, freeze and leave in mid-job: that costs time, never a result."""

import asyncio
import os
import signal
import time

import pytest

from tests.e2e.node.processes import NodeProcess, Swarm, is_gone, process_state

PRIMES_TO_1E9 = 50_847_534
PRIMES_TO_1E10 = 455_052_511
LONG = {"stop": 10**10}


async def computing(node: NodeProcess) -> int:
    """The worker process of a node that computes a unit now."""

    async def look() -> int | None:
        view = await node.view()
        running = [unit for unit in view["units"] if unit["state"] == "running"]
        executors = node.executors()
        return executors[0] if running and executors else None

    return int(await node.swarm.until(look, f"{node.name} computes"))


async def test_killing_a_worker_node_costs_only_time(swarm: Swarm) -> None:
    """kill -9 of a worker: its worker process dies with it, its units go to others."""
    owner, victim, _ = await swarm.start(3, arguments_of={0: ["--no-work"]})
    extra = swarm.node("extra")
    await extra.spawn("--no-mdns", "--bootstrap", owner.address)
    await extra.wait_ready()
    job = await owner.submit("prime_count", 50, **LONG)
    await victim.event("unit_computed", job=job, count=2)
    executor = await computing(victim)
    await victim.kill()
    await swarm.until(lambda: is_gone(executor), "the worker process died with its node", 5)
    await owner.event("peer_down", peer=victim.peer_id)
    document = await owner.done(job)
    assert document["result"] == PRIMES_TO_1E10
    assert document["rejected"] == 0
    assert document["error"] is None


async def test_killing_a_worker_process_retries_its_unit(swarm: Swarm) -> None:
    """kill -9 of the child alone: the node starts another one and computes the unit again."""
    (owner,) = await swarm.start(1)
    job = await owner.submit("prime_count", 20, **LONG)
    executor = await computing(owner)
    os.kill(executor, signal.SIGKILL)
    await swarm.until(lambda: is_gone(executor), "the worker process is gone", 5)
    document = await owner.done(job)
    assert document["result"] == PRIMES_TO_1E10
    assert document["workers"] == {owner.peer_id: 20}
    assert owner.count("unit_failed") == 0


async def test_a_killed_submitter_goes_on_where_it_was(swarm: Swarm) -> None:
    """kill -9 of the job's owner and restart on the same home: nothing accepted is lost, workers are taken up again."""
    owner, worker = await swarm.start(2)
    port = owner.address.split("/")[4]
    old = await owner.submit("prime_count", 30, stop=10**9)
    await owner.done(old)
    job = await owner.submit("prime_count", 50, **LONG)
    before = await owner.job_when(job, lambda d: d["units"]["final"] >= 10, "ten units are final")
    await owner.kill()
    await owner.spawn("--no-mdns", "--listen", f"/ip4/127.0.0.1/tcp/{port}")
    await owner.wait_ready()
    after = await owner.job(job)
    assert after["units"]["final"] >= before["units"]["final"]
    assert after["state"] in ("queued", "running")
    document = await owner.done(job)
    assert document["result"] == PRIMES_TO_1E10
    assert document["rejected"] == 0
    assert worker.peer_id in document["workers"]
    # The finished job is still there with its result, after the newer one, and its end is no news.
    listed = (await owner.sparkle("jobs", "--json")).document
    assert [row["job"] for row in listed] == [job, old]
    assert (await owner.job(old))["result"] == PRIMES_TO_1E9
    assert owner.count("job_done", job=old) == 0
    assert worker.count("violation") == 0


async def test_a_worker_killed_between_commit_and_reveal_hangs_nothing(swarm: Swarm) -> None:
    """Its commit stands, its result is not shown: it shows it after a restart, or others compute the unit."""
    owner, worker = await swarm.start(2, arguments_of={0: ["--no-work"]})
    job = await owner.submit("prime_count", 8, stop=10**9)
    await owner.job_when(job, lambda d: d["units"]["committed"] == 8, "all is committed, nothing revealed")
    await worker.kill()
    await worker.spawn("--no-mdns", "--bootstrap", owner.address)
    second = swarm.node("second")
    await second.spawn("--no-mdns", "--bootstrap", owner.address)
    await asyncio.gather(worker.wait_ready(), second.wait_ready())
    document = await owner.done(job, 60)
    assert document["result"] == PRIMES_TO_1E9
    assert document["workers"] == {worker.peer_id: 8, second.peer_id: 8}
    assert document["replicas"] == 16


async def test_a_worker_gone_for_good_after_its_commit_hangs_nothing(swarm: Swarm) -> None:
    """Nobody waits half a minute for a result of somebody who is not there."""
    owner, worker = await swarm.start(2, arguments_of={0: ["--no-work"]})
    job = await owner.submit("prime_count", 8, stop=10**9)
    await owner.job_when(job, lambda d: d["units"]["committed"] == 8, "all is committed, nothing revealed")
    await worker.kill()
    await owner.event("peer_down", peer=worker.peer_id)
    others = [swarm.node("second"), swarm.node("third")]
    for node in others:
        await node.spawn("--no-mdns", "--bootstrap", owner.address)
    await asyncio.gather(*(node.wait_ready() for node in others))
    began = time.monotonic()
    document = await owner.done(job, 60)
    assert time.monotonic() - began < 20
    assert document["result"] == PRIMES_TO_1E9
    assert document["workers"] == {node.peer_id: 8 for node in others}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_leaving_hands_units_back(swarm: Swarm, number: signal.Signals) -> None:
    """A signal during work: gone within ten seconds with code 0, and the owner need not wait for any lease."""
    owner, leaver = await swarm.start(2)
    job = await owner.submit("prime_count", 40, **LONG)
    executor = await computing(leaver)
    leaver.signal(number)
    assert await leaver.ended(10.0) == 0
    assert is_gone(executor)
    held = [r for r in (await owner.view())["jobs"] if r["job"] == job]
    assert held[0]["units"]["leased"] <= 2  # the owner's own two; what the leaver had is free again
    document = await owner.done(job)
    assert document["result"] == PRIMES_TO_1E10
    assert owner.count("lease_expired") == 0


async def test_a_second_signal_ends_it_at_once(swarm: Swarm) -> None:
    """Somebody who presses Ctrl-C twice does not want to wait."""
    owner, leaver = await swarm.start(2)
    await owner.submit("prime_count", 40, **LONG)
    executor = await computing(leaver)
    owner.signal(signal.SIGSTOP)  # so that handing back takes its time
    try:
        leaver.signal(signal.SIGINT)
        await swarm.until(lambda: "once more ends it at once" in leaver.log.read_text(), "it says so", 5)
        leaver.signal(signal.SIGINT)
        assert await leaver.ended(2.0) == 130
    finally:
        owner.signal(signal.SIGCONT)
    await swarm.until(lambda: is_gone(executor), "the worker process died with it", 5)


async def test_a_signal_while_starting_is_no_failure(swarm: Swarm) -> None:
    """Stopped before the network was up: gone at once, code 0, no traceback."""
    node = swarm.node("node")
    await node.spawn("--no-mdns")
    await swarm.until(lambda: (node.home / "node.json").exists() or list(node.home.glob("node.db")), "it is starting")
    await swarm.until(lambda: (node.home / "node.db").exists(), "its store is open")
    assert await node.terminate() == 0
    assert "Traceback" not in node.log.read_text()


async def test_pausing_really_stops_and_resuming_goes_on(swarm: Swarm) -> None:
    """The worker process stands still at once (state T); after resume the same unit goes on."""
    (node,) = await swarm.start(1)
    job = await node.submit("prime_count", 20, **LONG)
    executor = await computing(node)
    paused = await node.sparkle("pause", "--json")
    assert process_state(executor) == "T"
    assert paused.document["state"] == "paused"
    shown = await node.sparkle("status")
    assert shown.out.startswith("paused: Paused by you; 1 running unit stands still.")
    assert "Paused by you" in (await node.sparkle("why")).out
    units = (await node.view())["units"]
    assert [unit["state"] for unit in units] == ["paused"]
    resumed = await node.sparkle("resume", "--json")
    assert resumed.document["state"] == "working"
    assert process_state(executor) != "T"
    document = await node.done(job)
    assert document["result"] == PRIMES_TO_1E10
    assert document["replicas"] == 20  # nothing was computed twice
    assert node.executors() == [executor]


async def test_a_lonely_node_says_that_it_is_alone_or_paused(swarm: Swarm) -> None:
    """Alone it still finishes its own job; every state is said plainly."""
    (node,) = await swarm.start(1)
    alone = await node.sparkle("status")
    assert alone.out.startswith("idle: No other peers yet: nobody connected yet.")
    assert "alone, 0 peers" in alone.out
    job = await node.submit("prime_count", None, stop=10**9)
    document = await node.done(job)
    assert document["result"] == PRIMES_TO_1E9
    assert list(document["workers"]) == [node.peer_id]
    assert (await node.sparkle("pause")).out.startswith("paused: Paused by you.")
    assert (await node.status())["state"] == "paused"
    waiting = await node.submit("prime_count", 4, stop=10**6)
    assert (await node.job(waiting))["state"] == "queued"
    assert "No worker has taken a unit yet; 4 units to be done." in await node.why(waiting)
    await node.sparkle("resume")
    assert (await node.done(waiting))["result"] == 78_498
