"""Performs the effects of the cores over an overlay, a store and executors.

``Lanes`` puts the effects in order. When a ``Persist`` fails nothing is acknowledged and nothing is sent: who waits
for an answer is refused, and the core hears that its sends failed, so that it repeats them. Every core gets only
the answers to its own requests.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from sparkle_p2p.net.overlay import Overlay
from sparkle_p2p.node.lanes import Lanes
from sparkle_p2p.node.store import Store, StoreError
from sparkle_p2p.runtime.clock import boot_ns, wall_ms
from sparkle_protocol import effects as fx
from sparkle_protocol import messages
from sparkle_protocol.errors import (
    LocalProtocolError,
    PeerUnreachable,
    RemoteProtocolError,
    SparkleError,
    TransportError,
)
from sparkle_protocol.ids import JobId, PeerId, ResultHash, short_peer

log = logging.getLogger("sparkle.node")

REQUEST_TIMEOUT_S = 20.0
SERVE_TIMEOUT_S = 15.0
CONNECT_TIMEOUT_S = 10.0
STUCK_ALARM_S = 0.05  # least time between two alarms for one and the same deadline
FAILED_ALARM_S = 1.0  # pause after a core failed to handle an event
# A refusal that is about the other node's condition, not about us: asking again later may help.
TRANSIENT = frozenset({"busy", "internal", "storage", "stopping"})
FOUND_PEERS = 16
MAX_SENDS = 512  # requests under way; more fail at once and are repeated later by their core

Message = TypeVar("Message", messages.Request, messages.Reply)


class Core(Protocol):
    """A sans-I/O state machine."""

    def handle(self, event: object, now_ns: int) -> fx.Effects:
        """React to an event."""
        ...

    def next_deadline(self) -> int | None:
        """When a ``Tick`` is due."""
        ...


class Shell:
    """Runs cores. ``route`` says which core serves a request; ``extra`` performs what is not communication.

    ``refuses`` may refuse a request before a core hears of it; of a peer that is ``banned`` nothing is asked.
    """

    def __init__(
        self,
        me: PeerId,
        store: Store,
        group: asyncio.TaskGroup,
        route: Callable[[messages.Request], Core],
        extra: Callable[[fx.Effect], None],
        refuses: Callable[[messages.Request], messages.Refusal | None] = lambda message: None,
        banned: Callable[[PeerId], bool] = lambda peer: False,
    ) -> None:
        self.overlay: Overlay | None = None
        self._me = me
        self._store = store
        self._group = group
        self._route = route
        self._extra = extra
        self._refuses = refuses
        self._banned = banned
        self._waiting: dict[int, asyncio.Future[messages.Reply]] = {}
        self._token = 0
        self._sends = 0
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._unarmed: dict[int, Core] = {}  # heard something in this turn of the loop
        self._rang: dict[int, int] = {}  # the deadline of each core's latest alarm
        self._lanes: Lanes[Core] = Lanes(store, self, extra, self._spawn)
        self._stopped = False

    # --- driving the cores --------------------------------------------------------------------------------

    def tell(self, core: Core, event: object) -> None:
        """Give a core an event and perform what it wants done; a failure is our bug, logged, and hurts only this."""
        if self._stopped:
            return
        try:
            effects = core.handle(event, boot_ns())
        except Exception:
            log.exception("%s failed to handle a %s", type(core).__name__, type(event).__name__)
            self._unarmed.pop(id(core), None)
            self.arm(core, at_least_s=FAILED_ALARM_S)
            return
        self.perform(core, effects)

    def perform(self, core: Core, effects: fx.Effects) -> None:
        """Perform a batch; what has to wait for the disk follows in the background."""
        if self._stopped:
            return
        self._lanes.perform(core, effects)
        self._arm_soon(core)

    async def perform_durably(self, core: Core, effects: fx.Effects, *, keep: bool = True) -> None:
        """Perform a batch and return when its records are on disk.

        Args:
            core: whose effects these are.
            effects: what to perform.
            keep: after a failure write the records later; otherwise the batch has then never happened.

        Raises:
            StoreError: they could not be written now.
        """
        if self._stopped:
            raise StoreError("this node is stopping; try again when it is back")
        done = self._lanes.perform_durably(core, effects, keep=keep)
        self.arm(core)
        await done

    def _arm_soon(self, core: Core) -> None:
        """Set the core's alarm once it has heard all that this turn of the loop brings."""
        if not self._unarmed:
            asyncio.get_running_loop().call_soon(self._arm_all)
        self._unarmed[id(core)] = core

    def _arm_all(self) -> None:
        cores = [*self._unarmed.values()]
        self._unarmed.clear()
        for core in cores:
            self.arm(core)

    def arm(self, core: Core, at_least_s: float = 0.0) -> None:
        """Set the core's alarm to its next deadline."""
        handle = self._timers.pop(id(core), None)
        if handle is not None:
            handle.cancel()
        due = core.next_deadline()
        if due is None or self._stopped:
            return
        delay_s = max(at_least_s, (due - boot_ns()) / 1e9)
        if due <= self._rang.get(id(core), -1):  # it left its deadline where it was: that must not eat a processor
            delay_s = max(delay_s, STUCK_ALARM_S)
        self._timers[id(core)] = asyncio.get_running_loop().call_later(delay_s, self._ring, core, due)

    def _ring(self, core: Core, due: int) -> None:
        self._rang[id(core)] = due
        self.tell(core, fx.Tick())

    def stop(self) -> None:
        """Perform nothing any more; whoever still waits for an answer gets a refusal."""
        self._stopped = True
        self._lanes.stop()
        for handle in self._timers.values():
            handle.cancel()
        self._timers.clear()
        for token in list(self._waiting):
            self._answer(token, messages.Refusal("stopping", "this node is leaving"))

    # --- effects ------------------------------------------------------------------------------------------

    def perform_one(self, core: Core, effect: fx.Effect) -> None:
        """Perform an effect whose turn has come."""
        if isinstance(effect, fx.Reply):
            if effect.attach:
                self._spawn(self._answer_with_results(effect), "answer with results")
            else:
                self._answer(effect.token, effect.message)
        elif isinstance(effect, fx.Send):
            self._send(core, effect)
        elif isinstance(effect, fx.Dial):
            self._spawn(self._dial(core, effect), "dial")
        elif isinstance(effect, fx.Hangup):
            self._quietly(lambda overlay: overlay.disconnect(effect.peer), "hang up")
        elif isinstance(effect, fx.Publish):
            self._quietly(lambda overlay: overlay.publish(effect.topic, effect.payload), "publish")
        elif isinstance(effect, fx.Provide):
            self._quietly(lambda overlay: overlay.provide(effect.key), "provide")
        elif isinstance(effect, fx.FindProviders):
            self._quietly(lambda overlay: self._find(overlay, effect.key), "look up work")
        elif isinstance(effect, fx.FindPeers):
            self._spawn(self._find_peers(core, effect), "look for peers")
        elif isinstance(effect, fx.RememberPeer):
            self._spawn(self._remember(effect), "remember")
        else:
            self._extra(effect)

    def fail_one(self, core: Core, effect: fx.Effect, reason: str) -> None:
        """What an effect rests on is not on disk: whoever waits for it hears so."""
        if isinstance(effect, fx.Reply):
            self._answer(effect.token, messages.Refusal("storage", "this node cannot write to its disk"))
        elif isinstance(effect, fx.Send):
            self._tell_soon(core, fx.SendFailed(effect.tag, effect.peer, reason))
        elif isinstance(effect, fx.Compute):
            failed = fx.ComputeFailed(effect.job, effect.unit, effect.epoch, "refused", reason, blame=False)
            self._tell_soon(core, failed)
        else:
            self.perform_one(core, effect)

    def _tell_soon(self, core: Core, event: object) -> None:
        asyncio.get_running_loop().call_soon(self.tell, core, event)

    def _spawn(self, work: Awaitable[None], name: str) -> None:
        """Run in the background; a failure here is a bug of ours: logged, and the node lives on."""

        async def run() -> None:
            try:
                await work
            except Exception:
                log.exception("'%s' failed unexpectedly", name)

        self._group.create_task(run(), name=name)

    def _quietly(self, call: Callable[[Overlay], Awaitable[None]], what: str) -> None:
        """Best effort: the cores repeat what matters."""
        overlay = self.overlay
        if overlay is None:
            return

        async def run() -> None:
            try:
                await call(overlay)
            except SparkleError as error:
                log.debug("could not %s: %s", what, error)

        self._spawn(run(), what)

    async def _find(self, overlay: Overlay, key: bytes) -> None:
        linked = {link.peer for link in overlay.links()} | {self._me}
        for peer in await overlay.providers(key):
            if peer not in linked:
                with contextlib.suppress(SparkleError):  # the next one may answer
                    await overlay.connect_peer(peer, timeout_s=CONNECT_TIMEOUT_S)

    async def _find_peers(self, core: Core, effect: fx.FindPeers) -> None:
        peers: tuple[PeerId, ...] = ()
        if self.overlay is not None:
            with contextlib.suppress(SparkleError):
                peers = await self.overlay.closest(effect.key, FOUND_PEERS)
        self.tell(core, fx.FoundPeers(effect.tag, tuple(peer for peer in peers if peer != self._me)))

    async def _remember(self, effect: fx.RememberPeer) -> None:
        try:
            await self._store.remember_peer(effect.peer, effect.addresses, wall_ms() // 1000)
        except StoreError as error:
            log.warning("could not remember a peer: %s", error)

    async def _dial(self, core: Core, effect: fx.Dial) -> None:
        peer, reason = None, "the network is not up"
        if self.overlay is not None:
            try:
                peer = await self.overlay.connect(effect.address, timeout_s=CONNECT_TIMEOUT_S)
            except SparkleError as error:
                reason = str(error)
        self.tell(core, fx.Dialled(effect.tag, effect.address, peer, reason))

    # --- requests -----------------------------------------------------------------------------------------

    def _send(self, core: Core, effect: fx.Send) -> None:
        if self._sends >= MAX_SENDS:
            self._tell_soon(core, fx.SendFailed(effect.tag, effect.peer, "too many requests under way"))
            return
        self._sends += 1
        self._spawn(self._request(core, effect), f"ask {short_peer(effect.peer)}")

    async def _request(self, core: Core, effect: fx.Send) -> None:
        event: object = fx.SendFailed(effect.tag, effect.peer, "this node failed to ask")
        try:
            message = await self._filled(effect.message, effect.attach)
            if effect.peer == self._me:
                reply = await self.serve_message(self._me, message)
            else:
                reply = await self._ask(effect.peer, message)
            if isinstance(reply, messages.Refusal) and reply.code in TRANSIENT:
                event = fx.SendFailed(effect.tag, effect.peer, reply.text)
            else:
                event = fx.Replied(effect.tag, effect.peer, reply)
        except SparkleError as error:
            event = fx.SendFailed(effect.tag, effect.peer, str(error))
        except Exception:
            log.exception("sending a %s failed", type(effect.message).__name__)
        finally:
            self._sends -= 1
        self.tell(core, event)

    async def _filled(self, message: Message, names: tuple[ResultHash, ...]) -> Message:
        """The message with stored results put in."""
        if names and isinstance(message, messages.Push | messages.FetchReply):
            return messages.with_results(message, await self._store.results_there(JobId(message.job), names))
        return message

    async def _answer_with_results(self, effect: fx.Reply) -> None:
        try:
            self._answer(effect.token, await self._filled(effect.message, effect.attach))
        except StoreError:
            self._answer(effect.token, messages.Refusal("storage", "this node cannot read its disk"))

    async def _ask(self, peer: PeerId, message: messages.Request) -> messages.Reply:
        if self.overlay is None:
            raise TransportError("the network is not up")
        if self._banned(peer):  # to ask would be to connect, which is to hear of a peer to be asked, and so on
            raise PeerUnreachable("it broke too many rules and is left alone for a while")
        if not any(link.peer == peer for link in self.overlay.links()):
            await self.overlay.connect_peer(peer, timeout_s=CONNECT_TIMEOUT_S)
        payload = messages.encode_message(message)
        answer = await self.overlay.request(peer, payload, timeout_s=REQUEST_TIMEOUT_S)
        try:
            return messages.decode_reply(answer)
        except RemoteProtocolError as error:
            self._extra(fx.Violation(peer, str(error)))
            raise

    async def serve(self, peer: PeerId, payload: bytes) -> bytes:
        """Answer a peer's request. Raises RemoteProtocolError for nonsense, which the overlay records."""
        return messages.encode_message(await self.serve_message(peer, messages.decode_request(payload)))

    async def serve_message(self, peer: PeerId, message: messages.Request) -> messages.Reply:
        """Answer a peer's request that was decoded."""
        if self._stopped:
            return messages.Refusal("stopping", "this node is leaving")
        if self._store.crowded:  # what a core has heard of it must keep: better it hears no more
            return messages.Refusal("storage", "the disk of this node does not keep up")
        refusal = self._refuses(message)
        if refusal is not None:
            return refusal
        self._token += 1
        token = self._token
        answer: asyncio.Future[messages.Reply] = asyncio.get_running_loop().create_future()
        self._waiting[token] = answer
        try:
            core = self._route(message)
            self.perform(core, core.handle(fx.Requested(token, peer, message), boot_ns()))
            async with asyncio.timeout(SERVE_TIMEOUT_S):
                return await answer
        except TimeoutError:
            return messages.Refusal("busy", "this node could not answer in time")
        except LocalProtocolError:
            log.exception("serving a %s failed", type(message).__name__)
            return messages.Refusal("internal", "this node failed to answer")
        finally:
            self._waiting.pop(token, None)

    def _answer(self, token: int, message: messages.Reply) -> None:
        waiting = self._waiting.get(token)
        if waiting is not None and not waiting.done():
            waiting.set_result(message)
