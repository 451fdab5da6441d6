"""Jobs outlive the node that submitted them: real nodes keep, finish and hand back what nobody may lose."""

import asyncio
import contextlib
import signal
import sqlite3
from collections.abc import Iterable

import pytest

from sparkle_p2p.net.libp2p import Libp2pOverlay
from sparkle_p2p.net.overlay import OverlayEvents
from sparkle_protocol import messages
from sparkle_protocol.errors import SparkleError
from sparkle_protocol.facts import FactCodec, JobSpec
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import PeerId
from sparkle_protocol.work.placement import holders_needed
from sparkle_protocol.work.state import JobState
from tests.e2e.node.processes import NodeProcess, Swarm

PRIMES = {10**9: 50_847_534, 2 * 10**9: 98_222_287}
LONG = 2 * 10**9  # some seconds of two cores: not done when its submitter leaves at once
UNITS = 48
TAKEN_OVER_S = 45.0  # a keeper counts as away ten seconds after its connection broke; everybody is busy here
RECOVERED_S = 110.0  # a submitter names new keepers when too few of them were there for half a minute


def known(node: NodeProcess, job: str) -> JobState | None:
    """What the facts on a node's disk say of a job; the node may run, or have been killed."""
    with contextlib.closing(sqlite3.connect(f"file:{node.home / 'node.db'}?mode=ro", uri=True)) as db:
        rows = db.execute("SELECT raw FROM facts WHERE job = ?", (bytes.fromhex(job),)).fetchall()
    codec = FactCodec(node.swarm.net)
    facts = [codec.open(raw) for (raw,) in rows]
    spec = next((fact for fact in facts if isinstance(fact.payload, JobSpec)), None)
    if spec is None:
        return None
    state = JobState(spec, node.swarm.net)
    state.merge(facts)
    assert not state.two_faced
    return state


def holding(nodes: Iterable[NodeProcess], job: str) -> int:
    """How many of the keepers that the newest known set names have the job's spec and that set on disk."""
    states = {node.peer_id: state for node in nodes if (state := known(node, job)) is not None}
    views = [state.view for state in states.values() if state.view is not None]
    assert views
    newest = max(views, key=lambda view: view.number)
    return sum(peer in states and newest.fact.id in states[peer] for peer in newest.keepers)


def finals(node: NodeProcess, job: str) -> int:
    """How many units are final by the facts on a node's disk."""
    state = known(node, job)
    return len(state.final_units) if state is not None else 0


async def started_again(node: NodeProcess, *arguments: str) -> None:
    """The node on its old home and port; it finds the others by what it remembers of them."""
    port = node.address.split("/")[4]
    await node.spawn("--no-mdns", *arguments, listen=f"/ip4/127.0.0.1/tcp/{port}")
    await node.wait_ready()


async def connected(nodes: list[NodeProcess]) -> None:
    """Return once every node is connected to every other."""

    async def all_are() -> bool:
        return all(len(peers) >= len(nodes) - 1 for peers in await asyncio.gather(*(n.peers() for n in nodes)))

    await nodes[0].swarm.until(all_are, "all nodes are connected")


async def taken_over(keepers: list[NodeProcess], job: str) -> None:
    """Return once one of the keepers hands the job's units out in the submitter's place."""

    def taken() -> bool:
        return any(keeper.count("duty_taken", job=job) for keeper in keepers)

    await keepers[0].swarm.until(taken, "a keeper takes over", TAKEN_OVER_S)


async def finished_without(owner: NodeProcess, others: list[NodeProcess], job: str, units: int) -> list[NodeProcess]:
    """Wait until those that keep the job have all of its units final, and return those."""
    state = known(owner, job)
    assert state is not None
    assert state.view is not None
    keepers = [node for node in others if node.peer_id in state.view.keepers and node.running]
    await taken_over(keepers, job)
    await owner.swarm.until(
        lambda: all(keeper.count("unit_final", job=job) == units for keeper in keepers), "the keepers finish", 90
    )
    return keepers


@pytest.mark.timeout(240)
async def test_a_job_is_finished_while_its_submitter_is_away(swarm: Swarm) -> None:
    """Six nodes. The submitter goes in the moment that `submit` returned; back again, it has the right result."""
    nodes = await swarm.start(6, arguments_of={0: ["--no-work"]})
    owner, *others = nodes
    await connected(nodes)
    assert (await owner.status())["safety"]["code"] == "certified"
    job = await owner.submit("prime_count", UNITS, stop=LONG)
    assert await owner.terminate() == 0
    state = known(owner, job)
    assert state is not None
    assert state.view is not None
    assert len(state.view.keepers) == 5
    assert holding(others, job) >= holders_needed(5)

    keepers = await finished_without(owner, others, job, UNITS)
    assert len(keepers) == 5
    kept = [known(keeper, job) for keeper in keepers]
    assert all(state is not None and state.finished for state in kept)
    for keeper in keepers:
        shown = [event["unit"] for event in keeper.events if event["event"] == "unit_final"]
        assert sorted(shown) == list(range(UNITS))  # each once

    await started_again(owner, "--no-work")
    document = await owner.done(job, 60)
    assert document["result"] == PRIMES[LONG]
    assert document["units"] == {**dict.fromkeys(document["units"], 0), "total": UNITS, "final": UNITS}
    assert document["rejected"] == 0
    assert set(document["workers"]) <= {node.peer_id for node in others}
    mine = known(owner, job)
    assert mine is not None
    assert [mine.final(unit) for unit in range(UNITS)] == [kept[0].final(unit) for unit in range(UNITS)]  # type: ignore[union-attr]
    for keeper in keepers:
        await keeper.event("job_released", job=job)
    assert [event for node in nodes for event in node.events if event["event"] == "violation"] == []


@pytest.mark.timeout(240)
async def test_three_nodes_go_on_and_their_results_are_provisional(swarm: Swarm) -> None:
    """ARCHITECTURE section 6: with fewer than four keepers only the submitter accepts, also what came without it."""
    nodes = await swarm.start(3)
    owner, *others = nodes
    await connected(nodes)
    for node in nodes:
        assert (await node.status())["safety"]["code"] == "submitter_only"
    job = await owner.submit("prime_count", UNITS, stop=LONG)
    assert await owner.terminate() == 0
    before = finals(owner, job)
    await taken_over(others, job)

    def computed() -> bool:
        return sum(node.count("unit_computed", job=job) for node in others) >= 2 * (UNITS - before)

    await swarm.until(computed, "both others computed all that was open", 90)
    assert max(finals(node, job) for node in others) <= before
    await started_again(owner)
    document = await owner.done(job, 60)
    assert document["result"] == PRIMES[LONG]
    assert finals(owner, job) == UNITS


@pytest.mark.timeout(300)
async def test_keepers_lost_for_good_cost_time_and_no_result(swarm: Swarm) -> None:
    """kill -9 of the submitter as it acknowledged, and of one of five keepers: the rest finish its job.

    With the submitter back, two of another job's four keepers are lost: too few to decide, so it names others.
    """
    nodes = await swarm.start(6, arguments_of={0: ["--no-work"]})
    owner, *others = nodes
    await connected(nodes)
    job = await owner.submit("prime_count", UNITS, stop=LONG)
    await owner.kill()
    assert holding(others, job) >= holders_needed(5)
    await others[0].kill()
    assert len(await finished_without(owner, others, job, UNITS)) == 4
    await started_again(owner, "--no-work")
    assert (await owner.done(job, 60))["result"] == PRIMES[LONG]

    await connected([owner, *others[1:]])
    job = await owner.submit("prime_count", UNITS, stop=LONG)
    for keeper in others[1:3]:
        await keeper.kill()
    assert set((await owner.job(job))["keepers"]) == {node.peer_id for node in others[1:]}
    await owner.event("keepers_changed", RECOVERED_S, job=job, reason="recovered", keepers=3)
    document = await owner.done(job)
    assert document["result"] == PRIMES[LONG]
    assert set(document["keepers"]) == {node.peer_id for node in nodes if node.running}


async def test_closing_a_node_does_not_wait_for_a_job_that_is_being_published(swarm: Swarm) -> None:
    """It leaves in time with code 0 and says what becomes of the job, which is there after the restart."""
    owner, frozen = await swarm.start(2)
    frozen.signal(signal.SIGSTOP)
    try:
        submitting = asyncio.create_task(owner.submit("prime_count", 8, stop=10**9))
        submitted = await owner.event("job_submitted")
        assert await owner.terminate() == 0
        with pytest.raises(SparkleError, match="it is published after a restart"):
            await submitting
    finally:
        frozen.signal(signal.SIGCONT)
    assert "Traceback" not in owner.log.read_text()
    await started_again(owner)
    assert (await owner.done(submitted["job"]))["result"] == PRIMES[10**9]


async def test_a_job_that_ends_before_its_keepers_answer_is_acknowledged(swarm: Swarm) -> None:
    """A peer takes the spec and is silent from then on; the submitter computes the job, and `submit` returns."""
    [owner] = await swarm.start(1)
    gone = asyncio.Event()
    pushes = 0

    async def serve(_peer: PeerId, payload: bytes) -> bytes:
        nonlocal pushes
        asked = messages.decode_request(payload)
        if not isinstance(asked, messages.Push):
            return messages.encode_message(messages.Ok())
        pushes += 1
        if pushes > 1:
            await gone.wait()
        return messages.encode_message(messages.PushReply(asked.job, []))

    silent = Libp2pOverlay(
        Identity.generate(), net=swarm.net, listen=["/ip4/127.0.0.1/tcp/0"], agent="silent", mdns=False
    )
    async with asyncio.timeout(60):
        await silent.start(serve, OverlayEvents())
        try:
            await silent.connect(owner.address)
            await owner.event("peer_up")
            job = await owner.submit("prime_count", 4, stop=1000)
            assert (await owner.done(job))["result"] == 168
            assert pushes > 1
            assert not owner.count("job_published", job=job)
        finally:
            gone.set()
            await silent.stop()
