"""What lies between peers: distance, loss, NATs, partitions; and the connections that they have made.

A connection is TCP with Noise and yamux on top, as libp2p makes it: four round trips until it can be used, and the
time of both ends' threads (``costs.py``). What is
sent over it arrives in order of its delays, not of its sending, as on the several streams of one connection; what is
lost is a request or an answer that never comes, as when a stream is reset. Packets that TCP sends again are delay.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from sparkle_sim.costs import DIAL, DIAL_WORK, REFUSED, REQUEST, Threads, lognormal_factors
from sparkle_sim.draws import Draws, draws
from sparkle_sim.kernel import MS, SECOND, Kernel
from sparkle_sim.uplinks import Uplinks

HANDSHAKE_TRIPS = 4  # round trips: TCP, choosing Noise, Noise, choosing yamux
DIAL_LIMIT_S = 10.0  # the shell's limit: a dial into a void fails then
SMALL_BYTES = 4096  # messages up to here take no time on a line: 2 ms on a slow one
BYTES_PER_MBIT = 125_000
MESSAGE_NS = int(REQUEST.median_ms * MS / 2)  # of both ends' threads, for a request or for its answer
WAITING = 4096  # messages for a peer that is suspended; beyond that its windows are full, and nothing more comes
SILENCE_S = (50.0, 75.0)  # until a connection is given up whose other end says nothing: two pings in vain
_Call: TypeAlias = tuple[Callable[..., None], tuple[Any, ...]]
PUBLIC, NAT, SYMMETRIC = "public", "nat", "symmetric"
PUNCH_SUCCESS = {(NAT, NAT): 0.8, (NAT, SYMMETRIC): 0.1, (SYMMETRIC, NAT): 0.1, (SYMMETRIC, SYMMETRIC): 0.0}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a peer is."""

    region: int = 0
    nat: str = PUBLIC


@dataclass(frozen=True, slots=True)
class Link:
    """A connection as one of its ends sees it."""

    relayed: bool = False


@dataclass(slots=True)
class Conditions:
    """The state of the wires, which faults change.

    Args:
        round_trip_ms: between two regions, by their numbers.
        jitter: sigma of the lognormal factor on each delay.
        loss: share of requests and answers that never come.
        twice: share of requests that arrive twice.
        upload_mbps: of each peer's line.
        download_mbps: of each peer's line.
    """

    round_trip_ms: Sequence[Sequence[float]] = ((20.0,),)
    jitter: float = 0.2
    loss: float = 0.0
    twice: float = 0.0
    upload_mbps: float = 20.0
    download_mbps: float = 100.0
    slower: dict[int, float] = field(default_factory=dict)  # factor on the delays of a peer


class Ends(Protocol):
    """What the network needs of its peers."""

    def is_up(self, peer: int) -> bool:
        """Whether its process runs."""
        ...

    def link_up(self, peer: int, other: int) -> None:
        """A connection stands, at this end."""
        ...

    def link_down(self, peer: int, other: int) -> None:
        """A connection is gone, as this end finds."""
        ...


@dataclass(slots=True)
class _Stalled:
    """A peer that reads nothing."""

    reasons: dict[str, None] = field(default_factory=dict)
    waiting: list[tuple[Callable[..., None], tuple[Any, ...]]] = field(default_factory=list)  # to be read


class Network:
    """Peers are numbers here."""

    def __init__(
        self, kernel: Kernel, ends: Ends, places: Sequence[Place], conditions: Conditions, seed: int
    ) -> None:
        self.conditions = conditions
        self.places = list(places)
        self.links: list[dict[int, Link]] = [{} for _ in places]
        self.messages = 0  # sent, also those that are lost
        self.bytes = 0  # of what they carry
        self._kernel = kernel
        self._ends = ends
        self.threads = Threads(kernel, len(places))
        self.suspended: dict[int, list[_Call]] = {}  # and what waits for them
        self._jitter = lognormal_factors(conditions.jitter)
        self._draws: list[Draws] = [draws(seed, peer, "network") for peer in range(len(places))]
        self._vanished = bytearray(len(places))  # whose machine is gone: nobody says that a process is not there
        self._blocked: dict[str, Callable[[int, int], bool]] = {}  # by fault: what does not get from one to another
        self._stalled: dict[int, _Stalled] = {}  # who reads nothing
        self._half_open: set[tuple[int, int]] = set()  # an end that holds on to what the other does not know any more
        self.uplinks = Uplinks(
            kernel,
            conditions.upload_mbps * BYTES_PER_MBIT,
            conditions.download_mbps * BYTES_PER_MBIT,
            self._flows,
            lambda peer: conditions.slower.get(peer, 1.0),
        )

    # --- wires ------------------------------------------------------------------------------------------------

    def delay_ns(self, sender: int, receiver: int) -> int:
        """How long something takes that is sent now."""
        if sender == receiver:
            return 0
        wires = self.conditions
        trip_ms = wires.round_trip_ms[self.places[sender].region][self.places[receiver].region]
        if self.is_relayed(sender, receiver):
            trip_ms *= 2
        factor = self._jitter[self._draws[sender].byte()] if wires.jitter else 1.0
        if wires.slower:
            factor *= max(wires.slower.get(sender, 1.0), wires.slower.get(receiver, 1.0))
        return int(trip_ms * MS * factor / 2)

    def carries(self, sender: int, receiver: int) -> bool:
        """Whether something that is sent now will arrive."""
        if sender == receiver:
            return True
        if self._blocked and any(blocks(sender, receiver) for blocks in self._blocked.values()):
            return False
        return not self.conditions.loss or self._draws[sender].random() >= self.conditions.loss

    def send(self, sender: int, receiver: int, call: Callable[..., None], *arguments: Any) -> None:
        """Have something done after the delay, unless it is lost. The last argument is what the message carries."""
        self.messages += 1
        carried = arguments[-1] if arguments else None
        size = len(carried) if type(carried) is bytes else 0
        self.bytes += size
        if (self.suspended or self._stalled) and self._waits(sender, receiver, call, arguments):
            return
        if self._half_open and self._resets(sender, receiver):
            return
        if not self.carries(sender, receiver):
            return
        delay_ns = self.delay_ns(sender, receiver) + (MESSAGE_NS if sender != receiver else 0)
        if size <= SMALL_BYTES or sender == receiver:
            self._kernel.after(delay_ns, call, *arguments)
        else:
            kernel = self._kernel
            self.uplinks.start(
                sender, receiver, (size,), lambda _: kernel.after(delay_ns, call, *arguments), bound=True
            )

    def _flows(self, sender: int, receiver: int) -> bool:
        """Whether bytes get through now; what blocks one way keeps what confirms them from the other."""
        asleep = sender in self.suspended or receiver in self.suspended or receiver in self._stalled
        return not asleep and self.reaches(sender, receiver)

    def reaches(self, one: int, other: int) -> bool:
        """Whether nothing lies between them that lets nothing pass."""
        return not self._blocked or self._passes(one, other)

    def arrives_twice(self, sender: int) -> bool:
        """Whether what is sent now arrives a second time."""
        return bool(self.conditions.twice) and self._draws[sender].random() < self.conditions.twice

    # --- faults -----------------------------------------------------------------------------------------------

    def block(self, fault: str, blocks: Callable[[int, int], bool]) -> None:
        """From now on nothing gets from one peer to another where ``blocks(sender, receiver)`` holds.

        Connections that it breaks in either direction are noticed at their ends some time later.
        """
        self._blocked[fault] = blocks
        self.uplinks.look()
        for peer, links in enumerate(self.links):
            for other in links:
                if blocks(peer, other) or blocks(other, peer):
                    self._notice(peer, other)

    def unblock(self, fault: str) -> None:
        """The fault is over; who lost a connection has to make it again."""
        self._blocked.pop(fault, None)
        self.uplinks.look()

    def slow_down(self, peer: int, factor: float | None) -> None:
        """Delays of a peer are so many times longer from now on, and its line as many times slower; None: no more."""
        if factor is None:
            self.conditions.slower.pop(peer, None)
        else:
            self.conditions.slower[peer] = factor
        self.uplinks.look(peer)

    def suspend(self, peer: int) -> None:
        """A process hears and says nothing for a while: what is for it waits.

        Its connections look alive, until the other ends have waited in vain for too long.
        """
        if peer in self.suspended:
            return
        waiting: list[_Call] = []
        self.suspended[peer] = waiting
        self.uplinks.look(peer)
        for other in self.links[peer]:
            wait_ns = int(self._draws[other].uniform(*SILENCE_S) * SECOND)
            self._kernel.after(wait_ns, self._give_up, other, peer, waiting, self.links[other].get(peer))

    def _give_up(self, peer: int, other: int, waiting: list[_Call], link: Link | None) -> None:
        """This end closes its connection to one that is still suspended, which finds that out when it goes on."""
        if self.suspended.get(other) is waiting and link is not None and self.links[peer].get(other) is link:
            self._drop(peer, other, link)
            waiting.append((self._drop, (other, peer, self.links[other].get(peer))))

    def resume(self, peer: int, *, alive: bool = True) -> None:
        """It goes on with what waited, or it is gone with that."""
        if not alive:
            self._stalled.pop(peer, None)
        waiting = self.suspended.pop(peer, [])
        for call, arguments in waiting if alive else ():
            self._kernel.after(0, call, *arguments)
        self.uplinks.look(peer)

    def defers(self, receiver: int, call: Callable[..., None], *arguments: Any) -> bool:
        """Whether a process is suspended; what came for it waits then until it goes on."""
        waiting = self.suspended.get(receiver)
        if waiting is None:
            return False
        if len(waiting) < WAITING:
            waiting.append((call, arguments))
        return True

    def stall(self, peer: int, why: str) -> None:
        """It reads nothing from now on, and still speaks: what is for it waits until its windows are full.

        Neither end hears whether the other lives, so that both give their connections up some time later.
        """
        if self._ends.is_up(peer):
            self._stalled.setdefault(peer, _Stalled()).reasons[why] = None
            self.uplinks.look(peer)
            for other in list(self.links[peer]):
                self._notice(peer, other)
                self._notice(other, peer)

    def read_on(self, peer: int, why: str) -> None:
        """It reads again once every reason not to is over, first what waited for it."""
        stalled = self._stalled.get(peer)
        if stalled is None:
            return
        stalled.reasons.pop(why, None)
        if not stalled.reasons:
            del self._stalled[peer]
            for call, arguments in stalled.waiting:
                self._kernel.after(0, call, *arguments)
            self.uplinks.look(peer)

    def forget_links(self, peer: int) -> None:
        """It has lost all its connections, as when its router forgot them, and nobody told the other ends.

        Those believe in them until they use them, or until they notice the silence.
        """
        for other in list(self.links[peer]):
            if peer in self.links[other]:
                self._half_open.add((other, peer))
                self._give_up_later(other, peer)
            self._drop(peer, other)

    def _resets(self, sender: int, receiver: int) -> bool:
        """Whether what is sent now only makes its sender hear that this connection is not there any more."""
        if (sender, receiver) not in self._half_open or not self._ends.is_up(receiver):
            return False
        link = self.links[sender].get(receiver)
        if self.reaches(sender, receiver):
            trip_ns = self.delay_ns(sender, receiver) + self.delay_ns(receiver, sender)
            self._kernel.after(trip_ns, self._drop, sender, receiver, link)
        return True

    def _give_up_later(self, peer: int, other: int) -> None:
        """This end notices the silence."""
        link = self.links[peer].get(other)
        wait_ns = int(self._draws[peer].uniform(*SILENCE_S) * SECOND)
        self._kernel.after(wait_ns, self._drop, peer, other, link)

    def _waits(self, sender: int, receiver: int, call: Callable[..., None], arguments: tuple[Any, ...]) -> bool:
        """Whether something does not go on its way because one end is suspended."""
        waiting = self.suspended.get(receiver)
        if waiting is None and receiver in self._stalled:
            waiting = self._stalled[receiver].waiting
        if waiting is None or sender == receiver:
            return sender in self.suspended
        if sender not in self.suspended and len(waiting) < WAITING and self.carries(sender, receiver):
            waiting.append((call, arguments))
        return True

    def _passes(self, one: int, other: int) -> bool:
        """Both ways."""
        blocked = self._blocked.values()
        return not blocked or not any(blocks(one, other) or blocks(other, one) for blocks in blocked)

    def _notice(self, peer: int, other: int) -> None:
        """This end finds out that nothing comes any more, if that is still so by then."""
        link = self.links[peer].get(other)

        def look() -> None:
            deaf = peer in self._stalled or other in self._stalled
            if self.links[peer].get(other) is link is not None and (deaf or not self._passes(peer, other)):
                self._drop(peer, other)

        self._kernel.after(int(self._draws[peer].uniform(*SILENCE_S) * SECOND), look)

    # --- connections ------------------------------------------------------------------------------------------

    def connected(self, peer: int, other: int) -> bool:
        """There is a connection, as far as this end knows."""
        return other in self.links[peer]

    def is_relayed(self, peer: int, other: int) -> bool:
        """Their connection passes a third peer."""
        link = self.links[peer].get(other)
        return link is not None and link.relayed

    def dial(self, peer: int, other: int, done: Callable[[bool], None]) -> None:
        """Connect, and say whether that worked; a peer that is not there fails at once or by the time-out."""
        if peer == other or self.connected(peer, other):
            self._kernel.after(0, done, peer != other)
            return
        if self._deaf(peer, other) or not self.answers(peer, other):
            self._kernel.after(int(DIAL_LIMIT_S * SECOND), done, False)
            return
        if not self._ends.is_up(other):
            self._kernel.after(self.refusal_ns(peer, other), done, False)
            return
        link = Link(relayed=self._needs_relay(peer, other))
        trips_ns = HANDSHAKE_TRIPS * (self.delay_ns(peer, other) + self.delay_ns(other, peer))
        wait_ns = self.dialling_ns(peer, other) + trips_ns * (2 if link.relayed else 1)
        self._kernel.after(wait_ns, self._connect, peer, other, link, done)

    def answers(self, peer: int, other: int) -> bool:
        """Whether a dial gets any answer, be it that nobody is there."""
        if other in self.suspended or not self._passes(peer, other):
            return False
        return not self._vanished[other] or self._ends.is_up(other)

    def refusal_ns(self, peer: int, other: int) -> int:
        """Until a dial fails where no process listens, and its system says so."""
        work_ns = REFUSED.draw(self._draws[peer])
        return self.threads.take(peer, work_ns) + self.delay_ns(peer, other) + self.delay_ns(other, peer)

    def dialling_ns(self, peer: int, other: int) -> int:
        """What both ends' threads take until a connection can be used; with the rest of a dial they are busy then."""
        random, threads = self._draws[peer], self.threads
        half_ns = DIAL.draw(random) // 2
        wait_ns = threads.take(peer, half_ns) + threads.take(other, half_ns)
        for end in (peer, other):
            threads.take(end, max(0, DIAL_WORK.draw(random) - half_ns))
        return wait_ns

    def _needs_relay(self, peer: int, other: int) -> bool:
        """Whether no direct connection can be had; where one end has a public address, either can dial the other."""
        kinds = self.places[peer].nat, self.places[other].nat
        return kinds in PUNCH_SUCCESS and self._draws[peer].random() >= PUNCH_SUCCESS[kinds]

    def _connect(self, peer: int, other: int, link: Link, done: Callable[[bool], None]) -> None:
        up = self._ends.is_up(peer) and self._ends.is_up(other) and self._passes(peer, other)
        if not up or peer in self.suspended or other in self.suspended or self._deaf(peer, other):
            done(False)
            return
        ends = (peer, other), (other, peer)
        fresh = [(end, far) for end, far in ends if far not in self.links[end]]
        if fresh:
            # Of two ends of which one knows a connection already, that one has not noticed yet that it is gone.
            for end, far in ends:
                self.links[end][far] = link
                self._half_open.discard((end, far))
            for end, far in fresh:
                self._ends.link_up(end, far)
        done(True)

    def _deaf(self, peer: int, other: int) -> bool:
        """One of them does not read what the other says when they connect."""
        return peer in self._stalled or other in self._stalled

    def hang_up(self, peer: int, other: int) -> None:
        """Close a connection; the other end hears of it."""
        if other in self.links[peer]:
            self._drop(peer, other)
            self._kernel.after(self.delay_ns(peer, other), self._drop, other, peer)

    def leave(self, peer: int, *, silently: bool) -> None:
        """A process is gone: its system closes its connections, unless that is gone too."""
        self._vanished[peer] = silently
        for other in list(self.links[peer]):
            link = self.links[other].get(peer)
            self._half_open.discard((peer, other))
            wait_ns = self.delay_ns(peer, other)
            if silently or not self._passes(peer, other):
                wait_ns = int(self._draws[other].uniform(*SILENCE_S) * SECOND)
                if link is not None:
                    self._half_open.add((other, peer))
            self._kernel.after(wait_ns, self._drop, other, peer, link)
        self.links[peer].clear()
        self.uplinks.end(peer, silently=silently)

    def _drop(self, peer: int, other: int, link: Link | None = None) -> None:
        """This end gives the connection up: that one, if it is said which."""
        known = self.links[peer].get(other)
        if known is not None and (link is None or known is link):
            del self.links[peer][other]
            self._half_open.discard((peer, other))
            self.uplinks.hang_up(peer, other)
            if self._ends.is_up(peer):
                self._ends.link_down(peer, other)
