"""One node without peers: what its owner sees, does and asks for wrongly. The tests share the node."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.e2e.node.processes import PROGRAMS, NodeProcess, Swarm, computing, is_gone, process_state

pytestmark = pytest.mark.asyncio(loop_scope="module")

PRIMES_TO_1E9 = 50_847_534
PRIMES_TO_5E9 = 234_954_223
LONG = {"stop": 5 * 10**9}  # fifty units take some seconds of two cores: time for things to happen meanwhile


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NodeProcess]:
    """A node that is ready, connected to nobody."""
    async with Swarm(tmp_path_factory.mktemp("alone")) as swarm:
        (started,) = await swarm.start(1)
        yield started


async def test_a_lonely_node_says_that_it_is_alone_or_paused(node: NodeProcess) -> None:
    """Alone it still finishes its own job; every state is said plainly."""
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


async def test_killing_a_worker_process_retries_its_unit(node: NodeProcess) -> None:
    """kill -9 of the child alone: the node starts another one and computes the unit again."""
    job = await node.submit("prime_count", 4, **LONG)
    executor = await computing(node)
    os.kill(executor, signal.SIGKILL)
    await node.swarm.until(lambda: is_gone(executor), "the worker process is gone", 5)
    document = await node.done(job)
    assert document["result"] == PRIMES_TO_5E9
    assert document["workers"] == {node.peer_id: 4}
    assert node.count("unit_failed", job=job) == 0


async def test_pausing_really_stops_and_resuming_goes_on(node: NodeProcess) -> None:
    """The worker process stands still (state T) once it would have got a processor; then the same unit goes on."""
    job = await node.submit("prime_count", 4, **LONG)
    executor = await computing(node)
    paused = await node.sparkle("pause", "--json")
    assert paused.document["state"] == "paused"
    await node.swarm.until(lambda: process_state(executor) == "T", "the worker process stands still", 5)
    shown = await node.sparkle("status")
    assert shown.out.startswith("paused: Paused by you; 1 running unit stands still.")
    assert "Paused by you" in (await node.sparkle("why")).out
    units = (await node.view())["units"]
    assert [unit["state"] for unit in units] == ["paused"]
    resumed = await node.sparkle("resume", "--json")
    assert resumed.document["state"] == "working"
    assert process_state(executor) != "T"
    document = await node.done(job)
    assert document["result"] == PRIMES_TO_5E9
    assert document["replicas"] == 4  # nothing was computed twice
    assert node.executors() == [executor]


async def test_ctrl_c_leaves_the_job_running_and_says_how_to_follow_it(node: NodeProcess) -> None:
    """``sparkle submit --wait`` interrupted: code 130, and the job ends all the same."""
    process = await asyncio.create_subprocess_exec(
        str(PROGRAMS / "sparkle"), "submit", "prime_count", "-p", "stop=5e9", "--units", "30", "--wait",
        "--home", str(node.home), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
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
    waited = await node.sparkle("wait", short)
    assert (waited.code, waited.out.strip()) == (0, "234954223")


async def test_progress_of_a_running_unit_is_live(node: NodeProcess) -> None:
    """The picture of a long unit moves while it runs, and so does the job's estimate."""
    job = await node.submit("prime_count", 4, stop=4 * 10**10)

    async def progress() -> float | None:
        units = (await node.view())["units"]
        return next((u["progress"] for u in units if u["state"] == "running" and 0 < u["progress"] < 1), None)

    early = await node.swarm.until(progress, "the unit has begun")

    async def further() -> bool:
        return ((await progress()) or 0.0) > early

    await node.swarm.until(further, "the unit goes on", 10)
    assert "computes it (" in await node.why(f"{job}/0")
    estimated = await node.job_when(job, lambda d: d["eta_s"] is not None, "an estimate")
    assert 0 < estimated["eta_s"] < 60
    assert (await node.sparkle("cancel", job)).code == 0


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


async def test_impossible_jobs_are_refused_in_one_sentence(node: NodeProcess) -> None:
    """Whatever is asked for: exit code 1 or 2, one line on stderr that names the trouble, nothing submitted."""
    before = [row["job"] for row in (await node.sparkle("jobs", "--json")).document]
    answers = await asyncio.gather(*(node.sparkle("submit", *arguments) for arguments, _ in REFUSED.values()))
    for (name, (_, word)), refused in zip(REFUSED.items(), answers, strict=True):
        assert refused.code in (1, 2), (name, refused)
        assert len(refused.err.strip().splitlines()) == 1, (name, refused.err)
        assert len(refused.err) < 500, (name, refused.err)
        assert word in refused.err, (name, refused.err)
        assert refused.out == "", name
    for subject in ("ffff", "", "nobody/3", "…"):
        unknown = await node.sparkle("why", subject) if subject else await node.sparkle("job", "ffff")
        assert unknown.code == 1, unknown
        assert len(unknown.err.strip().splitlines()) == 1
    assert [row["job"] for row in (await node.sparkle("jobs", "--json")).document] == before
    assert (await node.status())["state"] == "idle"
    assert "Traceback" not in node.log.read_text()


@pytest.mark.parametrize("subject", ["job", "unit"])
async def test_why_names_what_does_not_exist(node: NodeProcess, subject: str) -> None:
    """A unit beyond the job's last, and an ambiguous word."""
    job = await node.submit("prime_count", 2, stop=1000)
    await node.done(job)
    asked = {"unit": f"{job[:8]}/2", "job": "zzzz"}[subject]
    answer = await node.sparkle("why", asked)
    assert answer.code == 1
    assert {"unit": "units 0 to 1", "job": "neither a job nor a peer is called 'zzzz'"}[subject] in answer.err
