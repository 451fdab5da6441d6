"""The story of a job that went through faults, as its owner reads it afterwards."""

import os
import signal

from tests.e2e.node.processes import NodeProcess, Swarm

UNITS = 60
LONG = {"stop": 6 * 10**9}  # some ten seconds of two cores


async def lose_a_worker(owner: NodeProcess, worker: NodeProcess, job: str) -> None:
    """Kill a worker that holds units of the job; it is stopped before that is looked at, so that it still does."""

    async def holds() -> bool:
        worker.signal(signal.SIGSTOP)
        if f"Holds {job[:12]}/" in await owner.why(worker.peer_id[-8:]):
            return True
        worker.signal(signal.SIGCONT)
        return False

    await owner.swarm.until(holds, "the worker holds a unit of the job")
    await worker.kill()
    await owner.event("peer_down", peer=worker.peer_id)


async def test_why_tells_the_story_of_a_job_over_faults_and_restarts(swarm: Swarm) -> None:
    """A worker killed, the owner stopped and started: told with times, in order, in few lines; kill -9 keeps it."""
    owner, first, second = await swarm.start(3)
    port = owner.address.split("/")[4]
    listen = ("--no-mdns", "--listen", f"/ip4/127.0.0.1/tcp/{port}")
    job = await owner.submit("prime_count", UNITS, **LONG)
    await owner.job_when(job, lambda d: d["units"]["final"] >= UNITS // 4, "a quarter is done")
    running = await owner.job(job)
    assert running["eta"] is None or running["eta"]["low_s"] <= running["eta"]["finish_s"] <= running["eta"]["high_s"]
    assert running["keepers"], running
    await lose_a_worker(owner, first, job)
    await owner.terminate()
    await owner.spawn(*listen)
    await owner.wait_ready()
    await owner.job_when(job, lambda d: d["state"] == "done" or d["units"]["final"] >= UNITS // 2, "half is done")
    await owner.done(job)
    told = await owner.sparkle("why", job)
    assert told.code == 0, told.err
    lines = [line.strip() for line in told.out.splitlines()]
    order = [
        "Submitted: prime_count in 60 units.",
        "took the first unit",
        "25 % reached: ",
        f"Worker …{first.peer_id[-8:]} lost with ",
        "This node was stopped.",
        "This node is back after ",
        "Done.",
    ]
    places = []
    for part in order:
        matching = [number for number, line in enumerate(lines) if part in line]
        assert matching, (part, told.out)
        places.append(matching[0])
    assert places == sorted(places), told.out
    assert len(lines) < 60, told.out

    document = (await owner.sparkle("why", job, "--json")).document
    kinds = [moment["reason"]["code"] for moment in document["timeline"]]
    assert kinds.count("node_back") == 1
    assert kinds[-1] == "job_done"
    assert all(moment["time"] <= moment["until"] for moment in document["timeline"])
    await owner.kill()
    await owner.spawn(*listen)
    await owner.wait_ready()
    again = [m["reason"]["code"] for m in (await owner.sparkle("why", job, "--json")).document["timeline"]]
    saved = kinds.index("node_back") + 1  # what came in the last seconds before the kill may be lost
    assert again[:saved] == kinds[:saved]
    assert again[-1] == "job_done"
    assert second.running


async def test_a_stopped_worker_is_named_and_the_peer_says_what_it_holds(swarm: Swarm) -> None:
    """`why PEER` while it works, `why UNIT` of what it holds, and what `status` says about so few peers."""
    owner, worker = await swarm.start(2, arguments_of={0: ["--no-work"]})
    job = await owner.submit("prime_count", 8, stop=40 * 10**9)

    async def held() -> dict[str, object] | None:
        document = (await owner.sparkle("why", worker.peer_id[-8:], "--json")).document
        return document if any(detail["code"] == "holds" for detail in document["details"]) else None

    document = await swarm.until(held, "the worker holds units")
    holds = [detail for detail in document["details"] if detail["code"] == "holds"]
    assert document["headline"]["numbers"]["held"] >= len(holds) > 0
    unit = holds[0]["numbers"]["unit"]
    said = await owner.why(f"{job}/{unit}")
    assert f"…{worker.peer_id[-8:]} computes it (" in said
    assert "its lease lasts " in said
    status = (await owner.sparkle("status", "--json")).document
    assert status["safety"]["code"] == "submitter_only"
    assert status["safety"]["peers"] == 2
    assert "only the submitter accepts" in (await owner.sparkle("status")).out
    assert "Kept by this node alone" in await owner.why(job) or "Kept by 2 nodes" in await owner.why(job)

    os.killpg(worker.process.pid, signal.SIGKILL)
    await owner.event("peer_down", peer=worker.peer_id)

    async def alone() -> bool:
        return (await owner.status())["safety"]["code"] == "alone"

    await swarm.until(alone, "the owner knows that it is alone")
    assert "closing it stops them" in (await owner.sparkle("why")).out
