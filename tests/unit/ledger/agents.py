"""Agents on a simulated network: messages are lost, doubled and overtake each other; time is a number."""

from heapq import heappop, heappush
from itertools import count
from random import Random

from sparkle_ledger.agent.core import LedgerAgent
from sparkle_ledger.agent.events import Accepted, Fund, WorkEnded
from sparkle_ledger.agent.old_jobs import KEEP_MS
from sparkle_ledger.book import Book
from sparkle_ledger.closing import Closing
from sparkle_ledger.economy import Economy
from sparkle_ledger.entries import AccountId, account_of
from sparkle_ledger.evidence import JobRecord
from sparkle_ledger.folding import KEEP_ENTRIES, Base, Fold, shut
from sparkle_ledger.forks import ForkProof
from sparkle_protocol import effects as fx
from sparkle_protocol import messages
from sparkle_protocol.codec import encode
from sparkle_protocol.facts import FactCodec
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import JobId, PeerId
from tests.unit.ledger.ledgers import ECONOMY, ENTRIES, KEEPERS, NET, Job, person

SECOND = 1_000_000_000
TIMEOUT = 20 * SECOND


class Member:
    """A node: its agent, its disk, and the jobs that it keeps."""

    def __init__(self, world: "World", who: Identity, economy: Economy) -> None:
        self.world = world
        self.who = who
        self.peer = who.peer_id
        self.economy = economy
        self.disk: dict[bytes, None] = {}  # entries as they travel
        self.evidence: dict[JobId, tuple[dict[bytes, None], dict[bytes, None]]] = {}
        self.forks: list[tuple[bytes, bytes]] = []
        self.closings: dict[JobId, bytes] = {}
        self.bases: dict[AccountId, Base] = {}
        self.keep_ms = KEEP_MS
        self.keep_entries = KEEP_ENTRIES
        self.kept: dict[JobId, JobRecord] = {}
        self.told: list[fx.Notify] = []
        self.funded: dict[JobId, str | None] = {}
        self.unfunded: list[JobId] = []  # as often as that is said
        self.violations: list[str] = []
        self.life = 0
        self.alarm: int | None = None
        self.up = False
        self.disk_fails = False
        self.start()

    def start(self) -> None:
        """Begin a life from what is on the disk."""
        self.life += 1
        self.alarm = None
        self.up = True
        book = Book(NET, self.economy)
        for raw in self.closings.values():
            book.add_closing(Closing.decode(raw))
        for base in self.bases.values():
            book.add_base(base.copy())
        book.add_all(ENTRIES.open(raw) for raw in self.disk)
        codec = FactCodec(NET)
        for job, (facts, _) in self.evidence.items():
            if job not in self.closings:
                opened = [codec.open(raw) for raw in facts]
                record = JobRecord(opened[0], NET)
                record.add_all(opened)
                book.add_record(record)
        self.agent = LedgerAgent(
            self.who, book, codec, lambda: self.world.now // 1_000_000, self.kept.get, self.proofs(),
            keep_ms=self.keep_ms, keep_entries=self.keep_entries,
        )  # fmt: skip

    def hear(self, event: object) -> None:
        """Give the agent an event, and perform what it wants."""
        if not self.up:
            return
        for effect in self.agent.handle(event, self.world.now):
            self.perform(effect)
        due = self.agent.next_deadline()
        alarm = None if due is None else max(due, self.world.now + 1)
        if alarm is not None and alarm != self.alarm:
            self.world.at(alarm, lambda: self.ring(alarm))
        self.alarm = alarm

    def ring(self, alarm: int) -> None:
        if alarm == self.alarm:
            self.alarm = None
            self.hear(fx.Tick())

    def perform(self, effect: fx.Effect) -> None:
        life = self.life
        if isinstance(effect, fx.Send):
            self.world.request(self, effect)
        elif isinstance(effect, fx.Reply):
            self.world.answer(effect.token, effect.message)
        elif isinstance(effect, fx.KeepLedger):
            self.world.at(
                self.world.now + SECOND // 200, lambda: self.keep(effect) if self.life == life and self.up else None
            )
        elif isinstance(effect, fx.ReadEvidence):
            facts, sealed = self.evidence.get(effect.job, ({}, {}))
            read = fx.EvidenceRead(effect.tag, tuple(sorted(facts)), tuple(sealed))
            self.world.at(self.world.now + SECOND // 200, lambda: self.hear(read) if self.life == life else None)
        elif isinstance(effect, fx.Publish):
            for member in self.world.members.values():
                if member is not self:
                    gossip = fx.Gossiped(effect.topic, self.peer, effect.payload)
                    self.world.soon(lambda m=member, g=gossip: m.hear(g))
        elif isinstance(effect, fx.FindPeers):
            found = fx.FoundPeers(effect.tag, tuple(self.world.findable))
            self.world.soon(lambda: self.hear(found) if self.life == life else None)
        else:
            self.note(effect)

    def note(self, effect: fx.Effect) -> None:
        """What only tells something."""
        if isinstance(effect, fx.Notify):
            self.told.append(effect)
        elif isinstance(effect, fx.JobFunded):
            self.funded[effect.job] = effect.refused
        elif isinstance(effect, fx.JobUnfunded):
            self.unfunded.append(effect.job)
        elif isinstance(effect, fx.Violation):
            self.violations.append(effect.reason)

    def keep(self, effect: fx.KeepLedger) -> None:
        if self.disk_fails:
            self.hear(fx.LedgerKept(effect.tag, "the disk is full"))
            return
        self.disk.update(dict.fromkeys(effect.entries))
        for one in effect.evidence:
            facts, sealed = self.evidence.setdefault(one.job, ({}, {}))
            facts.update(dict.fromkeys(one.facts))
            sealed.update(dict.fromkeys(one.sealed))
        self.forks += effect.forks
        for closing in effect.closings:
            job = JobId(Closing.decode(closing.raw).job)
            self.closings[job] = closing.raw
            if not closing.keep_evidence:
                self.evidence.pop(job, None)
        for raw in effect.folds:
            self.fold(Fold.decode(raw))
        self.hear(fx.LedgerKept(effect.tag))

    def fold(self, step: Fold) -> None:
        account = AccountId(step.account)
        self.bases.setdefault(account, Base(account)).add(step)
        for one in step.jobs:
            job = JobId(one.job)
            self.closings[job] = encode(shut(Closing.decode(self.closings[job]), one))
        for raw in list(self.disk):
            entry = ENTRIES.open_known(raw)
            if entry.account == account and not entry.incarnation and entry.seq <= step.seq:
                del self.disk[raw]

    def proofs(self) -> list[ForkProof]:
        return [ForkProof.make(ENTRIES.open(one), ENTRIES.open(other)) for one, other in self.forks]


class World:
    """Everybody, and what is on its way."""

    def __init__(self, seed: int = 1, loss: float = 0.0, twice: float = 0.0) -> None:
        self.rng = Random(seed)
        self.loss = loss
        self.twice = twice
        self.now = SECOND
        self.findable: list[PeerId] = []  # by a look-up
        self.members: dict[PeerId, Member] = {}
        self._queue: list[tuple[int, int, object]] = []
        self._order = count()
        self._tokens: dict[int, tuple[Member, int, fx.Send, int]] = {}
        self._token = count(1)
        self.sent: list[tuple[PeerId, PeerId, messages.Request]] = []

    # --- people -------------------------------------------------------------------------------------------

    def add(self, *people: Identity, economy: Economy = ECONOMY) -> list[Member]:
        """Nodes that are linked with all others."""
        found = []
        for who in people:
            member = self.members[who.peer_id] = Member(self, who, economy)
            found.append(member)
        for member in found:
            self.link(member)
        return found

    def link(self, member: Member) -> None:
        for other in [*self.members.values()]:
            if other is not member and other.up:
                member.hear(fx.PeerUp(other.peer, ("/ip4/10.0.0.1/tcp/1",)))
                other.hear(fx.PeerUp(member.peer, ("/ip4/10.0.0.1/tcp/1",)))

    def leave(self, member: Member) -> None:
        """A node is gone at once, and whatever was not on its disk with it."""
        member.up = False
        for other in self.members.values():
            other.hear(fx.PeerDown(member.peer))

    def back(self, member: Member) -> None:
        member.start()
        self.link(member)

    # --- time ---------------------------------------------------------------------------------------------

    def at(self, when: int, what: object) -> None:
        heappush(self._queue, (when, next(self._order), what))

    def soon(self, what: object) -> None:
        """Once it has crossed the network; a later message may be faster."""
        self.at(self.now + self.rng.randrange(SECOND // 100, SECOND // 2), what)

    def run(self, seconds: float) -> None:
        end = self.now + int(seconds * SECOND)
        while self._queue and self._queue[0][0] <= end:
            when, _, what = heappop(self._queue)
            self.now = max(self.now, when)
            assert callable(what)
            what()
        self.now = end

    # --- messages -----------------------------------------------------------------------------------------

    def request(self, sender: Member, effect: fx.Send) -> None:
        self.sent.append((sender.peer, effect.peer, effect.message))
        raw = messages.encode_message(effect.message)
        target, life = self.members.get(effect.peer), sender.life
        times = 0 if self.rng.random() < self.loss else 2 if self.rng.random() < self.twice else 1
        for number in range(times if target is not None else 0):
            token = next(self._token)
            if number == 0:
                self._tokens[token] = (sender, life, effect, token)
            asked = fx.Requested(token, sender.peer, messages.decode_request(raw))
            self.soon(lambda t=target, a=asked: t.hear(a))
        self.at(self.now + TIMEOUT, lambda: self.failed(sender, life, effect))

    def failed(self, sender: Member, life: int, effect: fx.Send) -> None:
        if sender.life == life:
            sender.hear(fx.SendFailed(effect.tag, effect.peer, "no answer"))

    def answer(self, token: int, message: messages.Reply) -> None:
        found = self._tokens.pop(token, None)
        if found is None or self.rng.random() < self.loss:
            return
        sender, life, effect, _ = found
        reply = fx.Replied(effect.tag, effect.peer, messages.decode_reply(messages.encode_message(message)))
        self.soon(lambda: sender.hear(reply) if sender.life == life else None)


UNITS = 64
RICH = Economy(limit_max_micro=100_000, starter_micro=100_000)


def entries_of(member: Member, of: Member) -> list[object]:
    account = account_of(NET, of.who.public_key)
    return [entry.payload for entry in member.agent.book.entries(account)]


def funded_job(world: World, submitter: Member, job: Job) -> None:
    """A job that its submitter can pay, and whose keepers may show what is known of it."""
    submitter.hear(Fund(job.spec))
    world.run(60)
    assert submitter.funded == {job.id: None}


def finished(world: World, job: Job, workers: list[Member], keepers: list[Member]) -> None:
    """All units are accepted, each of two workers; everybody is told in several lots."""
    facts = []
    for lot in range(0, job.units, 8):
        chosen = [workers[(lot // 8 + n) % len(workers)] for n in range(2)]
        facts += job.accepted([one.who for one in chosen], range(lot, lot + 8))
    for keeper in keepers:
        keeper.kept[job.id] = job.record(facts)
    peers = tuple(keeper.peer for keeper in keepers)
    for lot in range(0, job.units, 8):
        for n in range(2):
            units = tuple((unit, 0) for unit in range(lot, lot + 8))
            workers[(lot // 8 + n) % len(workers)].hear(Accepted(job.spec, units, peers))
            world.run(1)
    for worker in workers:
        worker.hear(WorkEnded(job.id))


def settled_world(seed: int, loss: float, twice: float) -> tuple[World, Job, list[Member], list[Member]]:
    world = World(seed, loss, twice)
    submitter, *workers = world.add(*(person(n) for n in range(1, 5)), economy=RICH)
    keepers = world.add(*KEEPERS, economy=RICH)
    job = Job(submitter.who, UNITS, keepers=KEEPERS)
    submitter.hear(Fund(job.spec))
    world.run(200)
    assert submitter.funded == {job.id: None}
    return world, job, [submitter, *workers], keepers


def dear_job_paid(world: World, payer: Member, worker: Member, keepers: list[Member], nonce: int = 0) -> Job:
    """A job that costs more than a starter may spend, done by one worker, which is paid for it."""
    job = Job(payer.who, 15, price=10, keepers=KEEPERS, nonce=nonce)
    assert job.cover > payer.agent.book.economy.starter_micro
    payer.hear(Fund(job.spec))
    world.run(60)
    assert payer.funded == {job.id: None}
    for keeper in keepers:
        keeper.kept[job.id] = job.record(job.accepted([worker.who]))
    worker.hear(Accepted(job.spec, tuple((unit, 0) for unit in range(15)), tuple(one.peer for one in keepers)))
    worker.hear(WorkEnded(job.id))
    world.run(600)
    assert worker.agent.account.earned_micro == job.price * job.units
    return job


class Liar(Member):
    """A witness that answers what the test wants."""

    answers: dict[type, messages.Reply]

    def hear(self, event: object) -> None:
        if isinstance(event, fx.Requested) and type(event.message) in getattr(self, "answers", {}):
            self.world.answer(event.token, self.answers[type(event.message)])
        else:
            super().hear(event)


def liars(world: World, number: int, answers: dict[type, messages.Reply]) -> list[Member]:
    found: list[Member] = []
    for n in range(number):
        liar = Liar(world, person(900 + n), ECONOMY)
        liar.answers = answers
        world.members[liar.peer] = liar
        found.append(liar)
        world.link(liar)
    return found
