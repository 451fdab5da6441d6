"""Programs beside simulated nodes: they submit, wait, cancel and meet crashes as programs of real nodes do."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence

import pytest

from sparkle_protocol.errors import (
    ComputeError,
    ConfigError,
    LocalProtocolError,
    NodeNotRunning,
    NotFound,
    PeerUnreachable,
    RequestTimeout,
)
from sparkle_sim.client import Client
from sparkle_sim.client_jobs import Job
from sparkle_sim.computing import true_result
from sparkle_sim.engine import Run
from sparkle_sim.guard import no_outside
from sparkle_sim.running import run_scenario
from sparkle_sim.scenario import Adversaries, Churn, Fault, JobPlan, Peers, Scenario
from sparkle_sim.workflows import Workflow

passes = asyncio.sleep  # of virtual time


def scenario(*faults: Fault, jobs: Sequence[JobPlan] = (), peers: int = 12, seconds: float = 300.0) -> Scenario:
    return Scenario("clients", seconds=seconds, peers=Peers(peers, 2.0), jobs=list(jobs), faults=list(faults))


def played(what: Scenario, *clients: tuple[int, Workflow], seed: int = 1) -> Run:
    run = Run(what, seed, clients=clients)
    with no_outside():
        while not run.advance(run.now_s + 7.0):
            pass
    return run


def outcome(run: Run) -> str:
    (client,) = run.summary()["clients"]  # type: ignore[misc]
    return str(client["outcome"])


def right(job: Job, units: int, size: int = 8) -> list[bytes]:
    return [true_result(bytes.fromhex(job.id), unit, size) for unit in range(units)]


def test_a_program_submits_follows_and_gets_its_results() -> None:
    seen: list[object] = []

    async def program(client: Client) -> None:
        job = await client.submit(units=30, unit_s=2.0, result_bytes=40)
        assert await job.state in ("queued", "running")
        shares = []
        found = {}
        async for unit, result in job.results():
            found[unit] = result
            shares.append(await job.progress)
        assert [result for _, result in sorted(found.items())] == right(job, 30, 40) == await job.result()
        assert shares == sorted(shares)
        assert shares[-1] == 1.0
        assert len(set(shares)) > 3, "results come while the job runs"
        view = await job.view()
        assert (view.state, view.units.final, view.verify) == ("done", 30, "final")
        assert view.replicas > 30
        await passes(20.0)
        again = await client.submit(units=2, unit_s=1.0, verify="critical")
        assert (await again.wait()).state == "done"
        assert await client.jobs() == [again, job]
        assert await client.job(job.id[:10]) == job
        seen.append(client.now_s)

    run = played(scenario(), (3, program))
    assert outcome(run) == "done"
    assert [job["outcome"] for job in run.summary()["jobs"]] == ["done", "done"]  # type: ignore[attr-defined]
    assert run.now_s == seen[0] < 200, "the run is over with its last client"


def test_a_program_cancels() -> None:
    async def program(client: Client) -> None:
        job = await client.submit(units=500, unit_s=5.0)
        assert (await job.cancel()).state == "cancelled"
        with pytest.raises(ComputeError, match="was cancelled"):
            await job.result()
        job = await client.submit(units=500, unit_s=5.0)
        with pytest.raises(RequestTimeout, match="has not ended within 3 s; it goes on"):
            await job.wait(3)
        assert await job.state == "running"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2.0):
                await job.wait(cancel_on_interrupt=False)
        assert await job.state == "running"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2.0):
                await job.result()
        assert await job.state == "cancelled", "who stops waiting stops the job"

    assert outcome(played(scenario(), (0, program))) == "done"


def test_a_cancelled_submit_leaves_no_job_behind() -> None:
    async def program(client: Client) -> None:
        submitting = asyncio.ensure_future(client.submit(units=5))
        await passes(0.0)
        submitting.cancel()
        await asyncio.wait([submitting])
        assert submitting.cancelled()
        await passes(1.0)
        (job,) = await client.jobs()
        assert await job.state == "cancelled"

    assert outcome(played(scenario(), (4, program))) == "done"


def test_what_cannot_be_is_a_config_error() -> None:
    async def program(client: Client) -> None:
        for wrong in ({"kernel": "gemm"}, {"units": 0}, {"unit_s": -1.0}, {"verify": "never"}, {"units": 1.5}):
            with pytest.raises(ConfigError):
                await client.submit(**wrong)  # type: ignore[arg-type]
        with pytest.raises(NotFound):
            await client.job("abc")

    assert outcome(played(scenario(), (1, program))) == "done"


# --- nodes that are not well ----------------------------------------------------------------------------------


def test_a_crash_of_the_node_is_an_error_and_the_job_goes_on_after_it() -> None:
    async def program(client: Client) -> None:
        job = await client.submit(units=40, unit_s=3.0)
        with pytest.raises(NodeNotRunning):
            await job.wait()
        assert 10.0 <= client.now_s < 10.5
        with pytest.raises(NodeNotRunning, match="is not running"):
            await client.submit(units=1)
        await client.running()
        assert 30.0 <= client.now_s < 30.5
        assert await client.job(job.id) == job
        assert await job.result() == right(job, 40)

    assert outcome(played(scenario(Fault("kill", 10.0, 20.0, peers=[5])), (5, program))) == "done"


def test_a_call_that_a_crash_interrupts_fails() -> None:
    """A suspended node answers nothing; then it is killed."""

    async def program(client: Client) -> None:
        await passes(11.0 - client.now_s)
        with pytest.raises(NodeNotRunning, match="stopped before it answered"):
            await client.submit(units=1)
        assert 14.0 <= client.now_s < 14.5

    faults = Fault("freeze", 10.0, 60.0, peers=[5]), Fault("kill", 14.0, 5.0, peers=[5])
    assert outcome(played(scenario(*faults), (5, program))) == "done"


def test_a_suspended_node_does_not_answer() -> None:
    async def program(client: Client) -> None:
        job = await client.submit(units=10, unit_s=60.0)
        await passes(11.0 - client.now_s)
        with pytest.raises(RequestTimeout, match="did not answer within 35 s"):
            await job.view()
        assert client.now_s == pytest.approx(46.0)
        assert (await job.view()).units.total == 10  # the answer waits until it goes on
        assert client.now_s >= 70.0

    assert outcome(played(scenario(Fault("freeze", 10.0, 60.0, peers=[5])), (5, program))) == "done"


def test_a_job_that_is_not_published_in_time_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparkle_sim.client.PUBLISH_S", 0.01)

    async def program(client: Client) -> None:
        with pytest.raises(PeerUnreachable, match="too few peers hold it yet"):
            await client.submit(units=3, unit_s=1.0)
        (job,) = await client.jobs()
        assert (await job.wait()).state == "done"

    assert outcome(played(scenario(), (5, program))) == "done"


def test_a_program_that_does_not_handle_an_error_ends_with_it() -> None:
    async def program(client: Client) -> None:
        await (await client.submit(units=400, unit_s=9.0)).wait()

    run = played(scenario(Fault("kill", 10.0, 5.0, peers=[5]), seconds=40.0), (5, program))
    assert outcome(run).startswith("NodeNotRunning: ")
    assert run.now_s == 40.0, "its job is not over"


# --- runs -----------------------------------------------------------------------------------------------------


def test_a_mistake_in_a_program_ends_the_run() -> None:
    async def divides(client: Client) -> None:
        await passes(5.0)
        1 // 0  # noqa: B018

    with pytest.raises(ZeroDivisionError):
        played(scenario(), (0, divides))

    async def forgets(client: Client) -> None:
        asyncio.ensure_future(divides(client))  # noqa: RUF006 - that is what is tested
        await passes(10.0)

    with pytest.raises(ZeroDivisionError):
        played(scenario(), (0, forgets))

    async def looks_at_the_clock(client: Client) -> None:
        time.time()

    with pytest.raises(LocalProtocolError, match="simulation asked for"):
        played(scenario(), (0, looks_at_the_clock))


def test_clients_of_peers_that_there_are_not_and_of_adversaries_are_refused() -> None:
    async def program(client: Client) -> None:
        await client.submit(units=1)

    with pytest.raises(ConfigError, match="a client is at peer 12, but the peers are 0 to 11"):
        Run(scenario(), 1, clients=[(12, program)])
    cheats = Scenario("cheats", peers=Peers(4), jobs=[], adversaries=[Adversaries("cheat", peers=[2])])
    with pytest.raises(ConfigError, match="peer 2 is an adversary"):
        Run(cheats, 1, clients=[(2, program)])
    drawn = Scenario("cheats", peers=Peers(4), jobs=[], adversaries=[Adversaries("cheat", share=1.0)])
    run = Run(drawn, 1, clients=[(2, program)])
    assert list(run.world.adversaries) == [0, 1, 3]


def test_clients_planned_jobs_and_checkers_go_together() -> None:
    """A client's jobs count as planned ones do; the run is over when all of them are."""

    async def program(client: Client) -> None:
        for _ in range(2):
            job = await client.submit(units=10, unit_s=4.0, verify="fast", result_bytes=16)
            await job.wait()
            await passes(1.0)

    what = scenario(jobs=[JobPlan(at_s=5.0, units=20, unit_s=1.0)])
    found = run_scenario(what, 4, clients=[(2, program), (3, program)])
    assert found.findings == []
    assert [client["outcome"] for client in found.summary["clients"]] == ["done", "done"]
    assert found.summary["units_final"] == 20 + 4 * 10
    assert [job["outcome"] for job in found.summary["jobs"]] == ["done"] * 5
    assert found.manifest["virtual_seconds"] < 100
    with pytest.raises(ConfigError, match="engine = 'full'"):
        run_scenario(Scenario("million", engine="population", peers=Peers(1000)), 1, clients=[(0, program)])


def busy() -> Run:
    """Clients with several tasks each, in a network of nodes that come and go."""

    async def program(client: Client) -> None:
        async def one(number: int) -> None:
            await passes(number * 2.0)
            while True:
                try:
                    job = await client.submit(units=2 + number, unit_s=1.0 + number)
                    await job.wait(20.0)
                    return
                except (NodeNotRunning, PeerUnreachable, RequestTimeout):
                    await client.running()

        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(one(number))

    churn = Churn("exponential", session_s=20.0, absence_s=5.0, begin_s=4.0)
    what = Scenario("busy", seconds=40.0, peers=Peers(8, 2.0, churn=churn), jobs=[])
    return played(what, (1, program), (2, program), seed=6)


def test_one_seed_is_one_run_in_every_process() -> None:
    program = (
        "import json; from tests.sim.test_clients import busy; run = busy();"
        "print(json.dumps([run.world.trace.hash, run.world.trace.count, run.summary()]))"
    )
    told = []
    for hash_seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
        told.append(json.loads(done.stdout))
    assert told[0] == told[1]
    assert len(told[0][2]["jobs"]) >= 6
