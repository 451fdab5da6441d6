"""The lines of the peers: what is sent at one time shares each of them.

Every flow of bytes gets an equal part of its sender's uplink and of its receiver's downlink, and is as fast as the
smaller part lets it be (processor sharing at both ends). What a flow cannot use at one end, because the other one
holds it back, is not given to others there: as home lines are several times faster inwards, it hardly ever binds at
both ends. A change at one end concerns the flows of that end alone, so that it costs so many steps and no more.

A flow is a fluid, of which the kernel sees only the marks: the ends of chunks. It stands while nothing gets from its
sender to its receiver, or while one of them is suspended, or the receiver reads nothing.
"""

from collections.abc import Callable, Sequence
from math import ceil

from sparkle_sim.kernel import SECOND, Kernel

EPSILON_NS = 0.01  # what rounding adds to the time until a mark


class Flow:
    """Bytes on their way from one peer to another; ``Uplinks.start`` makes it.

    Args:
        marks: how many bytes from its beginning are something whole, each more than the one before.
        came: told of each mark, by its number, as the bytes before it have left the sender.
        broke: told when one of the ends is gone, which one and whether nobody is told of that.
    """

    __slots__ = (
        "bound", "broke", "came", "due", "marks", "over", "rate", "reached", "receiver", "ring", "sender", "sent",
        "since", "stands",
    )  # fmt: skip

    def __init__(
        self,
        sender: int,
        receiver: int,
        marks: Sequence[int],
        came: Callable[[int], None],
        broke: Callable[[int, bool], None] | None,
    ) -> None:
        self.sender = sender
        self.receiver = receiver
        self.marks = marks
        self.came = came
        self.broke = broke
        self.reached = 0  # marks
        self.sent = 0.0  # bytes, at ``since``
        self.since = 0
        self.rate = 0.0  # bytes per nanosecond
        self.due = 0  # when the next mark is reached at this rate
        self.ring: int | None = None  # when the kernel calls
        self.stands = False
        self.over = False
        self.bound = False  # to the connection of its ends: with that it is gone


class Uplinks:
    """The lines of all peers.

    Args:
        kernel: the clock.
        up: bytes per second of each peer's line, outwards.
        down: the same inwards.
        passes: whether anything gets from one peer to another now, and is read there.
        slower: how many times slower the line of a peer is than it should be.
    """

    def __init__(
        self,
        kernel: Kernel,
        up: float,
        down: float,
        passes: Callable[[int, int], bool],
        slower: Callable[[int], float],
    ) -> None:
        self._kernel = kernel
        self._up = up / SECOND
        self._down = down / SECOND
        self._passes = passes
        self._slower = slower
        self._out: dict[int, dict[Flow, None]] = {}  # that move, by sender
        self._in: dict[int, dict[Flow, None]] = {}  # that move, by receiver
        self._standing: dict[Flow, None] = {}
        self.sent: dict[int, int] = {}  # bytes up to the marks that were reached, by sender
        self.received: dict[int, int] = {}  # by receiver
        self.broken = 0  # bytes that were sent for nothing: of flows that ended between two marks

    def start(
        self,
        sender: int,
        receiver: int,
        marks: Sequence[int],
        came: Callable[[int], None],
        broke: Callable[[int, bool], None] | None = None,
        *,
        bound: bool = False,
    ) -> Flow:
        """Send bytes from now on; ``bound``: over the connection of the two."""
        flow = Flow(sender, receiver, marks, came, broke)
        flow.bound = bound
        flow.since = self._kernel.now
        if self._passes(sender, receiver):
            self._join(flow)
        else:
            flow.stands = True
            self._standing[flow] = None
        return flow

    def stop(self, flow: Flow) -> None:
        """Nobody needs the rest."""
        if flow.over:
            return
        self._settle(flow)
        before = flow.marks[flow.reached - 1] if flow.reached else 0
        self.broken += round(flow.sent) - before
        self._leave(flow)

    def flows(self, peer: int) -> list[Flow]:
        """What comes to a peer or goes from it, also what stands."""
        moving = [*self._out.get(peer, ()), *self._in.get(peer, ())]
        return moving + [flow for flow in self._standing if peer in (flow.sender, flow.receiver)]

    @property
    def active(self) -> int:
        """Flows that are under way, also those that stand."""
        return sum(map(len, self._out.values())) + len(self._standing)

    # --- what happens to the ends -----------------------------------------------------------------------------

    def look(self, peer: int | None = None) -> None:
        """What gets through may have changed, or how fast a line is: at one peer, or anywhere."""
        if peer is None:
            flows = [flow for out in self._out.values() for flow in out] + [*self._standing]
        else:
            flows = self.flows(peer)
        for flow in flows:
            stands = not self._passes(flow.sender, flow.receiver)
            if stands is not flow.stands:
                self._halt(flow) if stands else self._go_on(flow)
        for flow in flows:
            if not flow.over and not flow.stands:
                self._pace(flow)

    def end(self, peer: int, *, silently: bool) -> None:
        """A process is gone, and all that came to it or from it."""
        for flow in self.flows(peer):
            self.stop(flow)
            if flow.broke is not None:
                flow.broke(peer, silently)

    def hang_up(self, peer: int, other: int) -> None:
        """Their connection is gone, with what was on its way over it."""
        for flow in self.flows(peer):
            if flow.bound and other in (flow.sender, flow.receiver):
                self.stop(flow)

    # --- sharing ----------------------------------------------------------------------------------------------

    def _join(self, flow: Flow) -> None:
        self._out.setdefault(flow.sender, {})[flow] = None
        self._in.setdefault(flow.receiver, {})[flow] = None
        self._share(flow.sender, flow.receiver)

    def _leave(self, flow: Flow) -> None:
        """It is over."""
        flow.over, flow.rate = True, 0.0
        if flow.stands:
            del self._standing[flow]
        else:
            self._part(flow)

    def _part(self, flow: Flow) -> None:
        for ends, peer in ((self._out, flow.sender), (self._in, flow.receiver)):
            flows = ends[peer]
            del flows[flow]
            if not flows:
                del ends[peer]
        self._share(flow.sender, flow.receiver)

    def _halt(self, flow: Flow) -> None:
        self._settle(flow)
        flow.rate, flow.stands = 0.0, True
        self._standing[flow] = None
        self._part(flow)

    def _go_on(self, flow: Flow) -> None:
        del self._standing[flow]
        flow.stands, flow.since = False, self._kernel.now
        self._join(flow)

    def _share(self, sender: int, receiver: int) -> None:
        """There is one more at these ends, or one less."""
        for flow in self._out.get(sender, ()):
            self._pace(flow)
        for flow in self._in.get(receiver, ()):
            if flow.sender != sender:
                self._pace(flow)

    def _pace(self, flow: Flow) -> None:
        """Let it be as fast as its ends let it be now."""
        up = self._up / (len(self._out[flow.sender]) * self._slower(flow.sender))
        down = self._down / (len(self._in[flow.receiver]) * self._slower(flow.receiver))
        rate = min(up, down)
        if rate != flow.rate:
            self._settle(flow)
            flow.rate = rate
            self._arm(flow)

    def _settle(self, flow: Flow) -> None:
        now = self._kernel.now
        if flow.rate:
            flow.sent = min(flow.sent + flow.rate * (now - flow.since), float(flow.marks[flow.reached]))
        flow.since = now

    def sent_of(self, flow: Flow) -> float:
        """How many of its bytes have left the sender by now."""
        self._settle(flow)
        return flow.sent

    # --- marks ------------------------------------------------------------------------------------------------

    def _arm(self, flow: Flow) -> None:
        """An event that comes too early looks again; one that would come too late is passed by an earlier one."""
        left = flow.marks[flow.reached] - flow.sent
        flow.due = flow.since + max(0, ceil(left / flow.rate - EPSILON_NS))
        if flow.ring is None or flow.due < flow.ring:
            flow.ring = flow.due
            self._kernel.at(flow.due, self._reach, flow, flow.due)

    def _reach(self, flow: Flow, when: int) -> None:
        if flow.over or flow.ring != when:
            return
        flow.ring = None
        if flow.stands:
            return
        if flow.due > self._kernel.now:
            flow.ring = flow.due
            self._kernel.at(flow.due, self._reach, flow, flow.due)
            return
        mark = flow.reached
        size = flow.marks[mark] - (flow.marks[mark - 1] if mark else 0)
        self.sent[flow.sender] = self.sent.get(flow.sender, 0) + size
        self.received[flow.receiver] = self.received.get(flow.receiver, 0) + size
        flow.sent, flow.since = float(flow.marks[mark]), self._kernel.now
        flow.reached += 1
        if flow.reached == len(flow.marks):
            self._leave(flow)
        else:
            self._arm(flow)
        flow.came(mark)
