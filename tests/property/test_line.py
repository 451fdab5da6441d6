"""The place in line that is told is the one that is had, whatever happened before."""

from random import Random

from hypothesis import example, given
from hypothesis import strategies as st

from sparkle_protocol.ids import PeerId
from sparkle_protocol.work.fairness import AGED_NS, FairQueue
from sparkle_protocol.work.line import Demand, place_of

NAMES = [PeerId(name) for name in "abcdef"]
costs = st.floats(0.01, 100.0)
steps = st.lists(st.tuples(st.sets(st.sampled_from(NAMES)), st.sets(st.sampled_from(NAMES)), costs), max_size=30)
grants = st.dictionaries(st.sampled_from(NAMES), costs, min_size=1)
weights = st.lists(st.floats(0.2, 8.0), min_size=len(NAMES), max_size=len(NAMES))


def queue_after(history: list[tuple[set[PeerId], set[PeerId], float]], weigh: list[float]) -> tuple[FairQueue, int]:
    """A queue with a past: who waited at each step, for whom there was a worker, and what it got."""
    queue, now_ns = FairQueue(Random(0), dict(zip(NAMES, weigh, strict=True)).__getitem__), 0
    for waiting, serves, cost in history:
        now_ns += AGED_NS // 3
        turns = queue.begin(dict.fromkeys(sorted(waiting), "net"), sorted(serves), now_ns)
        for _ in range(2):
            name = turns.pick()
            if name is not None:
                turns.charge(name, cost)
    return queue, now_ns


@example([({NAMES[0]}, set(), 1.0)] * 4, dict.fromkeys(NAMES[:4], 1.0), [1.0] * 6)  # who aged is served for its tag
@given(steps, grants, weights)
def test_the_order_said_is_the_order_served(
    history: list[tuple[set[PeerId], set[PeerId], float]], grant_s: dict[PeerId, float], weigh: list[float]
) -> None:
    queue, now_ns = queue_after(history, weigh)
    demands = {name: Demand("net", grant, 1e9) for name, grant in grant_s.items()}
    places = {name: place_of(queue, name, demands, now_ns) for name in demands}
    begun_s: dict[PeerId, float] = {}
    passed_s, picks = 0.0, 0
    while len(begun_s) < len(demands) and picks < 3_000:
        turns = queue.begin(dict.fromkeys(demands, "net"), sorted(demands), now_ns)
        name = turns.pick()
        assert name is not None
        begun_s.setdefault(name, passed_s)
        turns.charge(name, demands[name].grant_s)
        passed_s, picks = passed_s + demands[name].grant_s, picks + 1
    for ahead, (name, start_s) in enumerate(begun_s.items()):
        assert places[name].ahead == ahead
        assert abs((places[name].start_s or 0.0) - start_s) < 1e-6
    for name in demands.keys() - begun_s.keys():
        assert places[name].start_s is None or (places[name].start_s or 0.0) >= passed_s - 1e-6
