"""Whether somebody else runs with our key, proven without clocks and without believing strangers.

Rules
-----
- Each run of a node draws a random *instance*. It tells a few peers of it (``Here``), the same ones in every run as
  far as they are there: those that rank first by a hash of both ids, and those nearest to its own key.
- Whoever is told remembers for ``KEEP_NS`` which instances of a peer spoke up, and answers with the others. When a
  further one speaks up it asks the peer, by whatever connection it has, to ask again at once.
- An instance that hears of another one signs a *statement*: "I, this instance, have heard of that one". An instance
  is random and new, so whoever names it was alive after it began.
- A node is *cloned* once it holds a statement that is signed with its own key by another instance and names its own
  one: only a holder of the key can have made that, and after this run began. A restart never leads to one, since the
  run before has ended; neither does anything that strangers say, replay or leave out.
- For others the proof is a pair of statements that name each other: both instances were alive at one time.
- Being cloned lasts until the node is started anew: only then can it be known that the other one is gone.

What is not seen: two machines that share no peer at all, and a virtual machine that was copied while it ran, until
one of the two is started anew.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import nsmallest
from typing import Annotated

from msgspec import Meta

from sparkle_protocol import effects as fx
from sparkle_protocol import messages
from sparkle_protocol.codec import Wire, decode, encode
from sparkle_protocol.errors import RemoteProtocolError
from sparkle_protocol.facts import Key32, Signer, Verify
from sparkle_protocol.identity import verify_signature
from sparkle_protocol.ids import PeerId, digest, key_from_peer_id

SECOND_NS = 1_000_000_000
DOMAIN = b"sparkle/presence/1\x00"
STATEMENT_VERSION = 1
FIRST_NS = 1 * SECOND_NS  # after a peer came up
EVERY_NS = 20 * SECOND_NS
SOON_NS = 2 * SECOND_NS  # while another instance seems to be there
SOON_TIMES = 60  # so often in a run at most: a peer that makes instances up must not have us ask for ever
LOOK_UP_NS = 600 * SECOND_NS
KEEP_NS = 600 * SECOND_NS
MEETINGS = 4  # peers that are told
NEAREST = 2  # further ones, nearest to our own id in the whole network
MAX_INSTANCES = 4  # of one peer; the longest silent goes
MAX_PEERS = 1024  # remembered; the longest silent goes


class Statement(Wire, frozen=True):
    """``instance`` of the author says that it has heard of ``heard``, another one of the same author."""

    version: Annotated[int, Meta(ge=1, le=1)]
    network: Annotated[str, Meta(max_length=64)]
    key: Key32
    instance: messages.Instance
    heard: messages.Instance
    time_ms: Annotated[int, Meta(ge=0, lt=1 << 53)]  # of the author's clock; for people, decides nothing


class _Sealed(Wire, frozen=True):
    body: Annotated[bytes, Meta(max_length=messages.MAX_STATEMENT_BYTES)]
    signature: Annotated[bytes, Meta(min_length=64, max_length=64)]


@dataclass(frozen=True, slots=True)
class Clone:
    """Two instances of one peer that ran at the same time, and what shows it: signed statements."""

    peer: PeerId
    statements: tuple[bytes, ...]


@dataclass(slots=True)
class Seen:
    """An instance of a peer that spoke up here."""

    at_ns: int
    statements: dict[bytes, bytes] = field(default_factory=dict)  # raw, by the instance that they name


def seal_statement(signer: Signer, network: str, instance: bytes, heard: bytes, time_ms: int) -> bytes:
    """The signed statement of ``instance`` that it has heard of ``heard``."""
    body = encode(Statement(STATEMENT_VERSION, network, signer.public_key, instance, heard, max(0, time_ms)))
    return encode(_Sealed(body, signer.sign(DOMAIN + body)))


def open_statement(raw: bytes, peer: PeerId, network: str, verify: Verify = verify_signature) -> Statement:
    """The statement of ``peer`` in ``raw``.

    Raises:
        RemoteProtocolError: it is malformed, of somebody else or another network, or names its own instance.
    """
    sealed = decode(raw, _Sealed, max_bytes=messages.MAX_STATEMENT_BYTES)
    statement = decode(sealed.body, Statement, max_bytes=messages.MAX_STATEMENT_BYTES)
    if statement.key != key_from_peer_id(peer):
        raise RemoteProtocolError("a statement about instances is by another peer")
    if statement.network != network:
        raise RemoteProtocolError("a statement about instances is of another network")
    if statement.instance == statement.heard:
        raise RemoteProtocolError("a statement about instances names its own one")
    verify(statement.key, sealed.signature, DOMAIN + sealed.body)
    return statement


class Presence:
    """Tells peers that this run is there, remembers which runs of theirs are, and knows who is cloned.

    Args:
        signer: the node's identity.
        network: its name.
        instance: ``messages.INSTANCE_BYTES`` random bytes, drawn for this run.
        wall_ms: the wall clock, for people.
    """

    def __init__(
        self,
        signer: Signer,
        network: str,
        instance: bytes,
        wall_ms: Callable[[], int],
        verify: Verify = verify_signature,
    ) -> None:
        self.instance = instance
        self.clones: dict[PeerId, Clone] = {}  # whose identity is proven to run twice, ours included
        self.elsewhere: str | None = None  # where somebody on this network says that our id is; no proof of anything
        self.own_addresses: Callable[[], tuple[str, ...]] = tuple
        self._signer = signer
        self._network = network
        self._wall_ms = wall_ms
        self._verify = verify
        self._linked: dict[PeerId, int] = {}  # when each is told next
        self._meetings: tuple[PeerId, ...] = ()  # of these, who is told
        self._nearest: tuple[PeerId, ...] = ()
        self._nearest_due_ns = 0
        self._look_up_ns: int | None = None
        self._asked: dict[int, PeerId] = {}
        self._told: dict[PeerId, tuple[bytes, bytes]] = {}  # the instance that a peer told of, and what we say of it
        self._heard: dict[PeerId, dict[bytes, Seen]] = {}
        self._hurries = 0
        self._tag = 0
        self._out: list[fx.Effect] = []

    @property
    def cloned(self) -> Clone | None:
        """What shows that somebody else runs with our key."""
        return self.clones.get(self._signer.peer_id)

    def handle(self, event: object, now_ns: int) -> fx.Effects:
        """React to an event; those that do not concern presence change nothing."""
        if isinstance(event, fx.PeerUp):
            self._linked[event.peer] = now_ns + FIRST_NS
            self._choose()
            if self._look_up_ns is None:
                self._look_up_ns = now_ns + EVERY_NS
        elif isinstance(event, fx.PeerDown):
            self._linked.pop(event.peer, None)
            self._told.pop(event.peer, None)
            self._choose()
        elif isinstance(event, fx.Requested) and isinstance(event.message, messages.Here):
            self._requested(event.token, event.peer, event.message, now_ns)
        elif isinstance(event, fx.Replied):
            self._replied(event, now_ns)
        elif isinstance(event, fx.SendFailed):
            self._asked.pop(event.tag, None)
        elif isinstance(event, fx.FoundPeers):
            self._nearest, self._nearest_due_ns = event.peers[:NEAREST], now_ns
        elif isinstance(event, fx.Discovered):
            self._discovered(event)
        elif not isinstance(event, fx.Tick):
            return ()
        self._tell(now_ns)
        out, self._out = tuple(self._out), []
        return out

    def next_deadline(self) -> int | None:
        """When ``Tick`` is due."""
        dues = [self._linked[peer] for peer in self._meetings]
        if self._look_up_ns is not None and self._linked:
            dues.append(self._look_up_ns)
            dues += [self._nearest_due_ns] if self._nearest else []
        return min(dues, default=None)

    # --- telling ------------------------------------------------------------------------------------------

    def _choose(self) -> None:
        """Choose whom to tell: whoever has our key and the same peers chooses the same ones."""
        own = self._signer.public_key

        def rank(peer: PeerId) -> bytes:
            return digest(DOMAIN, own, peer.encode())

        self._meetings = tuple(nsmallest(MEETINGS, self._linked, key=rank))

    def _tell(self, now_ns: int) -> None:
        if not self._linked:
            return
        for peer in self._meetings:
            if self._linked[peer] <= now_ns:
                self._linked[peer] = now_ns + EVERY_NS
                self._send(peer)
        if self._look_up_ns is not None and self._look_up_ns <= now_ns:
            self._look_up_ns = now_ns + LOOK_UP_NS
            self._tag += 1
            self._out.append(fx.FindPeers(self._tag, self._signer.public_key))
        if self._nearest and self._nearest_due_ns <= now_ns:
            self._nearest_due_ns = now_ns + EVERY_NS
            for peer in self._nearest:
                if peer not in self._meetings and peer != self._signer.peer_id:
                    self._send(peer)

    def _send(self, peer: PeerId, *, ask: bool = False) -> None:
        if len(self._asked) >= 4 * MEETINGS:  # their answers are overdue; the oldest is not waited for
            del self._asked[next(iter(self._asked))]
        self._tag += 1
        self._asked[self._tag] = peer
        _, statement = self._told.get(peer, (b"", b""))
        self._out.append(fx.Send(self._tag, peer, messages.Here(self.instance, statement, ask)))

    def _replied(self, event: fx.Replied, now_ns: int) -> None:
        if self._asked.pop(event.tag, None) != event.peer or not isinstance(event.message, messages.HereReply):
            return
        reply = event.message
        others = [other for other in reply.others if other != self.instance]
        if not others or (reply.statement and not self._believe(event.peer, reply.statement)):
            return
        known = self._told.get(event.peer)
        if known is None or known[0] != others[0]:
            raw = seal_statement(self._signer, self._network, self.instance, others[0], self._wall_ms())
            self._told[event.peer] = (others[0], raw)
            self._hurry(event.peer, now_ns)
        elif self.cloned is None:
            self._hurry(event.peer, now_ns + SOON_NS)

    def _hurry(self, peer: PeerId, at_ns: int) -> None:
        """Tell a peer soon, and hear what it has to say then."""
        self._hurries += 1
        if self._hurries > SOON_TIMES:
            return
        if peer in self._linked:
            self._linked[peer] = min(self._linked[peer], at_ns)
        elif peer in self._nearest:
            self._nearest_due_ns = min(self._nearest_due_ns, at_ns)

    def _believe(self, teller: PeerId, raw: bytes) -> bool:
        """See whether a statement proves that we are cloned; False: the one who told it breaks the rules."""
        me = self._signer.peer_id
        try:
            statement = open_statement(raw, me, self._network, self._verify)
        except RemoteProtocolError as error:
            self._out.append(fx.Violation(teller, str(error)))
            return False
        if statement.heard != self.instance or statement.instance == self.instance or me in self.clones:
            return True  # of a run before this one, or our own: proves nothing
        self.clones[me] = Clone(me, (raw,))
        fields: dict[str, fx.Value] = {"peer": me, "told_by": teller, "time_ms": statement.time_ms}
        self._out.append(fx.Notify("cloned", fields))
        return True

    def _discovered(self, event: fx.Discovered) -> None:
        """Somebody on the local network says that our id is at an address: to be looked at by a person."""
        if self.elsewhere is not None or not event.address.endswith(f"/p2p/{self._signer.peer_id}"):
            return
        if event.source == "mdns" and event.address not in self.own_addresses():
            self.elsewhere = event.address
            self._out.append(fx.Notify("own_id_elsewhere", {"address": event.address}))

    # --- being told ---------------------------------------------------------------------------------------

    def _requested(self, token: int, peer: PeerId, here: messages.Here, now_ns: int) -> None:
        if here.ask and peer in self._linked:
            last_ns = self._linked[peer] - EVERY_NS
            self._linked[peer] = min(self._linked[peer], max(now_ns, last_ns + SOON_NS))
        runs = self._runs(peer, now_ns)
        new = here.instance not in runs
        seen = runs.pop(here.instance, None) or Seen(now_ns)
        seen.at_ns = now_ns
        if here.statement:
            try:
                self._keep_statement(peer, here, seen)
            except RemoteProtocolError as error:
                self._out.append(fx.Reply(token, messages.Refusal("protocol", str(error)[:400])))
                self._out.append(fx.Violation(peer, str(error)))
                return
        while len(runs) >= MAX_INSTANCES:
            del runs[next(iter(runs))]
        runs[here.instance] = seen  # the latest at the end
        others = [instance for instance in reversed(runs) if instance != here.instance]
        others.sort(key=lambda instance: here.instance not in runs[instance].statements)  # who names it first
        statement = runs[others[0]].statements.get(here.instance, b"") if others else b""
        self._out.append(fx.Reply(token, messages.HereReply(others, statement)))
        if not others:
            self.clones.pop(peer, None)  # the other one has been silent for long
        elif new and peer in self._linked:
            self._send(peer, ask=True)
        for instance in others:
            naming_it, naming_other = runs[instance].statements.get(here.instance), seen.statements.get(instance)
            if naming_it and naming_other and peer not in self.clones and len(self.clones) < MAX_PEERS:
                self.clones[peer] = Clone(peer, (naming_it, naming_other))
                self._out.append(fx.Notify("peer_cloned", {"peer": peer}))

    def _keep_statement(self, peer: PeerId, here: messages.Here, seen: Seen) -> None:
        if here.statement in seen.statements.values():
            return
        statement = open_statement(here.statement, peer, self._network, self._verify)
        if statement.instance != here.instance:
            raise RemoteProtocolError("a statement about instances is by another instance than the one that shows it")
        if len(seen.statements) >= MAX_INSTANCES:
            del seen.statements[next(iter(seen.statements))]
        seen.statements[statement.heard] = here.statement

    def _runs(self, peer: PeerId, now_ns: int) -> dict[bytes, Seen]:
        """Instances of a peer that spoke up lately, the longest silent first."""
        runs = self._heard.pop(peer, {})
        while len(self._heard) >= MAX_PEERS:
            del self._heard[next(iter(self._heard))]
        runs = {instance: seen for instance, seen in runs.items() if seen.at_ns + KEEP_NS > now_ns}
        self._heard[peer] = runs
        return runs


def proves(clone: Clone, network: str, verify: Verify = verify_signature) -> bool:
    """Whether two statements name each other, so that anybody sees that both instances ran at one time."""
    try:
        first, second = (open_statement(raw, clone.peer, network, verify) for raw in clone.statements)
    except (RemoteProtocolError, ValueError):
        return False
    return (first.instance, first.heard) == (second.heard, second.instance)
