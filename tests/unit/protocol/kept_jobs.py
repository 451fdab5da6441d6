"""A keeper of other peers' jobs whose submitters are away, and workers that do at once what they are given."""

from random import Random

from sparkle_protocol import effects as fx
from sparkle_protocol import facts as f
from sparkle_protocol import messages as m
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import JobId, PeerId, ResultHash, hash_result
from sparkle_protocol.work.fairness import Weigh, equal_weight
from sparkle_protocol.work.kept_job import KeptJob
from sparkle_protocol.work.lease import SECOND_NS
from sparkle_protocol.work.rules import PRODUCTION, Rules
from sparkle_protocol.work.submitter import Submitter
from tests.unit.protocol.test_keeping import CODEC, NONCE, RIGHT, check_form

ME, *OTHERS = (Identity.from_private_bytes(bytes([100 + n]) * 32) for n in range(6))
AWAY_NS = 60 * SECOND_NS  # by then everybody who says nothing is taken for away


class LoneKeeper:
    """Keeps jobs with others who are all away, so that every unit is its own to hand out."""

    def __init__(self, weigh: Weigh = equal_weight, rules: Rules = PRODUCTION) -> None:
        self.now = 0
        self.core = Submitter(ME, CODEC, Random(1), check_form, weigh, rules)
        self.disk: list[fx.Record] = []
        self.events: list[fx.Notify] = []
        self.sent: list[fx.Effect] = []
        self.granted: dict[JobId, int] = {}
        self._nonce = 0

    def perform(self, effects: fx.Effects) -> m.Reply | None:
        answer = None
        for effect in effects:
            if isinstance(effect, fx.Persist):
                self.disk += effect.records
            elif isinstance(effect, fx.Notify):
                self.events.append(effect)
            elif isinstance(effect, fx.Reply):
                answer = effect.message
            else:
                self.sent.append(effect)
        return answer

    def ask(self, peer: Identity, message: m.Request) -> m.Reply:
        answer = self.perform(self.core.handle(fx.Requested(1, peer.peer_id, message), self.now))
        assert answer is not None
        return answer

    def pass_time(self, ns: int) -> None:
        for _ in range(max(1, ns // (5 * SECOND_NS))):
            self.now += min(ns, 5 * SECOND_NS)
            self.perform(self.core.handle(fx.Tick(), self.now))

    def offer(
        self, submitter: Identity, units: int, *, away: bool = True, quorum: int = 1, **changes: object
    ) -> tuple[JobId, m.Reply]:
        """Have a submitter publish a job here; it, and the other keepers, are away from then on."""
        self._nonce += 1
        fields: dict[str, object] = {"priority": 5, "resources": f.Resources(), "verification": "exact", **changes}
        spec = f.JobSpec(
            "square", 1, {}, units, policy=f.Policy(quorum=quorum), deadlines=f.Deadlines(),
            audit_commitment=b"\0" * 32, nonce=self._nonce.to_bytes(16, "big"), created_ms=0, **fields,
        )  # fmt: skip
        fact = CODEC.seal(submitter, spec)
        keys = [ME.public_key, *(other.public_key for other in OTHERS[:3])]
        named = CODEC.seal(submitter, f.KeeperSet(fact.job, 0, keys, 3))
        reply = self.ask(submitter, m.Push(fact.job, [fact.raw, named.raw]))
        if away:
            self.pass_time(AWAY_NS)
        return fact.job, reply

    def job(self, job_id: JobId) -> KeptJob:
        return self.core.kept[job_id]

    def lease(self, worker: Identity, want: int = 8, device: str = "") -> list[tuple[JobId, int]]:
        reply = self.ask(worker, m.LeaseRequest(want, ["square@1"], [], device))
        assert isinstance(reply, m.LeaseReply), reply
        given: list[tuple[JobId, int]] = []
        for raw in reply.leases:
            fact = CODEC.open(raw)
            assert isinstance(fact.payload, f.Leases)
            given += [(fact.job, item.unit) for item in fact.payload.items]
        for job, _ in given:
            self.granted[job] = self.granted.get(job, 0) + 1
        return given

    def report(self, worker: Identity, job: JobId, *stated: f.Payload, **more: object) -> m.Reply:
        raws = [CODEC.seal(worker, payload).raw for payload in stated]
        fields = {"results": [], "running": [], "returned": [], **more}
        return self.ask(worker, m.Report(job, raws, **fields))  # type: ignore[arg-type]

    def fail(self, worker: Identity, job: JobId, unit: int, code: str = "kernel") -> None:
        self.report(worker, job, f.Failures(job, [f.FailureItem(unit, 0, code, "it broke")]))

    def commit(self, worker: Identity, job: JobId, unit: int, result: bytes = RIGHT) -> m.Reply:
        name = ResultHash(hash_result(result))
        seal = f.commitment("test", job, unit, 0, worker.public_key, name, NONCE)
        return self.report(worker, job, f.Commits(job, [f.CommitItem(unit, 0, seal)]))

    def show(self, worker: Identity, job: JobId, unit: int, result: bytes = RIGHT) -> m.Reply:
        items = [f.RevealItem(unit, 0, hash_result(result), NONCE)]
        return self.report(worker, job, f.Reveals(job, items), results=[result])

    def compute(self, worker: Identity, job: JobId, unit: int, result: bytes = RIGHT) -> None:
        """Commit and show."""
        self.commit(worker, job, unit, result)
        self.show(worker, job, unit, result)

    def told(self, event: str) -> list[fx.Notify]:
        return [one for one in self.events if one.event == event]


def peer(number: int) -> Identity:
    return Identity.from_private_bytes(number.to_bytes(32, "big"))


def work(keeper: LoneKeeper, seconds: dict[JobId, float], workers: int, total_s: float) -> dict[PeerId, float]:
    """Let workers compute what they are given until the time is over; returns how much each submitter got.

    They come as somebody new each time: what they gave is not final here, so each would soon have its fill.
    """
    got: dict[PeerId, float] = {}
    free = [0.0] * workers
    start, asked = keeper.now, 0
    while min(free) < total_s:
        place = free.index(min(free))
        worker, asked = peer(1000 + asked), asked + 1
        keeper.now = start + int(free[place] * 1e9)
        for job, unit in keeper.lease(worker, 2):
            free[place] += seconds[job]
            keeper.now = start + int(free[place] * 1e9)
            keeper.compute(worker, job, unit)
            owner = keeper.job(job).state.submitter
            got[owner] = got.get(owner, 0.0) + seconds[job]
    return got
