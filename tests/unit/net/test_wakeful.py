"""The clock that stands still while the process sleeps."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import trio

from sparkle_p2p.net.libp2p.wakeful import NAP_S, SETTLING_S, WakefulClock


@dataclass
class Raw:
    """A raw clock that a test sets, or the real one and a jump."""

    base: Callable[[], float] = lambda: 0.0
    at_s: float = 100.0

    def __call__(self) -> float:
        return self.base() + self.at_s


@pytest.fixture
def raw():
    return Raw()


def test_waiting_until_a_deadline_is_time_that_passes(raw):
    clock = WakefulClock(raw)
    began = clock.current_time()
    assert clock.deadline_to_sleep_time(began + 3600) == 3600
    raw.at_s += 3600.4  # a little late, as ever
    assert clock.current_time() - began == pytest.approx(3600.4)
    assert clock.naps == 0
    assert not clock.settling


def test_coming_back_early_from_a_wait_is_no_sleep(raw):
    clock = WakefulClock(raw)
    began = clock.current_time()
    clock.deadline_to_sleep_time(began + 60)
    raw.at_s += 20
    assert clock.current_time() - began == pytest.approx(20)
    assert clock.naps == 0


def test_a_wait_that_was_slept_through_takes_no_time(raw):
    clock = WakefulClock(raw)
    began = clock.current_time()
    clock.deadline_to_sleep_time(began + 0.5)
    raw.at_s += 3600
    assert clock.current_time() == began
    assert clock.naps == 1
    assert clock.settling
    clock.deadline_to_sleep_time(began + SETTLING_S)
    raw.at_s += SETTLING_S
    assert not clock.settling


def test_sleeping_in_the_middle_of_a_step_takes_no_time(raw):
    clock = WakefulClock(raw)
    began = clock.current_time()
    raw.at_s += 30
    assert clock.current_time() == began
    assert clock.naps == 1


def test_being_starved_for_a_moment_stops_the_clock_but_is_no_nap(raw):
    clock = WakefulClock(raw)
    began = clock.current_time()
    raw.at_s += NAP_S / 2
    assert clock.current_time() == began
    clock.deadline_to_sleep_time(began + 0.5)
    raw.at_s += 0.5 + NAP_S / 2
    assert clock.current_time() - began == pytest.approx(0.5), "what was waited for has come, and no more"
    assert clock.naps == 0
    assert not clock.settling


def test_no_time_out_expires_over_a_sleep_and_what_arrived_is_read():
    raw = Raw(time.monotonic)

    async def main():
        ours, theirs = trio.socket.socketpair()
        with ours, theirs:
            got = []

            async def read():
                with trio.fail_after(2):
                    got.append(await ours.recv(10))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                await trio.testing.wait_all_tasks_blocked()
                await theirs.send(b"an answer")
                raw.at_s += 60  # the process is stopped, and goes on
            assert got == [b"an answer"]
            with pytest.raises(trio.TooSlowError):
                with trio.fail_after(0.01):
                    await ours.recv(10)

    trio.run(main, clock=WakefulClock(raw))
