"""What a life of a simulated node asks others and answers: time-outs, limits and refusals as in the node's shell.

Requests end with an answer, a refusal that counts as a failure, a lost connection or after ``REQUEST_TIMEOUT_NS``.
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from sparkle_protocol import effects as fx
from sparkle_protocol import messages
from sparkle_protocol.errors import RemoteProtocolError
from sparkle_protocol.ids import JobId
from sparkle_protocol.ledger_messages import EntriesRequest, HeadsRequest, LedgerPush, ProofRequest
from sparkle_sim.kernel import SECOND

if TYPE_CHECKING:
    from sparkle_sim.peer import Peer

REQUEST_TIMEOUT_NS = 20 * SECOND
MAX_SENDS = 512  # requests without an answer; further ones fail
TRANSIENT = frozenset({"busy", "internal", "storage", "stopping"})
MEMBERSHIP, SUBMITTER, WORKER, LEDGER = range(4)  # the cores of a node; the last one only where there is credit


_CORES = {  # else the submitter
    messages.Offer: WORKER,
    messages.Notice: WORKER,
    messages.PeersRequest: MEMBERSHIP,
    HeadsRequest: LEDGER,
    EntriesRequest: LEDGER,
    LedgerPush: LEDGER,
    ProofRequest: LEDGER,
}


@dataclass(slots=True)
class _Asked:
    """A request of ours that has no answer yet."""

    core: int
    tag: int
    peer: int
    until_ns: int


class Requests:
    """Of one life; they are forgotten with it.

    Args:
        peer: whose.
        first: numbers above this name its requests and tokens; another life uses others.
    """

    __slots__ = ("_count", "_peer", "_timing", "_world", "asked", "served")

    def __init__(self, peer: "Peer", first: int) -> None:
        self.asked: dict[int, _Asked] = {}  # in the order in which they run out
        self.served: dict[int, tuple[int, int]] = {}  # asker and its request, by our token
        self._peer = peer
        self._world = peer.world
        self._count = first
        self._timing = False  # an event looks after requests that run out

    @property
    def _alive(self) -> bool:
        life = self._peer.life
        return life is not None and life.requests is self

    # --- asking -----------------------------------------------------------------------------------------------

    def send(self, core: int, effect: fx.Send) -> None:
        """Ask, after connecting if need be."""
        world, number = self._world, self._peer.number
        target = world.index[effect.peer]
        self._count += 1
        request = self._count
        self.asked[request] = _Asked(core, effect.tag, target, world.kernel.now + REQUEST_TIMEOUT_NS)
        if self._peer.membership.banned(effect.peer, self._peer.now()):
            self._fail(request, "it broke too many rules")
            return
        if len(self.asked) > MAX_SENDS:
            self._fail(request, "too many requests under way")
            return
        if not self._timing:
            self._timing = True
            world.kernel.after(REQUEST_TIMEOUT_NS, self._look)
        message: messages.Request = effect.message
        if effect.attach and isinstance(message, messages.Push):
            message = messages.with_results(message, self._peer.disk.results_there(JobId(message.job), effect.attach))
        raw = messages.encode_message(message)
        world.note(number, f"send {type(message).__name__}", str(target))
        if target == number or world.network.connected(number, target):
            self._ask(request, target, message, raw)
        else:
            world.network.dial(number, target, partial(self._dialled, request, target, message, raw))

    def _dialled(self, request: int, target: int, message: messages.Request, raw: bytes, worked: bool) -> None:
        if not self._alive or request not in self.asked:
            return
        if worked:
            self._ask(request, target, message, raw)
        else:
            self._fail(request, "it cannot be reached")

    def say_raw(self, target: int, raw: bytes) -> None:
        """Send anything at all over a connection that there is, and never mind the answer."""
        if self._world.network.connected(self._peer.number, target):
            self._count += 1
            self._ask(self._count, target, None, raw)

    def _ask(self, request: int, target: int, message: messages.Request | None, raw: bytes) -> None:
        network, number = self._world.network, self._peer.number
        for _ in range(2 if target != number and network.arrives_twice(number) else 1):
            network.send(number, target, self._world.peers[target].asked_by, number, request, message, raw)

    def _look(self) -> None:
        """Requests run out in the order in which they were made."""
        if not self._alive:
            return
        if self._peer.frozen:
            self._peer.postpone(self._look)
            return
        now = self._world.kernel.now
        while self.asked:
            request, asked = next(iter(self.asked.items()))
            if asked.until_ns > now:
                self._world.kernel.at(asked.until_ns, self._look)
                return
            self._fail(request, "it did not answer in time")
        self._timing = False

    def lost(self, other: int) -> None:
        """A connection is gone, and with it what was asked over it."""
        for request in [number for number, asked in self.asked.items() if asked.peer == other]:
            self._fail(request, "the connection was lost")

    def _fail(self, request: int, reason: str) -> None:
        asked = self.asked.pop(request)
        event = fx.SendFailed(asked.tag, self._world.peers[asked.peer].id, reason)
        self._peer.arrive(self._peer.tell, asked.core, event)

    def take_answer(self, request: int, message: messages.Reply | None, raw: bytes) -> None:
        """Tell the core that asked what was answered."""
        asked = self.asked.get(request)
        if asked is None:  # too late, or it came twice
            return
        peer = self._world.peers[asked.peer].id
        try:
            reply = self._world.wire.reply(message, raw)
        except RemoteProtocolError as error:
            self._fail(request, str(error))
            self._peer.perform(asked.core, fx.Violation(peer, str(error)))
            return
        if type(reply) is messages.Refusal and reply.code in TRANSIENT:
            self._fail(request, reply.text)
            return
        del self.asked[request]
        self._peer.tell(asked.core, fx.Replied(asked.tag, peer, reply))

    # --- answering --------------------------------------------------------------------------------------------

    def serve(self, asker: int, request: int, message: messages.Request | None, raw: bytes) -> None:
        """Tell the core whom a request is for."""
        peer = self._world.peers[asker].id
        if self._peer.membership.banned(peer, self._peer.now()):
            self._answer(asker, request, messages.Refusal("banned", "too many rule violations"))
            return
        try:
            asked = self._world.wire.request(message, raw)
        except RemoteProtocolError as error:
            self._peer.perform(MEMBERSHIP, fx.Violation(peer, str(error)))
            return
        self._count += 1
        self.served[self._count] = asker, request
        core = _CORES.get(type(asked), SUBMITTER)
        if core == LEDGER and not self._peer.has_credit:
            core = SUBMITTER
        self._peer.tell(core, fx.Requested(self._count, peer, asked))

    def reply(self, effect: fx.Reply) -> None:
        """Answer."""
        asked = self.served.pop(effect.token, None)
        if asked is None:
            return
        message = effect.message
        if effect.attach and isinstance(message, messages.FetchReply):
            message = messages.with_results(message, self._peer.disk.results_there(JobId(message.job), effect.attach))
        self._answer(*asked, message)

    def _answer(self, asker: int, request: int, message: messages.Reply) -> None:
        world, number = self._world, self._peer.number
        world.note(number, f"reply {type(message).__name__}", str(asker))
        raw = messages.encode_message(message)
        world.network.send(number, asker, world.peers[asker].answered, request, message, raw)
