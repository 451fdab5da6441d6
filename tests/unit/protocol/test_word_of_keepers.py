"""What a keeper makes of other keepers' words, and how its own bind it, whatever comes late, twice, or in which order."""

from random import Random

import pytest

from sparkle_protocol import effects as fx
from sparkle_protocol import facts as f
from sparkle_protocol import messages as m
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import JobId, hash_result
from sparkle_protocol.work.submitter import Submitter
from tests.unit.protocol.kept_jobs import ME, OTHERS, LoneKeeper, peer
from tests.unit.protocol.test_keeping import CODEC, RIGHT, WRONG, check_form

ALICE = peer(1)
WORKERS = [peer(10 + n) for n in range(6)]
KEEPERS = [ME, *OTHERS[:3]]
LATER = f.epoch_of(f.VIEWS_PER_GENERATION, 0)  # of the submitter's next view


def verdict(
    author: Identity,
    job: JobId,
    result: bytes = RIGHT,
    *,
    unit: int = 0,
    epoch: int = 0,
    accepted: tuple[Identity, ...] = tuple(WORKERS[:1]),
    rejected: tuple[Identity, ...] = (),
) -> f.Fact:
    keys = [[worker.public_key for worker in side] for side in (accepted, rejected)]
    return CODEC.seal(author, f.Verdicts(job, [f.VerdictItem(unit, epoch, hash_result(result), *keys)]))


def push(keeper: LoneKeeper, author: Identity, fact: f.Fact, *results: bytes) -> None:
    assert isinstance(keeper.ask(author, m.Push(fact.job, [fact.raw], list(results))), m.PushReply)


def name_keepers(keeper: LoneKeeper, job: JobId, view: int = f.VIEWS_PER_GENERATION) -> None:
    """The same peers keep the job in another view."""
    push(keeper, ALICE, CODEC.seal(ALICE, f.KeeperSet(job, view, [one.public_key for one in KEEPERS], 3)))


def restart(keeper: LoneKeeper, seed: int = 0) -> None:
    """It comes back with what is on its disk, read in some order."""
    facts = [one.fact for one in keeper.disk if isinstance(one, fx.StoreFact)]
    results = [one.result_hash for one in keeper.disk if isinstance(one, fx.StoreResult)]
    keeper.core = Submitter(ME, CODEC, Random(2), check_form)
    for spec in [fact for fact in facts if isinstance(fact.payload, f.JobSpec)]:
        own = [fact for fact in facts if fact.job == spec.job and fact.id != spec.id]
        Random(seed).shuffle(own)
        keeper.perform(keeper.core.restore(spec, own, keeper.now, results))


# --- its own word -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_a_restart_never_makes_a_keeper_sign_for_a_second_result(seed: int) -> None:
    keeper = LoneKeeper()
    job, _ = keeper.offer(ALICE, 4, away=False)
    push(keeper, ALICE, verdict(ALICE, job), RIGHT)
    name_keepers(keeper, job)
    push(keeper, ALICE, verdict(ALICE, job, epoch=LATER), RIGHT)
    restart(keeper, seed)
    assert [keeper.job(job).supports(0, epoch) for epoch in (0, LATER)] == [hash_result(RIGHT)] * 2
    push(keeper, ALICE, verdict(ALICE, job, WRONG, epoch=LATER), WRONG)
    signed = [result for result, by in keeper.job(job).state.support(0, LATER).items() if ME.peer_id in by]
    assert signed == [hash_result(RIGHT)]


@pytest.mark.parametrize("restarts", [False, True])
def test_who_was_outvoted_does_not_sign_for_the_other_result_as_well(restarts: bool) -> None:
    keeper = LoneKeeper()
    job, _ = keeper.offer(ALICE, 4, away=False)
    push(keeper, ALICE, verdict(ALICE, job, WRONG), WRONG)
    for other in OTHERS[:3]:
        push(keeper, other, verdict(other, job), RIGHT)
    assert keeper.job(job).state.final(0) == hash_result(RIGHT)
    if restarts:
        restart(keeper)
    push(keeper, ALICE, verdict(ALICE, job, accepted=(WORKERS[1],)), RIGHT)
    assert ME.peer_id not in keeper.job(job).state.two_faced
