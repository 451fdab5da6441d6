"""What the machine does to a node: a disk that takes nothing more, a clock that is a day off."""

import signal
import sys
from pathlib import Path

from tests.e2e.node.processes import Swarm, full_disk

PRIMES_TO_1E9 = 50_847_534
PRIMES_TO_5E9 = 234_954_223
DAY_S = 86_400


async def test_a_job_that_cannot_be_stored_is_refused_and_the_node_lives(swarm: Swarm) -> None:
    """One sentence says what to do; nothing half-submitted stays; with space again all is well."""
    (node,) = await swarm.start(1)
    with full_disk(node):
        refused = await node.sparkle("submit", "prime_count", "-p", "stop=1e9")
        assert refused.code == 1
        assert len(refused.err.strip().splitlines()) == 1
        assert "free some space or check the disk" in refused.err
        assert (await node.sparkle("jobs", "--json")).document == []
        await node.event("storage_failed")
        status = await node.status()
        assert (status["state"], status["reason"]["code"]) == ("idle", "storage_failed")
        assert "Nothing can be stored" in await node.why()
    await node.event("storage_restored")  # found out by itself
    assert (await node.status())["reason"]["code"] != "storage_failed"
    job = await node.submit("prime_count", 20, stop=10**9)
    assert (await node.done(job))["result"] == PRIMES_TO_1E9
    assert node.count("storage_restored") == 1
    await node.kill()
    await node.spawn("--no-mdns")
    await node.wait_ready()
    assert [row["job"] for row in (await node.sparkle("jobs", "--json")).document] == [job]


async def test_a_disk_that_is_full_for_a_while_costs_only_time(swarm: Swarm) -> None:
    """In mid-job, at the owner and at its worker: nothing is acknowledged meanwhile, nothing is missing after."""
    owner, worker = await swarm.start(2)
    job = await owner.submit("prime_count", 40, stop=5 * 10**9)
    for node in (owner, worker):
        await owner.event("unit_final", job=job, count=5 if node is owner else 12)
        with full_disk(node):
            await node.event("storage_failed", count=1)
            assert (await node.status())["state"] in ("working", "idle")
    document = await owner.done(job)
    assert document["result"] == PRIMES_TO_5E9
    assert document["rejected"] == 0
    assert all(node.count("violation") == 0 for node in swarm.nodes)
    await owner.kill()
    await owner.spawn("--no-mdns")
    await owner.wait_ready()
    assert (await owner.job(job))["result"] == PRIMES_TO_5E9


async def test_leaving_with_a_full_disk(swarm: Swarm) -> None:
    """It still leaves in time."""
    (node,) = await swarm.start(1)
    await node.submit("prime_count", 40, stop=5 * 10**9)
    await node.event("unit_computed")
    with full_disk(node):
        await node.event("storage_failed")
        node.signal(signal.SIGTERM)
        assert await node.ended(10.0) == 0


async def test_a_clock_that_is_a_day_off_is_noticed_and_decides_nothing(swarm: Swarm) -> None:
    """The node with the wrong clock says so; work and its checks go on as if nothing were."""
    first, _ = await swarm.start(2)
    late = swarm.node("late")
    program = [sys.executable, "-P", str(Path(__file__).with_name("shifted_node.py")), str(-DAY_S)]
    await late.spawn("--no-mdns", "--bootstrap", first.address, program=program)
    await late.wait_ready()
    told = await late.event("clock_off")
    assert abs(told["seconds"] - DAY_S) < 60
    assert "This machine's clock is 86" in await late.why()
    assert first.count("clock_off") == 0
    for node in (first, late):
        job = await node.submit("prime_count", 40, stop=10**9)
        document = await node.done(job)
        assert document["result"] == PRIMES_TO_1E9
        assert len(document["workers"]) >= 2
        assert 0 <= document["age_s"] < 60
