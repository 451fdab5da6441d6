"""Workers become known by their work, are believed for it later, and stay known when their submitter is killed."""

import sqlite3
from contextlib import closing

from tests.e2e.node.processes import NodeProcess, Swarm

UNITS = 64
MOST_JOBS = 12  # until all workers are known: a slow one is compared less often
LARGE = {"stop": UNITS * 10**7}  # a hundred times the work of the small ones: who passed on these is hardly audited
SMALL = {"stop": UNITS * 10**5}
NUMBERS = ("passes", "capital_h", "failures")


async def standing(owner: NodeProcess, worker: NodeProcess) -> dict[str, object]:
    """What ``sparkle why PEER --json`` says of a worker, once."""
    document = (await owner.sparkle("why", worker.peer_id, "--json")).document
    (found,) = [detail for detail in document["details"] if detail["code"].startswith("standing_")]
    return {"code": found["code"], **{name: found["numbers"][name] for name in NUMBERS}}


async def test_standings_survive_kill_9_and_make_the_next_job_cheaper(swarm: Swarm) -> None:
    """The first jobs go by votes, two for each unit; after a kill -9 another one needs hardly more than one."""
    owner, *workers = await swarm.start(4, arguments_of={0: ["--no-work"]})
    port = owner.address.split("/")[4]
    assert "No worker is known here by its work yet" in (await owner.sparkle("status")).out
    first = await owner.done(await owner.submit("prime_count", UNITS, **LARGE))
    assert first["replicas"] >= 1.8 * UNITS
    for _ in range(MOST_JOBS):  # sixty comparisons of each worker
        await owner.done(await owner.submit("prime_count", UNITS, **LARGE))
        if (await owner.status())["known_workers"] == 3:
            break
    before = [await standing(owner, worker) for worker in workers]
    assert [one["code"] for one in before] == ["standing_known"] * 3, before
    await swarm.until(lambda: stored(owner) == sum(int(str(one["passes"])) for one in before), "standings are stored")
    await owner.kill()
    await owner.spawn("--no-mdns", "--no-work", "--listen", f"/ip4/127.0.0.1/tcp/{port}")
    await owner.wait_ready()
    for worker in workers:
        await owner.event("peer_up", peer=worker.peer_id)
    assert [await standing(owner, worker) for worker in workers] == before
    status = await owner.status()
    assert status["known_workers"] == 3
    assert "known here" not in status["safety"]["sentence"]

    job = await owner.submit("prime_count", UNITS, **SMALL)
    second = await owner.done(job)
    assert second["replicas"] <= 1.5 * UNITS, second  # 1.1 on average; the coin of each unit falls by itself
    stories = [(await owner.sparkle("why", f"{job}/{unit}", "--json")).document for unit in range(8)]
    codes = {detail["code"] for document in stories for detail in document["details"]}
    assert "believed" in codes
    assert "counts_known" in codes
    assert "the answer of one known worker is enough" in await owner.why(job)

    fresh = swarm.node("fresh")  # it knows nobody, and names somebody who does
    named = ("--bootstrap", owner.address, "--trust", owner.peer_id)
    await fresh.spawn("--no-mdns", "--no-work", *named)
    await fresh.wait_ready()
    await fresh.event("workers_vouched", peer=owner.peer_id, workers=3)
    assert (await fresh.status())["known_workers"] == 4
    told = (await fresh.sparkle("why", workers[0].peer_id, "--json")).document
    assert told["details"][0]["code"] == "standing_vouched"


async def test_members_of_a_swarm_that_are_named_count_from_the_first_unit(swarm: Swarm) -> None:
    """`--trust`: no voting, and about one result in twenty is audited."""
    workers = await swarm.start(3)
    owner = swarm.node("owner")
    named = [word for worker in workers for word in ("--trust", worker.peer_id)]
    await owner.spawn("--no-mdns", "--no-work", "--bootstrap", workers[0].address, *named)
    await owner.wait_ready()
    for worker in workers:
        await owner.event("peer_up", peer=worker.peer_id)
    assert (await owner.status())["known_workers"] == 3
    job = await owner.submit("prime_count", UNITS, **SMALL)
    assert (await owner.done(job))["replicas"] <= 1.4 * UNITS
    assert (await standing(owner, workers[0]))["code"] == "standing_named"


def stored(node: NodeProcess) -> int:
    """All passes in the node's database, read beside it."""
    with closing(sqlite3.connect(f"file:{node.home / 'node.db'}?mode=ro", uri=True)) as db:
        return int(db.execute("SELECT COALESCE(SUM(passes), 0) FROM standings").fetchone()[0])
