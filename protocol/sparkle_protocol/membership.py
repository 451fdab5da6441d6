"""Whom to be connected to: bootstraps, remembered peers, LAN discoveries and samples from other peers.

Rules
-----
- Below ``LOW_LINKS`` connections the node dials known addresses, a few at a time, each address with exponential
  back-off; bootstraps are never given up and are tried first while there is no connection at all.
- What a stranger says about others is hearsay: it is kept apart from what we know better (ranked by ``SOURCES``) and
  turned to when that does not suffice; it never displaces anything, and never shortens a pause.
- Connected peers are asked for a sample of theirs soon after they come up and every minute or so after that (peer
  sampling: Jelasity et al. 2007), as long as there is room; each of many connected ones is asked more rarely, so that
  a node sends as many of these requests whatever the number of its connections.
- A peer with ``MAX_STRIKES`` rule violations is hung up on and not talked to for ``BAN_NS``; an hour without any
  clears the slate.
- Peers say with each sample what a unit may use of their memory, so that nobody submits what nobody can take.
- Peers say what time it is; when at least two of them and most of them are far from us on the same side, our clock is
  reported to be off, once until it is right again.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from statistics import median

from sparkle_protocol import messages
from sparkle_protocol.effects import (
    Dial,
    Dialled,
    Discovered,
    Effect,
    Effects,
    Hangup,
    Notify,
    PeerDown,
    PeerUp,
    RememberPeer,
    Replied,
    Reply,
    Requested,
    Send,
    SendFailed,
    Tick,
    Value,
)
from sparkle_protocol.errors import RemoteProtocolError
from sparkle_protocol.ids import PeerId, key_from_peer_id, peer_id_from_key

SECOND_NS = 1_000_000_000
LOW_LINKS = 8
HIGH_LINKS = 64
MAX_DIALS = 4
MAX_CANDIDATES = 512  # beyond that the least known and most failing go
MAX_HEARSAY = 128  # peers that only strangers told of; beyond that nothing more is heard
MAX_ADDRESSES = 8
SAMPLE = 16
SAMPLE_EVERY_S = 60.0
FIRST_SAMPLE_S = 0.5
DIAL_BACKOFF_S = (1.0, 300.0)  # first pause, longest pause
LONELY_BACKOFF_S = 10.0  # longest pause for bootstraps while nobody is connected
MAX_STRIKES = 5
MAX_ATTEMPTS = 6
BAN_NS = 600 * SECOND_NS
FORGIVE_NS = 3600 * SECOND_NS
MAX_STANDINGS = 1024
CLOCK_LIMIT_MS = 10 * 60 * 1000
SHORT_LINK_NS = 10 * SECOND_NS  # a link that breaks sooner counts as a failed attempt
SOURCES = {"bootstrap": 0, "connected": 1, "mdns": 1, "remembered": 2}  # how well we know an address
HEARSAY = 3


@dataclass(slots=True)
class Candidate:
    """A peer that could be dialled."""

    addresses: tuple[str, ...] = ()  # the one to try next first
    ranks: bytes = b""  # how well we know each of them
    bootstrap: bool = False
    rank: int = HEARSAY  # of its best known address ever
    attempts: int = 0
    next_try_ns: int = 0
    dialling: bool = False

    def knows(self, address: str, rank: int) -> bool:
        """Whether this is one of its addresses; how well we know it is kept."""
        if address not in self.addresses:
            return False
        at = self.addresses.index(address)
        if rank < self.ranks[at]:
            self.ranks = self.ranks[:at] + bytes([rank]) + self.ranks[at + 1 :]
        return True

    def add(self, address: str, rank: int, *, first: bool) -> None:
        """One more address."""
        if first:
            self.addresses, self.ranks = (address, *self.addresses), bytes([rank]) + self.ranks
        else:
            self.addresses, self.ranks = (*self.addresses, address), self.ranks + bytes([rank])

    def drop(self, at: int) -> tuple[str, int]:
        """An address less; returns it and how well it was known."""
        dropped = self.addresses[at], self.ranks[at]
        self.addresses = self.addresses[:at] + self.addresses[at + 1 :]
        self.ranks = self.ranks[:at] + self.ranks[at + 1 :]
        return dropped


@dataclass(slots=True)
class Link:
    """What we know of a connected peer."""

    up_ns: int
    sample_at_ns: int  # when it is asked for a sample
    place: int = -1  # among those of whom others hear; -1: we know no address of it
    clock_off_ms: int | None = None  # how far its clock is from ours, once it said so


@dataclass(slots=True)
class Standing:
    """How a peer behaved."""

    strikes: int = 0
    last_ns: int = 0
    banned_until_ns: int = 0


def peer_of(address: str) -> PeerId:
    """The peer id that a multiaddr ends in. Raises RemoteProtocolError when it has none."""
    head, found, peer = address.rpartition("/p2p/")
    if not found or not head.startswith("/") or "/" in peer:
        raise RemoteProtocolError("an address must end in /p2p/<peer id>")
    return peer_id_from_key(key_from_peer_id(PeerId(peer)))  # one string for all that name it


def _names(address: str, peer: PeerId) -> bool:
    """The address is one of ``peer`` itself."""
    return address.startswith("/") and address.endswith(f"/p2p/{peer}")


def _may_tell(address: str, peer: PeerId) -> bool:
    """Others may hear of this address of ``peer``."""
    return len(address) <= messages.MAX_ADDRESS_CHARS and _names(address, peer)


class Membership:
    """Decides whom to dial, whom to drop and what to tell others about peers."""

    def __init__(
        self, me: PeerId, rng: Random, wall_ms: Callable[[], int], memory_bytes: int = messages.UNSAID
    ) -> None:
        self.me = me
        self.memory: dict[PeerId, int] = {}  # what units may use at connected peers, as they say
        self._memory_bytes = memory_bytes
        self.links: dict[PeerId, tuple[str, ...]] = {}
        self.standings: dict[PeerId, Standing] = {}
        self.clock_off_ms = 0
        self._rng = rng
        self._wall_ms = wall_ms
        self._candidates: dict[PeerId, Candidate] = {}
        self._hearsay: dict[PeerId, tuple[str, ...]] = {}
        self._dialling: dict[int, PeerId] = {}  # by the tags of the dials under way
        self._linked: dict[PeerId, Link] = {}  # the same peers as in ``links``
        self._samples_due_ns: int | None = None  # not later than any of theirs; None: nobody is asked
        self._shown: list[PeerId] = []  # those of whom others hear
        self._asked: dict[int, PeerId] = {}
        self._tag = 0
        self._stopped = False
        self._out: list[Effect] = []

    def start(self, bootstrap: Iterable[str], remembered: Iterable[str], now_ns: int) -> Effects:
        """Begin to connect."""
        for source, addresses in (("bootstrap", bootstrap), ("remembered", remembered)):
            for address in addresses:
                self._learn(address, source, now_ns)
        return self._pump(now_ns)

    def stop(self) -> None:
        """Dial nobody further."""
        self._stopped = True

    def violation(self, peer: PeerId, now_ns: int) -> Effects:
        """A peer broke a rule."""
        standing = self.standings.pop(peer, Standing())
        if now_ns - standing.last_ns > FORGIVE_NS:
            standing.strikes = 0
        standing.strikes += 1
        standing.last_ns = now_ns
        while len(self.standings) >= MAX_STANDINGS:  # the longest quiet first
            del self.standings[next(iter(self.standings))]
        self.standings[peer] = standing
        if standing.strikes % MAX_STRIKES == 0:
            standing.banned_until_ns = now_ns + BAN_NS
            self._out.append(Hangup(peer, "too many rule violations"))
            self._out.append(Notify("peer_banned", {"peer": peer, "seconds": BAN_NS // SECOND_NS}))
        return self._pump(now_ns)

    def handle(self, event: object, now_ns: int) -> Effects:
        """React to an event; events that do not concern membership change nothing."""
        if isinstance(event, PeerUp):
            self._up(event, now_ns)
        elif isinstance(event, PeerDown):
            self._down(event.peer, now_ns)
        elif isinstance(event, Discovered):
            self._learn(event.address, event.source, now_ns)
        elif isinstance(event, Dialled):
            self._dialled(event, now_ns)
        elif isinstance(event, Requested) and isinstance(event.message, messages.PeersRequest):
            self._out.append(Reply(event.token, self._sample(event.peer)))
        elif isinstance(event, Replied):
            self._replied(event, now_ns)
        elif isinstance(event, SendFailed):
            self._asked.pop(event.tag, None)
        elif not isinstance(event, Tick):
            return ()
        return self._pump(now_ns)

    def next_deadline(self) -> int | None:
        """When ``Tick`` is due."""
        if self._stopped:
            return None
        due = self._samples_due_ns
        if self._room() > 0:
            for peer, candidate in self._candidates.items():
                if self._may_dial(peer, candidate):
                    at = max(candidate.next_try_ns, self._banned_until(peer))
                    due = at if due is None or at < due else due
        return due

    # --- connections --------------------------------------------------------------------------------------

    def _up(self, event: PeerUp, now_ns: int) -> None:
        if self.banned(event.peer, now_ns):
            self._out.append(Hangup(event.peer, "banned"))
            return
        own = event.addresses
        if not all(_may_tell(address, event.peer) for address in own):
            own = tuple([address for address in own if _may_tell(address, event.peer)])
        self.links[event.peer] = own = own[: messages.MAX_ADDRESSES]
        for address in own:
            self._learn(address, "connected", now_ns)
        candidate = self._candidates.get(event.peer)
        if candidate is not None and candidate.addresses == own:
            candidate.addresses = own  # one tuple instead of two
        if own:
            self._out.append(RememberPeer(event.peer, own))
        at = now_ns + int(FIRST_SAMPLE_S * self._rng.uniform(0.5, 1.5) * SECOND_NS)
        link = self._linked.setdefault(event.peer, Link(now_ns, at))
        link.up_ns = now_ns
        link.sample_at_ns = at
        if len(self.links) < HIGH_LINKS:
            self._samples_due_ns = at if self._samples_due_ns is None else min(at, self._samples_due_ns)
        self._hide(link)
        if own:
            link.place = len(self._shown)
            self._shown.append(event.peer)

    def _down(self, peer: PeerId, now_ns: int) -> None:
        self.links.pop(peer, None)
        link = self._linked.pop(peer, None)
        if link is not None:
            self._hide(link)
            if len(self.links) == HIGH_LINKS - 1:
                self._ask_again(now_ns)
            elif link.sample_at_ns == self._samples_due_ns:
                self._samples_due_ns = self._first_sample_ns()
        self.memory.pop(peer, None)
        since_ns = now_ns if link is None else link.up_ns
        candidate = self._candidates.get(peer)
        if candidate is not None:
            candidate.attempts = candidate.attempts + 1 if now_ns - since_ns < SHORT_LINK_NS else 0
            candidate.next_try_ns = max(candidate.next_try_ns, now_ns + self._pause_ns(candidate))

    def _learn(self, address: str, source: str, now_ns: int) -> None:
        try:
            peer = peer_of(address)
        except RemoteProtocolError:
            return
        if peer == self.me:
            if source == "bootstrap":
                self._out.append(Notify("bootstrap_is_self", {"address": address}))
            return
        rank = SOURCES.get(source, HEARSAY)
        if rank == HEARSAY:
            self._hear(peer, (address,))
            return
        candidate = self._candidates.get(peer)
        if candidate is None:
            if not self._has_place(rank):
                return
            candidate = self._candidates[peer] = Candidate()
            self._hearsay.pop(peer, None)
        candidate.bootstrap |= source == "bootstrap"
        candidate.rank = min(candidate.rank, rank)
        if candidate.knows(address, rank):
            return
        if len(candidate.addresses) >= MAX_ADDRESSES:
            worst = candidate.ranks.rindex(max(candidate.ranks))
            if candidate.ranks[worst] < max(rank, 1):  # bootstrap addresses stay
                return
            candidate.drop(worst)
        candidate.add(address, rank, first=True)  # the latest first
        candidate.next_try_ns = min(candidate.next_try_ns, now_ns)

    def _hear(self, peer: PeerId, addresses: tuple[str, ...]) -> None:
        """A stranger told of addresses of a peer."""
        candidate = self._candidates.get(peer)
        if candidate is not None:
            for address in addresses:
                if len(candidate.addresses) < MAX_ADDRESSES and address not in candidate.addresses:
                    candidate.add(address, HEARSAY, first=False)
        elif peer != self.me and addresses:
            known = self._hearsay.get(peer)
            if known is not None:
                new = tuple([address for address in addresses if address not in known])
                self._hearsay[peer] = (known + new)[:MAX_ADDRESSES]
            elif len(self._hearsay) < MAX_HEARSAY:
                self._hearsay[peer] = addresses[:MAX_ADDRESSES]

    def _has_place(self, rank: int) -> bool:
        """Make room for a peer known by ``rank``: the least known and most failing that is known no better goes."""
        if len(self._candidates) < MAX_CANDIDATES:
            return True
        spare = [
            (candidate.rank, candidate.attempts, peer)
            for peer, candidate in self._candidates.items()
            if candidate.rank >= rank and not candidate.bootstrap and peer not in self.links
            if candidate.attempts or candidate.rank > rank
        ]
        if not spare:
            return False
        del self._candidates[max(spare)[2]]
        return True

    def _dialled(self, event: Dialled, now_ns: int) -> None:
        peer = self._dialling.pop(event.tag, None)
        candidate = self._candidates.get(peer) if peer is not None else None
        if peer is None or candidate is None:
            return
        candidate.dialling = False
        if event.peer is not None:  # its PeerUp may come a little later
            candidate.next_try_ns = now_ns + self._pause_ns(candidate)
            return
        candidate.attempts += 1
        if event.address in candidate.addresses:  # try another address next time
            candidate.add(*candidate.drop(candidate.addresses.index(event.address)), first=False)
        candidate.next_try_ns = now_ns + self._pause_ns(candidate)
        if candidate.bootstrap:
            fields: dict[str, Value] = {
                "address": event.address,
                "reason": event.reason,
                "attempt": candidate.attempts,
            }
            self._out.append(Notify("bootstrap_unreachable", fields))
        elif candidate.attempts > MAX_ATTEMPTS:
            del self._candidates[peer]

    def _pause_ns(self, candidate: Candidate) -> int:
        first, longest = DIAL_BACKOFF_S
        if candidate.bootstrap and not self.links:
            longest = LONELY_BACKOFF_S
        pause_s = min(longest, first * 2 ** min(candidate.attempts, 12))
        return int(pause_s * self._rng.uniform(0.5, 1.0) * SECOND_NS)

    def _may_dial(self, peer: PeerId, candidate: Candidate) -> bool:
        return peer not in self.links and not candidate.dialling and bool(candidate.addresses)

    def _room(self) -> int:
        """How many may be dialled now."""
        dialling = len(self._dialling)
        return 0 if self._stopped else min(MAX_DIALS - dialling, LOW_LINKS - len(self.links) - dialling)

    def _dial(self, now_ns: int) -> None:
        room = self._room()
        if room <= 0:
            return
        ready = sorted(
            (not candidate.bootstrap, candidate.rank, candidate.attempts, self._rng.random(), peer)
            for peer, candidate in self._candidates.items()
            if self._may_dial(peer, candidate) and max(candidate.next_try_ns, self._banned_until(peer)) <= now_ns
        )
        chosen = [peer for *_, peer in ready[:room]]
        chosen += self._believe(room - len(chosen), now_ns)
        for peer in chosen:
            candidate = self._candidates[peer]
            self._tag += 1
            candidate.dialling = True
            self._dialling[self._tag] = peer
            self._out.append(Dial(self._tag, candidate.addresses[0]))

    def _believe(self, wanted: int, now_ns: int) -> list[PeerId]:
        """Make candidates of some whom only strangers told of; they are few or gone when there are none."""
        found: list[PeerId] = []
        heard = list(self._hearsay) if wanted > 0 else []
        while heard and len(found) < wanted:
            place = self._rng.randrange(len(heard))
            heard[place], peer = heard[-1], heard[place]
            heard.pop()
            addresses = self._hearsay.pop(peer)
            if peer in self.links or self.banned(peer, now_ns) or not self._has_place(HEARSAY):
                continue
            addresses = tuple(dict.fromkeys(addresses))
            self._candidates[peer] = Candidate(addresses, bytes([HEARSAY]) * len(addresses))
            found.append(peer)
        return found

    def banned(self, peer: PeerId, now_ns: int) -> bool:
        """Nobody deals with ``peer`` now."""
        return now_ns < self._banned_until(peer)

    def _banned_until(self, peer: PeerId) -> int:
        standing = self.standings.get(peer)
        return standing.banned_until_ns if standing is not None else 0

    # --- peer samples -------------------------------------------------------------------------------------

    def _sample(self, asker: PeerId) -> messages.PeersReply:
        chosen = self._rng.sample(self._shown, min(SAMPLE + 1, len(self._shown)))
        others = [peer for peer in chosen if peer != asker][:SAMPLE]
        records = [messages.PeerRecord(key_from_peer_id(peer), self.links[peer]) for peer in others]
        return messages.PeersReply(records, self._wall_ms(), self._memory_bytes)

    def _replied(self, event: Replied, now_ns: int) -> None:
        if self._asked.pop(event.tag, None) != event.peer or not isinstance(event.message, messages.PeersReply):
            return
        for record in event.message.peers:
            peer = peer_id_from_key(record.key)
            if all(_names(address, peer) for address in record.addresses):
                self._hear(peer, record.addresses)
        self._compare_clock(event.peer, event.message.time_ms)
        if event.peer in self.links and event.message.memory_bytes != messages.UNSAID:
            self.memory[event.peer] = event.message.memory_bytes

    def _compare_clock(self, peer: PeerId, time_ms: int) -> None:
        link = self._linked.get(peer)
        if link is None:
            return
        link.clock_off_ms = time_ms - self._wall_ms()
        offsets = [one.clock_off_ms for one in self._linked.values() if one.clock_off_ms is not None]
        before, self.clock_off_ms = self.clock_off_ms, 0
        for side in (1, -1):
            far = [offset for offset in offsets if side * offset > CLOCK_LIMIT_MS]
            if len(far) >= 2 and 2 * len(far) > len(offsets):
                self.clock_off_ms = int(median(far))
        if self.clock_off_ms and not before:
            self._out.append(Notify("clock_off", {"seconds": self.clock_off_ms // 1000, "peers": len(offsets)}))

    def _ask_samples(self, now_ns: int) -> None:
        if self._samples_due_ns is None or now_ns < self._samples_due_ns:
            return
        if len(self.links) >= HIGH_LINKS:
            self._samples_due_ns = None
            return
        every_s = SAMPLE_EVERY_S * max(1.0, len(self.links) / LOW_LINKS)
        for peer, link in self._linked.items():
            if link.sample_at_ns <= now_ns:
                link.sample_at_ns = now_ns + int(every_s * self._rng.uniform(0.75, 1.25) * SECOND_NS)
                if len(self._asked) < HIGH_LINKS:
                    self._tag += 1
                    self._asked[self._tag] = peer
                    self._out.append(Send(self._tag, peer, messages.PeersRequest(self._wall_ms())))
        self._samples_due_ns = self._first_sample_ns()

    def _ask_again(self, now_ns: int) -> None:
        """We have room for more peers than a moment ago."""
        every_s = SAMPLE_EVERY_S * max(1.0, len(self.links) / LOW_LINKS)
        for link in self._linked.values():
            if link.sample_at_ns <= now_ns:
                link.sample_at_ns = now_ns + int(every_s * self._rng.random() * SECOND_NS)
        self._samples_due_ns = self._first_sample_ns()

    def _first_sample_ns(self) -> int | None:
        return min([link.sample_at_ns for link in self._linked.values()], default=None)

    def _hide(self, link: Link) -> None:
        """Nobody hears of a peer any more; the last of those in the list takes its place."""
        if link.place < 0:
            return
        last = self._shown.pop()
        if link.place < len(self._shown):
            self._shown[link.place] = last
            self._linked[last].place = link.place
        link.place = -1

    def _pump(self, now_ns: int) -> Effects:
        if not self._stopped:
            self._ask_samples(now_ns)
            self._dial(now_ns)
        out, self._out = tuple(self._out), []
        return out
