"""A small world for the cores: several nodes on explicit time, with loss, delay, duplicates, crashes and lies.

No I/O and no threads: one heap of (time, sequence). It drives exactly the production cores, as the node's shell does:
what stands after a ``Persist`` waits for the disk, while other batches go on; a crash loses what is not on it yet.
"""

import heapq
import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

from sparkle_protocol import effects as fx
from sparkle_protocol.errors import RemoteProtocolError, VerificationError
from sparkle_protocol.facts import (
    Commits,
    Deadlines,
    Fact,
    FactCodec,
    JobSpec,
    KeeperSet,
    Policy,
    Resources,
    Verdicts,
)
from sparkle_protocol.ids import JobId, PeerId, ResultHash, digest, peer_id_from_key
from sparkle_protocol.messages import (
    FetchReply,
    Notice,
    Offer,
    Push,
    PushReply,
    Reply,
    Report,
    ReportReply,
    Request,
    decode_reply,
    decode_request,
    encode_message,
    with_results,
)
from sparkle_protocol.work.rejection import Rejection
from sparkle_protocol.work.sealed import SealedRange
from sparkle_protocol.work.submitter import Submitter
from sparkle_protocol.work.worker import WorkerAgent

MS = 1_000_000
SECOND = 1_000_000_000
NET = "test"
KERNEL = "square"
Core = Submitter | WorkerAgent
Message = TypeVar("Message", bound=Request | Reply)


def spec(units: int, rng: Random, policy: Policy | None = None, total_s: int = 3600) -> JobSpec:
    return JobSpec(
        KERNEL, 1, {"n": 1}, units, "exact", policy or Policy(), Resources(), Deadlines(total_s=total_s),
        b"\0" * 32, rng.randbytes(16), 0,
    )  # fmt: skip


def check_form(spec: JobSpec, unit: int, result: bytes) -> None:
    if len(result) != (8 if spec.verification == "exact" else 12):
        raise VerificationError("a square has eight bytes, and four of its worker where those may differ")


def effect_name(effect: fx.Effect) -> str:
    return type(effect.message).__name__ if isinstance(effect, fx.Send | fx.Reply) else type(effect).__name__


def true_result(unit: int) -> bytes:
    return (unit * unit).to_bytes(8, "big")


class CheapIdentity:
    """Signs with a keyed hash: whoever knows the public key could forge, but nobody here does."""

    def __init__(self, seed: int) -> None:
        self.public_key = Random(seed).randbytes(32)
        self.peer_id = peer_id_from_key(self.public_key)

    def sign(self, message: bytes) -> bytes:
        return digest(self.public_key, message) * 2


def verify_cheap(public_key: bytes, signature: bytes, message: bytes) -> None:
    if signature != digest(public_key, message) * 2:
        raise RemoteProtocolError("the signature does not fit")


def units_of(sealed: SealedRange) -> range:
    return range(sealed.first, sealed.first + sealed.count)


@dataclass
class Disk:
    """What a node has made durable."""

    facts: dict[bytes, Fact] = field(default_factory=dict)
    results: dict[tuple[JobId, bytes], bytes] = field(default_factory=dict)
    commits: dict[tuple[JobId, int, int], tuple[bytes, bytes]] = field(default_factory=dict)
    ever_committed: set[tuple[JobId, int, int]] = field(default_factory=set)  # dropped ones too
    sealed: dict[tuple[JobId, int], bytes] = field(default_factory=dict)
    decided: set[tuple[JobId, int]] = field(default_factory=set)  # units with a verdict among the facts
    refused: dict[tuple[JobId, int, PeerId], fx.StoreRejection] = field(default_factory=dict)
    let_go: set[JobId] = field(default_factory=set)  # jobs that were not kept any more at some time

    def write(self, record: fx.Record) -> None:
        if isinstance(record, fx.StoreFact):
            self.facts[record.fact.id] = record.fact
            if isinstance(record.fact.payload, Verdicts):
                self.decided |= {(record.fact.job, item.unit) for item in record.fact.payload.items}
        elif isinstance(record, fx.SealRange | fx.DropFact):
            self.drop(record)
        elif isinstance(record, fx.StoreResult):
            self.results[record.job, record.result_hash] = record.result
        elif isinstance(record, fx.StoreCommit):
            self.commits[record.job, record.unit, record.epoch] = (record.nonce, record.result)
            self.ever_committed.add((record.job, record.unit, record.epoch))
        elif isinstance(record, fx.DropCommit):
            self.commits.pop((record.job, record.unit, record.epoch), None)
        elif isinstance(record, fx.DropCommits):
            for key in [k for k in self.commits if k[0] == record.job]:
                del self.commits[key]
        elif isinstance(record, fx.StoreRejection):
            self.refused[record.job, record.unit, record.worker] = record
        elif isinstance(record, fx.DropJob):
            self.let_go.add(record.job)
            self.refused = {key: refused for key, refused in self.refused.items() if key[0] != record.job}
            if not any(job == record.job for job, *_ in self.commits):  # else they prove what we committed to
                self.facts = {id_: fact for id_, fact in self.facts.items() if fact.job != record.job}
                self.sealed = {key: raw for key, raw in self.sealed.items() if key[0] != record.job}
            self.results = {key: result for key, result in self.results.items() if key[0] != record.job}

    def drop(self, record: fx.SealRange | fx.DropFact) -> None:
        if isinstance(record, fx.DropFact):
            self.facts.pop(record.fact_id, None)
            return
        self.sealed[record.job, record.index] = record.raw
        for _, fact_id in record.drop:
            self.facts.pop(fact_id, None)
        self.decided |= {(record.job, unit) for unit in units_of(SealedRange.decode(record.raw))}

    def ranges(self, job: JobId) -> list[SealedRange]:
        return [SealedRange.decode(raw) for (one, _), raw in sorted(self.sealed.items()) if one == job]

    def of_job(self, job: JobId) -> list[Fact]:
        return [fact for fact in self.facts.values() if fact.job == job]

    def attach(self, job: JobId, names: tuple[ResultHash, ...]) -> list[bytes]:
        return [self.results[job, name] for name in names if (job, name) in self.results]


class WorldNode:
    def __init__(self, world: "World", seed: int, *, works: bool, lie: Callable[[int], bool] | None) -> None:
        self.world = world
        self.identity = CheapIdentity(seed)
        self.id: PeerId = self.identity.peer_id
        self.codec = FactCodec(NET, verify_cheap)
        self.works = works
        self.lie = lie
        self.withholds = False  # commits and never shows
        self.stalls = False  # says that it computes, and never ends
        self.conspires = False  # gives the same wrong result as all who do
        self.broken = False  # every unit fails through no fault of its own
        self.lost = False  # gone for good
        self.away = False  # its user wants it to be off
        self.disk = Disk()
        self.stated: dict[tuple[JobId, int, int], bytes] = {}  # commits that left, in all lives
        self.up = False
        self.life = 0
        self.seed = seed
        self.violations: list[tuple[PeerId, str]] = []
        self.events: list[fx.Notify] = []
        self.shown: dict[tuple[JobId, int], ResultHash] = {}  # units that were called final here, in any life
        self.ticks = 0

    def start(self) -> None:
        self.life += 1
        self.up = True
        rng = Random(self.seed * 1000 + self.life)
        self.submitter = Submitter(self.identity, self.codec, rng, check_form)
        self.equip()
        self.worker = WorkerAgent(self.identity, self.codec, rng, [f"{KERNEL}@1"] if self.works else [])
        self.tokens: dict[int, Callable[[Reply], None]] = {}
        self.token = 0
        self.timer: int | None = None
        self.to_write: list[tuple[Core, fx.Persist, list[fx.Effect]]] = []
        self.writing: list[tuple[Core, fx.Persist, list[fx.Effect]]] = []
        now = self.world.now
        facts = list(self.disk.facts.values())
        Random(self.seed * 1000 - self.life).shuffle(facts)  # a store reads in an order of its own
        for one in (fact for fact in facts if isinstance(fact.payload, JobSpec)):
            own = [f for f in facts if f.job == one.job and f.id != one.id]
            names = [name for job, name in self.disk.results if job == one.job]
            keeps = any(isinstance(f.payload, KeeperSet) and self.identity.public_key in f.payload.keys for f in own)
            if one.author == self.id or keeps:
                ranges = self.disk.ranges(one.job)
                refused = [Rejection.decode(left) for left in self.disk.refused.values() if left.job == one.job]
                stored = self.submitter.restore(one, own, now, names, sealed=ranges, rejections=refused)
                self.perform(self.submitter, stored)
            commits = [(u, e, *v) for (j, u, e), v in self.disk.commits.items() if j == one.job]
            if commits:
                self.perform(self.worker, self.worker.restore(one, own, commits, now))
        for other in self.world.nodes:
            if other is not self and other.up:
                self.world.link_up(self, other)
        self.arm()

    def equip(self) -> None:
        """Give the cores what else they need, before anything is restored."""

    def crash(self) -> None:
        self.up = False
        for other in self.world.nodes:
            if other is not self and other.up:
                self.world.later(0.01, other, lambda o=other: o.handle(fx.PeerDown(self.id)))

    def leave(self) -> None:
        """Gone until it comes back, whoever would start it."""
        if self.up:
            self.crash()
        self.away = True

    def come_back(self) -> None:
        """It is there again, with its disk."""
        self.away = False
        if not self.up:
            self.start()

    def lose_disk(self) -> None:
        """Gone for good, with all that was kept here."""
        if self.up:
            self.crash()
        self.disk = Disk()
        self.lost = True

    def submit(self, job: JobSpec) -> JobId:
        job_id, effects = self.submitter.submit(job, self.world.now)
        self.perform(self.submitter, effects)
        self.arm()
        return job_id

    def handle(self, event: object) -> None:
        """Tell every core, as the node does with news that concern all of them."""
        if self.up:
            for core in (self.submitter, self.worker):
                self.perform(core, core.handle(event, self.world.now))
            self.arm()

    def tell(self, core: Core, event: object) -> None:
        if self.up:
            self.perform(core, core.handle(event, self.world.now))
            self.arm()

    def arm(self) -> None:
        times = [t for t in (self.submitter.next_deadline(), self.worker.next_deadline()) if t is not None]
        due = max(min(times), self.world.now) if times else None
        if due is not None and due != self.timer:
            self.world.at(due, self, lambda: self.tick(due))
        self.timer = due

    def tick(self, due: int) -> None:
        if self.timer == due:  # not overtaken by another alarm
            self.timer = None
            self.ticks += 1
            self.handle(fx.Tick())

    def perform(self, core: Core, effects: fx.Effects) -> None:
        """All writes are handed to the disk in order; what follows one waits until it is done."""
        parts: list[tuple[fx.Persist | None, list[fx.Effect]]] = [(None, [])]
        for effect in effects:
            if isinstance(effect, fx.Persist):
                parts.append((effect, []))
            else:
                parts[-1][1].append(effect)
        for persist, rest in parts:
            if persist is None:
                self.perform_all(core, rest)
            else:
                self.to_write.append((core, persist, rest))
        self.write()

    def write(self) -> None:
        """Whatever waits for the disk goes in one transaction; the next one begins when that is done."""
        if self.writing or not self.to_write:
            return
        self.writing, self.to_write = self.to_write, []
        took = int(self.world.rng.uniform(0, self.world.disk_s) * SECOND)
        self.world.at(self.world.now + took, self, self.written)

    def written(self) -> None:
        done, self.writing = self.writing, []
        for _, persist, _ in done:
            for record in persist.records:
                self.disk.write(record)
        for core, _, rest in done:
            self.perform_all(core, rest)
        self.write()

    def perform_all(self, core: Core, effects: list[fx.Effect]) -> None:
        for effect in effects:
            self.perform_one(core, effect)

    def perform_one(self, core: Core, effect: fx.Effect) -> None:
        self.check_promises(effect)
        self.world.trace.append((self.world.now, self.id[-6:], effect_name(effect)))
        if isinstance(effect, fx.Reply):
            answer = self.tokens.pop(effect.token, None)
            if answer is not None:
                answer(self.filled(effect.message, effect.attach))
        elif isinstance(effect, fx.Send):
            self.world.send(self, core, effect)
        elif isinstance(effect, fx.Publish):
            for other in self.world.nodes:
                if other is not self and other.up and not self.world.loses(self, other):
                    gossip = fx.Gossiped(effect.topic, self.id, effect.payload)
                    self.world.later(0.05, other, lambda o=other, g=gossip: o.handle(g))
        elif isinstance(effect, fx.FindPeers):
            near = sorted(
                (n.id for n in self.world.nodes if n.up), key=lambda peer: digest(effect.key, peer.encode())
            )
            found = fx.FoundPeers(effect.tag, tuple(near[:16]))
            self.world.later(0.05, self, lambda: self.tell(core, found))
        elif isinstance(effect, fx.Compute):
            self.compute(effect)
        elif isinstance(effect, fx.Violation):
            self.violations.append((effect.peer, effect.reason))
        elif isinstance(effect, fx.Notify):
            self.events.append(effect)
            if effect.event == "unit_final":
                self.showed_final(JobId(bytes.fromhex(str(effect.fields["job"]))), int(str(effect.fields["unit"])))

    def showed_final(self, job_id: JobId, unit: int) -> None:
        job = self.submitter.job(job_id)
        final = job.state.final(unit) if job is not None else None
        if final is not None:  # else the job was let go in the same moment
            before = self.shown.setdefault((job_id, unit), final)
            if job is not None and job.state.checked and not job.mine:
                self.shown[job_id, unit] = final  # an older view's may become known late: it counts
            else:
                assert before == final, f"unit {unit} was final with another result"

    def filled(self, message: Message, names: tuple[ResultHash, ...]) -> Message:
        """The message with results from the disk, as the node's shell fills it."""
        if names and isinstance(message, Push | FetchReply):
            return with_results(message, self.disk.attach(JobId(message.job), names))
        return message

    def check_promises(self, effect: fx.Effect) -> None:
        """What leaves this node rests on what is on its disk."""
        message = effect.message if isinstance(effect, fx.Send | fx.Reply) else None
        if isinstance(message, Push | PushReply | FetchReply | Report):
            self.world.told.update(dict.fromkeys(message.facts))
        if isinstance(message, ReportReply | Notice):
            kept = self.submitter.job(JobId(message.job))
            checked = kept is not None and kept.state.checked  # then a refusal rests on this node's own evidence
            told = {(JobId(message.job), one.unit) for one in message.settled if one.accepted or not checked}
            assert told <= self.disk.decided, "a verdict was told before it was kept"
        elif isinstance(message, Report):
            for payload in (self.codec.open(raw).payload for raw in message.facts):
                for item in payload.items if isinstance(payload, Commits) else ():
                    key = (JobId(message.job), item.unit, item.epoch)
                    assert key in self.disk.ever_committed, "a commit left before it was kept"
                    assert self.stated.setdefault(key, item.commit) == item.commit, "two commits of one unit"

    def compute(self, effect: fx.Compute) -> None:
        result = true_result(effect.unit)
        if self.lie is not None and self.lie(effect.unit):
            result = bytes([1 + self.seed % 200]) + result[1:]  # liars do not agree with each other
        if self.conspires:
            result = b"\xff" * 8
        if self.stalls:
            return
        done: object = fx.Computed(effect.job, effect.unit, effect.epoch, result)
        if self.broken:
            done = fx.ComputeFailed(effect.job, effect.unit, effect.epoch, "crash", "no memory", blame=False)
        elif effect.unit in self.world.poison:
            done = fx.ComputeFailed(effect.job, effect.unit, effect.epoch, "kernel", "divided by zero", blame=True)
        self.world.later(self.world.rng.uniform(0.5, 1.5) * self.world.unit_s, self, lambda: self.handle(done))

    def ask(self, asker: PeerId, data: bytes, answer: Callable[[Reply], None]) -> None:
        """Serve a request as the node shell does."""
        self.token += 1
        self.tokens[self.token] = answer
        event = fx.Requested(self.token, asker, decode_request(data))
        if isinstance(event.message, Notice) and self.withholds:
            return
        core = self.worker if isinstance(event.message, Offer | Notice) else self.submitter
        self.tell(core, event)


class World:
    def __init__(
        self, seed: int, *, loss: float = 0.0, twice: float = 0.0, delay_s: float = 0.02, disk_s: float = 0.005
    ) -> None:
        self.rng = Random(seed)
        self.now = 0
        self.heap: list[tuple[int, int, WorldNode | None, int, Callable[[], None]]] = []
        self.seq = itertools.count()
        self.nodes: list[WorldNode] = []
        self.by_id: dict[PeerId, WorldNode] = {}
        self.loss = loss  # of requests, replies and gossip, each
        self.twice = twice  # requests that arrive twice
        self.delay_s = delay_s  # longest; drawn for each message, so they overtake each other
        self.disk_s = disk_s
        self.unit_s = 1.0
        self.poison: set[int] = set()  # units that nobody can compute
        self.cut: set[PeerId] = set()  # cannot be reached and reach nobody
        self.blocked: set[tuple[PeerId, PeerId]] = set()  # what the first says does not reach the second
        self.told: dict[bytes, None] = {}  # every fact that left a node
        self.sent: Counter[tuple[str, PeerId, PeerId]] = Counter()  # requests, by sender and receiver
        self.trace: list[tuple[int, str, str]] = []
        self.seed = seed

    def add(
        self, *, works: bool = True, lie: Callable[[int], bool] | None = None, kind: type[WorldNode] = WorldNode
    ) -> WorldNode:
        node = kind(self, self.seed * 100 + len(self.nodes), works=works, lie=lie)
        self.nodes.append(node)
        self.by_id[node.id] = node
        node.start()
        return node

    def at(self, when: int, node: WorldNode | None, call: Callable[[], None]) -> None:
        heapq.heappush(self.heap, (when, next(self.seq), node, node.life if node else 0, call))

    def later(self, seconds: float, node: WorldNode | None, call: Callable[[], None]) -> None:
        self.at(self.now + int(seconds * SECOND), node, call)

    def link_up(self, a: WorldNode, b: WorldNode) -> None:
        self.later(0.01, a, lambda: a.handle(fx.PeerUp(b.id, ())))
        self.later(0.01, b, lambda: b.handle(fx.PeerUp(a.id, ())))

    def send(self, sender: WorldNode, core: Core, effect: fx.Send) -> None:
        target = self.by_id[effect.peer]
        self.sent[type(effect.message).__name__, sender.id, effect.peer] += 1
        local = target is sender
        data = encode_message(sender.filled(effect.message, effect.attach))
        told = False

        def fail() -> None:
            nonlocal told
            if not told:
                told = True
                sender.tell(core, fx.SendFailed(effect.tag, effect.peer, "lost"))

        def answer(reply: Reply) -> None:
            raw = encode_message(reply)
            if not self.loses(sender, target):
                self.later(self.delay(local), sender, lambda: hear(raw))

        def hear(raw: bytes) -> None:
            nonlocal told
            if not told:
                told = True
                sender.tell(core, fx.Replied(effect.tag, effect.peer, decode_reply(raw)))

        def arrive() -> None:
            if target.up:
                target.ask(sender.id, data, answer)
            else:
                self.later(0.01, sender, fail)

        self.later(10.0, sender, fail)
        for _ in range(2 if not local and self.rng.random() < self.twice else 1):
            if not self.loses(sender, target):
                self.later(self.delay(local), None, arrive)

    def loses(self, sender: WorldNode, target: WorldNode) -> bool:
        if sender is target:
            return False
        cut = bool(self.cut & {sender.id, target.id}) or (sender.id, target.id) in self.blocked
        return cut or self.rng.random() < self.loss

    def part(self, some: set[PeerId], *, both_ways: bool) -> None:
        """What is said by these reaches nobody else; if both ways, they hear nothing of others either."""
        for one in self.nodes:
            for other in self.nodes:
                if one.id in some and other.id not in some:
                    self.blocked.add((one.id, other.id))
                    if both_ways:
                        self.blocked.add((other.id, one.id))
                        self.link_down(one, other)

    def heal(self) -> None:
        """Everybody reaches everybody again."""
        apart = sorted(pair for pair in self.blocked if pair[::-1] in self.blocked and pair[0] < pair[1])
        self.blocked.clear()
        for one, other in apart:
            if self.by_id[one].up and self.by_id[other].up:
                self.link_up(self.by_id[one], self.by_id[other])

    def link_down(self, a: WorldNode, b: WorldNode) -> None:
        """Either notices some time later that the connection is gone, if it is still."""

        def notice(one: WorldNode, other: WorldNode) -> None:
            if (one.id, other.id) in self.blocked:
                one.handle(fx.PeerDown(other.id))

        for one, other in ((a, b), (b, a)):
            self.later(self.rng.uniform(0.01, 10), one, lambda o=one, g=other: notice(o, g))

    def delay(self, local: bool) -> float:
        return 0 if local else self.rng.uniform(0, self.delay_s)

    def run(self, until: Callable[[], bool], *, seconds: float = 3600.0, events: int = 500_000) -> bool:
        """Run until the condition holds; False when time or events ran out first."""
        end = self.now + int(seconds * SECOND)
        for _ in range(events):
            if until():
                return True
            if not self.heap or self.heap[0][0] > end:
                return until()
            when, _, node, life, call = heapq.heappop(self.heap)
            self.now = max(self.now, when)
            if node is None or (node.up and node.life == life):
                call()
        raise AssertionError(f"{events} events without an end at {self.now / SECOND:.1f} s: something spins")
