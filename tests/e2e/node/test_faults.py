"""Nodes and their worker processes die, freeze and leave in mid-job: that costs time, never a result."""

import asyncio
import signal
import time

from tests.e2e.node.processes import Swarm, computing, is_gone

PRIMES_TO_1E9 = 50_847_534
PRIMES_TO_5E9 = 234_954_223
LONG = {"stop": 5 * 10**9}  # fifty units take some seconds of two cores: time for things to happen meanwhile


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
    assert document["result"] == PRIMES_TO_5E9
    assert document["rejected"] == 0
    assert document["error"] is None


async def test_a_killed_submitter_goes_on_where_it_was(swarm: Swarm) -> None:
    """kill -9 of the job's owner and restart on the same home: nothing accepted is lost, workers go on."""
    owner, worker = await swarm.start(2)
    port = owner.address.split("/")[4]
    old = await owner.submit("prime_count", 30, stop=10**9)
    await owner.done(old)
    job = await owner.submit("prime_count", 50, **LONG)
    await owner.event("unit_final", job=job, count=10)
    await owner.kill()
    await owner.spawn("--no-mdns", "--listen", f"/ip4/127.0.0.1/tcp/{port}")
    await owner.wait_ready()
    after = await owner.job(job)
    assert after["units"]["final"] >= 10
    assert after["state"] in ("queued", "running")
    document = await owner.done(job)
    assert document["result"] == PRIMES_TO_5E9
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
    assert 16 <= document["replicas"] <= 24  # a commitment is made anew if the second worker has become a keeper


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


async def test_leaving_hands_units_back(swarm: Swarm) -> None:
    """SIGINT during work: gone within ten seconds with code 0, and the owner need not wait for any lease."""
    owner, leaver = await swarm.start(2)
    job = await owner.submit("prime_count", 40, **LONG)
    executor = await computing(leaver)
    leaver.signal(signal.SIGINT)
    assert await leaver.ended(10.0) == 0
    assert is_gone(executor)
    document = await owner.done(job)
    assert document["result"] == PRIMES_TO_5E9
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
    await swarm.until(lambda: (node.home / "node.db").exists(), "its store is open")
    assert await node.terminate() == 0
    assert "Traceback" not in node.log.read_text()
