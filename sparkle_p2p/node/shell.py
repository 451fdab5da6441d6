"""Performs the effects of the cores over an overlay, a store and executors.

What stands after a ``Persist`` in a batch waits until that is on disk; other batches go on meanwhile, so that one
flush serves many. A batch whose ``Persist`` fails is not performed further: nothing is acknowledged that is not
kept. Every core gets only the answers to its own requests.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from sparkle_p2p.net.overlay import Overlay
from sparkle_p2p.node.store import Store, StoreError
from sparkle_p2p.runtime.clock import boot_ns, wall_ms
from sparkle_protocol import effects as fx
from sparkle_protocol import messages
from sparkle_protocol.errors import LocalProtocolError, RemoteProtocolError, SparkleError, TransportError
from sparkle_protocol.ids import PeerId, short_peer

log = logging.getLogger("sparkle.node")

REQUEST_TIMEOUT_S = 20.0
SERVE_TIMEOUT_S = 15.0
CONNECT_TIMEOUT_S = 10.0
MAX_SENDS = 512  # requests under way; more fail at once and are repeated later by their core


class Core(Protocol):
    """A sans-I/O state machine."""

    def handle(self, event: object, now_ns: int) -> fx.Effects:
        """React to an event."""
        ...

    def next_deadline(self) -> int | None:
        """When a ``Tick`` is due."""
        ...


class Shell:
    """Runs cores. ``route`` says which core serves a request; ``extra`` performs what is not communication."""

    def __init__(
        self,
        me: PeerId,
        store: Store,
        group: asyncio.TaskGroup,
        route: Callable[[messages.Request], Core],
        extra: Callable[[fx.Effect], None],
    ) -> None:
        self.overlay: Overlay | None = None
        self._me = me
        self._store = store
        self._group = group
        self._route = route
        self._extra = extra
        self._waiting: dict[int, asyncio.Future[messages.Reply]] = {}
        self._token = 0
        self._sends = 0
        self._timers: dict[int, asyncio.TimerHandle] = {}

    # --- driving the cores --------------------------------------------------------------------------------

    def tell(self, core: Core, event: object) -> None:
        """Give a core an event and perform what it wants done."""
        self.perform(core, core.handle(event, boot_ns()))

    def perform(self, core: Core, effects: fx.Effects) -> None:
        """Perform a batch in the background."""
        for position, effect in enumerate(effects):
            if isinstance(effect, fx.Persist):
                self._spawn(self._perform_rest(core, effects[position:]), "persist")
                break
            self._perform_one(core, effect)
        self.arm(core)

    async def perform_durably(self, core: Core, effects: fx.Effects) -> None:
        """Perform a batch and return when its records are on disk. Raises StoreError."""
        await self._perform_rest(core, effects, strict=True)
        self.arm(core)

    async def _perform_rest(self, core: Core, effects: fx.Effects, *, strict: bool = False) -> None:
        for position, effect in enumerate(effects):
            if not isinstance(effect, fx.Persist):
                self._perform_one(core, effect)
                continue
            try:
                await self._store.write(effect.records)
            except StoreError as error:
                self._extra(fx.Notify("storage_failed", {"reason": str(error)}))
                self._refuse(core, effects[position:], str(error))
                if strict:
                    raise
                return

    def _refuse(self, core: Core, effects: fx.Effects, reason: str) -> None:
        for effect in effects:
            if isinstance(effect, fx.Reply):
                self._answer(effect.token, messages.Refusal("storage", reason[:400]))
            elif isinstance(effect, fx.Send):  # its core repeats it later, with what must be kept before it
                self.tell(core, fx.SendFailed(effect.tag, effect.peer, reason))

    def arm(self, core: Core) -> None:
        """Set the core's alarm to its next deadline."""
        handle = self._timers.pop(id(core), None)
        if handle is not None:
            handle.cancel()
        due = core.next_deadline()
        if due is not None:
            delay_s = max(0.0, (due - boot_ns()) / 1e9)
            loop = asyncio.get_running_loop()
            self._timers[id(core)] = loop.call_later(delay_s, self.tell, core, fx.Tick())

    def stop(self) -> None:
        """No alarms any more."""
        for handle in self._timers.values():
            handle.cancel()
        self._timers.clear()

    # --- effects ------------------------------------------------------------------------------------------

    def _perform_one(self, core: Core, effect: fx.Effect) -> None:
        if isinstance(effect, fx.Reply):
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
        elif isinstance(effect, fx.RememberPeer):
            self._spawn(self._remember(effect), "remember")
        else:
            self._extra(effect)

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
                await overlay.connect_peer(peer, timeout_s=CONNECT_TIMEOUT_S)

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
            loop = asyncio.get_running_loop()
            loop.call_soon(self.tell, core, fx.SendFailed(effect.tag, effect.peer, "too many requests under way"))
            return
        self._sends += 1
        self._spawn(self._request(core, effect), f"ask {short_peer(effect.peer)}")

    async def _request(self, core: Core, effect: fx.Send) -> None:
        event: object
        try:
            if effect.peer == self._me:
                reply = await self._serve_local(effect.message)
            else:
                reply = await self._ask(effect.peer, effect.message)
            event = fx.Replied(effect.tag, effect.peer, reply)
        except RemoteProtocolError as error:
            self._extra(fx.Violation(effect.peer, str(error)))
            event = fx.SendFailed(effect.tag, effect.peer, str(error))
        except SparkleError as error:
            event = fx.SendFailed(effect.tag, effect.peer, str(error))
        finally:
            self._sends -= 1
        self.tell(core, event)

    async def _ask(self, peer: PeerId, message: messages.Request) -> messages.Reply:
        if self.overlay is None:
            raise TransportError("the network is not up")
        if not any(link.peer == peer for link in self.overlay.links()):
            await self.overlay.connect_peer(peer, timeout_s=CONNECT_TIMEOUT_S)
        payload = messages.encode_message(message)
        return messages.decode_reply(await self.overlay.request(peer, payload, timeout_s=REQUEST_TIMEOUT_S))

    async def _serve_local(self, message: messages.Request) -> messages.Reply:
        return await self._serve_message(self._me, message)

    async def serve(self, peer: PeerId, payload: bytes) -> bytes:
        """Answer a peer's request. Raises RemoteProtocolError for nonsense, which the overlay records."""
        return messages.encode_message(await self._serve_message(peer, messages.decode_request(payload)))

    async def _serve_message(self, peer: PeerId, message: messages.Request) -> messages.Reply:
        self._token += 1
        token = self._token
        answer: asyncio.Future[messages.Reply] = asyncio.get_running_loop().create_future()
        self._waiting[token] = answer
        try:
            self.tell(self._route(message), fx.Requested(token, peer, message))
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
