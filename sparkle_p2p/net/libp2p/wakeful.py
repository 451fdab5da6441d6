"""A clock for trio that stands still while the loop does not run.

A process that was stopped, or a machine that was suspended, wakes to find every time-out overdue, although
the peers' answers wait in its sockets. By this clock no time passed meanwhile: the loop first reads what has
arrived, and each time-out, libp2p's own included, still has what was left of it.

The loop did not run when it comes back from waiting more than ``LATE_S`` after it wanted to, or when one step
of it took longer than that. The raw clock counts suspended time too, so that both look alike. From ``NAP_S`` on
it is a nap: connections may have died meanwhile.
"""

from collections.abc import Callable

import trio

from sparkle_p2p.runtime.clock import boot_ns
from sparkle_protocol.errors import LocalProtocolError

LATE_S = 1.0  # a starved processor or a slow step of ours; either is no peer's fault
NAP_S = 5.0  # so long that a peer may have given us up: worth a look at each connection
SETTLING_S = 15.0  # after a nap, what peers sent or gave up meanwhile arrives all at once


def _boot_s() -> float:
    return boot_ns() / 1e9


class WakefulClock(trio.abc.Clock):
    """Seconds during which the loop could run."""

    def __init__(self, raw_s: Callable[[], float] = _boot_s) -> None:
        self._raw_s = raw_s
        self._seen_s = raw_s()  # when it was last looked at
        self._due_s = self._seen_s  # when the loop wants to be back from waiting
        self._lost_s = 0.0
        self._woke_at_s: float | None = None
        self.naps = 0  # sleeps of at least NAP_S

    def start_clock(self) -> None:
        """Nothing to do: it counts from when it was made."""

    def current_time(self) -> float:
        """Raw time without what was slept through."""
        now_s = self._raw_s()
        late_s = now_s - max(self._seen_s, self._due_s)
        if late_s >= NAP_S:
            # The wait before it is left out too: what it waited for expires only after what arrived has been read.
            self._lost_s += now_s - self._seen_s
            self._woke_at_s = now_s - self._lost_s
            self.naps += 1
        elif late_s > LATE_S:  # the wait counts, so that a loop that is always late still gets on
            self._lost_s += late_s
        self._seen_s = self._due_s = now_s
        return now_s - self._lost_s

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """How long to wait for a deadline; called by trio before it waits."""
        sleep_s = deadline - self.current_time()
        self._due_s = self._seen_s + max(0.0, sleep_s)
        return sleep_s

    @property
    def settling(self) -> bool:
        """Whether the latest nap ended so recently that nothing that looks like a fault should be blamed."""
        now_s = self.current_time()
        return self._woke_at_s is not None and now_s - self._woke_at_s < SETTLING_S


def wakeful_clock() -> WakefulClock:
    """The clock of the trio run that we are in.

    Raises:
        LocalProtocolError: it runs with another kind of clock.
    """
    clock = trio.lowlevel.current_clock()
    if not isinstance(clock, WakefulClock):
        raise LocalProtocolError("the network service needs a loop with a wakeful clock")
    return clock
