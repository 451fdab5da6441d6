"""Fair queueing, whatever comes and goes: the bound of Goyal, Vin and Cheng, and nobody left out."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from sparkle_protocol.ids import PeerId
from sparkle_protocol.work.fairness import AGED_EVERY, AGED_NS, MAX_IDLE, FairQueue

A, B = PeerId("a"), PeerId("b")
OTHERS = [PeerId(f"other {n}") for n in range(4)]
costs = st.floats(0.001, 100.0)
weights = st.floats(0.5, 8.0)
steps = st.lists(st.tuples(st.sets(st.sampled_from(OTHERS)), costs, st.integers(1, 4)), min_size=1, max_size=60)


@given(steps, weights, weights)
def test_two_that_always_wait_differ_by_one_grant_of_each(
    history: list[tuple[set[PeerId], float, int]], weight_a: float, weight_b: float
) -> None:
    weigh = {A: weight_a, B: weight_b, **dict.fromkeys(OTHERS, 1.0)}
    queue = FairQueue(Random(0), weigh.__getitem__)
    got, largest = dict.fromkeys(weigh, 0.0), dict.fromkeys(weigh, 0.0)
    differences = [0.0]
    for others, cost, picks in history:
        round_ = queue.begin(dict.fromkeys([A, B, *sorted(others)], "net"), [A, B, *others], 0)
        for _ in range(picks):
            peer = round_.pick()
            assert peer is not None
            round_.charge(peer, cost)
            got[peer] += cost / weigh[peer]
            largest[peer] = max(largest[peer], cost / weigh[peer])
            differences.append(got[A] - got[B])
    assert max(differences) - min(differences) <= largest[A] + largest[B] + 1e-6  # over every interval


@given(st.lists(costs, min_size=1, max_size=30), st.lists(costs, min_size=1, max_size=30))
def test_idling_earns_nothing(before: list[float], after: list[float]) -> None:
    queue = FairQueue(Random(0))
    queue.begin({A: "", B: ""}, [A, B], 0)
    for cost in before:  # B has nothing to hand out meanwhile
        round_ = queue.begin({A: ""}, [A], 0)
        assert round_.pick() == A
        round_.charge(A, cost)
    got = {A: 0.0, B: 0.0}
    for cost in after:
        round_ = queue.begin({A: "", B: ""}, [A, B], 0)
        peer = round_.pick()
        assert peer is not None
        round_.charge(peer, cost)
        got[peer] += cost
    assert got[B] - got[A] <= max(before) + 2 * max(after)


@settings(max_examples=25)
@given(st.integers(2, 40), st.integers(0, 40), st.integers(0, 1 << 32), st.data())
def test_everybody_is_served_though_some_have_no_credit(n: int, poor: int, seed: int, data: st.DataObject) -> None:
    names = [PeerId(f"{index:02}") for index in range(n)]
    without = set(names[:poor])
    queue = FairQueue(Random(seed), lambda peer: 0.0 if peer in without else 1.0)
    waiting = {peer: f"net {data.draw(st.integers(0, 3))}" for peer in names}
    served: set[PeerId] = set()
    now, picks = 0, 0
    while served != set(names):
        now += AGED_NS // 4
        round_ = queue.begin(waiting, names, now)
        peer = round_.pick()
        assert peer is not None
        round_.charge(peer, data.draw(costs) if picks < 50 else 1.0)
        served.add(peer)
        picks += 1
        assert picks < 5_000, f"never served: {set(names) - served}"


@given(st.integers(2, 30), st.data())
def test_who_waited_too_long_is_among_the_next(n: int, data: st.DataObject) -> None:
    names = [PeerId(f"{index:02}") for index in range(n)]
    waiting = dict.fromkeys(names, "net")
    queue = FairQueue(Random(0))
    queue.begin(waiting, names, 0)
    late = data.draw(st.integers(AGED_NS, 10 * AGED_NS))
    served = set()
    for _ in range(AGED_EVERY * n):
        round_ = queue.begin(waiting, names, late)
        peer = round_.pick()
        assert peer is not None
        served.add(peer)
        round_.charge(peer, data.draw(costs))
    assert served == set(names)


@given(st.lists(st.tuples(st.sets(st.integers(0, 8)), st.sets(st.integers(0, 8)), costs), max_size=40), st.integers())
def test_equal_histories_give_equal_picks(history: list[tuple[set[int], set[int], float]], seed: int) -> None:
    def play() -> list[PeerId | None]:
        queue = FairQueue(Random(seed), lambda peer: float(int(peer) % 3))
        picks: list[PeerId | None] = []
        for step, (waiting, serves, cost) in enumerate(history):
            names = {PeerId(str(n)): f"net {n % 2}" for n in sorted(waiting)}
            round_ = queue.begin(names, [PeerId(str(n)) for n in sorted(serves)], step * AGED_NS // 5)
            for _ in range(3):
                picks.append(round_.pick())
                if picks[-1] is None:
                    break
                assert picks[-1] in names
                if cost > 1:
                    round_.charge(picks[-1], cost)
        assert len(queue) <= 9
        return picks

    assert play() == play()


def test_a_crowd_that_comes_once_is_forgotten() -> None:
    queue = FairQueue(Random(0))
    for step in range(2 * MAX_IDLE):
        name = PeerId(str(step))
        round_ = queue.begin({name: ""}, [name], step)
        assert round_.pick() == name
        round_.charge(name, 10_000.0)
        assert len(queue) <= MAX_IDLE + 1
