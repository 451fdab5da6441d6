"""A keeper's rules, one at a time: what it hands out, asks for, accepts, rejects, and remembers over a restart."""

from random import Random

import pytest

from sparkle_protocol import effects as fx
from sparkle_protocol import facts as f
from sparkle_protocol import messages as m
from sparkle_protocol.errors import ConfigError, VerificationError
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import JobId, ResultHash, hash_result
from sparkle_protocol.work import conduct
from sparkle_protocol.work.kept_job import KeptJob
from sparkle_protocol.work.lease import MIN_TTL_NS, REVEAL_DEADLINE_NS, SECOND_NS, SILENT_NS, SLOW_UNKNOWN_NS
from sparkle_protocol.work.rejection import Rejection
from sparkle_protocol.work.submitter import Submitter

CODEC = f.FactCodec("test")
ME, A, B, C, D = (Identity.from_private_bytes(bytes([n]) * 32) for n in range(1, 6))
NONCE = b"n" * 16
RIGHT, WRONG = b"right", b"wrong"


def check_form(spec: f.JobSpec, unit: int, result: bytes) -> None:
    if len(result) != 5:
        raise VerificationError("five bytes, please")


def spec(units: int = 1, **changes: object) -> f.JobSpec:
    deadlines = f.Deadlines(**{k: v for k, v in changes.items() if k.endswith("_s")})  # type: ignore[arg-type]
    policy = changes.get("policy", f.Policy())
    assert isinstance(policy, f.Policy)
    return f.JobSpec(
        "square", 1, {}, units, "exact", policy, f.Resources(), deadlines, b"\0" * 32, b"\0" * 16, 0
    )  # fmt: skip


class Keeper:
    """A submitter with one job, its disk, and workers that say what the test wants."""

    def __init__(self, job: f.JobSpec) -> None:
        self.now = 0
        self.disk: list[f.Fact] = []
        self.results: list[ResultHash] = []
        self.refused: list[fx.StoreRejection] = []
        self.token = 0
        self.told: dict[str, list[m.Notice]] = {}
        self.violations: list[str] = []
        self.core = Submitter(ME, CODEC, Random(1), check_form)
        self.id, effects = self.core.submit(job, 0)
        self.perform(effects)

    @property
    def job(self) -> KeptJob:
        return self.core.jobs[self.id]

    def perform(self, effects: fx.Effects) -> m.Reply | None:
        answer = None
        for effect in effects:
            if isinstance(effect, fx.Persist):
                self.disk += [record.fact for record in effect.records if isinstance(record, fx.StoreFact)]
                self.results += [r.result_hash for r in effect.records if isinstance(r, fx.StoreResult)]
                self.refused += [record for record in effect.records if isinstance(record, fx.StoreRejection)]
            elif isinstance(effect, fx.Reply):
                answer = effect.message
            elif isinstance(effect, fx.Send) and isinstance(effect.message, m.Notice):
                self.told.setdefault(effect.peer, []).append(effect.message)
            elif isinstance(effect, fx.Violation):
                self.violations.append(effect.reason)
        return answer

    def restart(self) -> None:
        self.core = Submitter(ME, CODEC, Random(2), check_form)
        self.told.clear()
        refused = [Rejection.decode(record) for record in self.refused]
        facts = self.disk[0], self.disk[1:]
        self.perform(self.core.restore(*facts, self.now, self.results, rejections=refused))

    def ask(self, worker: Identity, message: m.Request) -> m.Reply:
        self.token += 1
        answer = self.perform(self.core.handle(fx.Requested(self.token, worker.peer_id, message), self.now))
        assert answer is not None
        return answer

    def pass_time(self, ns: int) -> None:
        self.now += ns
        self.perform(self.core.handle(fx.Tick(), self.now))

    def lease(self, worker: Identity, want: int = 1) -> list[int]:
        reply = self.ask(worker, m.LeaseRequest(want, ["square@1"], []))
        assert isinstance(reply, m.LeaseReply)
        payloads = [CODEC.open(raw).payload for raw in reply.leases]
        return [item.unit for payload in payloads if isinstance(payload, f.Leases) for item in payload.items]

    def report(self, worker: Identity, *stated: f.Payload, **more: object) -> m.ReportReply:
        raws = [CODEC.seal(worker, payload).raw for payload in stated]
        fields = {"results": [], "running": [], "returned": [], **more}
        reply = self.ask(worker, m.Report(self.id, raws, **fields))  # type: ignore[arg-type]
        assert isinstance(reply, m.ReportReply), reply
        return reply

    def commit(self, worker: Identity, result: bytes, *units: int, nonce: bytes = NONCE) -> m.ReportReply:
        items = [f.CommitItem(unit, 0, self.commitment(worker, unit, result, nonce)) for unit in units or (0,)]
        return self.report(worker, f.Commits(self.id, items))

    def commitment(self, worker: Identity, unit: int, result: bytes, nonce: bytes = NONCE) -> bytes:
        digest = hash_result(result)
        return f.commitment("test", self.id, unit, 0, worker.public_key, ResultHash(digest), nonce)

    def reveal(self, worker: Identity, result: bytes, unit: int = 0) -> m.ReportReply:
        items = [f.RevealItem(unit, 0, hash_result(result), NONCE)]
        return self.report(worker, f.Reveals(self.id, items), results=[result])

    def fail(self, worker: Identity, code: str = "kernel", unit: int = 0) -> m.ReportReply:
        return self.report(worker, f.Failures(self.id, [f.FailureItem(unit, 0, code, "it broke")]))

    def beat(self, worker: Identity, unit: int = 0) -> m.ReportReply:
        return self.report(worker, running=[m.Heartbeat(unit, 0, 0.5)])

    def agree(self, *workers: Identity, result: bytes = RIGHT) -> None:
        for worker in workers:
            assert self.lease(worker) == [0]
            self.commit(worker, result)
        for worker in workers:
            self.reveal(worker, result)


def asked(reply: m.ReportReply) -> list[int]:
    return [wanted.unit for wanted in reply.reveal]


def test_a_result_is_asked_for_only_after_every_wanted_replica_has_committed() -> None:
    keeper = Keeper(spec())
    keeper.lease(A)
    assert asked(keeper.commit(A, RIGHT)) == []
    assert asked(keeper.beat(A)) == []
    keeper.lease(B)
    assert asked(keeper.commit(B, RIGHT)) == [0]
    assert [wanted.unit for wanted in keeper.told[A.peer_id][0].reveal] == [0]


def test_after_a_disagreement_the_third_shows_nothing_before_it_committed() -> None:
    keeper = Keeper(spec())
    for worker, result in ((A, RIGHT), (B, WRONG)):
        keeper.lease(worker)
        keeper.commit(worker, result)
    assert keeper.reveal(A, RIGHT).settled == []
    assert keeper.reveal(B, WRONG).settled == []
    assert keeper.lease(C) == [0]
    assert asked(keeper.commit(C, RIGHT)) == [0]
    settled = keeper.reveal(C, RIGHT).settled
    assert [(s.unit, s.accepted) for s in settled] == [(0, True)]
    assert keeper.job.outcome == "done"
    (rejection,) = keeper.job.rejections
    assert (rejection.worker, rejection.code) == (B.peer_id, "minority")
    assert rejection.agreeing == tuple(sorted((A.peer_id, C.peer_id)))
    assert not keeper.told[B.peer_id][-1].settled[0].accepted


def test_a_worker_gets_a_unit_once() -> None:
    keeper = Keeper(spec())
    keeper.lease(A)
    assert keeper.lease(A) == []
    keeper.commit(A, RIGHT)
    assert keeper.lease(A) == []


def test_two_different_commits_end_a_workers_part() -> None:
    keeper = Keeper(spec(2))
    assert keeper.lease(A) == [0]
    keeper.commit(A, RIGHT)
    keeper.commit(A, WRONG)
    keeper.commit(A, WRONG, nonce=b"x" * 16)  # a third proves nothing more
    assert keeper.job.rejections[0].code == "equivocation"
    assert len(keeper.job.rejections) == 1
    assert keeper.lease(A) == []
    facts = len(keeper.disk)
    keeper.restart()
    assert len(keeper.disk) == facts
    assert keeper.lease(A) == []
    assert keeper.job.rejections[0].code == "equivocation"


def test_a_result_of_impossible_form_is_refused_and_never_counts_even_after_a_restart() -> None:
    keeper = Keeper(spec())
    for worker in (A, B):
        keeper.lease(worker)
        keeper.commit(worker, b"too long")
    keeper.reveal(A, b"too long")
    keeper.reveal(B, b"too long")
    assert {rejection.code for rejection in keeper.job.rejections} == {"malformed"}
    keeper.restart()
    assert keeper.job.state.verdict(0) is None
    keeper.pass_time(REVEAL_DEADLINE_NS)
    keeper.agree(C, D)
    assert keeper.job.outcome == "done"


def test_who_withholds_is_replaced_and_heard_when_it_returns() -> None:
    keeper = Keeper(spec())
    for worker in (A, B):
        keeper.lease(worker)
        keeper.commit(worker, RIGHT)
    keeper.reveal(A, RIGHT)
    keeper.pass_time(REVEAL_DEADLINE_NS)
    assert keeper.lease(C) == [0]  # somebody else may do it
    assert asked(keeper.beat(B)) == [0]  # but so may B
    keeper.reveal(B, RIGHT)
    assert keeper.job.outcome == "done"


def test_who_withholds_again_and_again_gets_nothing_more() -> None:
    keeper = Keeper(spec(8))
    units = [keeper.lease(A)[0] for _ in range(4)]
    keeper.commit(A, RIGHT, *units)
    for unit in units:
        worker = B if unit % 2 else C
        taken = []
        while unit not in taken:
            taken += keeper.lease(worker)
        keeper.commit(worker, RIGHT, unit)
    keeper.pass_time(REVEAL_DEADLINE_NS)
    assert keeper.lease(A) == []


def test_who_showed_everything_late_gets_units_again() -> None:
    """Others had finished its units meanwhile, so that nobody waited for it any more."""
    keeper = Keeper(spec(20))
    for worker in (A, C):
        assert keeper.lease(worker, 3) == [0, 1, 2]
        keeper.commit(worker, RIGHT, 0, 1, 2)
    for unit in range(3):
        keeper.reveal(A, RIGHT, unit)
    keeper.pass_time(REVEAL_DEADLINE_NS)
    assert keeper.lease(C) == []
    assert keeper.lease(B, 3) == [0, 1, 2]
    keeper.commit(B, RIGHT, 0, 1, 2)
    for worker in (B, C):
        for unit in range(3):
            keeper.reveal(worker, RIGHT, unit)
    assert keeper.lease(C, 2) == [3, 4]


def test_a_unit_that_others_found_impossible_is_not_in_the_way() -> None:
    """Three failures of a unit that was never handed out here arrive in one message of another keeper."""
    keeper = Keeper(spec(8))
    leases = [f.LeaseItem(number, 0, 0, worker.public_key, 60_000) for number, worker in enumerate((A, B, C))]
    failures = f.Failures(keeper.id, [f.FailureItem(0, 0, "kernel", "it broke")])
    facts = [CODEC.seal(ME, f.Leases(keeper.id, leases))]
    facts += [CODEC.seal(worker, failures) for worker in (A, B, C)]
    keeper.job.learn(facts, (), keeper.now)
    assert keeper.job.dead.keys() == {0}
    assert keeper.lease(D, 2) == [1, 2]


def test_latecomers_are_judged_by_comparison() -> None:
    keeper = Keeper(spec())
    keeper.lease(C)
    keeper.pass_time(MIN_TTL_NS)
    keeper.lease(D)
    keeper.pass_time(MIN_TTL_NS)
    keeper.agree(A, B)
    assert keeper.job.outcome == "done"
    assert asked(keeper.commit(C, WRONG)) == [0]
    assert not keeper.reveal(C, WRONG).settled[0].accepted
    keeper.commit(D, RIGHT)
    assert keeper.reveal(D, RIGHT).settled[0].accepted
    assert keeper.job.state.rejected_workers(0) == {C.peer_id}
    assert keeper.job.state.accepted_workers(0) == {A.peer_id, B.peer_id, D.peer_id}
    assert not keeper.job.state.two_faced


def test_our_own_worker_needs_no_second_and_rejects_who_differs() -> None:
    keeper = Keeper(spec())
    keeper.lease(A)
    keeper.commit(A, WRONG)
    assert keeper.lease(ME) == [0]
    keeper.commit(ME, RIGHT)
    keeper.reveal(ME, RIGHT)
    keeper.reveal(A, WRONG)
    assert keeper.job.outcome == "done"
    assert [(r.worker, r.code) for r in keeper.job.rejections] == [(A.peer_id, "trusted")]


def test_the_units_that_a_liar_had_a_part_in_are_done_again() -> None:
    keeper = Keeper(spec(2))
    for worker in (A, B):
        assert keeper.lease(worker, 1) + keeper.lease(worker, 1) == [0, 1]
    keeper.commit(A, WRONG, 0, 1)
    keeper.commit(B, RIGHT, 0, 1)
    keeper.reveal(A, WRONG, 0)
    keeper.reveal(B, RIGHT, 0)
    assert keeper.lease(C) == [0]
    keeper.commit(C, RIGHT, 0)
    keeper.reveal(C, RIGHT, 0)
    assert A.peer_id in keeper.job.rejected
    assert keeper.lease(D) == [1]
    assert keeper.lease(A) == []


def test_failures_kill_a_unit_when_three_workers_fail_alike() -> None:
    keeper = Keeper(spec())
    for worker in (A, B, C):
        while keeper.lease(worker) != [0]:
            keeper.pass_time(SECOND_NS)
        keeper.fail(worker)
    assert keeper.job.outcome == "failed"
    assert "it broke" in keeper.job.error


def test_a_crash_of_our_own_machine_does_not_condemn_the_unit() -> None:
    keeper = Keeper(spec())
    keeper.lease(ME)
    keeper.fail(ME, "crash")
    assert keeper.job.outcome == ""
    keeper.pass_time(5 * SECOND_NS)
    keeper.agree(A, B)
    assert keeper.job.outcome == "done"


def test_a_kernel_failure_of_our_own_does() -> None:
    keeper = Keeper(spec())
    keeper.lease(ME)
    keeper.fail(ME, "kernel")
    assert keeper.job.outcome == "failed"


@pytest.mark.parametrize("how", ["dead", "total", "queue", "cancel"])
def test_how_a_job_ended_is_remembered(how: str) -> None:
    keeper = Keeper(spec(total_s=1000, queue_s=10))
    if how == "dead":
        keeper.lease(ME)
        keeper.fail(ME)
    elif how == "queue":
        keeper.pass_time(10 * SECOND_NS)
    elif how == "total":
        keeper.lease(A)
        keeper.pass_time(1000 * SECOND_NS)
    else:
        keeper.perform(keeper.core.cancel(keeper.id, "changed my mind", 0))
    before = keeper.job.outcome, keeper.job.error
    assert before[0] == ("cancelled" if how == "cancel" else "failed")
    assert keeper.core.next_deadline() is None
    assert keeper.beat(A).ended
    assert keeper.lease(B) == []
    keeper.restart()
    assert (keeper.job.outcome, keeper.job.error) == before


def test_holders_hear_of_a_cancelled_job() -> None:
    keeper = Keeper(spec(2))
    keeper.lease(A)
    keeper.lease(B)
    keeper.commit(B, RIGHT)
    keeper.perform(keeper.core.cancel(keeper.id, "changed my mind", 0))
    assert keeper.told[A.peer_id][-1].ended
    assert keeper.told[B.peer_id][-1].ended
    assert keeper.job.leases.live == 0


def test_a_peer_cannot_hoard_units() -> None:
    keeper = Keeper(spec(1000))
    taken = [unit for _ in range(100) for unit in keeper.lease(A, 64)]
    assert len(taken) == conduct.FIRST_LEASES
    keeper.commit(A, RIGHT, *taken)
    assert len(keeper.lease(A, 64)) <= conduct.FIRST_LEASES + 2 * len(taken)


def test_a_peer_that_only_says_that_it_computes_gets_no_more_until_it_answers() -> None:
    keeper = Keeper(spec(20))
    taken = keeper.lease(A, 2)
    for _ in range(SLOW_UNKNOWN_NS // SILENT_NS + 2):
        keeper.pass_time(SILENT_NS)
        for unit in taken:
            keeper.beat(A, unit)
    assert keeper.job.leases.slow(A.peer_id) == 2
    assert keeper.lease(A, 2) == []
    keeper.commit(A, RIGHT, *taken)
    assert keeper.job.leases.slow(A.peer_id) == 0
    assert len(keeper.lease(A, 2)) == 2


def test_a_copy_goes_first_to_who_has_answered_before() -> None:
    keeper = Keeper(spec(4, policy=f.Policy("fast", 1)))
    assert keeper.lease(A) == [0]
    for unit in (1, 2, 3):
        assert keeper.lease(B) == [unit]
        keeper.pass_time(10 * SECOND_NS)
        keeper.beat(A)
        keeper.commit(B, RIGHT, unit)
        keeper.reveal(B, RIGHT, unit)
    assert keeper.lease(C) == []
    assert keeper.lease(B) == [0]


def test_a_newcomer_is_given_a_copy_when_nobody_else_takes_it() -> None:
    keeper = Keeper(spec(4, policy=f.Policy("fast", 1)))
    assert keeper.lease(A) == [0]
    for unit in (1, 2, 3):
        assert keeper.lease(B) == [unit]
        keeper.pass_time(10 * SECOND_NS)
        keeper.beat(A)
        keeper.commit(B, RIGHT, unit)
        keeper.reveal(B, RIGHT, unit)
    keeper.pass_time(10 * SECOND_NS)
    keeper.beat(A)
    assert keeper.lease(C) == [0]


def test_a_peer_that_returns_all_it_gets_fills_no_memory() -> None:
    keeper = Keeper(spec(1000))
    for _ in range(1000):
        returned = [m.UnitEpoch(unit, 0) for unit in keeper.lease(A, 64)]
        keeper.report(A, returned=returned)
    assert len(keeper.disk) < 40
    assert keeper.lease(B) != []


def test_heartbeats_and_returns_of_units_that_were_never_leased_leave_no_trace() -> None:
    keeper = Keeper(spec(100_000))
    for start in range(0, 100_000, 25_000):
        beats = [m.Heartbeat(start + n, 0, 0.1) for n in range(200)]
        backs = [m.UnitEpoch(start + n, 0) for n in range(200)]
        reply = keeper.report(A, running=beats, returned=backs)
        assert len(reply.drop) == 200
    assert not keeper.job.leases.books


def test_a_bad_report_changes_nothing() -> None:
    keeper = Keeper(spec())
    keeper.lease(A)
    good = CODEC.seal(A, f.Commits(keeper.id, [f.CommitItem(0, 0, keeper.commitment(A, 0, RIGHT))]))
    other = CODEC.seal(A, f.Commits(b"x" * 32, [f.CommitItem(0, 0, b"c" * 32)]))
    disk = len(keeper.disk)
    reply = keeper.ask(A, m.Report(keeper.id, [good.raw, other.raw], [], []))
    assert isinstance(reply, m.Refusal)
    assert keeper.violations == ["a report carries facts of another job"]
    assert keeper.job.state.committed(0) == {}
    assert len(keeper.disk) == disk


@pytest.mark.parametrize("what", ["never leased", "copied commit", "wrong nonce", "wrong result"])
def test_work_that_is_not_the_workers_own_is_a_violation(what: str) -> None:
    keeper = Keeper(spec(2))
    keeper.lease(A)
    keeper.commit(A, RIGHT)
    payload: f.Payload = f.Commits(keeper.id, [f.CommitItem(0, 0, keeper.commitment(A, 0, RIGHT))])
    results: list[bytes] = []
    if what != "never leased":
        keeper.lease(B)
        keeper.commit(B, RIGHT)
        nonce = b"?" * 16 if what == "wrong nonce" else NONCE
        payload = f.Reveals(keeper.id, [f.RevealItem(0, 0, hash_result(RIGHT), nonce)])
        results = [RIGHT if what == "wrong nonce" else WRONG]
    worker = B
    if what == "copied commit":  # B stated A's commitment as its own: it cannot open it
        keeper = Keeper(spec(2))
        keeper.lease(A)
        keeper.lease(B)
        stolen = keeper.commitment(A, 0, RIGHT)
        keeper.report(B, f.Commits(keeper.id, [f.CommitItem(0, 0, stolen)]))
        payload, results = f.Reveals(keeper.id, [f.RevealItem(0, 0, hash_result(RIGHT), NONCE)]), [RIGHT]
    raw = CODEC.seal(worker, payload).raw
    assert isinstance(keeper.ask(worker, m.Report(keeper.id, [raw], results, [])), m.Refusal)
    assert len(keeper.violations) == 1


def test_repeating_a_report_changes_nothing() -> None:
    keeper = Keeper(spec())
    keeper.agree(A, B)
    before = (len(keeper.disk), keeper.job.replicas, dict(keeper.job.accepted_by))
    keeper.commit(A, RIGHT)
    keeper.reveal(A, RIGHT)
    assert (len(keeper.disk), keeper.job.replicas, dict(keeper.job.accepted_by)) == before


def test_leases_of_a_second_life_have_new_numbers() -> None:
    keeper = Keeper(spec(10))
    keeper.lease(A, 4)
    keeper.restart()
    keeper.lease(B, 4)
    counters = [
        item.counter for fact in keeper.disk if isinstance(fact.payload, f.Leases) for item in fact.payload.items
    ]
    assert len(set(counters)) == len(counters)


def test_a_job_that_no_peer_would_take_is_refused_at_once() -> None:
    core = Submitter(ME, CODEC, Random(1), check_form)
    impossible = spec(policy=f.Policy(quorum=3, max_replicas=2))
    huge = f.JobSpec(
        "square", 1, {str(n): "x" * 2000 for n in range(60)}, 1, "exact", f.Policy(), f.Resources(), f.Deadlines(),
        b"\0" * 32, b"\0" * 16, 0,
    )  # fmt: skip
    for wrong in (impossible, huge):
        with pytest.raises(ConfigError):
            core.submit(wrong, 0)
    assert core.jobs == {}
    assert core.next_deadline() is None


def test_many_verdicts_at_once_fit_into_facts() -> None:
    """Sixteen agreeing workers to a unit make verdicts too large for one fact."""
    keeper = Keeper(spec(300))
    keys = [bytes([n]) * 32 for n in range(64)]
    keeper.job.verdicts += [f.VerdictItem(unit, 0, b"r" * 32, keys, keys) for unit in range(300)]
    keeper.core._conclude(keeper.job, 0)
    stated = [fact for fact in keeper.job.state.facts() if isinstance(fact.payload, f.Verdicts)]
    assert sum(len(fact.payload.items) for fact in stated) == 300
    assert max(len(fact.raw) for fact in stated) <= f.MAX_FACT_BYTES


def test_a_million_units_cost_no_more_to_submit_and_to_hand_out_than_ten() -> None:
    keeper = Keeper(spec(1 << 20))
    assert len(keeper.disk) == 2
    assert keeper.lease(A, 64) == list(range(conduct.FIRST_LEASES))
    assert len(keeper.job.leases.books) == conduct.FIRST_LEASES
    keeper.perform(keeper.core.handle(fx.PeerDown(A.peer_id), 0))
    keeper.pass_time(MIN_TTL_NS)
    assert keeper.lease(B, 64) == list(range(conduct.FIRST_LEASES))


def test_an_unknown_job_is_refused_without_offence() -> None:
    keeper = Keeper(spec())
    reply = keeper.ask(A, m.Report(JobId(b"?" * 32), [], [], []))
    assert isinstance(reply, m.Refusal)
    assert reply.code == "unknown_job"
    assert keeper.violations == []


def test_workers_that_wait_for_each_other_may_help_each_other_out() -> None:
    """Everybody's hands are full of results that want a second answer, and those who had begun it are gone."""
    keeper = Keeper(spec(16))
    for worker, partner in ((A, C), (B, D)):
        units = keeper.lease(worker, 8)
        keeper.commit(worker, RIGHT, *units)
        assert keeper.lease(partner, 8) == units
    keeper.pass_time(MIN_TTL_NS)
    for worker, units in ((A, range(8, 16)), (B, range(8))):
        for unit in units:
            assert keeper.lease(worker, 8) == [unit]
            assert asked(keeper.commit(worker, RIGHT, unit)) == [unit]
