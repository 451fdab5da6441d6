"""How a worker finds keepers, which of them it asks, and how much work it keeps at hand."""

from random import Random

import pytest

from sparkle_protocol import effects as fx
from sparkle_protocol import messages as m
from sparkle_protocol.work.keepers import Keepers
from sparkle_protocol.work.prefetch import MAX_DEPTH, MAX_PACE_NS, MAX_QUEUED, MIN_DEPTH, MIN_PACE_NS, Prefetch
from sparkle_protocol.work.worker import SECOND_NS, WorkerAgent
from tests.unit.protocol.scripted_keepers import CODEC, ME, OTHERS, SUBMITTER, Scene, commits_in

A, B = (other.peer_id for other in OTHERS[:2])


def lookups(scene: Scene) -> list[bytes]:
    return [effect.key for effect in scene.took(fx.FindProviders) if isinstance(effect, fx.FindProviders)]


# --- discovery --------------------------------------------------------------------------------------------


def test_a_worker_looks_into_every_shard_within_two_seconds() -> None:
    s = Scene(SUBMITTER)
    s.tell(fx.Tick())
    assert len(lookups(s)) == 2
    s.start()
    s.effects.clear()
    s.wait(2)
    assert set(lookups(s)) >= {m.shard_key("test", "square@1", shard) for shard in range(m.SHARDS)}


def test_lookups_grow_rare_and_stop_when_there_is_something_to_do() -> None:
    s = Scene(SUBMITTER)
    s.wait(120)
    assert 2 * 6 <= len(lookups(s)) <= 2 * 12
    s.wait(3600)
    assert 2 * 28 <= len(lookups(s)) <= 2 * 45
    s.give(SUBMITTER, 0)
    s.wait(9)
    assert not lookups(s)


def test_the_first_connection_makes_a_waiting_worker_look_at_once() -> None:
    s = Scene(SUBMITTER)
    s.wait(100)
    lookups(s)
    s.up(SUBMITTER)
    assert len(lookups(s)) == 2
    for other in OTHERS:
        s.up(other)
    assert not lookups(s)


def test_a_worker_whose_keeper_ran_out_looks_again() -> None:
    s = Scene(SUBMITTER)
    s.give(SUBMITTER, 0)
    s.effects.clear()
    s.compute(0)
    tag, _, _ = s.report(SUBMITTER)
    s.hear(SUBMITTER, tag, settled=[m.Settled(0, 0, True)])
    s.offer(SUBMITTER)
    s.wait(1)
    (asked,) = s.sends(SUBMITTER, m.LeaseRequest)
    s.effects.clear()
    s.tell(fx.Replied(asked.tag, SUBMITTER.peer_id, m.LeaseReply([], [], 0, 0)))
    s.wait(1)
    assert len(lookups(s)) >= 2


def test_a_paused_worker_and_one_without_kernels_look_for_nothing() -> None:
    s = Scene(SUBMITTER)
    s.perform(s.agent.pause(0))
    s.effects.clear()
    s.wait(100)
    assert not lookups(s)
    idle = WorkerAgent(ME, CODEC, Random(1), [])
    assert not [e for e in idle.handle(fx.Tick(), 0) if isinstance(e, fx.FindProviders)]
    assert idle.next_deadline() is None


def test_every_job_is_in_one_shard() -> None:
    shards = {m.shard_of(bytes([first]) + b"\0" * 31) for first in range(256)}
    assert shards == set(range(m.SHARDS))


# --- whom to ask ------------------------------------------------------------------------------------------


def asks(keepers: Keepers, rounds: int, waiting: dict[str, int]) -> dict[str, int]:
    """How often each keeper is asked when all always have something to give."""
    asked = dict.fromkeys(waiting, 0)
    for tag in range(rounds):
        peer = keepers.due(0)
        assert peer is not None
        keepers.asked(peer, tag, 1, 0)
        keepers.answered(peer, tag)
        keepers.gave(peer, 1, 0, 0, waiting[peer])
        asked[peer] += 1
    return asked


def test_the_keeper_with_more_to_do_is_asked_more_often_but_not_only() -> None:
    keepers = Keepers(ME.peer_id, Random(1))
    waiting = {A: 1000, B: 3}
    for peer in (A, B):
        keepers.learn(peer, 0)
    asked = asks(keepers, 400, waiting)
    assert 250 < asked[A] < 350  # three times out of four
    assert asked[B] > 50


def test_our_own_jobs_come_first() -> None:
    keepers = Keepers(ME.peer_id, Random(1))
    for peer in (A, ME.peer_id):
        keepers.learn(peer, 0, 1000)
    assert asks(keepers, 10, {A: 1000, ME.peer_id: 1}) == {A: 0, ME.peer_id: 10}


def test_a_keeper_nobody_asked_yet_comes_before_any_figure() -> None:
    keepers = Keepers(ME.peer_id, Random(1))
    keepers.learn(A, 0)
    asks(keepers, 5, {A: 1 << 20})
    keepers.learn(B, 0)
    assert asks(keepers, 20, {A: 1 << 20, B: 0})[B] >= 1


# --- how much ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "depth"), [(60.0, MIN_DEPTH), (1.0, 3), (0.5, 6), (0.1, 30), (0.001, MAX_DEPTH), (0.0, MAX_DEPTH)]
)
def test_the_queue_holds_three_seconds_of_work(seconds: float, depth: int) -> None:
    prefetch = Prefetch(slots=1)
    assert prefetch.depth("square@1") == MIN_DEPTH
    for _ in range(40):
        prefetch.ran("square@1", seconds)
    assert prefetch.depth("square@1") == depth
    assert prefetch.room(0, ["square@1"]) == depth
    assert prefetch.room(depth, ["square@1"]) == 0
    assert prefetch.room(depth // 2, ["square@1"]) == depth - depth // 2
    assert prefetch.room(depth // 2 + 1, ["square@1"]) == 0


@pytest.mark.parametrize(("seconds", "handed"), [(0.0, 32), (0.001, 32), (0.01, 10), (0.06, 1), (0.1, 1), (600.0, 1)])
def test_an_executor_is_handed_a_tenth_of_a_second_of_work(seconds: float, handed: int) -> None:
    prefetch = Prefetch(slots=2)
    assert prefetch.handed(["square@1"]) == 2
    for _ in range(20):
        prefetch.ran("square@1", seconds)
    prefetch.ran("slow@1", 60.0)
    assert prefetch.handed(["square@1"]) == 2 * handed
    assert prefetch.handed(["square@1", "slow@1"]) == 2
    assert prefetch.handed(["square@1", "new@1"]) == 2


@pytest.mark.parametrize(
    ("seconds", "pace_s"), [(0.0, 0.05), (0.001, 0.05), (0.1, 0.15), (0.5, 0.75), (1.0, 1.5), (60.0, 3.0)]
)
def test_reports_about_longer_units_wait_for_more(seconds: float, pace_s: float) -> None:
    prefetch = Prefetch(slots=2)
    assert prefetch.pace_ns("square@1") == 50_000_000
    for _ in range(20):
        prefetch.ran("square@1", seconds)
    assert prefetch.pace_ns("square@1") == pytest.approx(pace_s * 1e9)


def test_a_slow_kernel_in_hand_keeps_the_queue_short() -> None:
    prefetch = Prefetch(slots=2)
    prefetch.ran("fast@1", 0.001)
    prefetch.ran("slow@1", 60.0)
    assert prefetch.room(0, ["fast@1"]) == 2 * MAX_DEPTH
    assert prefetch.room(0, ["fast@1", "slow@1"]) == 4
    assert prefetch.room(0, ["fast@1", "new@1"]) == 4


def test_run_times_of_long_ago_are_forgotten() -> None:
    prefetch = Prefetch(slots=1)
    for _ in range(1000):
        prefetch.ran("square@1", 0.001)
    for _ in range(60):
        prefetch.ran("square@1", 1.0)
    assert prefetch.depth("square@1") <= 4


def test_many_slots_do_not_empty_a_keeper() -> None:
    prefetch = Prefetch(slots=64)
    prefetch.ran("square@1", 0.001)
    assert prefetch.room(0, ["square@1"]) == MAX_QUEUED


def test_short_units_are_asked_for_and_reported_in_batches() -> None:
    s = Scene(SUBMITTER, units=1000)
    s.give(SUBMITTER, 0, 1)
    done, requests, reports = 0, 0, 0
    while done < 500:
        for send in s.sends(SUBMITTER, m.LeaseRequest):
            assert isinstance(send.message, m.LeaseRequest)
            requests += 1
            first = max((unit for unit in s.held), default=done)
            s.give(SUBMITTER, *range(first + 1, first + 1 + send.message.want))
        for send in s.sends(SUBMITTER, m.Report):
            tag, facts, _ = s.report(SUBMITTER)
            assert send.tag == tag
            reports += 1
            s.hear(SUBMITTER, tag, settled=[m.Settled(item.unit, 0, True) for item in commits_in(facts)])
        unit = next(unit for unit, state in s.states().items() if state == "running")
        s.now += SECOND_NS // 1000
        s.compute(unit)
        done += 1
        if not s.sends(SUBMITTER, m.LeaseRequest):
            s.offer(SUBMITTER)
    assert requests < 30
    assert reports < 70  # though each is answered at once


def test_a_burst_of_units_leads_to_few_reports() -> None:
    s = Scene(SUBMITTER, units=64, slots=64)
    s.offer(SUBMITTER)
    s.give(SUBMITTER, *range(64))
    reports = 0
    for unit in range(64):
        s.compute(unit, result=bytes([unit]) * 100)
    while s.held:
        tag, facts, _ = s.report(SUBMITTER)
        reports += 1
        shown = [unit for unit, state in s.states().items() if state == "revealing"]
        s.hear(
            SUBMITTER,
            tag,
            reveal=[m.UnitEpoch(item.unit, 0) for item in commits_in(facts)],
            settled=[m.Settled(unit, 0, True) for unit in shown],
        )
    assert s.agent.units_verified == 64
    assert reports <= 5
    assert not s.disk.commits


def test_large_results_do_not_break_the_message_limit() -> None:
    s = Scene(SUBMITTER, units=64, slots=64)
    s.give(SUBMITTER, *range(64))
    for unit in range(64):
        s.compute(unit, result=bytes([unit]) * (60 << 10))
    shown: list[int] = []
    for _ in range(20):
        if not s.sends(SUBMITTER, m.Report):
            break
        tag, facts, report = s.report(SUBMITTER)  # which checks that it can be read
        shown += [result[0] for result in report.results]
        s.hear(SUBMITTER, tag, reveal=[m.UnitEpoch(item.unit, 0) for item in commits_in(facts)])
    assert sorted(shown) == list(range(64))


def test_reports_about_long_units_share_a_message_and_the_last_one_waits_for_nothing() -> None:
    s = Scene(SUBMITTER, slots=2)
    s.give(SUBMITTER, 0, 1, 2, 3)
    s.compute(0, seconds=2.0)
    tag, facts, _ = s.report(SUBMITTER)
    assert [item.unit for item in commits_in(facts)] == [0]
    s.hear(SUBMITTER, tag, reveal=[m.UnitEpoch(0, 0)])
    for unit in (1, 2):
        s.wait(1)
        assert not s.sends(SUBMITTER, m.Report)
        s.compute(unit, seconds=2.0)
    s.wait(1)
    tag, facts, report = s.report(SUBMITTER)
    assert [item.unit for item in commits_in(facts)] == [1, 2]
    assert len(report.results) == 1
    s.hear(SUBMITTER, tag)
    s.compute(3, seconds=2.0)
    _, facts, _ = s.report(SUBMITTER)
    assert [item.unit for item in commits_in(facts)] == [3]


def test_a_worker_that_just_ran_dry_waits_a_moment_before_it_looks_around() -> None:
    s = Scene(SUBMITTER)
    s.give(SUBMITTER, 0)
    s.wait(5)
    s.compute(0)
    tag, _, _ = s.report(SUBMITTER)
    s.hear(SUBMITTER, tag, settled=[m.Settled(0, 0, True)])
    s.offer(SUBMITTER)
    s.wait(0.5)
    (asked,) = s.sends(SUBMITTER, m.LeaseRequest)
    s.effects.clear()
    s.tell(fx.Replied(asked.tag, SUBMITTER.peer_id, m.LeaseReply([], [], 0, 0)))
    s.wait(1)
    assert not lookups(s)
    s.wait(1)
    assert len(lookups(s)) == 2


def test_who_was_given_less_than_it_asked_for_uses_half_of_it_first() -> None:
    """Or one that asks over and over, faster than others can, would have the whole job."""
    prefetch = Prefetch(slots=1)
    prefetch.ran("square@1", 0.1)
    assert prefetch.room(0, ["square@1"]) == 30
    prefetch.given(8, 30, busy=8)
    assert prefetch.room(8, ["square@1"]) == prefetch.room(5, ["square@1"]) == 0
    assert prefetch.room(4, ["square@1"]) == 26
    prefetch.given(0, 26, busy=4)
    assert prefetch.room(4, ["square@1"]) == 26
    prefetch.given(26, 26, busy=30)
    assert prefetch.room(16, ["square@1"]) == 0
    assert prefetch.room(15, ["square@1"]) == 15


def test_a_little_that_was_given_never_leaves_a_slot_idle() -> None:
    prefetch = Prefetch(slots=4)
    prefetch.ran("square@1", 0.1)
    prefetch.given(1, 100, busy=1)
    assert prefetch.room(1, ["square@1"]) > 0
    assert prefetch.room(4, ["square@1"]) > 0
    assert prefetch.room(5, ["square@1"]) == 0


def test_results_that_are_files_are_reported_at_once() -> None:
    prefetch = Prefetch(slots=1)
    prefetch.ran("square@1", 1.0)
    assert prefetch.pace_ns("square@1") == MAX_PACE_NS
    assert prefetch.pace_ns("square@1", files=True) == prefetch.pace_ns("new@1") == MIN_PACE_NS
