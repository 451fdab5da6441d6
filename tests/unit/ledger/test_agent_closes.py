"""Jobs that were settled long ago: what agents forget of them, and what they still know, show and refuse."""

import pytest

from sparkle_ledger.agent.events import Accepted, Fund, Over, WorkEnded
from sparkle_ledger.agent.old_jobs import KEEP_MS, MAX_ASKS
from sparkle_ledger.agent.stored import MAX_WAITING
from sparkle_ledger.economy import Economy
from sparkle_ledger.entries import Entry, Work, account_of
from sparkle_protocol import effects as fx
from sparkle_protocol import messages
from sparkle_protocol.facts import Deadlines
from sparkle_protocol.ledger_messages import LedgerPush, ProofReply, ProofRequest
from tests.unit.ledger.agents import (
    RICH,
    SECOND,
    UNITS,
    Member,
    World,
    dear_job_paid,
    entries_of,
    finished,
    settled_world,
)
from tests.unit.ledger.ledgers import KEEPERS, NET, PRICE, Author, Job, person, proven, sealed_job, seals

DAY = 86_400
FIRST = 1000  # of the tokens of a test's own requests
JOB_DAYS, KEEP_DAYS = Deadlines().total_s // DAY, KEEP_MS // 1000 // DAY


def pass_days(world: World, days: float) -> None:
    """Much time, and then a round."""
    world.now += int(days * DAY * SECOND)
    world.run(1200)


def settled(world: World, job: Job, submitter: Member, workers: list[Member], keepers: list[Member]) -> None:
    """Everybody is paid, and the keepers have forgotten the job."""
    finished(world, job, workers, keepers)
    world.run(120)
    submitter.hear(Over(keepers[0].kept[job.id]))
    world.run(1200)
    for keeper in keepers:
        keeper.kept.clear()


def old_world() -> tuple[World, Job, list[Member], list[Member]]:
    """A job that is closed wherever it was known."""
    world, job, people, keepers = settled_world(1, 0.0, 0.0)
    settled(world, job, people[0], people[1:], keepers)
    pass_days(world, JOB_DAYS + KEEP_DAYS)
    return world, job, people, keepers


def works_of(member: Member) -> list[Entry]:
    account = account_of(NET, member.who.public_key)
    return [entry for entry in member.agent.book.entries(account) if isinstance(entry.payload, Work)]


def test_a_settled_job_is_closed_long_after_its_time() -> None:
    world, job, people, keepers = settled_world(1, 0.0, 0.0)
    settled(world, job, people[0], people[1:], keepers)
    before = [member.agent.account for member in people]
    pass_days(world, JOB_DAYS + KEEP_DAYS - 1)
    assert all(member.agent.book.record(job.id) is not None for member in people)
    assert not any(member.closings for member in people)
    pass_days(world, 1)
    for member in people:
        assert member.agent.book.record(job.id) is None
        assert list(member.closings) == [job.id]
        assert job.id in member.evidence  # it worked for it, or it was its own
        assert member.agent.book.sum_micro() == 0
    assert [member.agent.account for member in people] == before


def test_what_is_closed_is_the_same_after_a_restart_and_nobody_is_asked_about_it() -> None:
    world, job, people, _ = old_world()
    before = [member.agent.account for member in people]
    for member in people:
        world.leave(member)
    world.sent.clear()
    for member in people:
        world.back(member)
    world.run(7200)
    assert [member.agent.account for member in people] == before
    assert sum(account.earned_micro for account in before) == PRICE * UNITS * 2
    for member in people:
        assert member.agent.book.record(job.id) is None
        assert member.agent.book.sum_micro() == 0
    assert not any(isinstance(message, ProofRequest) for _, _, message in world.sent)


def test_a_newcomer_gets_the_proof_of_an_old_work_from_its_worker_and_forgets_it_in_time() -> None:
    """The second payer's limit rests on work for the first, who is gone, in a job that is closed."""
    economy = Economy(limit_max_micro=100_000, starter_micro=200, payer_share=1)
    world = World()
    first, second = world.add(person(1), person(2), economy=economy)
    keepers = world.add(*KEEPERS, economy=economy)
    job = Job(first.who, 8, keepers=KEEPERS)
    first.hear(Fund(job.spec))
    world.run(60)
    settled(world, job, first, [second, first], keepers)  # the submitter's own executions are not paid
    pass_days(world, JOB_DAYS + KEEP_DAYS)
    assert second.agent.book.record(job.id) is None
    world.leave(first)
    (worker,) = world.add(person(3), economy=economy)
    dear = dear_job_paid(world, second, worker, keepers, nonce=1)
    assert {job.id, dear.id} <= worker.evidence.keys()
    pass_days(world, 1)
    assert worker.agent.book.record(job.id) is None
    assert worker.evidence.keys() == {dear.id}
    world.leave(worker)
    world.back(worker)
    assert worker.agent.account.earned_micro == 150
    account = account_of(NET, second.who.public_key)
    assert worker.agent.book.account(account).earned_micro == 80
    worker.agent._desk.take_record(job.record(), ())
    world.run(60)
    assert worker.evidence.keys() == {dear.id}  # nothing that was not judged
    author = Author(second.who, genesis=False)
    author.entries = list(second.agent.book.entries(account))
    again = author.state(works_of(second)[0].payload)
    worker.hear(fx.Requested(0, second.peer, LedgerPush([again.raw])))
    world.run(60)
    outcome = worker.agent.book.outcome(again.id)
    assert outcome is not None
    assert outcome.code == "void:settled"  # by what the second node's disk has
    assert worker.agent.book.account(account).earned_micro == 80


def test_a_work_about_a_closed_job_that_claims_what_is_paid_comes_to_nothing() -> None:
    world, job, (submitter, worker, *_), _ = old_world()
    author = Author(worker.who, genesis=False)
    author.entries = list(worker.agent.book.entries(author.account))
    (first, *_) = works_of(worker)
    again = author.state(first.payload)
    before = submitter.agent.book.account(author.account).earned_micro
    submitter.hear(fx.Requested(0, worker.peer, LedgerPush([again.raw])))
    world.run(60)
    for _ in range(2):
        outcome = submitter.agent.book.outcome(again.id)
        assert outcome is not None
        assert outcome.code == "void:settled"
        assert submitter.agent.book.account(author.account).earned_micro == before
        pass_days(world, 1)
        assert submitter.agent.book.record(job.id) is None  # it was open meanwhile
        world.leave(submitter)
        world.back(submitter)


def test_a_closing_waits_for_a_disk_that_fails() -> None:
    world, job, people, keepers = settled_world(1, 0.0, 0.0)
    settled(world, job, people[0], people[1:], keepers)
    for member in people:
        member.disk_fails = True
    pass_days(world, JOB_DAYS + KEEP_DAYS)
    assert all(member.agent.book.record(job.id) is None for member in people)
    assert not any(member.closings for member in people)
    for member in people:
        member.disk_fails = False
    world.run(60)
    assert all(list(member.closings) == [job.id] for member in people)


def test_a_job_that_owes_somebody_stays_open_with_who_owes_and_who_is_owed() -> None:
    world, job, (submitter, worker, *_), keepers = settled_world(1, 0.0, 0.0)
    record = job.record(job.accepted([worker.who], range(UNITS)))
    for keeper in keepers:
        keeper.kept[job.id] = record
    worker.hear(Accepted(job.spec, ((0, 0),), tuple(one.peer for one in keepers)))
    world.leave(worker)
    submitter.hear(Over(record))
    pass_days(world, JOB_DAYS + KEEP_DAYS)
    assert submitter.agent.book.record(job.id) is not None
    world.back(worker)
    worker.hear(Accepted(job.spec, tuple((unit, 0) for unit in range(UNITS)), tuple(one.peer for one in keepers)))
    worker.hear(WorkEnded(job.id))
    world.run(600)
    assert worker.agent.account.earned_micro == UNITS * PRICE
    pass_days(world, 1)
    assert submitter.agent.book.record(job.id) is None
    assert worker.agent.book.record(job.id) is None


def test_pay_that_nothing_is_set_aside_for_keeps_its_proof() -> None:
    world = World()
    submitter, worker = world.add(person(1), person(2), economy=RICH)
    job = Job(submitter.who, 4)
    submitter.kept[job.id] = job.record(job.accepted([worker.who], range(4)))
    worker.hear(Accepted(job.spec, tuple((unit, 0) for unit in range(4)), ()))
    pass_days(world, JOB_DAYS + KEEP_DAYS)
    assert worker.agent.book.record(job.id) is not None
    assert job.id in worker.evidence


@pytest.mark.parametrize("gone", [False, True])
def test_who_saw_only_a_part_of_a_job_asks_what_became_of_it_and_not_for_ever(gone: bool) -> None:
    world, job, (submitter, worker, *_), keepers = settled_world(1, 0.0, 0.0)
    facts = job.accepted([worker.who], range(4))
    submitter.kept[job.id] = job.record(facts)
    worker.hear(Accepted(job.spec, tuple((unit, 0) for unit in range(4)), ()))
    world.run(60)
    worker.hear(WorkEnded(job.id))
    submitter.kept[job.id] = job.record(facts, job.cancel())
    for keeper in [submitter, *keepers] if gone else []:
        world.leave(keeper)
    world.run(60)
    world.sent.clear()
    pass_days(world, JOB_DAYS + KEEP_DAYS)
    world.run(DAY)
    asked = [message for by, _, message in world.sent if by == worker.peer and isinstance(message, ProofRequest)]
    assert len(asked) == (MAX_ASKS if gone else 1)
    assert list(worker.closings) == ([] if gone else [job.id])
    assert worker.agent.account.earned_micro == 4 * PRICE


def test_only_what_is_not_paid_yet_of_a_closed_job_is_claimed() -> None:
    world, job, (_, *workers), keepers = settled_world(1, 0.0, 0.0)
    early = job.accepted([workers[0].who], range(UNITS))
    for keeper in keepers:
        keeper.kept[job.id] = job.record(early)
    peers = tuple(one.peer for one in keepers)
    news = Accepted(job.spec, tuple((unit, 0) for unit in range(UNITS)), peers)
    workers[0].hear(news)
    workers[1].hear(Accepted(job.spec, ((0, 0),), peers))
    world.run(60)
    for one in workers[:2]:
        one.hear(WorkEnded(job.id))
    world.run(86_400)  # so long the second one is not given up
    pass_days(world, JOB_DAYS + KEEP_DAYS)
    assert [one.agent.book.record(job.id) for one in workers[:2]] == [None, None]
    world.sent.clear()
    workers[0].hear(news)
    workers[0].hear(Accepted(job.spec, (), peers))
    world.run(60)
    assert not any(isinstance(message, ProofRequest) for _, _, message in world.sent)
    assert workers[0].agent.sizes()["claims"] == 0
    for keeper in keepers:
        keeper.kept[job.id] = job.record(early, job.accepted([workers[1].who], [0]))
    workers[1].hear(Accepted(job.spec, ((0, 0),), peers))
    world.run(60)
    assert workers[1].agent.account.earned_micro == PRICE
    assert workers[0].agent.account.earned_micro == PRICE * UNITS


def test_so_many_may_wait_for_the_disk_and_what_is_gone_there_is_unknown() -> None:
    world, job, (_, worker, *_), _ = old_world()
    replies: dict[int, messages.Reply] = {}
    world.answer = replies.__setitem__  # type: ignore[method-assign]
    asked = [
        fx.Requested(token, person(9).peer_id, ProofRequest(job.id, [0], b"")) for token in range(FIRST, FIRST + 40)
    ]
    for one in asked[: MAX_WAITING + 1]:
        worker.hear(one)
    assert worker.agent.sizes()["reading"] == MAX_WAITING
    world.run(1)
    shown = {token - FIRST: reply for token, reply in replies.items() if token >= FIRST}
    refused = shown.pop(MAX_WAITING)
    assert isinstance(refused, messages.Refusal)
    assert refused.code == "busy"
    assert len(shown) == MAX_WAITING
    assert all(isinstance(one, ProofReply) for one in shown.values())
    worker.evidence.clear()
    worker.hear(asked[20])
    assert isinstance(replies[FIRST + 20], ProofReply)  # it was read a moment ago
    world.run(60)
    worker.hear(asked[30])
    world.run(1)
    gone = replies[FIRST + 30]
    assert isinstance(gone, messages.Refusal)
    assert gone.code == "unknown_job"


def test_sealed_records_of_a_closed_job_are_shown_range_by_range() -> None:
    world = World()
    submitter, worker = world.add(person(1), person(2), economy=RICH)
    job, ranges = sealed_job(submitter.who, [worker.who, person(3)])
    submitter.hear(Fund(job.spec))
    world.run(60)
    whole = job.record(job.view, seals(job, ranges, KEEPERS))
    assert all(whole.add_sealed(one) for one in ranges)
    submitter.kept[job.id] = whole
    worker.hear(Accepted(job.spec, tuple((unit, 0) for unit in range(job.units)), ()))
    worker.hear(WorkEnded(job.id))
    world.run(120)
    assert worker.agent.account.earned_micro == job.units * PRICE
    submitter.kept.clear()
    pass_days(world, JOB_DAYS + KEEP_DAYS)
    assert worker.agent.book.closing(job.id) is not None
    assert submitter.agent.book.record(job.id) is not None  # it owes the other worker
    replies: dict[int, messages.Reply] = {}
    world.answer = replies.__setitem__  # type: ignore[method-assign]
    for index in (0, 1):
        worker.hear(fx.Requested(FIRST + index, person(9).peer_id, ProofRequest(job.id, [index], b"")))
        world.run(1)
        shown = replies[FIRST + index]
        assert isinstance(shown, ProofReply)
        assert proven(shown.proof).executions == 2 * ranges[index].count


def test_a_job_that_was_closed_is_not_paid_for_once_more() -> None:
    world, job, (submitter, *_), _ = old_world()
    before = entries_of(submitter, submitter)
    submitter.funded.clear()
    submitter.hear(Fund(job.spec))
    world.run(60)
    assert "submit it anew" in (submitter.funded[job.id] or "")
    assert entries_of(submitter, submitter) == before
