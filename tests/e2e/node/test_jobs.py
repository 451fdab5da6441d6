"""What the owner of a job sees and can do: verification levels, following, cancelling, refusals."""

import asyncio
import signal

import pytest

from tests.e2e.node.processes import PROGRAMS, Swarm

PRIMES_TO_1E9 = 50_847_534
LONG = {"stop": 10**10}


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


async def test_ctrl_c_leaves_the_job_running_and_says_how_to_follow_it(swarm: Swarm) -> None:
    """``sparkle submit --wait`` interrupted: code 130, and the job ends all the same."""
    (owner,) = await swarm.start(1)
    process = await asyncio.create_subprocess_exec(
        str(PROGRAMS / "sparkle"), "submit", "prime_count", "-p", "stop=1e10", "--units", "30", "--wait",
        "--home", str(owner.home), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    async with asyncio.timeout(30):
        first = (await process.stderr.readline()).decode()
        await process.stderr.readline()  # the first progress line: it follows the job
        process.send_signal(signal.SIGINT)
        rest = (await process.stderr.read()).decode()
        assert await process.wait() == 130
    short = first.split()[1]
    assert f"the job goes on; 'sparkle wait {short}' follows it" in rest
    assert "Traceback" not in rest
    waited = await owner.sparkle("wait", short)
    assert (waited.code, waited.out.strip()) == (0, "455052511")


async def test_progress_of_a_running_unit_is_live(swarm: Swarm) -> None:
    """The picture of a long unit moves while it runs, and so does the job's estimate."""
    (owner,) = await swarm.start(1)
    job = await owner.submit("prime_count", 4, stop=2 * 10**10)

    async def progress() -> float | None:
        units = (await owner.view())["units"]
        return next((u["progress"] for u in units if u["state"] == "running" and 0 < u["progress"] < 1), None)

    early = await swarm.until(progress, "the unit has begun")

    async def further() -> bool:
        return ((await progress()) or 0.0) > early

    await swarm.until(further, "the unit goes on", 10)
    assert "computes it (" in await owner.why(f"{job}/0")
    estimated = await owner.job_when(job, lambda d: d["eta_s"] is not None, "an estimate")
    assert 0 < estimated["eta_s"] < 60
    assert (await owner.sparkle("cancel", job)).code == 0


REFUSED = {
    "unknown kernel": (["no_such"], "no_such"),
    "unknown parameter": (["prime_count", "-p", "sotp=5"], "sotp"),
    "not a number": (["prime_count", "-p", "stop=many"], "stop"),
    "huge number": (["prime_count", "-p", "stop=1" + "0" * 5000], "stop"),
    "infinite": (["prime_count", "-p", "stop=1e999"], "stop"),
    "nothing to do": (["prime_count", "-p", "start=9", "-p", "stop=3"], "st"),
    "negative": (["prime_count", "-p", "start=-5"], "start"),
    "too many units": (["prime_count", "-p", "stop=100", "--units", "1000"], "units"),
    "two million units": (["prime_count", "-p", "stop=1e9", "--units", "2000000"], "1048576"),
    "no units": (["prime_count", "--units", "0"], "units"),
    "huge image": (["mandelbrot", "-p", "width=10000000", "-p", "height=10000000"], "width"),
    "bad level": (["prime_count", "--verify", "maybe"], "verify"),
    "malformed": (["prime_count", "-p", "stop"], "name=value"),
}


async def test_impossible_jobs_are_refused_in_one_sentence(swarm: Swarm) -> None:
    """Whatever is asked for: exit code 1 or 2, one line on stderr that names the trouble, nothing submitted."""
    (owner,) = await swarm.start(1)
    for name, (arguments, word) in REFUSED.items():
        refused = await owner.sparkle("submit", *arguments)
        assert refused.code in (1, 2), (name, refused)
        assert len(refused.err.strip().splitlines()) == 1, (name, refused.err)
        assert len(refused.err) < 500, (name, refused.err)
        assert word in refused.err, (name, refused.err)
        assert refused.out == "", name
    for subject in ("ffff", "", "nobody/3", "…"):
        unknown = await owner.sparkle("why", subject) if subject else await owner.sparkle("job", "ffff")
        assert unknown.code == 1, unknown
        assert len(unknown.err.strip().splitlines()) == 1
    assert (await owner.sparkle("jobs", "--json")).document == []
    assert (await owner.status())["state"] == "idle"
    assert "Traceback" not in owner.log.read_text()


@pytest.mark.parametrize("subject", ["job", "unit"])
async def test_why_names_what_does_not_exist(swarm: Swarm, subject: str) -> None:
    """A unit beyond the job's last, and an ambiguous word."""
    (owner,) = await swarm.start(1)
    job = await owner.submit("prime_count", 2, stop=1000)
    await owner.done(job)
    asked = {"unit": f"{job[:8]}/2", "job": "zzzz"}[subject]
    answer = await owner.sparkle("why", asked)
    assert answer.code == 1
    assert {"unit": "units 0 to 1", "job": "neither a job nor a peer is called 'zzzz'"}[subject] in answer.err
