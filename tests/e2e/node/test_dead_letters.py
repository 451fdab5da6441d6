"""A unit that nobody can compute: the rest of its job is done, and later so is the unit."""

import contextlib

from sparkle_protocol import messages
from sparkle_protocol.facts import FailureItem, Failures
from tests.e2e.node.processes import NodeProcess, Swarm
from tests.e2e.node.test_hostile_peer import Hostile

UNITS = 6
PRIMES_TO_1E7 = 664_579
BROKEN = 0


async def fail_on_one_unit(owner: NodeProcess, peer: Hostile) -> None:
    """Take units until it is the one, fail on that, and hand the others back."""

    async def has_it() -> bool:
        await peer.lease(1)
        return (BROKEN, 0) in peer.leased

    await owner.swarm.until(has_it, "the unit is handed out again after its failure")
    failed = peer.codec.seal(peer.identity, Failures(peer.job, [FailureItem(BROKEN, 0, "kernel", "divided by zero")]))
    others = [messages.UnitEpoch(unit, epoch) for unit, epoch in peer.leased if unit != BROKEN]
    reply = await peer.ask(messages.Report(peer.job, [failed.raw], [], [], others))
    assert isinstance(reply, messages.ReportReply), reply


async def test_the_rest_of_a_job_is_done_and_its_dead_unit_can_be_begun_anew(swarm: Swarm) -> None:
    """Three workers fail alike; the list with its evidence and what its owner did survive kill -9."""
    (owner,) = await swarm.start(1, "--no-work")
    port = owner.address.split("/")[4]
    job = await owner.submit("prime_count", UNITS, stop=10**7)
    async with contextlib.AsyncExitStack() as stack:
        failing = [Hostile(owner) for _ in range(3)]
        for peer in failing:
            stack.push_async_callback(peer.overlay.stop)
            await peer.join()
            await fail_on_one_unit(owner, peer)
        await owner.event("unit_dead", job=job, unit=BROKEN)
    assert (await owner.job(job))["state"] in ("queued", "running")

    for name in ("first", "second"):
        worker = swarm.node(name)
        await worker.spawn("--no-mdns", "--bootstrap", owner.address)
        await worker.wait_ready()
    await owner.event("job_failed", job=job)
    document = await owner.job(job)
    assert document["state"] == "failed"
    assert document["error"] == "unit 0 failed on 3 workers: divided by zero"
    assert (document["units"]["final"], document["units"]["dead"]) == (UNITS - 1, 1)

    await owner.kill()
    await owner.spawn("--no-mdns", "--no-work", "--listen", f"/ip4/127.0.0.1/tcp/{port}")
    await owner.wait_ready()
    (dead,) = (await owner.sparkle("dead", job, "--json")).document
    assert (dead["job"], dead["unit"], dead["reason"]["code"]) == (job, BROKEN, "kernel")
    assert {attempt["worker"] for attempt in dead["attempts"]} == {peer.peer_id for peer in failing}
    assert {attempt["text"] for attempt in dead["attempts"]} == {"divided by zero"}

    again = await owner.sparkle("dead", "--requeue", f"{job}/{BROKEN}")
    assert again.code == 0, again.err
    assert "1 unit begun anew" in again.out
    assert (await owner.done(job))["result"] == PRIMES_TO_1E7
    await owner.kill()
    await owner.spawn("--no-mdns", "--no-work", "--listen", f"/ip4/127.0.0.1/tcp/{port}")
    await owner.wait_ready()
    assert (await owner.job(job))["state"] == "done"
    told = await owner.why(f"{job}/{BROKEN}")
    assert told.count("failed on it before it was begun anew (kernel: divided by zero).") == 3
    assert "Begun anew for the first time because unit 0 failed on 3 workers: divided by zero." in told
    assert (await owner.sparkle("dead")).out == "no unit is dead\n"
