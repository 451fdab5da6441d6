"""Results that are checked and not compared, rule by rule, and the inputs of jobs at workers."""

import msgspec

from sparkle_protocol import effects as fx
from sparkle_protocol import facts as f
from sparkle_protocol import messages as m
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import JobId, ResultHash, hash_result
from sparkle_protocol.work.checking import AGAIN_NS
from sparkle_protocol.work.lease import SECOND_NS
from tests.unit.protocol.kept_jobs import OTHERS, LoneKeeper, peer
from tests.unit.protocol.owners import KEEPERS, Owner
from tests.unit.protocol.scripted_keepers import ME, SUBMITTER, Scene
from tests.unit.protocol.scripted_keepers import OTHERS as STRANGERS
from tests.unit.protocol.test_keeping import CODEC, NONCE, RIGHT, WRONG, A, B, C, Keeper, spec

ALICE = peer(1)
WORKERS = [peer(10 + n) for n in range(4)]
TILES = (b"a" * 32, b"b" * 32)


def checked(units: int = 1, **changes: object) -> f.JobSpec:
    fields = {"verification": "tolerance", "policy": f.Policy(quorum=1), **changes}
    return msgspec.structs.replace(spec(units), **fields)


class Checker(Keeper):
    """A submitter whose shell is asked to check."""

    def __init__(self, job: f.JobSpec) -> None:
        self.asked: list[fx.CheckUnit] = []
        super().__init__(job)

    def perform(self, effects: fx.Effects) -> m.Reply | None:
        self.asked += [effect for effect in effects if isinstance(effect, fx.CheckUnit)]
        return super().perform(effects)

    def show(self, worker: Identity, result: bytes = RIGHT) -> None:
        assert self.lease(worker) == [0]
        self.commit(worker, result)
        self.reveal(worker, result)

    def answer(self, worker: Identity, passed: bool | None, text: str = "") -> None:
        (check,) = [one for one in self.asked if one.worker == worker.peer_id]
        self.asked.remove(check)
        event = fx.UnitChecked(self.id, check.unit, check.epoch, check.worker, passed, text)
        self.perform(self.core.handle(event, self.now))


def test_a_revealed_result_is_checked_by_its_bytes_and_accepted_when_it_passes() -> None:
    keeper = Checker(checked())
    keeper.show(A)
    (check,) = keeper.asked
    assert (check.unit, check.epoch, check.worker, check.result) == (0, 0, A.peer_id, RIGHT)
    assert check.sources == (A.peer_id,)
    assert check.spec == keeper.job.state.spec
    assert not keeper.job.state.finished
    keeper.answer(A, True)
    assert keeper.job.outcome == "done"
    verdict = keeper.job.state.verdict(0)
    assert verdict is not None
    assert (verdict.accepted, verdict.rejected) == ([A.public_key], [])


def test_who_fails_is_told_so_and_rejected_with_the_text_and_another_worker_is_wanted() -> None:
    keeper = Checker(checked())
    keeper.show(A, WRONG)
    keeper.answer(A, False, "far off")
    (rejection,) = keeper.job.rejections
    assert (rejection.worker, rejection.code, rejection.text) == (A.peer_id, "check", "far off")
    assert [(one.unit, one.accepted) for notice in keeper.told[A.peer_id] for one in notice.settled] == [(0, False)]
    assert keeper.lease(A) == []
    keeper.show(B)
    keeper.answer(B, True)
    assert keeper.job.outcome == "done"
    assert keeper.job.state.rejected_workers(0) == set()  # the difference alone proves nothing


def test_what_a_check_refused_stays_so_after_a_restart() -> None:
    keeper = Checker(checked(units=2))
    keeper.show(A, WRONG)
    keeper.answer(A, False, "far off")
    before = list(keeper.job.rejections)
    for _ in range(2):  # what an earlier life left is not stored once more
        keeper.restart()
        assert keeper.job.rejections == before
        assert (keeper.job.rejected_count, keeper.job.rejected) == (1, {A.peer_id})
        assert len(keeper.refused) == 1
        assert keeper.asked == []
    assert keeper.lease(A) == []
    keeper.show(B)
    keeper.answer(B, True)
    keeper.restart()
    assert keeper.job.rejected_count == 1


def test_the_same_bytes_are_not_checked_twice() -> None:
    keeper = Checker(checked())
    keeper.show(A, WRONG)
    keeper.answer(A, False, "far off")
    keeper.show(B, WRONG)
    assert keeper.asked == []
    assert {one.worker for one in keeper.job.rejections} == {A.peer_id, B.peer_id}


def test_two_different_results_are_no_dispute_and_the_later_one_goes_unjudged() -> None:
    keeper = Checker(checked())
    keeper.show(A)
    keeper.job.leases.known(0).withheld.add(A.peer_id)  # as if it were slow, so that another is wanted
    keeper.job._refresh(0)
    keeper.show(B, WRONG)
    keeper.answer(A, True)
    keeper.answer(B, False, "far off")
    assert keeper.job.rejected == set()
    assert not keeper.job._disputed


def test_a_check_in_vain_counts_as_a_result_not_shown_and_is_tried_again() -> None:
    keeper = Checker(checked())
    keeper.show(A)
    keeper.answer(A, None)
    assert keeper.job.rejected == set()
    assert keeper.job._conduct.of(A.peer_id).withheld == 1
    assert keeper.job.missing(0) == 1
    keeper.pass_time(AGAIN_NS - 1)
    assert keeper.asked == []
    keeper.pass_time(1)
    keeper.answer(A, True)
    assert keeper.job.outcome == "done"
    assert keeper.job._conduct.of(A.peer_id).withheld == 0


def test_after_a_restart_what_was_shown_is_asked_for_and_checked_again() -> None:
    keeper = Checker(checked())
    keeper.show(A)
    keeper.asked.clear()
    keeper.restart()
    reply = keeper.beat(A)
    assert [wanted.unit for wanted in reply.reveal] == [0]
    keeper.reveal(A, RIGHT)
    keeper.answer(A, True)
    assert keeper.job.outcome == "done"


def test_a_unit_is_dead_after_so_many_wrong_results() -> None:
    keeper = Checker(checked(policy=f.Policy(quorum=1, max_replicas=3)))
    for worker, result in ((A, b"wrong"), (B, b"bogus"), (C, b"false")):
        keeper.show(worker, result)
        keeper.answer(worker, False, "far off")
    assert keeper.job.error == "unit 0: the results of 3 workers failed the check; far off"


# --- other keepers ----------------------------------------------------------------------------------------------


def stated(author: Identity, job: JobId, worker: Identity, result: bytes = RIGHT) -> f.Fact:
    return CODEC.seal(author, f.Verdicts(job, [f.VerdictItem(0, 0, hash_result(result), [worker.public_key], [])]))


def shown(job: JobId, worker: Identity, result: bytes) -> list[f.Fact]:
    name = ResultHash(hash_result(result))
    commit = f.commitment("test", job, 0, 0, worker.public_key, name, NONCE)
    return [
        CODEC.seal(OTHERS[0], f.Leases(job, [f.LeaseItem(0, 0, 0, worker.public_key, 60_000)])),
        CODEC.seal(worker, f.Commits(job, [f.CommitItem(0, 0, commit)])),
        CODEC.seal(worker, f.Reveals(job, [f.RevealItem(0, 0, name, NONCE)])),
    ]


def push(keeper: LoneKeeper, author: Identity, job: JobId, facts: list[f.Fact], *results: bytes) -> None:
    reply = keeper.ask(author, m.Push(job, [fact.raw for fact in facts], [*results]))
    assert isinstance(reply, m.PushReply), reply


def test_a_keepers_verdict_is_joined_once_its_worker_has_shown_the_result() -> None:
    keeper = LoneKeeper()
    job, _ = keeper.offer(ALICE, 1, verification="algebraic")
    push(keeper, OTHERS[0], job, [stated(OTHERS[0], job, WORKERS[0])], RIGHT)
    assert keeper.job(job).supports(0, 0) is None
    push(keeper, OTHERS[0], job, shown(job, WORKERS[0], RIGHT))
    assert keeper.job(job).supports(0, 0) == hash_result(RIGHT)


def test_a_verdict_on_what_was_found_wrong_here_is_not_joined() -> None:
    keeper = LoneKeeper()
    job, _ = keeper.offer(ALICE, 1, verification="algebraic")
    assert keeper.lease(WORKERS[0]) == [(job, 0)]
    keeper.compute(WORKERS[0], job, 0, WRONG)
    keeper.perform(keeper.core.handle(fx.UnitChecked(job, 0, 0, WORKERS[0].peer_id, False, "far off"), keeper.now))
    push(keeper, OTHERS[0], job, [stated(OTHERS[0], job, WORKERS[0], WRONG)], WRONG)
    assert keeper.job(job).supports(0, 0) is None


def test_whoever_joined_another_keepers_verdict_states_no_other() -> None:
    keeper = LoneKeeper()
    job, _ = keeper.offer(ALICE, 1, verification="algebraic")
    keeper.lease(WORKERS[0])
    keeper.compute(WORKERS[0], job, 0, WRONG)
    push(keeper, OTHERS[0], job, [*shown(job, WORKERS[1], RIGHT), stated(OTHERS[0], job, WORKERS[1])], RIGHT)
    keeper.perform(keeper.core.handle(fx.UnitChecked(job, 0, 0, WORKERS[0].peer_id, True), keeper.now))
    assert keeper.job(job).supports(0, 0) == hash_result(RIGHT)
    assert not keeper.job(job).state.two_faced


def split(job: JobId, halves: list[list[Identity]]) -> list[f.Fact]:
    """Halves of the keepers that stand by different results."""
    pairs = zip(halves, (RIGHT, WRONG), WORKERS, strict=False)
    return [stated(author, job, worker, result) for half, result, worker in pairs for author in half]


def test_keepers_that_stand_by_different_results_begin_a_new_view_by_their_submitters_word() -> None:
    owner = Owner(8, job=checked(4))
    before = owner.view
    for fact, author in zip(split(owner.id, [KEEPERS[:4], KEEPERS[4:]]), KEEPERS, strict=True):
        owner.push(author, fact)
    assert owner.job.state.held_up
    owner.wait(50)
    assert owner.view > before
    assert set(owner.sets[-1].keys) == {one.public_key for one in KEEPERS}
    assert not owner.job.state.held_up
    owner.wait(100)
    assert len(owner.sets) == 2


def test_one_keeper_alone_holds_nobody_up() -> None:
    owner = Owner(8, job=checked(4))
    for fact, author in zip(split(owner.id, [KEEPERS[:6], KEEPERS[6:7]]), KEEPERS, strict=False):
        owner.push(author, fact)
    assert not owner.job.state.held_up


def test_without_their_submitter_they_agree_on_a_new_view() -> None:
    keeper = LoneKeeper()
    job, _ = keeper.offer(ALICE, 4, verification="algebraic")
    there = OTHERS[:3]
    push(keeper, there[0], job, [*shown(job, WORKERS[0], RIGHT), stated(there[0], job, WORKERS[0])], RIGHT)
    for other in there[1:]:
        push(keeper, other, job, [stated(other, job, WORKERS[1], WRONG)])
    state = keeper.job(job).state
    assert state.held_up
    for _ in range(60):
        for other in there:
            keeper.ask(other, m.Beat([m.JobBeat(job, state.tally.total(), complete=True)]))
        keeper.pass_time(5 * SECOND_NS)
    (proposal,) = state.views.successors(state.view)  # type: ignore[arg-type]
    assert isinstance(proposal.payload, f.KeeperSet)
    assert state.view is not None
    assert proposal.payload.keys == state.view.keys
    assert keeper.core.me in state.endorsers(proposal.id)
    for other in there[:2]:
        push(keeper, other, job, [CODEC.seal(other, f.Endorsements(job, [bytes(proposal.id)]))])
    assert state.view.number == 1
    assert not state.held_up


# --- inputs at a worker -----------------------------------------------------------------------------------------


def test_tiles_are_fetched_while_a_unit_waits_its_turn_and_from_whom() -> None:
    scene = Scene(*STRANGERS[:2], inputs=TILES)
    scene.give(STRANGERS[0], 3, 4)
    prepared, computed = scene.took(fx.Prepare), scene.took(fx.Compute)
    holders = (SUBMITTER.peer_id, *(one.peer_id for one in STRANGERS[:2]))
    spec = scene.spec.payload
    assert isinstance(spec, f.JobSpec)
    assert prepared == [fx.Prepare(scene.job, unit, 0, spec, holders) for unit in (3, 4)]
    assert computed[0] == fx.Compute(scene.job, 3, 0, spec, holders)
    assert ME.peer_id not in holders


def test_what_was_prepared_and_is_given_back_is_stopped() -> None:
    scene = Scene(STRANGERS[0], inputs=TILES)
    scene.give(STRANGERS[0], 3)
    scene.compute(3, seconds=1.0)  # units are long, so that only two at a time are handed to the executor
    scene.give(STRANGERS[0], 4, 5, 6)
    waiting = [unit for unit, state in scene.states().items() if state == "queued"]
    assert waiting
    scene.took(fx.StopCompute)
    scene.perform(scene.agent.pause(scene.now))
    stopped = [stop for stop in scene.took(fx.StopCompute) if isinstance(stop, fx.StopCompute)]
    assert {(stop.unit, stop.epoch) for stop in stopped} >= {(unit, 0) for unit in waiting}


def test_the_executor_is_handed_the_next_unit_before_the_result_of_one_is_a_blob() -> None:
    scene = Scene(STRANGERS[0], inputs=TILES)
    scene.give(STRANGERS[0], 3)
    scene.compute(3, seconds=1.0)
    scene.took(fx.Compute)
    scene.give(STRANGERS[0], 4, 5, 6)
    assert [effect.unit for effect in scene.took(fx.Compute) if isinstance(effect, fx.Compute)] == [4, 5]


def test_a_job_without_inputs_needs_no_preparing() -> None:
    scene = Scene(STRANGERS[0])
    scene.give(STRANGERS[0], 3)
    assert scene.took(fx.Prepare) == []
    (computed,) = scene.took(fx.Compute)
    assert isinstance(computed, fx.Compute)
    assert computed.keepers == ()
