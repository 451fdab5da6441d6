"""A worker looks for what a job is paid from as soon as it is given work."""

from sparkle_ledger.agent.events import Accepted, Fund, WorkEnded
from sparkle_ledger.economy import Economy
from sparkle_protocol.ledger_messages import EntriesRequest
from tests.unit.ledger.agents import RICH, Member, World
from tests.unit.ledger.ledgers import KEEPERS, PRICE, Job, person


def world_of(*people: int, economy: Economy = RICH) -> tuple[World, list[Member]]:
    world = World()
    return world, world.add(*(person(n) for n in people), *KEEPERS, economy=economy)


def test_a_hold_that_nobody_shows_is_missed_after_a_minute() -> None:
    world, (submitter, worker, *keepers) = world_of(1, 2)
    job = Job(submitter.who, 8, keepers=KEEPERS)
    peers = tuple(keeper.peer for keeper in keepers)
    worker.hear(Accepted(job.spec, (), peers))
    world.run(55)
    assert worker.unfunded == []
    world.run(30)
    assert job.id in worker.unfunded
    told = len(worker.unfunded)
    world.run(3600)
    assert told < len(worker.unfunded) < 30  # it is looked for ever more rarely


def test_a_job_without_a_hold_is_known_again_when_it_gives_more_work() -> None:
    world, (submitter, worker, *_) = world_of(1, 2)
    job = Job(submitter.who, 8, keepers=KEEPERS)
    worker.hear(Accepted(job.spec, (), ()))
    world.run(90)
    worker.hear(WorkEnded(job.id))
    world.run(1800)
    worker.unfunded.clear()
    worker.hear(Accepted(job.spec, (), ()))
    world.run(5)
    assert worker.unfunded == [job.id]


def test_who_had_a_minute_for_one_job_has_none_for_the_next_unless_it_shows_the_hold() -> None:
    world, (submitter, worker, *_) = world_of(1, 2)
    jobs = [Job(submitter.who, 8, keepers=KEEPERS, nonce=nonce) for nonce in range(3)]
    worker.hear(Accepted(jobs[0].spec, (), ()))
    world.run(90)
    worker.hear(Accepted(jobs[1].spec, (), ()))
    world.run(5)
    assert jobs[1].id in worker.unfunded
    submitter.hear(Fund(jobs[2].spec))
    world.run(60)
    worker.hear(Accepted(jobs[2].spec, (), ()))
    world.run(600)
    assert jobs[2].id not in worker.unfunded


def test_a_hold_is_found_with_its_submitter_or_with_witnesses_and_nothing_is_missed() -> None:
    for away in (False, True):
        world, (submitter, worker, *keepers) = world_of(1, 2)
        job = Job(submitter.who, 8, keepers=KEEPERS)
        submitter.hear(Fund(job.spec))
        world.run(60)
        if away:
            world.leave(submitter)
        asked = len(world.sent)
        worker.hear(Accepted(job.spec, (), tuple(keeper.peer for keeper in keepers)))
        world.run(600)
        assert worker.unfunded == []
        assert worker.agent.book.is_held(job.id)
        own = [message for sender, _, message in world.sent[asked:] if sender == worker.peer]
        assert sum(isinstance(message, EntriesRequest) for message in own) < 12


def test_what_was_accepted_is_paid_once_the_hold_turns_up() -> None:
    world, (submitter, worker, *keepers) = world_of(1, 2)
    job = Job(submitter.who, 8, keepers=KEEPERS)
    world.leave(submitter)
    worker.hear(Accepted(job.spec, (), tuple(keeper.peer for keeper in keepers)))
    for keeper in keepers:
        keeper.kept[job.id] = job.record(job.accepted([worker.who]))
    worker.hear(Accepted(job.spec, tuple((unit, 0) for unit in range(8)), ()))
    world.run(200)
    assert job.id in worker.unfunded
    world.back(submitter)
    submitter.hear(Fund(job.spec))
    world.run(1500)
    assert worker.agent.account.earned_micro == 8 * PRICE


def test_a_job_that_is_free_needs_none() -> None:
    world, (submitter, worker, *_) = world_of(1, 2)
    worker.hear(Accepted(Job(submitter.who, 8, price=0).spec, (), ()))
    world.run(600)
    assert worker.unfunded == []
