"""Virtual time, random streams, the guard and the trace."""

import math
import random
import threading
import time

import pytest

from sparkle_protocol.errors import LocalProtocolError
from sparkle_sim.draws import Draws, core_draws, draws, generator
from sparkle_sim.guard import no_outside
from sparkle_sim.kernel import SECOND, Kernel
from sparkle_sim.trace import Trace


def test_events_happen_in_the_order_of_their_time_and_of_their_making() -> None:
    kernel, seen = Kernel(), []
    for when, name in ((20, "c"), (10, "a"), (20, "d"), (10, "b")):
        kernel.at(when, lambda name=name: seen.append((kernel.now, name)))
    assert kernel.run(15)
    assert (seen, kernel.now, kernel.pending) == ([(10, "a"), (10, "b")], 15, 2)
    assert kernel.run(100)
    assert seen[2:] == [(20, "c"), (20, "d")]


def test_the_order_holds_across_near_and_far_times() -> None:
    kernel, stream, seen = Kernel(), draws(1, "times"), list[tuple[int, int]]()
    made: list[tuple[int, int]] = []

    def happen(when: int, number: int) -> None:
        assert when == kernel.now
        seen.append((when, number))
        if len(made) < 3000:
            make(kernel.now + stream.below(1 << (8 + stream.below(28))))

    def make(when: int) -> None:
        number = len(made)
        made.append((when, number))
        kernel.at(when, happen, when, number)

    for _ in range(500):
        make(stream.below(SECOND))
    for until in range(0, 200 * SECOND, SECOND // 3):
        if kernel.pending:
            assert kernel.next_ns == min(when for when, number in set(made) - set(seen)) > until - SECOND // 3
        kernel.run(until)
        assert all(when <= until for when, _ in seen)
    assert seen == sorted(made)
    assert (kernel.pending, kernel.next_ns, kernel.events) == (0, None, len(made))


def test_what_is_over_happens_at_once_and_after_what_is_due() -> None:
    kernel, seen = Kernel(), []

    def late() -> None:
        kernel.at(0, seen.append, "late")

    kernel.at(10, late)
    kernel.at(10, seen.append, "due")
    kernel.run(10)
    assert seen == ["due", "late"]
    assert kernel.now == 10


def test_a_run_can_be_stopped_and_gone_on_with() -> None:
    kernel, seen = Kernel(), []
    kernel.at(5, kernel.stop)
    kernel.at(6, seen.append, 6)
    assert not kernel.run(10)
    assert (kernel.now, seen) == (5, [])
    assert kernel.run(10)
    assert seen == [6]


def test_streams_are_the_same_for_one_purpose_and_others_for_another() -> None:
    assert [draws(1, 2, "x").random() for _ in range(3)] == [draws(1, 2, "x").random() for _ in range(3)]
    first = {draws(seed, peer, what).bits() for seed in range(5) for peer in range(5) for what in "ab"}
    assert len(first) == 50
    assert generator(1, "x").random() == generator(1, "x").random()


def test_splitmix_is_the_published_one() -> None:
    stream = Draws(1234567)
    assert [stream.bits() for _ in range(3)] == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_bytes_and_what_cores_draw_are_uniform() -> None:
    stream, cores = draws(1, "bytes"), core_draws(1, "cores")
    seen = [0] * 256
    for _ in range(256 * 100):
        seen[stream.byte()] += 1
    assert 50 < min(seen) <= max(seen) < 150
    assert sum((count - 100) ** 2 / 100 for count in seen) == pytest.approx(255, abs=4 * math.sqrt(2 * 255))
    first, last, picked = [0] * 10, [0] * 10, [0] * 10
    for _ in range(10_000):
        deck = list(range(10))
        cores.shuffle(deck)
        assert sorted(deck) == list(range(10))
        first[deck[0]] += 1
        last[deck[9]] += 1
        some = cores.sample(range(10), 3)
        assert len(set(some)) == 3
        for one in (*some, cores.choice(range(10)), cores.randrange(10)):
            picked[one] += 1
    assert all(800 < count < 1200 for count in (*first, *last))
    assert all(4600 < count < 5400 for count in picked)


@pytest.mark.parametrize(
    ("draw", "mean", "deviation"),
    [
        (lambda stream: stream.random(), 0.5, math.sqrt(1 / 12)),
        (lambda stream: stream.uniform(-3, 5), 1.0, 8 * math.sqrt(1 / 12)),
        (lambda stream: stream.below(10), 4.5, math.sqrt(99 / 12)),
        (lambda stream: stream.exponential(7.0), 7.0, 7.0),
        (lambda stream: stream.normal(), 0.0, 1.0),
        (lambda stream: stream.weibull(3.0, 0.5), 6.0, 3.0 * math.sqrt(math.gamma(5) - math.gamma(3) ** 2)),
    ],
)
def test_distributions(draw: object, mean: float, deviation: float) -> None:
    stream, count = draws(3, "distributions"), 20_000
    values = [draw(stream) for _ in range(count)]  # type: ignore[operator]
    assert sum(values) / count == pytest.approx(mean, abs=4 * deviation / math.sqrt(count))


def test_a_run_cannot_ask_for_anything_from_outside() -> None:
    with no_outside():
        for ask in (time.monotonic, time.time, random.random, threading.Thread(target=print).start):
            with pytest.raises(LocalProtocolError, match="simulation asked for"):
                ask()
    assert time.monotonic() > 0


def test_a_trace_is_known_by_its_hash() -> None:
    one, same, other = Trace(), Trace(), Trace()
    for trace, detail in ((one, "a"), (same, "a"), (other, "b")):
        for number in range(5000):
            trace.note(number * SECOND, number % 7, "something", detail)
    assert one.hash == same.hash != other.hash
    assert one.count == 5000


def test_a_trace_shows_what_it_is_asked_to_keep() -> None:
    kept = []
    trace = Trace(kept.append)
    trace.note(5, 3, "tick", "1")
    assert [(entry.at_ns, entry.peer, entry.what, entry.detail) for entry in kept] == [(5, 3, "tick", "1")]
