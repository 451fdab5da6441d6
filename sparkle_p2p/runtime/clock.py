"""The clocks of a node."""

import time

# Runs through suspend, so that a lease that ran out while the laptop slept is known to have run out.
_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boot_ns() -> int:
    """Monotonic nanoseconds that also count while the machine sleeps; what every core is driven with."""
    return time.clock_gettime_ns(_BOOT_CLOCK)


def wall_ms() -> int:
    """Unix time in milliseconds: for people and for clock checks; no decision rests on it."""
    return time.time_ns() // 1_000_000
