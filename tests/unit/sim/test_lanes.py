"""Effects wait for the disk as in a node: in order, in shared transactions, not at all when the process is gone."""

import pytest

from sparkle_protocol.effects import Notify, Persist, StoreResult
from sparkle_protocol.ids import JobId, ResultHash
from sparkle_sim.disk import Disk
from sparkle_sim.draws import draws
from sparkle_sim.kernel import SECOND, Kernel
from sparkle_sim.lanes import Lanes

JOB = JobId(b"j" * 32)


def kept(number: int) -> Persist:
    return Persist((StoreResult(JOB, name(number), b"x"),))


def name(number: int) -> ResultHash:
    return ResultHash(bytes([number]) * 32)


class Bench:
    """Lanes of two cores over a disk whose transactions take a second."""

    def __init__(self, seed: int = 1) -> None:
        self.kernel = Kernel()
        self.disk = Disk()
        self.done: list[tuple[int, str]] = []
        self.lanes = Lanes(self.kernel, self.disk, draws(seed, "disk"), self._perform, 2, (1.0, 1.0))

    def _perform(self, core: int, effect: object) -> None:
        assert isinstance(effect, Notify)
        self.done.append((core, effect.event))

    def there(self) -> list[int]:
        return [number for number in range(10) if self.disk.results_there(JOB, [name(number)])]

    def run(self, seconds: float) -> list[tuple[int, str]]:
        self.kernel.run(self.kernel.now + int(seconds * SECOND))
        done, self.done = self.done, []
        return done


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_what_stands_after_a_persist_waits_for_it(bench: Bench) -> None:
    bench.lanes.perform(0, (Notify("before"), kept(1), Notify("after")))
    assert bench.done == [(0, "before")]
    assert bench.there() == []
    assert bench.run(1.0) == [(0, "before"), (0, "after")]
    assert bench.there() == [1]


def test_later_batches_of_a_core_wait_too_and_those_of_others_do_not(bench: Bench) -> None:
    bench.lanes.perform(0, (kept(1), Notify("first")))
    bench.lanes.perform(0, (Notify("second"),))
    bench.lanes.perform(1, (Notify("other"),))
    assert bench.done == [(1, "other")]
    assert bench.run(1.0) == [(1, "other"), (0, "first"), (0, "second")]


def test_what_comes_during_a_transaction_shares_the_next_one(bench: Bench) -> None:
    bench.lanes.perform(0, (kept(1), Notify("one")))
    bench.run(0.5)
    bench.lanes.perform(0, (kept(2), Notify("two")))
    bench.lanes.perform(1, (kept(3), Notify("three")))
    assert bench.run(0.5) == [(0, "one")]
    assert bench.run(0.9) == []
    assert bench.run(0.1) == [(0, "two"), (1, "three")]
    assert bench.there() == [1, 2, 3]


def test_a_barrier_waits_for_what_was_written_before_and_for_nothing_else(bench: Bench) -> None:
    bench.lanes.perform(0, (Persist(()), Notify("idle")))
    assert bench.done == [(0, "idle")]
    bench.lanes.perform(0, (kept(1),))
    bench.lanes.perform(1, (Persist(()), Notify("barrier")))
    assert bench.run(1.0) == [(0, "idle"), (1, "barrier")]
    assert bench.run(5.0) == []


def test_a_crash_loses_what_waits_and_all_or_nothing_of_what_is_being_written() -> None:
    outcomes = set()
    for seed in range(20):
        bench = Bench(seed)
        bench.lanes.perform(0, (Persist((StoreResult(JOB, name(1), b"x"), StoreResult(JOB, name(2), b"x"))),))
        bench.lanes.perform(0, (kept(3), Notify("never")))
        bench.lanes.crash()
        assert bench.run(5.0) == []
        outcomes.add(tuple(bench.there()))
    assert outcomes == {(), (1, 2)}
