"""Whom to be connected to: bootstraps, remembered peers, LAN discoveries and samples from other peers.

Rules
-----
- Below ``LOW_LINKS`` connections the node dials known addresses, a few at a time, each address with exponential
  back-off; bootstraps are never given up and are tried first while there is no connection at all.
- Connected peers are asked for a sample of theirs soon after they come up and every minute or so after that
  (peer sampling: Jelasity et al. 2007), as long as there is room.
- A peer with ``MAX_STRIKES`` rule violations is hung up on and not talked to for ``BAN_NS``.
- Peers say what time it is; a clock that is far from the median of at least two others is reported once.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
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
MAX_CANDIDATES = 512
MAX_ADDRESSES = 8
SAMPLE = 16
SAMPLE_EVERY_S = 60.0
FIRST_SAMPLE_S = 0.5
DIAL_BACKOFF_S = (1.0, 300.0)  # first pause, longest pause
LONELY_BACKOFF_S = 10.0  # longest pause for bootstraps while nobody is connected
MAX_STRIKES = 5
MAX_STANDINGS = 4096  # the one that has been good for longest is forgotten first
BAN_NS = 600 * SECOND_NS
CLOCK_LIMIT_MS = 10 * 60 * 1000


@dataclass(slots=True)
class Candidate:
    """A peer that could be dialled."""

    addresses: list[str] = field(default_factory=list)
    source: str = ""
    attempts: int = 0
    next_try_ns: int = 0
    dialling: int | None = None


@dataclass(slots=True)
class Standing:
    """How a peer behaved."""

    strikes: int = 0
    banned_until_ns: int = 0


def peer_of(address: str) -> PeerId:
    """The peer id that a multiaddr ends in. Raises RemoteProtocolError when it has none."""
    head, found, peer = address.rpartition("/p2p/")
    if not found or not head.startswith("/") or "/" in peer:
        raise RemoteProtocolError("an address must end in /p2p/<peer id>")
    key_from_peer_id(PeerId(peer))
    return PeerId(peer)


class Membership:
    """Decides whom to dial, whom to drop and what to tell others about peers."""

    def __init__(self, me: PeerId, rng: Random, wall_ms: Callable[[], int]) -> None:
        self.me = me
        self.links: dict[PeerId, tuple[str, ...]] = {}
        self.standings: dict[PeerId, Standing] = {}
        self.clock_off_ms = 0
        self._rng = rng
        self._wall_ms = wall_ms
        self._candidates: dict[PeerId, Candidate] = {}
        self._sample_at: dict[PeerId, int] = {}
        self._asked: dict[int, PeerId] = {}
        self._clock_offsets: dict[PeerId, int] = {}
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
        standing = self.standings.pop(peer, None) or Standing()
        self.standings[peer] = standing  # the latest offender last
        while len(self.standings) > MAX_STANDINGS:
            del self.standings[next(iter(self.standings))]
        standing.strikes += 1
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
        times = [at for peer, at in self._sample_at.items() if peer in self.links]
        if self._room() > 0:
            times += [
                max(candidate.next_try_ns, self._banned_until_ns(peer))
                for peer, candidate in self._candidates.items()
                if self._may_dial(peer, candidate)
            ]
        return min(times) if times else None

    # --- connections --------------------------------------------------------------------------------------

    def _up(self, event: PeerUp, now_ns: int) -> None:
        if self.banned(event.peer, now_ns):
            self._out.append(Hangup(event.peer, "banned"))
            return
        self.links[event.peer] = event.addresses
        candidate = self._candidates.get(event.peer)
        if candidate is not None:
            candidate.attempts = 0
        for address in event.addresses:
            self._learn(address, "connected", now_ns)
        if event.addresses:
            self._out.append(RememberPeer(event.peer, event.addresses[:MAX_ADDRESSES]))
        self._sample_at[event.peer] = now_ns + int(FIRST_SAMPLE_S * self._rng.uniform(0.5, 1.5) * SECOND_NS)

    def _down(self, peer: PeerId, now_ns: int) -> None:
        self.links.pop(peer, None)
        self._sample_at.pop(peer, None)
        self._clock_offsets.pop(peer, None)
        candidate = self._candidates.get(peer)
        if candidate is not None:
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
        candidate = self._candidates.get(peer)
        if candidate is None:
            if len(self._candidates) >= MAX_CANDIDATES and not self._evict():
                return
            candidate = self._candidates[peer] = Candidate(source=source)
        if source == "bootstrap":
            candidate.source = source
        if address not in candidate.addresses:
            candidate.addresses.insert(0, address)
            del candidate.addresses[MAX_ADDRESSES:]
            candidate.next_try_ns = min(candidate.next_try_ns, now_ns)

    def _evict(self) -> bool:
        """Forget the candidate that failed most; bootstraps and live peers stay."""
        spare = [
            (candidate.attempts, peer)
            for peer, candidate in self._candidates.items()
            if candidate.source != "bootstrap" and peer not in self.links and candidate.attempts
        ]
        if not spare:
            return False
        del self._candidates[max(spare)[1]]
        return True

    def _dialled(self, event: Dialled, now_ns: int) -> None:
        for peer, candidate in list(self._candidates.items()):
            if candidate.dialling != event.tag:
                continue
            candidate.dialling = None
            if event.peer is not None:
                return
            candidate.attempts += 1
            if event.address in candidate.addresses:  # try another address next time
                candidate.addresses.remove(event.address)
                candidate.addresses.append(event.address)
            candidate.next_try_ns = now_ns + self._pause_ns(candidate)
            if candidate.source == "bootstrap":
                fields: dict[str, Value] = {
                    "address": event.address,
                    "reason": event.reason,
                    "attempt": candidate.attempts,
                }
                self._out.append(Notify("bootstrap_unreachable", fields))
            elif candidate.attempts > 6:
                del self._candidates[peer]
            return

    def _pause_ns(self, candidate: Candidate) -> int:
        first, longest = DIAL_BACKOFF_S
        if candidate.source == "bootstrap" and not self.links:
            longest = LONELY_BACKOFF_S
        pause_s = min(longest, first * 2 ** min(candidate.attempts, 12))
        return int(pause_s * self._rng.uniform(0.5, 1.0) * SECOND_NS)

    def _may_dial(self, peer: PeerId, candidate: Candidate) -> bool:
        return peer not in self.links and candidate.dialling is None and bool(candidate.addresses)

    def _room(self) -> int:
        dialling = sum(1 for c in self._candidates.values() if c.dialling is not None)
        if self._stopped:
            return 0
        return min(MAX_DIALS - dialling, LOW_LINKS - len(self.links) - dialling)

    def _dial(self, now_ns: int) -> None:
        room = self._room()
        if room <= 0:
            return
        order = {"bootstrap": 0, "mdns": 1}
        ready = sorted(
            (order.get(candidate.source, 2), candidate.attempts, self._rng.random(), peer)
            for peer, candidate in self._candidates.items()
            if self._may_dial(peer, candidate) and candidate.next_try_ns <= now_ns and not self.banned(peer, now_ns)
        )
        for *_, peer in ready[:room]:
            candidate = self._candidates[peer]
            self._tag += 1
            candidate.dialling = self._tag
            self._out.append(Dial(self._tag, candidate.addresses[0]))

    def banned(self, peer: PeerId, now_ns: int) -> bool:
        """Nobody deals with ``peer`` now."""
        return now_ns < self._banned_until_ns(peer)

    def _banned_until_ns(self, peer: PeerId) -> int:
        standing = self.standings.get(peer)
        return standing.banned_until_ns if standing is not None else 0

    # --- peer samples -------------------------------------------------------------------------------------

    def _sample(self, asker: PeerId) -> messages.PeersReply:
        others = sorted(peer for peer, addresses in self.links.items() if addresses and peer != asker)
        chosen = self._rng.sample(others, min(SAMPLE, len(others)))
        records = [
            messages.PeerRecord(
                key_from_peer_id(peer), [a for a in self.links[peer] if len(a) <= 256][:MAX_ADDRESSES]
            )
            for peer in chosen
        ]
        return messages.PeersReply(records, self._wall_ms())

    def _replied(self, event: Replied, now_ns: int) -> None:
        if self._asked.pop(event.tag, None) is None or not isinstance(event.message, messages.PeersReply):
            return
        for record in event.message.peers:
            peer = peer_id_from_key(record.key)
            for address in record.addresses:
                if address.endswith(f"/p2p/{peer}"):
                    self._learn(address, "sample", now_ns)
        self._compare_clock(event.peer, event.message.time_ms)

    def _compare_clock(self, peer: PeerId, time_ms: int) -> None:
        self._clock_offsets[peer] = time_ms - self._wall_ms()
        before = self.clock_off_ms
        off = int(median(self._clock_offsets.values()))
        certain = len(self._clock_offsets) >= 2
        self.clock_off_ms = off if certain and abs(off) > CLOCK_LIMIT_MS else 0
        if self.clock_off_ms and not before:
            self._out.append(Notify("clock_off", {"seconds": off // 1000, "peers": len(self._clock_offsets)}))

    def _ask_samples(self, now_ns: int) -> None:
        for peer, at in list(self._sample_at.items()):
            if at <= now_ns:
                self._sample_at[peer] = now_ns + int(SAMPLE_EVERY_S * self._rng.uniform(0.75, 1.25) * SECOND_NS)
                if len(self.links) < HIGH_LINKS and len(self._asked) < HIGH_LINKS:
                    self._tag += 1
                    self._asked[self._tag] = peer
                    self._out.append(Send(self._tag, peer, messages.PeersRequest(self._wall_ms())))

    def _pump(self, now_ns: int) -> Effects:
        if not self._stopped:
            self._ask_samples(now_ns)
            self._dial(now_ns)
        out, self._out = tuple(self._out), []
        return out
