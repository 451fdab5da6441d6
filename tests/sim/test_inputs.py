"""Jobs whose inputs and results are blobs: they end, also without their submitter, over lines that all share."""

from collections import Counter

import pytest
from msgspec.structs import replace as with_fields

from sparkle_protocol.blobs.limits import CHUNK_S
from sparkle_protocol.blobs.tree import BlobId
from sparkle_protocol.effects import Notify, Violation
from sparkle_protocol.errors import SparkleError
from sparkle_sim import checkers
from sparkle_sim.blobs import MB, unit_inputs
from sparkle_sim.bulk import Bulk
from sparkle_sim.computing import result_size, true_result
from sparkle_sim.engine import Run
from sparkle_sim.guard import no_outside
from sparkle_sim.kernel import SECOND
from sparkle_sim.peer import Peer
from sparkle_sim.scenario import Adversaries, Fault, JobPlan, Machines, Peers, Scenario, Wires

LINES = Wires(upload_mbps=80.0, download_mbps=400.0, jitter=0.0)
PLAN = JobPlan(at_s=5.0, units=12, unit_s=4.0, inputs=6, input_mb=3.0, result_mb=1.5)
EVEN = Machines(spread=0.0, noise=0.0)


def scene(plan: JobPlan = PLAN, *wrong: Fault, peers: int = 10, **more: object) -> Scenario:
    return Scenario(
        "inputs", seconds=1200.0, peers=Peers(peers, 2.0, machines=EVEN), wires=LINES, jobs=[plan], faults=[*wrong],
        **more,  # type: ignore[arg-type]
    )  # fmt: skip


class News:
    """What peers told their owners, and when."""

    def __init__(self) -> None:
        self.told: list[tuple[float, int, str]] = []

    def heard(self, peer: Peer, effect: Notify) -> None:
        self.told.append((peer.world.kernel.now / SECOND, peer.number, effect.event))

    def violated(self, peer: Peer, effect: Violation) -> None:
        raise AssertionError(effect.reason)

    def count(self, event: str, since_s: float = 0.0, until_s: float = 1e9) -> int:
        return sum(1 for at_s, _, what in self.told if what == event and since_s <= at_s < until_s)


def ran(scenario: Scenario, seed: int = 1) -> tuple[Run, News]:
    news = News()
    run = Run(scenario, seed, watchers=[news])
    watch = checkers.watch(run.world, scenario)
    with no_outside():
        run.advance(scenario.seconds)
    assert watch.finish() == []
    return run, news


def blobs_at(run: Run, number: int) -> int:
    """How many results of the one job a peer has as blobs."""
    (job,) = run.plans
    spec = run.world.peers[0].submitter.jobs[job].state.spec
    files = run.world.peers[number].disk.blobs
    assert files is not None
    results = (BlobId(true_result(job, unit, result_size(spec))) for unit in range(spec.units))
    return sum(1 for blob in results if files.size(blob) == int(PLAN.result_mb * MB))


@pytest.mark.parametrize("check", ["exact", "algebraic"])
def test_a_job_with_inputs_is_over_when_its_submitter_has_all_results(check: str) -> None:
    run, news = ran(scene(with_fields(PLAN, check=check)))
    assert list(run.outcomes.values()) == ["job_done"]
    assert blobs_at(run, 0) == PLAN.units
    assert news.count("result_complete") == 1
    replicas = news.count("unit_computed") / PLAN.units
    assert replicas == 1.0 if check == "algebraic" else 1.0 < replicas <= 2.0  # its own worker is trusted
    lines = run.world.network.uplinks
    assert sum(lines.sent.values()) == sum(lines.received.values()) >= run.world.arrays.moved_bytes
    assert run.world.arrays.moved_bytes >= int((PLAN.units * PLAN.result_mb + PLAN.inputs * PLAN.input_mb) * MB)


def test_a_job_whose_submitter_leaves_half_way_goes_on_from_the_copies_of_its_inputs() -> None:
    plan = with_fields(PLAN, units=24, unit_s=30.0)
    _, whole = ran(scene(plan))
    published_s = next(at_s for at_s, _, what in whole.told if what == "job_published")
    gone_s = round(published_s + 5.0, 3)
    run, news = ran(scene(plan, Fault("kill", gone_s, 300.0, peers=[0])))
    assert list(run.outcomes.values()) == ["job_done"]
    before = news.count("unit_computed", 0.0, gone_s)
    assert before < 2 * plan.units
    assert news.count("unit_computed", gone_s, gone_s + 300.0) == news.count("unit_computed") - before
    assert news.count("result_held", gone_s, gone_s + 300.0) > 0  # no result is at its workers alone
    assert blobs_at(run, 0) == plan.units
    assert run.ended_ns[next(iter(run.plans))] / SECOND < gone_s + 300.0 + 60.0


def test_wrong_blobs_fail_the_check() -> None:
    plan = with_fields(PLAN, check="algebraic")
    run, news = ran(scene(plan, adversaries=[Adversaries("cheat", peers=[3, 4])]))
    assert list(run.outcomes.values()) == ["job_done"]
    assert blobs_at(run, 0) == plan.units
    assert news.count("worker_rejected") > 0


def test_one_seed_is_one_run() -> None:
    wrong = (
        Fault("stall", 10.0, 20.0, peers=[2]),
        Fault("half-open", 12.0, peers=[3]),
        Fault("kill", 25.0, 5.0, peers=[0]),
    )
    hashes = [ran(scene(PLAN, *wrong), seed)[0].world.trace.hash for seed in (1, 1, 2)]
    assert hashes[0] == hashes[1] != hashes[2]


# --- blobs alone ----------------------------------------------------------------------------------------------------

BLOB = BlobId(b"b" * 32)
SIZE = 20 * MB  # two seconds over a whole line


class Fetches:
    """Peers without jobs; the first has a blob that others fetch."""

    def __init__(self, peers: int = 4) -> None:
        self.run = Run(Scenario("blobs", seconds=1e6, peers=Peers(peers, 1.0), wires=LINES, jobs=[]), 1)
        self.world = self.run.world
        self.until(10.0)
        for peer in range(1, peers):
            self.world.network.dial(peer, 0, lambda _worked: None)
        self.until(11.0)
        self.bulk(0).files.add(BLOB, SIZE, ())
        self.ended: dict[int, tuple[float, str]] = {}

    def bulk(self, number: int) -> Bulk:
        return self.world.arrays.of(self.world.peers[number]).bulk

    def until(self, at_s: float) -> None:
        self.world.kernel.run(int(at_s * SECOND))

    def fetch(self, number: int, *sources: int) -> None:
        bulk, peers = self.bulk(number), self.world.peers

        async def one() -> None:
            text = "here"
            try:
                await bulk.fetch(BLOB, [peers[source].id for source in sources or (0,)], size=SIZE)
            except SparkleError as error:
                text = str(error)
            self.ended[number] = self.world.kernel.now / SECOND, text

        bulk.loop.begin(one())


def test_a_fetch_takes_what_the_line_says_and_two_take_twice_as_long() -> None:
    one = Fetches()
    one.fetch(1)
    one.until(20.0)
    alone_s = one.ended[1][0] - 11.0
    assert 2.0 < alone_s < 2.5
    both = Fetches()
    both.fetch(1)
    both.fetch(2)
    both.until(20.0)
    assert all(4.0 < at_s - 11.0 < 4.8 for at_s, _ in both.ended.values())


def test_chunks_come_from_all_who_have_them() -> None:
    one = Fetches()
    one.bulk(2).files.add(BLOB, SIZE, ())
    one.world.network.dial(1, 2, lambda _worked: None)
    one.until(12.0)
    one.fetch(1, 0, 2)
    one.until(20.0)
    assert one.ended[1][0] - 12.0 < 1.6
    assert min(one.bulk(0).moved_bytes, one.bulk(2).moved_bytes) > SIZE / 3


def test_a_stalled_reader_hurts_nobody_else_and_holds_its_place_for_as_long_as_a_server_lets_it() -> None:
    one = Fetches()
    one.fetch(1)
    one.fetch(2)
    one.until(12.0)
    one.world.network.stall(2, "test")
    one.until(30.0)
    at_s, what = one.ended[1]
    assert what == "here"
    assert at_s == pytest.approx(11.0 + 1.0 + 1.5, abs=0.5)  # half the line first, and then all of it
    assert 2 not in one.ended
    one.until(12.0 + CHUNK_S + 30.0)
    assert one.bulk(0).answering == 0
    one.until(300.0)
    assert one.ended[2][1] != "here"
    one.world.network.read_on(2, "test")
    one.fetch(2)
    one.until(400.0)
    assert one.ended[2][1] == "here"


def test_a_fetch_goes_on_where_it_was_after_a_restart() -> None:
    one = Fetches()
    one.fetch(1)
    one.until(12.0)
    peer = one.world.peers[1]
    peer.crash()
    one.until(13.0)
    assert one.bulk(0).answering == 0
    before = one.bulk(0).moved_bytes
    assert before > 5 * MB
    peer.start()
    one.until(20.0)
    one.fetch(1)
    one.until(30.0)
    assert one.ended[1][1] == "here"
    assert one.bulk(0).moved_bytes <= SIZE + 4 * MB  # but for what was on its way


def test_who_loses_its_source_for_good_says_so_and_who_has_a_spare_one_goes_on() -> None:
    one = Fetches()
    one.bulk(3).files.add(BLOB, SIZE, ())
    one.fetch(1)
    one.fetch(2, 0, 3)
    one.until(12.0)
    one.world.peers[0].crash(silently=True)
    one.until(60.0)
    assert one.ended[2][1] == "here"
    one.until(300.0)
    assert "cannot be had" in one.ended[1][1]
    lines = one.world.network.uplinks
    assert sum(lines.sent.values()) == sum(lines.received.values())
    assert not lines.active


def test_units_need_inputs_in_turn() -> None:
    run, _ = ran(scene())
    (job,) = run.plans
    spec = run.world.peers[0].submitter.jobs[job].state.spec
    assert len(spec.inputs) == PLAN.inputs
    needed = Counter(blob for unit in range(spec.units) for blob in unit_inputs(spec, unit))
    assert set(needed.values()) == {2}
