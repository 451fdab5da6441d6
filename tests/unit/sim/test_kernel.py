"""Virtual time, random streams, the guard and the trace."""

import math
import random
import threading
import time

import pytest

from sparkle_protocol.errors import LocalProtocolError
from sparkle_sim.draws import Draws, draws, generator
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
