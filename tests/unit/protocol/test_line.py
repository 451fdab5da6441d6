"""What a node says of a job's place in line, and what then happens."""

from collections.abc import Mapping
from random import Random

import pytest

from sparkle_protocol import facts as f
from sparkle_protocol.ids import JobId, PeerId
from sparkle_protocol.work.fairness import AGED_NS, LOTTERY_SHARE, FairQueue
from sparkle_protocol.work.leasing import LEAST_PART, WORKER
from sparkle_protocol.work.line import MOST_PICKS, Demand, Place, place_of
from tests.unit.protocol.kept_jobs import LoneKeeper, peer

A, B, C, D = (PeerId(name) for name in "abcd")
ALICE, BOB, CAROL = peer(1), peer(2), peer(3)
UNIT_S = 2.0
NEEDS = f.Resources(flops=UNIT_S * WORKER.flops_per_s)


def demands(grants: Mapping[PeerId, float], backlog_s: float = 1e6) -> dict[PeerId, Demand]:
    return {name: Demand("net " + name, grant_s, backlog_s) for name, grant_s in grants.items()}


def serve(queue: FairQueue, these: Mapping[PeerId, Demand], picks: int) -> list[PeerId]:
    got = []
    for _ in range(picks):
        turns = queue.begin({name: one.network for name, one in these.items()}, these, 0)
        name = turns.pick()
        assert name is not None
        turns.charge(name, these[name].grant_s)
        got.append(name)
    return got


def place(queue: FairQueue, name: PeerId, these: Mapping[PeerId, Demand], after_s: float = 0.0) -> Place:
    return place_of(queue, name, these, 0, after_s)


def test_the_next_one_has_nobody_before_it() -> None:
    queue, these = FairQueue(Random(0)), demands({A: 1.0, B: 1.0, C: 1.0})
    assert place(queue, A, these) == Place("fair", 1.0, 3, 0, None, 0.0)
    assert place(queue, B, these) == Place("fair", 1.0, 3, 1, None, 1.0)
    assert serve(queue, these, 2) == [A, B]
    assert place(queue, C, these) == Place("fair", 1.0, 3, 0, None, 0.0)
    assert place(queue, A, these) == Place("fair", 1.0, 3, 1, None, 1.0)


def test_asking_changes_nothing() -> None:
    these = demands({A: 1.0, B: 2.0, C: 0.5})
    asked, not_asked = (FairQueue(Random(3), lambda name: {A: 1.0, B: 3.0, C: 0.0}[name]) for _ in range(2))
    got = []
    for _ in range(50):
        for name in these:
            place(asked, name, these)
        got += serve(asked, these, 1)
    assert got == serve(not_asked, these, 50)


def test_who_weighs_more_waits_for_more_of_others_less() -> None:
    weights = {A: 8.0, B: 1.0}
    queue, these = FairQueue(Random(0), weights.__getitem__), demands({A: 1.0, B: 1.0})
    serve(queue, these, 2)
    assert place(queue, B, these).start_s == 7.0  # A has had one of its eight turns
    assert place(queue, A, these).start_s == 0.0
    assert place(queue, B, these).ahead == 1


def test_the_time_until_a_later_job_includes_the_turns_of_others_in_between() -> None:
    queue, these = FairQueue(Random(0)), demands({A: 1.0, B: 1.0})
    found = place(queue, A, these, after_s=3.0)
    assert (found.ahead, found.start_s) == (0, 6.0)  # three of its own, three of the other


def test_those_who_have_little_left_are_soon_out_of_the_way() -> None:
    weights = {A: 8.0, B: 1.0}
    queue = FairQueue(Random(0), weights.__getitem__)
    these = {A: Demand("", 1.0, 2.5), B: Demand("", 1.0, 10.0)}
    serve(queue, these, 2)
    assert place(queue, B, these).start_s == 2.5


def test_what_is_too_far_off_is_not_foreseen() -> None:
    queue, these = FairQueue(Random(0)), demands({A: 1.0, B: 1e-3})
    turns = queue.begin({A: "", B: ""}, [A], 0)
    assert turns.pick() == A
    turns.charge(A, 80_000.0)
    found = place(queue, A, these)
    assert (found.ahead, found.start_s) == (1, None)
    assert MOST_PICKS * 1e-3 < 80_000


def test_the_lottery_lane_knows_chances_only() -> None:
    weights = {A: 1.0, B: 0.0, C: 0.0, D: 0.0}
    queue = FairQueue(Random(0), weights.__getitem__)
    these = {**demands({A: 1.0}), B: Demand("x", 1.0, 9.0), C: Demand("x", 1.0, 9.0), D: Demand("y", 1.0, 9.0)}
    crowded, alone = place(queue, B, these), place(queue, D, these)
    assert (crowded.lane, crowded.ahead, crowded.chance) == ("lottery", None, pytest.approx(LOTTERY_SHARE / 4))
    assert alone.chance == pytest.approx(LOTTERY_SHARE / 2)
    assert alone.start_s == pytest.approx(19.0)
    del these[A]
    assert place(queue, D, these).chance == pytest.approx(1 / 2)  # the lane has everything then


def test_chances_are_what_happens() -> None:
    weights = {A: 1.0, B: 0.0, C: 0.0}
    queue, these = FairQueue(Random(5), weights.__getitem__), demands({A: 1.0, B: 1.0, C: 1.0})
    chance = place(queue, B, these).chance
    got = serve(queue, these, 20_000)
    assert got.count(B) / len(got) == pytest.approx(chance, rel=0.1)


def test_the_lottery_lane_takes_its_part_of_the_time_of_who_waits_in_the_other() -> None:
    weights = {A: 1.0, B: 1.0, C: 0.0}
    queue, these = FairQueue(Random(0), weights.__getitem__), demands({A: 9.0, B: 9.0, C: 9.0})
    assert place(queue, B, these).start_s == pytest.approx(10.0)  # nine of ten picks are A's


def test_who_waited_long_goes_first_and_that_is_foreseen() -> None:
    queue, these = FairQueue(Random(0)), demands({A: 1.0, B: 1.0, C: 1.0})
    turns = queue.begin(dict.fromkeys(these, ""), [A], 0)
    assert turns.pick() == A
    turns.charge(A, 80_000.0)
    serve(queue, demands({B: 1.0, C: 1.0}), 3)
    queue.begin(dict.fromkeys(these, ""), [], 0)
    assert place_of(queue, A, these, 0).ahead == 2
    assert place_of(queue, A, these, AGED_NS).ahead == 0
    turns = queue.begin(dict.fromkeys(these, ""), these, AGED_NS)
    assert turns.pick() == A


# --- a whole keeper -------------------------------------------------------------------------------------------


def keeper_with(*weights: float) -> LoneKeeper:
    names = [ALICE.peer_id, BOB.peer_id, CAROL.peer_id]
    return LoneKeeper(dict(zip(names, weights, strict=True)).__getitem__ if weights else lambda _name: 1.0)


def told(keeper: LoneKeeper, job: JobId) -> Place:
    found = keeper.core.place_of(job, keeper.now)
    assert found is not None
    return found


def test_the_order_said_is_the_order_in_which_a_keeper_then_serves() -> None:
    keeper = keeper_with(1.0, 2.0, 4.0)
    jobs = [keeper.offer(who, 400, resources=NEEDS)[0] for who in (ALICE, BOB, CAROL)]
    for number in range(25):
        order = sorted(jobs, key=lambda job: told(keeper, job).ahead or 0)
        assert [told(keeper, job).ahead for job in order] == [0, 1, 2]
        first = {given: keeper.lease(peer(100 + number), 1)[0][0] for given in order[:1]}
        assert first == {order[0]: order[0]}


def test_a_keeper_says_how_many_jobs_of_the_same_owner_come_first() -> None:
    keeper = LoneKeeper()
    old, _ = keeper.offer(ALICE, 10, resources=NEEDS)
    new, _ = keeper.offer(ALICE, 10, resources=NEEDS)
    urgent, _ = keeper.offer(ALICE, 10, resources=NEEDS, priority=9)
    assert [told(keeper, job).jobs_before for job in (urgent, old, new)] == [0, 1, 2]
    assert told(keeper, new).start_s == pytest.approx(20 * UNIT_S)
    assert told(keeper, new).waiting == 1


def test_two_owners_take_turns_and_the_time_until_them_is_told() -> None:
    keeper = LoneKeeper()
    first, _ = keeper.offer(ALICE, 100, resources=NEEDS)
    second, _ = keeper.offer(BOB, 100, resources=NEEDS)
    turns = [told(keeper, job) for job in (first, second)]
    assert sorted(turn.ahead or 0 for turn in turns) == [0, 1]
    assert sorted(turn.start_s or 0 for turn in turns) == [0, LEAST_PART * UNIT_S]


def test_own_jobs_come_before_those_of_others() -> None:
    keeper = LoneKeeper()
    theirs, _ = keeper.offer(ALICE, 10, resources=NEEDS)
    spec = f.JobSpec("square", 1, {}, 5, "exact", f.Policy(), NEEDS, f.Deadlines(), b"\0" * 32, b"n" * 16, 0)
    mine, effects = keeper.core.submit(spec, keeper.now)
    keeper.perform(effects)
    own = told(keeper, mine)
    assert (own.lane, own.weight, own.ahead, own.jobs_before, own.waiting, own.start_s) == ("own", None, 0, 0, 1, 0)
    assert told(keeper, theirs).start_s == pytest.approx(5 * UNIT_S)


def test_a_job_of_which_nothing_is_left_to_hand_out_stands_in_no_line() -> None:
    keeper = LoneKeeper()
    job, _ = keeper.offer(ALICE, 2)
    assert set(keeper.core.waiting_submitters()) == {ALICE.peer_id}
    for worker in range(2):
        keeper.lease(peer(100 + worker), 1)
    assert keeper.core.place_of(job, keeper.now) is None
    assert keeper.core.waiting_submitters() == {}
    assert keeper.core.place_of(JobId(b"j" * 32), keeper.now) is None
