"""Units that nobody can compute: what they mean for their job, and how they begin anew."""

import pytest

from sparkle_protocol import facts as f
from sparkle_protocol import messages as m
from sparkle_protocol.errors import ConfigError, NotFound
from sparkle_protocol.ids import JobId, ResultHash, hash_result
from sparkle_protocol.work.dead import HOPELESS_DEAD
from sparkle_protocol.work.lease import REVEAL_DEADLINE_NS, SECOND_NS
from tests.unit.protocol.test_keeping import CODEC, ME, NONCE, RIGHT, WRONG, A, B, C, D, Identity, Keeper, spec


def kill(keeper: Keeper, unit: int = 0) -> None:
    """Let three workers fail alike on one unit; they hand everything else back."""
    for worker in (A, B, C):
        taken: list[int] = []
        while unit not in taken:
            taken += keeper.lease(worker)
            keeper.pass_time(SECOND_NS)
        keeper.fail(worker, unit=unit)
        keeper.report(worker, returned=[m.UnitEpoch(other, 0) for other in taken if other != unit])


def decide(keeper: Keeper, unit: int, epoch: int, *workers: Identity) -> None:
    """Workers take a unit, agree on it and show it."""
    for worker in workers:
        taken: list[int] = []
        while unit not in taken:
            taken += keeper.lease(worker)
            keeper.pass_time(SECOND_NS)
        key, digest = worker.public_key, hash_result(RIGHT)
        seal = f.commitment("test", keeper.id, unit, epoch, key, ResultHash(digest), NONCE)
        keeper.report(worker, f.Commits(keeper.id, [f.CommitItem(unit, epoch, seal)]))
        keeper.report(worker, returned=[m.UnitEpoch(other, epoch) for other in taken if other != unit])
    for worker in workers:
        items = [f.RevealItem(unit, epoch, hash_result(RIGHT), NONCE)]
        keeper.report(worker, f.Reveals(keeper.id, items), results=[RIGHT])


def requeue(keeper: Keeper, unit: int | None = None) -> tuple[int, ...]:
    units, effects = keeper.core.requeue(keeper.id, unit, keeper.now)
    keeper.perform(effects)
    return units


def test_a_job_goes_on_without_its_dead_units_and_fails_when_nothing_else_is_left() -> None:
    keeper = Keeper(spec(2))
    kill(keeper, 0)
    assert keeper.job.dead == {0: "unit 0 failed on 3 workers: it broke"}
    assert keeper.job.outcome == ""
    decide(keeper, 1, 0, A, D)
    assert keeper.job.outcome == "failed"
    assert keeper.job.error == "unit 0 failed on 3 workers: it broke"
    assert keeper.job.state.final_units == {1}
    assert keeper.core.next_deadline() is None


def test_failing_on_a_dead_unit_is_held_against_nobody() -> None:
    keeper = Keeper(spec(2))
    kill(keeper, 0)
    assert all(keeper.job._conduct.of(worker.peer_id).fruitless <= 1 for worker in (A, B, C))


def test_a_requeued_unit_is_open_to_everybody_and_its_job_can_be_done() -> None:
    keeper = Keeper(spec(2))
    kill(keeper, 0)
    decide(keeper, 1, 0, A, D)
    assert requeue(keeper) == (0,)
    assert (keeper.job.outcome, keeper.job.error, keeper.job.dead) == ("", "", {})
    assert (keeper.job.state.epoch(0), keeper.job.state.epoch(1)) == (1, 0)
    decide(keeper, 0, 1, A, B)  # both had failed on it before
    assert keeper.job.outcome == "done"
    assert keeper.job.state.resets(0) == [(1, "unit 0 failed on 3 workers: it broke")]
    assert {(one.epoch, one.text) for one in keeper.job.state.all_failures(0)} == {(0, "it broke")}


@pytest.mark.parametrize("when", ["dead", "failed", "requeued", "done"])
def test_a_restart_changes_nothing(when: str) -> None:
    keeper = Keeper(spec(2))
    kill(keeper, 0)
    if when != "dead":
        decide(keeper, 1, 0, A, D)
    if when in ("requeued", "done"):
        requeue(keeper)
    if when == "done":
        decide(keeper, 0, 1, A, B)
    before = (keeper.job.outcome, keeper.job.error, keeper.job.dead, keeper.job.state.epoch(0))
    keeper.restart()
    assert (keeper.job.outcome, keeper.job.error, keeper.job.dead, keeper.job.state.epoch(0)) == before
    if when == "requeued":
        decide(keeper, 0, 1, A, B)
        assert keeper.job.outcome == "done"


def test_a_unit_stays_dead_whoever_keeps_its_job() -> None:
    """A new keeper set begins new epochs, but what three workers could not compute is as dead as before."""
    keeper = Keeper(spec(2))
    kill(keeper, 0)
    before = dict(keeper.job.dead)
    grown = f.KeeperSet(keeper.id, f.VIEWS_PER_GENERATION, [ME.public_key, D.public_key], 1)
    keeper.core._state(keeper.job, grown)
    keeper.pass_time(SECOND_NS)
    assert keeper.job.state.epoch(0) == f.epoch_of(f.VIEWS_PER_GENERATION, 0)
    keeper.restart()
    assert keeper.job.state.epoch(0) == f.epoch_of(f.VIEWS_PER_GENERATION, 0)
    assert keeper.job.dead == before


def test_a_unit_without_a_majority_is_dead_and_can_be_requeued_alone() -> None:
    keeper = Keeper(spec(1, policy=f.Policy("final", 2, 2)))
    for worker, result in ((A, RIGHT), (B, WRONG)):
        keeper.lease(worker)
        keeper.commit(worker, result)
    keeper.reveal(A, RIGHT)
    keeper.reveal(B, WRONG)
    assert keeper.job.outcome == "failed"
    assert "no majority" in keeper.job.error
    assert requeue(keeper, 0) == (0,)
    assert keeper.job.state.votes(0) == {}
    assert not keeper.job.rejected  # nobody was proven wrong
    decide(keeper, 0, 1, A, C)
    assert keeper.job.outcome == "done"


def test_a_unit_may_die_again_and_again() -> None:
    keeper = Keeper(spec())
    keeper.lease(ME)
    keeper.fail(ME)
    for epoch in (1, 2):
        requeue(keeper)
        assert keeper.lease(ME) == [0]
        keeper.report(ME, f.Failures(keeper.id, [f.FailureItem(0, epoch, "kernel", "it broke")]))
        assert keeper.job.outcome == "failed"
        keeper.restart()
        assert keeper.job.outcome == "failed"
    assert [epoch for epoch, _ in keeper.job.state.resets(0)] == [2, 1]


def test_what_was_not_judged_when_a_job_failed_is_done_anew() -> None:
    """Its workers dropped their results then: nobody may wait for them, nor hold it against them."""
    keeper = Keeper(spec(2, total_s=1000))
    kill(keeper, 0)
    assert keeper.lease(D) == [1]
    keeper.commit(D, RIGHT, 1)
    keeper.pass_time(1000 * SECOND_NS)
    assert keeper.job.outcome == "failed"
    assert requeue(keeper) == (0,)
    assert keeper.job.state.epoch(1) == 1
    decide(keeper, 1, 1, D, A)
    decide(keeper, 0, 1, D, A)
    assert keeper.job.outcome == "done"
    keeper.pass_time(REVEAL_DEADLINE_NS)
    assert keeper.job._conduct.of(D.peer_id).withheld == 0


def test_a_late_word_on_an_earlier_epoch_counts_for_nothing() -> None:
    keeper = Keeper(spec(2))
    kill(keeper, 0)
    requeue(keeper, 0)
    assert keeper.lease(A) == [0] or keeper.lease(A) == [0]
    facts = len(keeper.disk)
    keeper.fail(A)  # of epoch 0, again
    keeper.commit(A, RIGHT)
    keeper.report(A, returned=[m.UnitEpoch(0, 0)])
    assert len(keeper.disk) == facts
    assert A.peer_id in keeper.job.leases.known(0).leases
    assert [gone.epoch for gone in keeper.beat(A).drop] == [0]


def test_a_job_of_which_nothing_can_be_computed_ends_soon() -> None:
    keeper = Keeper(spec(1000))
    for unit in range(HOPELESS_DEAD):
        assert keeper.job.outcome == ""
        assert keeper.lease(ME) == [unit]
        keeper.fail(ME, unit=unit)
    assert keeper.job.outcome == "failed"
    assert keeper.job.error.startswith(f"{HOPELESS_DEAD} units could not be computed (0, 1, 2, 3, 4, 5, 6, 7, …);")
    requeue(keeper, 3)
    assert keeper.job.outcome == ""  # its owner knows better


def test_what_cannot_be_requeued_is_refused_in_words() -> None:
    keeper = Keeper(spec(2))
    with pytest.raises(ConfigError, match="no unit is dead"):
        requeue(keeper)
    with pytest.raises(ConfigError, match="that unit is not dead"):
        requeue(keeper, 7)
    with pytest.raises(NotFound):
        keeper.core.requeue(JobId(b"?" * 32), None, 0)
    kill(keeper, 0)
    keeper.perform(keeper.core.cancel(keeper.id, "changed my mind", 0))
    with pytest.raises(ConfigError, match="was cancelled"):
        requeue(keeper)


def test_a_failure_stated_before_a_restart_of_units_says_nothing_after_it_in_any_order() -> None:
    keeper = Keeper(spec(2))
    failed = CODEC.seal(ME, f.Cancel(keeper.id, "dead", failed=True))
    again = CODEC.seal(ME, f.Reset(keeper.id, 0, 1, "try"))
    for order in ((failed, again), (again, failed)):
        state = Keeper(spec(2)).job.state
        state.merge(order)
        assert state.cancel is None
        state.add(CODEC.seal(ME, f.Cancel(keeper.id, "called off")))
        assert state.cancel is not None
