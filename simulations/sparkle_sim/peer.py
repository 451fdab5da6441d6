"""One simulated node: the production cores, and what its shell does for them on virtual time.

What ``sparkle_p2p.node.shell`` does with asyncio, a store and an overlay is done here with events of the kernel, a
``Disk`` and the models of the network; the rules (time-outs, limits, which core serves what, which refusals count as
failures) are the same. Every message costs the node's event loop time, so that a busy node answers late.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from sparkle_protocol import effects as fx
from sparkle_protocol import messages
from sparkle_protocol.errors import LocalProtocolError
from sparkle_protocol.ids import PeerId
from sparkle_protocol.membership import Membership, peer_of
from sparkle_protocol.work.submitter import Submitter
from sparkle_protocol.work.worker import WorkerAgent
from sparkle_sim.blobs import MIB, SIZES, has_blobs
from sparkle_sim.computing import Behaviour, Honest, Slots
from sparkle_sim.disk import Disk
from sparkle_sim.draws import core_draws, draws
from sparkle_sim.kernel import MS
from sparkle_sim.lanes import Lanes
from sparkle_sim.requests import LEDGER, MEMBERSHIP, SUBMITTER, WORKER, Requests

if TYPE_CHECKING:
    from sparkle_ledger.agent.core import LedgerAgent
    from sparkle_sim.world import World

FOUND_PEERS = 16
MAX_REMEMBERED = 64
HONEST = Honest()
NO_REASON: frozenset[str] = frozenset()  # one for all: an empty set takes 216 bytes

BLOB_EFFECTS = (fx.Prepare, fx.CheckUnit, fx.HoldInputs, fx.ReleaseInputs, fx.HoldResult, fx.ReleaseResults)


class Core(Protocol):
    """What decides for a node."""

    def handle(self, event: object, now_ns: int) -> fx.Effects:
        """React to an event."""
        ...

    def next_deadline(self) -> int | None:
        """When a ``Tick`` is due."""
        ...


@dataclass(frozen=True, slots=True)
class Machine:
    """What a node runs on.

    Args:
        flops_per_s: of one slot, in reference work.
        slots: units at a time.
        noise: sigma of the lognormal factor on how long a unit takes.
        event_ns: of its event loop, for each message, timer and answer.
        sync_s: shortest and longest time of a transaction of its disk.
        memory_bytes: what a unit may use.
        blobs_bytes: what blobs may take on its disk.
        drift: of its clock, as a share: 1e-5 is a second a day.
        skew_ms: how far its wall clock is off.
        device: class of device on which it computes, as it says; nothing: none.
    """

    flops_per_s: float = 2e9
    slots: int = 1
    noise: float = 0.1
    event_ns: int = MS // 4
    sync_s: tuple[float, float] = (0.001, 0.02)
    memory_bytes: int = messages.UNSAID
    blobs_bytes: int = 20480 * MIB
    drift: float = 0.0
    skew_ms: int = 0
    device: str = ""


@dataclass(slots=True)
class Life:
    """A process of the node: what is gone when it ends."""

    number: int
    cores: tuple[Core, ...]
    lanes: Lanes
    slots: Slots
    requests: Requests
    alarms: list[int | None] = field(default_factory=lambda: [None] * 4)  # when each core's next event is due


class Peer:
    """A node over all its lives."""

    __slots__ = (
        "_busy_ns", "_draws", "_frozen", "_waiting", "away", "behaviour", "bootstrap", "disk", "id", "identity",
        "life", "lives", "lost", "machine", "number", "paused", "remembered", "works", "world",
    )  # fmt: skip

    def __init__(
        self, world: "World", number: int, machine: Machine, *, works: bool = True, behaviour: Behaviour | None = None
    ) -> None:
        self.world = world
        self.number = number
        self.machine = machine
        self.works = works
        self.behaviour: Behaviour = behaviour or HONEST
        self.identity = world.identities[number]
        self.id: PeerId = self.identity.peer_id
        self.disk = Disk()
        self.remembered: dict[str, None] = {}
        self.life: Life | None = None
        self.lives = 0
        self.bootstrap: tuple[str, ...] = ()  # as its owner configured it
        self.away = NO_REASON  # why it does not run, though it did or would
        self.lost = False  # it will never be back
        self.paused = False  # its owner lets it compute nothing
        self._frozen = NO_REASON  # why its process is suspended
        self._waiting: list[tuple[Callable[..., None], tuple[Any, ...]]] = []  # for a process that is
        self._busy_ns = 0
        self._draws = draws(world.seed, number, "disk")

    # --- clocks -----------------------------------------------------------------------------------------------

    def now(self) -> int:
        """Its monotonic clock."""
        now = self.world.kernel.now
        return now if not self.machine.drift else int(now * (1.0 + self.machine.drift))

    def _real(self, own_ns: int) -> int:
        """When its monotonic clock shows this."""
        return own_ns if not self.machine.drift else int(own_ns / (1.0 + self.machine.drift)) + 1

    def wall_ms(self) -> int:
        """Its wall clock."""
        return self.world.epoch_ms + self.now() // MS + self.machine.skew_ms

    # --- life -------------------------------------------------------------------------------------------------

    @property
    def submitter(self) -> Submitter:
        """Its core for jobs; only while it is up."""
        return self._running.cores[SUBMITTER]  # type: ignore[return-value]

    @property
    def worker(self) -> WorkerAgent:
        """Its core for units; only while it is up."""
        return self._running.cores[WORKER]  # type: ignore[return-value]

    @property
    def membership(self) -> Membership:
        """Its core for connections; only while it is up."""
        return self._running.cores[MEMBERSHIP]  # type: ignore[return-value]

    @property
    def ledger(self) -> "LedgerAgent":
        """Its core for credit; only while it is up, in a world that has credit."""
        return self._running.cores[LEDGER]  # type: ignore[return-value]

    @property
    def has_credit(self) -> bool:
        """It is up, and its world has credit."""
        return self.life is not None and len(self.life.cores) > LEDGER

    @property
    def _running(self) -> Life:
        if self.life is None:
            raise LocalProtocolError(f"peer {self.number} is not up")
        return self.life

    def start(self, bootstrap: Iterable[str] = ()) -> None:
        """Begin to live, with what its disk has; unless it is kept from it, then later."""
        self.bootstrap = tuple(bootstrap) or self.bootstrap
        if self.away:
            return
        world, machine = self.world, self.machine
        self.lives += 1
        rng = core_draws(world.seed, self.number, "cores", self.lives)
        kernels = [world.kernel_key] if self.works else []
        memory_bytes = machine.memory_bytes if self.works else 0
        self.life = life = Life(
            self.lives,
            (
                Membership(self.id, rng, self.wall_ms, memory_bytes),
                Submitter(self.identity, world.codec, rng, world.check_result, rules=world.rules),
                WorkerAgent(
                    self.identity, world.codec, rng, kernels, machine.slots, machine.device, memory_bytes, world.rules
                ),
                *(world.credit.cores(self) if world.credit is not None else ()),
            ),
            Lanes(world.kernel, self.disk, self._draws, self.perform, 4, machine.sync_s),
            Slots(
                world.kernel, self._computed, self.behaviour, self._draws,
                count=machine.slots, flops_per_s=machine.flops_per_s, noise=machine.noise,
            ),
            Requests(self, self.lives << 32),
        )  # fmt: skip
        self._busy_ns = world.kernel.now
        world.note(self.number, "start", str(life.number))
        world.begins(self.number)
        self.submitter.lend(machine.blobs_bytes, SIZES)
        if self.disk.trust is not None:
            self.submitter.believe(self.disk.trust)
        self.disk.trust = self.submitter.trust
        self._restore(life)
        world.arrays.restore(self)
        self.submitter.addresses = world.addresses[self.number]
        self._effects(MEMBERSHIP, self.membership.start(self.bootstrap, tuple(self.remembered), self.now()))
        self._arm(SUBMITTER)
        self._arm(WORKER)
        if world.credit is not None:
            world.credit.begin(self)
        if self.paused:
            self._pause()

    def _restore(self, life: Life) -> None:
        """Go on with what an earlier life left (``sparkle_p2p.node.restoring``)."""
        now, key = self.now(), self.identity.public_key
        for records in list(self.disk.jobs.values()):
            spec = records.spec
            if spec is None:
                continue
            others = [fact for fact in records.facts.values() if fact is not spec]
            if spec.author == self.id or records.names(key):
                size = 0 if spec.author == self.id else sum(map(len, records.results.values()))
                stored = tuple(records.results), size, records.ranges(), 0, records.rejections()
                effects = self.submitter.restore(spec, others, now, *stored)
                self._effects(SUBMITTER, tuple(one for one in effects if not isinstance(one, fx.Notify)))
            open_ = [(unit, epoch, *kept) for (unit, epoch), kept in records.commits.items()]
            if open_:
                self._effects(WORKER, self.worker.restore(spec, others, open_, now))

    def crash(self, *, silently: bool = False) -> None:
        """The process is killed; ``silently``: the whole machine is gone, and nobody is told."""
        if self.life is None:
            return
        self.world.note(self.number, "crash")
        self.life.lanes.crash()
        if self.world.credit is not None:
            self.world.credit.crash(self)
        self.life.slots.stop()
        self.life = None
        self.world.ends(self.number)
        self._frozen = NO_REASON
        self._waiting.clear()
        self.world.network.resume(self.number, alive=False)
        self.world.network.leave(self.number, silently=silently)
        self.world.arrays.end(self)

    def leave(self, why: str, *, silently: bool = False) -> None:
        """Be gone until ``come_back`` was said for every reason to be."""
        self.away |= {why}
        self.crash(silently=silently)

    def come_back(self, why: str) -> None:
        """A reason to be gone is over."""
        self.away -= {why}
        if self.life is None and not self.away:
            self.start()

    def lose_disk(self) -> None:
        """Be gone for good, with all that was kept here."""
        self.lost = True
        self.leave("lost", silently=True)
        self.disk = Disk(self.disk.watch)

    @property
    def frozen(self) -> bool:
        """Its process is suspended."""
        return bool(self._frozen)

    def freeze(self, why: str) -> None:
        """Its process is suspended: it does nothing, what is for it waits, and its connections look alive."""
        if self.life is not None:
            self.world.note(self.number, "freeze")
            self._frozen |= {why}
            self.life.slots.suspend(why)
            self.world.network.suspend(self.number)

    def thaw(self, why: str) -> None:
        """Its process goes on with what waited, once every reason to be suspended is over."""
        life = self.life
        if life is None or why not in self._frozen:
            return
        self._frozen -= {why}
        life.slots.resume(why)
        if self._frozen:
            return
        self.world.note(self.number, "thaw")
        waiting, self._waiting = self._waiting, []
        for call, arguments in waiting:
            if call == self.perform:  # what the disk let go on comes before anything that may follow it
                call(*arguments)
            else:
                self.arrive(call, *arguments)
        self.world.network.resume(self.number)
        for core in range(len(life.cores)):
            self._arm(core)

    def pause(self) -> None:
        """Have its owner let it compute nothing, now and in later lives."""
        self.paused = True
        self.arrive(self._pause)

    def resume(self) -> None:
        """Have its owner let it compute again."""
        self.paused = False
        self.arrive(self._resume)

    def _pause(self) -> None:
        self._running.slots.suspend("paused")
        if not self.worker.paused:
            self._effects(WORKER, self.worker.pause(self.now()))

    def _resume(self) -> None:
        self._running.slots.resume("paused")
        if self.worker.paused:
            self._effects(WORKER, self.worker.resume(self.now()))

    def postpone(self, call: Callable[..., None], *arguments: object) -> None:
        """Have a suspended process do something when it goes on."""
        self._waiting.append((call, arguments))

    # --- events -----------------------------------------------------------------------------------------------

    def arrive(self, call: Callable[..., None], *arguments: object) -> None:
        """Have its event loop do something as soon as it gets to that, if it lives till then."""
        life = self.life
        if life is None:
            return
        if self._frozen:
            self._waiting.append((call, arguments))
            return
        now = self.world.kernel.now
        start = max(now, self._busy_ns)
        self._busy_ns = start + self.machine.event_ns
        if start > now:
            self.world.kernel.at(start, self._if_alive, life, call, arguments)
        else:
            call(*arguments)

    def _if_alive(self, life: Life, call: Callable[..., None], arguments: tuple[object, ...]) -> None:
        if self.life is not life:
            return
        if self._frozen:
            self._waiting.append((call, arguments))
        else:
            call(*arguments)

    def tell(self, core: int, event: object) -> None:
        """Give a core an event and perform what it wants done."""
        life = self.life
        if life is not None:
            self._effects(core, life.cores[core].handle(event, self.now()))

    def tell_all(self, event: object) -> None:
        """Give all cores an event."""
        for core in range(len(self.life.cores) if self.life is not None else 0):
            self.tell(core, event)

    def command(self, make: Callable[[Submitter, int], fx.Effects]) -> None:
        """Have its owner ask something of the submitter."""
        self._effects(SUBMITTER, make(self.submitter, self.now()))

    def _effects(self, core: int, effects: fx.Effects) -> None:
        if self.life is not None:
            if effects:
                self.life.lanes.perform(core, effects)
            self._arm(core)

    def _arm(self, core: int) -> None:
        """See to it that the core's next deadline is kept; an event that comes too early looks again."""
        life = self.life
        due = life.cores[core].next_deadline() if life is not None else None
        if life is None or due is None:
            return
        when, armed = max(self._real(due), self.world.kernel.now), life.alarms[core]
        if armed is None or when < armed:
            life.alarms[core] = when
            self.world.kernel.at(when, self._ring, life, core, when)

    def _ring(self, life: Life, core: int, when: int) -> None:
        if self.life is not life or life.alarms[core] != when:
            return
        life.alarms[core] = None
        if self._frozen:
            return
        due = life.cores[core].next_deadline()
        if due is not None and self._real(due) <= self.world.kernel.now:
            self.world.note(self.number, "tick", str(core))
            self.arrive(self.tell, core, fx.Tick())
        else:
            self._arm(core)

    # --- effects ----------------------------------------------------------------------------------------------

    def perform(self, core: int, effect: fx.Effect) -> None:
        """One effect whose turn has come."""
        if self._frozen:
            self.postpone(self.perform, core, effect)
            return
        if self.world.listeners and isinstance(effect, fx.Send | fx.Reply):
            self.world.said(self, effect)
        if isinstance(effect, fx.Send):
            self._running.requests.send(core, effect)
        elif isinstance(effect, fx.Reply):
            self._running.requests.reply(effect)
        elif isinstance(effect, fx.Notify):
            self.world.heard(self, effect)
            if self.disk.blobs is not None:
                self.world.arrays.heard(self, effect)
        elif isinstance(effect, fx.Compute):
            self.world.note(self.number, "compute", f"{effect.job.hex()[:8]}/{effect.unit}.{effect.epoch}")
            if has_blobs(effect.spec):
                self.world.arrays.of(self).perform(effect)
            else:
                self.computes(effect)
        elif isinstance(effect, fx.StopCompute):
            self._running.slots.drop(effect)
            if self.disk.blobs is not None:
                self.world.arrays.of(self).perform(effect)
        elif isinstance(effect, fx.Violation):
            self.world.violated(self, effect)
            self._effects(MEMBERSHIP, self.membership.violation(effect.peer, self.now()))
        else:
            self._reach_out(core, effect)

    def _reach_out(self, core: int, effect: fx.Effect) -> None:
        """Effects upon the network that are no messages."""
        world, life = self.world, self._running
        if isinstance(effect, fx.Publish):
            world.note(self.number, "publish", effect.topic)
            world.gossip.publish(self.number, effect.topic, effect.payload)
        elif isinstance(effect, fx.FindPeers):
            find = effect
            world.routing.closest(
                self.number, effect.key, FOUND_PEERS, lambda found: self._found(life, core, find, found)
            )
        elif isinstance(effect, fx.Provide):
            world.routing.provide(self.number, effect.key)
        elif isinstance(effect, fx.FindProviders):
            world.routing.providers(self.number, effect.key, self._meet)
        elif isinstance(effect, fx.Dial):
            self._dial(core, effect)
        elif isinstance(effect, fx.Hangup):
            world.network.hang_up(self.number, world.index[effect.peer])
        elif isinstance(effect, fx.RememberPeer):
            self._remember(effect.addresses)
        elif isinstance(effect, BLOB_EFFECTS):
            world.arrays.of(self).perform(effect)
        elif world.credit is not None:
            world.credit.perform(self, effect)

    def _remember(self, addresses: Iterable[str]) -> None:
        for address in addresses:
            self.remembered.pop(address, None)
            self.remembered[address] = None
        while len(self.remembered) > MAX_REMEMBERED:
            del self.remembered[next(iter(self.remembered))]

    def _dial(self, core: int, effect: fx.Dial) -> None:
        life, peer = self._running, peer_of(effect.address)

        def done(worked: bool) -> None:
            if self.life is life:
                reason = "" if worked else "nobody answers there"
                event = fx.Dialled(effect.tag, effect.address, peer if worked else None, reason)
                self.arrive(self.tell, core, event)

        self.world.network.dial(self.number, self.world.index[peer], done)

    def _found(self, life: Life, core: int, effect: fx.FindPeers, found: Iterable[int]) -> None:
        if self.life is life:
            peers = tuple(self.world.peers[number].id for number in found if number != self.number)
            self.arrive(self.tell, core, fx.FoundPeers(effect.tag, peers))

    def _meet(self, found: Iterable[int]) -> None:
        for number in found:
            if number != self.number and self.life is not None:
                self.world.network.dial(self.number, number, lambda _: None)

    def computes(self, effect: fx.Compute) -> None:
        """A unit is all here: it is computed when its turn comes."""
        self._running.slots.start(effect)

    def _computed(self, event: fx.Computed | fx.ComputeFailed) -> None:
        name = f"{event.job.hex()[:8]}/{event.unit}.{event.epoch}"
        self.world.note(self.number, "computed", name)
        if self.disk.blobs is not None:
            event = self.world.arrays.of(self).computed(event)
        self.arrive(self.tell, WORKER, event)

    # --- connections ------------------------------------------------------------------------------------------

    def link_up(self, other: int) -> None:
        """A connection stands."""
        self.world.note(self.number, "up", str(other))
        self.world.gossip.link_up(self.number, other)
        self.arrive(self.tell_all, fx.PeerUp(self.world.peers[other].id, self.world.addresses[other]))

    def link_down(self, other: int) -> None:
        """A connection is gone, and with it what was asked over it."""
        self.world.note(self.number, "down", str(other))
        self.world.gossip.link_down(self.number, other)
        self.arrive(self.tell_all, fx.PeerDown(self.world.peers[other].id))
        self._running.requests.lost(other)

    def gossiped(self, topic: str, author: int, payload: bytes) -> None:
        """A message came that everybody gets."""
        self.arrive(self.tell_all, fx.Gossiped(topic, self.world.peers[author].id, payload))

    # --- requests, in whatever life they arrive ---------------------------------------------------------------

    def asked_by(self, asker: int, request: int, message: messages.Request | None, raw: bytes) -> None:
        """A request is there; ``message``: what its bytes say, if an honest node encoded it."""
        self.arrive(self._serve, asker, request, message, raw)

    def answered(self, request: int, message: messages.Reply | None, raw: bytes) -> None:
        """An answer is there."""
        self.arrive(self._take_answer, request, message, raw)

    def _serve(self, asker: int, request: int, message: messages.Request | None, raw: bytes) -> None:
        self._running.requests.serve(asker, request, message, raw)

    def _take_answer(self, request: int, message: messages.Reply | None, raw: bytes) -> None:
        self._running.requests.take_answer(request, message, raw)
