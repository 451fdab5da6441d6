"""A worker agent among keepers that say what a test wants, with a disk that survives its restarts."""

from collections.abc import Iterable
from random import Random

from sparkle_protocol import effects as fx
from sparkle_protocol import facts as f
from sparkle_protocol import messages as m
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import JobId, PeerId
from sparkle_protocol.work.placement import threshold
from sparkle_protocol.work.worker import SECOND_NS, WorkerAgent

CODEC = f.FactCodec("test")
ME, SUBMITTER, *OTHERS = (Identity.from_private_bytes(bytes([n]) * 32) for n in range(1, 9))
NAMES = {identity.peer_id: identity for identity in (ME, SUBMITTER, *OTHERS)}


class Disk:
    """What was made durable."""

    def __init__(self) -> None:
        self.facts: dict[bytes, f.Fact] = {}
        self.commits: dict[tuple[JobId, int, int], tuple[bytes, bytes]] = {}

    def write(self, record: fx.Record) -> None:
        if isinstance(record, fx.StoreFact):
            self.facts[record.fact.id] = record.fact
        elif isinstance(record, fx.DropFact):
            self.facts.pop(record.fact_id, None)
        elif isinstance(record, fx.StoreCommit):
            self.commits[record.job, record.unit, record.epoch] = (record.nonce, record.result)
        elif isinstance(record, fx.DropCommit):
            self.commits.pop((record.job, record.unit, record.epoch), None)
        elif isinstance(record, fx.DropCommits):
            for key in [key for key in self.commits if key[0] == record.job]:
                del self.commits[key]

    def leases(self) -> list[f.Fact]:
        return [fact for fact in self.facts.values() if isinstance(fact.payload, f.Leases)]


class Scene:
    """One job kept by ``keepers``, the submitter among them if it is named, and a worker."""

    def __init__(
        self,
        *keepers: Identity,
        units: int = 64,
        slots: int = 1,
        device: str = "",
        inputs: Iterable[bytes] = (),
    ) -> None:
        self.slots, self.device = slots, device
        self.disk = Disk()
        self.now = 0
        self.effects: list[fx.Effect] = []  # not looked at yet
        self.reports: list[m.Report] = []  # all that were ever sent, for who wants to check them
        self.spec = CODEC.seal(SUBMITTER, f.JobSpec(
            "square", 1, {}, units, "exact", f.Policy(), f.Resources(), f.Deadlines(), b"\0" * 32, b"n" * 16, 0,
            inputs=[*inputs],
        ))  # fmt: skip
        self.job = self.spec.job
        self.views = [self.set_of(keepers)]
        self.start()

    def set_of(self, keepers: Iterable[Identity], view: int = 0) -> f.Fact:
        keys = [keeper.public_key for keeper in keepers]
        return CODEC.seal(SUBMITTER, f.KeeperSet(self.job, view, keys, threshold(len(keys))))

    def start(self) -> None:
        self.agent = WorkerAgent(ME, CODEC, Random(1), ["square@1"], self.slots, self.device)

    def restart(self) -> None:
        """Die, and come back from the disk."""
        self.start()
        self.effects.clear()
        commits = [(u, e, *kept) for (job, u, e), kept in self.disk.commits.items() if job == self.job]
        facts = [fact for fact in self.disk.facts.values() if fact.id != self.spec.id]
        self.perform(self.agent.restore(self.disk.facts[self.spec.id], facts, commits, self.now))

    # --- the shell ----------------------------------------------------------------------------------------

    def perform(self, effects: fx.Effects) -> None:
        for effect in effects:
            self.effects.append(effect)
            if isinstance(effect, fx.Send) and isinstance(effect.message, m.Report):
                self.reports.append(effect.message)
            for record in effect.records if isinstance(effect, fx.Persist) else ():
                self.disk.write(record)
        due = self.agent.next_deadline()
        assert due is None or due > self.now

    def tell(self, event: object) -> None:
        self.perform(self.agent.handle(event, self.now))

    def wait(self, seconds: float, *, lost: Iterable[Identity] = ()) -> int:
        """Let time pass; whatever is sent to a ``lost`` peer fails at once. Returns how much that was."""
        failed = 0
        gone = {keeper.peer_id for keeper in lost}
        end = self.now + int(seconds * SECOND_NS)
        for _ in range(10_000):
            for effect in [e for e in self.effects if isinstance(e, fx.Send) and e.peer in gone]:
                self.effects.remove(effect)
                failed += 1
                self.tell(fx.SendFailed(effect.tag, effect.peer, "lost"))
            due = self.agent.next_deadline()
            if due is None or due > end:
                self.now = end
                return failed
            self.now = due
            self.tell(fx.Tick())
        raise AssertionError("the agent spins")

    def took(self, kind: type[fx.Effect]) -> list[fx.Effect]:
        found = [effect for effect in self.effects if isinstance(effect, kind)]
        self.effects = [effect for effect in self.effects if not isinstance(effect, kind)]
        return found

    def sends(self, keeper: Identity, kind: type[m.Request]) -> list[fx.Send]:
        """Requests of a kind to a keeper that are not answered yet."""
        return [
            effect
            for effect in self.effects
            if isinstance(effect, fx.Send) and effect.peer == keeper.peer_id and isinstance(effect.message, kind)
        ]

    def report(self, keeper: Identity) -> tuple[int, list[f.Fact], m.Report]:
        """The one report that waits for this keeper's answer."""
        (send,) = self.sends(keeper, m.Report)
        self.effects.remove(send)
        assert isinstance(send.message, m.Report)
        assert m.decode_request(m.encode_message(send.message)) == send.message
        return send.tag, [CODEC.open(raw) for raw in send.message.facts], send.message

    # --- the keepers --------------------------------------------------------------------------------------

    def lease(self, keeper: Identity, *units: int, epoch: int = 0) -> f.Fact:
        items = [f.LeaseItem(unit, unit, epoch, ME.public_key, 30_000) for unit in units]
        return CODEC.seal(keeper, f.Leases(self.job, items))

    def offer(self, keeper: Identity, waiting: int = 0) -> None:
        self.tell(fx.Requested(1, keeper.peer_id, m.Offer(["square@1"], waiting)))

    def give(self, keeper: Identity, *units: int, epoch: int = 0, show: bool = True, waiting: int = 0) -> None:
        """Answer the keeper's request for work; it waits a minute before the next."""
        if not self.sends(keeper, m.LeaseRequest):
            self.offer(keeper)
        send = self.sends(keeper, m.LeaseRequest)[-1]
        self.effects.remove(send)
        leases = [self.lease(keeper, *units, epoch=epoch).raw] if units else []
        jobs = [m.JobFacts(self.spec.raw, [fact.raw for fact in self.views])] if units and show else []
        reply = m.LeaseReply(jobs, leases, 60_000, 1, waiting)
        self.tell(fx.Replied(send.tag, keeper.peer_id, reply))

    def hear(self, keeper: Identity, tag: int, **news: object) -> None:
        self.tell(fx.Replied(tag, keeper.peer_id, m.ReportReply(self.job, **_news(news))))  # type: ignore[arg-type]

    def notice(self, keeper: Identity, **news: object) -> None:
        self.tell(fx.Requested(7, keeper.peer_id, m.Notice(self.job, **_news(news))))  # type: ignore[arg-type]

    def refuse(self, keeper: Identity, tag: int, code: str) -> None:
        self.tell(fx.Replied(tag, keeper.peer_id, m.Refusal(code, "no")))

    def compute(self, unit: int, epoch: int = 0, result: bytes = b"result", seconds: float | None = None) -> None:
        self.tell(fx.Computed(self.job, unit, epoch, result, seconds))

    def up(self, *keepers: Identity) -> None:
        for keeper in keepers:
            self.tell(fx.PeerUp(keeper.peer_id, ()))

    def down(self, *keepers: Identity) -> None:
        for keeper in keepers:
            self.tell(fx.PeerDown(keeper.peer_id))

    @property
    def held(self) -> dict[int, tuple[int, str, PeerId]]:
        """Epoch, state and keeper by unit."""
        return {unit: (epoch, one.state, one.keeper) for (_, unit, epoch), one in self.agent.held.items()}

    def states(self) -> dict[int, str]:
        return {unit: state for unit, (_, state, _) in self.held.items()}


def _news(fields: dict[str, object]) -> dict[str, object]:
    return {"reveal": [], "drop": [], "settled": [], "ended": False, **fields}


def commits_in(facts: Iterable[f.Fact]) -> list[f.CommitItem]:
    return [item for fact in facts if isinstance(fact.payload, f.Commits) for item in fact.payload.items]


def leases_in(facts: Iterable[f.Fact]) -> list[f.Fact]:
    return [fact for fact in facts if isinstance(fact.payload, f.Leases)]
