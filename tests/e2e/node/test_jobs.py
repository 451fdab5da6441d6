"""What the owner of a job sees and can do: verification levels, following, cancelling, refusals."""

from tests.e2e.node.processes import Swarm

PRIMES_TO_1E9 = 50_847_534
LONG = {"stop": 5 * 10**9}  # fifty units take some seconds of two cores: time for things to happen meanwhile


async def test_undecided_units_say_that_a_second_worker_is_wanted(swarm: Swarm) -> None:
    """An owner that computes nothing and one worker: nothing is accepted until a second worker comes."""
    owner, worker = await swarm.start(2, arguments_of={0: ["--no-work"]})
    job = await owner.submit("prime_count", 8, stop=10**9)
    document = await owner.job_when(job, lambda d: d["units"]["committed"] == 8, "the one worker has answered")
    assert document["state"] == "running"
    assert document["units"]["final"] == 0
    assert document["workers"] == {}
    told = await owner.why(job)
    assert "8 units answered by 1 worker so far; 1 more distinct worker must compute them too." in told
    unit = await owner.why(f"{job}/0")
    assert unit.startswith("Not decided yet; 1 more worker wanted.")
    assert "has committed and not shown its result" in unit
    assert (await worker.status())["reason"]["code"] == "awaiting_decision"
    second = swarm.node("second")
    await second.spawn("--no-mdns", "--bootstrap", owner.address)
    assert (await owner.done(job))["workers"] == {worker.peer_id: 8, second.peer_id: 8}


async def test_fast_takes_the_first_result_and_critical_wants_three(swarm: Swarm) -> None:
    """Service levels: one worker, provisional; three workers, final."""
    nodes = await swarm.start(4, arguments_of={0: ["--no-work"]})
    owner = nodes[0]
    fast = await owner.done(await owner.submit("prime_count", 12, "fast", stop=10**9))
    assert fast["result"] == PRIMES_TO_1E9
    assert (fast["units"]["provisional"], fast["units"]["final"]) == (12, 0)
    assert fast["replicas"] == 12
    job = await owner.submit("prime_count", 12, "critical", stop=10**9)
    critical = await owner.done(job)
    assert critical["result"] == PRIMES_TO_1E9
    assert critical["replicas"] == 36
    assert critical["workers"] == {node.peer_id: 12 for node in nodes[1:]}
    assert "3 distinct workers must agree" in await owner.why(job)
    shown = await owner.sparkle("jobs")
    assert shown.out.count("12/12") == 2


async def test_cancelling_makes_workers_drop_their_units(swarm: Swarm) -> None:
    """In mid-job: workers stop computing it, and it stays cancelled after a restart."""
    owner, worker = await swarm.start(2)
    job = await owner.submit("prime_count", 50, **LONG)
    await worker.event("unit_computed", job=job)
    cancelled = await owner.sparkle("cancel", job, "--json")
    assert cancelled.document["state"] == "cancelled"

    async def idle() -> bool:
        return not (await worker.view())["units"] and not (await owner.view())["units"]

    await swarm.until(idle, "both hold nothing any more", 5)
    waited = await owner.sparkle("wait", job)
    assert waited.code == 1
    assert "was cancelled" in waited.err
    again = await owner.sparkle("cancel", job)
    assert again.code == 0
    assert (await owner.why(job)).startswith("Cancelled by its owner with")
    await owner.kill()
    await owner.spawn("--no-mdns")
    await owner.wait_ready()
    assert (await owner.job(job))["state"] == "cancelled"
    assert (await owner.view())["units"] == []
