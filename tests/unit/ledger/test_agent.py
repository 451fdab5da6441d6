"""Several nodes' accounts, on a network that loses, doubles and reorders what they say."""

from dataclasses import astuple

import pytest

from sparkle_ledger.agent.events import Accepted, Fund, Over, WorkEnded
from sparkle_ledger.economy import Economy
from sparkle_ledger.entries import Genesis, Hold, Work, account_of
from sparkle_ledger.witnesses import choose_witnesses
from sparkle_protocol import effects as fx
from sparkle_protocol.ids import JobId
from sparkle_protocol.ledger_messages import (
    HeadsReply,
    HeadsRequest,
    ProofReply,
    ProofRequest,
)
from sparkle_protocol.work.placement import Candidate, distance
from tests.unit.ledger.agents import (
    RICH,
    UNITS,
    Liar,
    World,
    dear_job_paid,
    entries_of,
    finished,
    funded_job,
    liars,
    settled_world,
)
from tests.unit.ledger.ledgers import ENTRIES, KEEPERS, NET, PRICE, Job, person, proof_of, sealed_job, seals


@pytest.mark.parametrize(("seed", "loss", "twice"), [(1, 0.0, 0.0), (2, 0.15, 0.3), (3, 0.3, 0.5)])
def test_a_job_is_settled_once_while_its_submitter_is_away(seed: int, loss: float, twice: float) -> None:
    world, job, (submitter, *workers), keepers = settled_world(seed, loss, twice)
    world.leave(submitter)
    finished(world, job, workers, keepers)
    world.run(3600)
    earned = [worker.agent.account.earned_micro for worker in workers]
    assert sum(earned) == PRICE * UNITS * 2
    assert all(earned)
    world.back(submitter)
    submitter.hear(Over(keepers[0].kept[job.id]))
    world.run(3600)
    book = submitter.agent.book
    assert book.unsettled(job.id) == []
    assert len(list(book.settled(job.id))) == UNITS * 2
    account = submitter.agent.account
    assert (account.balance_micro, account.held_micro) == (-PRICE * UNITS * 2, 0)
    assert sum(book.account(account_of(NET, one.who.public_key)).balance_micro for one in workers) == sum(earned)
    assert book.sum_micro() == 0
    for member in world.members.values():
        assert member.violations == []


def test_a_hold_is_durable_and_with_witnesses_when_the_job_is_handed_out() -> None:
    world, job, (submitter, *_), _ = settled_world(1, 0.0, 0.0)
    (hold,) = [one for one in entries_of(submitter, submitter) if isinstance(one, Hold)]
    assert hold.amount_micro == job.cover == PRICE * UNITS * 2
    for raw in submitter.disk:
        assert ENTRIES.open(raw).account == account_of(NET, submitter.who.public_key)
    witnessing = [
        one for one in world.members.values() if entries_of(one, submitter) == entries_of(submitter, submitter)
    ]
    assert len(witnessing) == len(world.members)  # eight in all: each but itself is a witness


def test_what_a_job_does_not_cost_comes_back() -> None:
    world = World()
    submitter, worker = world.add(person(1), person(2))
    job = Job(submitter.who, 4)
    funded_job(world, submitter, job)
    record = job.record(job.accepted([worker.who], [0]), job.cancel())
    submitter.hear(Over(record))
    submitter.hear(Over(record))
    world.run(10)
    assert submitter.agent.account.held_micro == PRICE
    assert submitter.agent.account.balance_micro == -PRICE


def test_a_job_that_the_account_cannot_bear_is_refused_and_nothing_is_signed() -> None:
    world = World()
    submitter, _ = world.add(person(1), person(2))
    job = Job(submitter.who, 4, price=1_000_000)
    submitter.hear(Fund(job.spec))
    world.run(60)
    refused = submitter.funded[job.id]
    assert refused is not None
    assert "compute for others first" in refused
    assert not any(isinstance(one, Hold) for one in entries_of(submitter, submitter))


def test_a_job_without_price_needs_no_hold() -> None:
    world = World()
    submitter, _ = world.add(person(1), person(2))
    job = Job(submitter.who, 4, price=0)
    funded_job(world, submitter, job)
    assert entries_of(submitter, submitter) == []


def test_who_pays_with_what_it_earned_is_believed_by_evidence() -> None:
    """The second payer's limit rests on work for the first: its workers fetch what shows that."""
    economy = Economy(limit_max_micro=100_000, starter_micro=200, payer_share=1)
    world = World()
    first, second, worker = world.add(person(1), person(2), person(3), economy=economy)
    keepers = world.add(*KEEPERS, economy=economy)
    job = Job(first.who, 8, keepers=KEEPERS)
    first.hear(Fund(job.spec))
    world.run(60)
    assert first.funded == {job.id: None}
    finished(world, job, [second, first], keepers)  # the submitter's own executions are not paid
    world.run(120)
    assert second.agent.account.balance_micro == 80
    dear_job_paid(world, second, worker, keepers)


def test_a_payer_that_witnesses_nothing_hears_of_works_all_the_same() -> None:
    world = World(5)
    worker_id = person(2)
    account = account_of(NET, worker_id.public_key)
    others = sorted((person(n) for n in range(100, 130)), key=lambda one: distance(JobId(account), one.peer_id))
    submitter, worker = world.add(others.pop(), worker_id, economy=RICH)
    job = Job(submitter.who, 4)
    funded_job(world, submitter, job)
    submitter.kept[job.id] = job.record(job.accepted([worker.who]))
    linked = [Candidate(submitter.peer, ("/ip4/10.0.0.1/tcp/1",))]
    for number, one in enumerate(others):
        liar = Liar(world, one, RICH)
        liar.answers = {HeadsRequest: HeadsReply([None])}
        world.members[liar.peer] = liar
        linked.append(Candidate(one.peer_id, (f"/ip4/8.{number}.8.8/tcp/1",)))
        worker.hear(fx.PeerUp(*astuple(linked[-1])))
    assert submitter.peer not in choose_witnesses(account, linked, ())
    worker.hear(Accepted(job.spec, tuple((unit, 0) for unit in range(4)), ()))
    world.run(120)
    assert [type(one) for one in entries_of(submitter, worker)] == [Genesis, Work]


def test_who_took_back_much_before_pays_a_new_worker_all_the_same() -> None:
    """Holds of jobs that are over weigh on nobody who can see that they are; a new worker asks for that."""
    world = World()
    economy = Economy(limit_max_micro=4000, starter_micro=4000)
    submitter, worker = world.add(person(1), person(2), economy=economy)
    keepers = world.add(*KEEPERS, economy=economy)
    for nonce in range(10, 16):  # each of them may cost 1280
        old = Job(submitter.who, UNITS, keepers=KEEPERS, nonce=nonce)
        submitter.hear(Fund(old.spec))
        world.run(60)
        submitter.hear(Over(old.record([old.cancel()])))
        world.run(60)
    job = Job(submitter.who, UNITS, keepers=KEEPERS)
    submitter.hear(Fund(job.spec))
    world.run(60)
    assert set(submitter.funded.values()) == {None}
    finished(world, job, [worker, worker], keepers)
    world.run(300)
    assert worker.agent.account.earned_micro == UNITS * PRICE
    asked = [(to, m.job) for by, to, m in world.sent if by == worker.peer and isinstance(m, ProofRequest)]
    assert sum(to == submitter.peer and name != job.id for to, name in asked) == 4  # three are within the limit
    assert all(sum(to == keeper.peer and name != job.id for to, name in asked) <= 3 for keeper in keepers)


def test_units_that_nobody_proves_do_not_hold_up_the_others() -> None:
    world, job, (submitter, *_), keepers = settled_world(1, 0.0, 0.0)
    world.leave(submitter)
    (worker,) = world.add(person(40), economy=RICH)  # knows nothing of the submitter
    for keeper in keepers:
        keeper.kept[job.id] = job.record(job.accepted([worker.who], range(4)))
    worker.hear(Accepted(job.spec, tuple((unit, 0) for unit in range(8)), tuple(one.peer for one in keepers)))
    world.run(120)
    assert worker.agent.account.earned_micro == 4 * PRICE


def test_a_submitter_that_shows_nothing_does_not_make_a_restarted_worker_forget() -> None:
    world, job, (submitter, *workers), keepers = settled_world(1, 0.0, 0.0)
    worker = workers[0]
    facts = job.accepted([worker.who], range(8))
    worker.hear(Accepted(job.spec, tuple((unit, 0) for unit in range(8)), tuple(one.peer for one in keepers)))
    world.run(5)
    world.leave(worker)
    submitter.kept[job.id] = job.record(job.view)
    for keeper in keepers:
        keeper.kept[job.id] = job.record(facts)
    worker.evidence[job.id][0][job.view.raw] = None
    world.back(worker)
    world.run(300)
    assert worker.agent.account.earned_micro == 8 * PRICE


def test_a_forged_proof_pays_nobody_and_is_noted() -> None:
    world = World()
    submitter, worker = world.add(person(1), person(2), economy=RICH)
    job = Job(submitter.who, 4, keepers=KEEPERS)
    funded_job(world, submitter, job)
    alone = [job.view, job.verdict([worker.who], range(4))]  # one of four keepers says so
    submitter.kept[job.id] = job.record(alone)
    worker.hear(Accepted(job.spec, tuple((unit, 0) for unit in range(4)), ()))
    world.run(600)
    assert worker.agent.account.earned_micro == 0
    assert not any(isinstance(one, Work) for one in entries_of(worker, worker))
    other = Job(submitter.who, 4, nonce=7)
    (liar,) = liars(world, 1, {ProofRequest: ProofReply(job.id, [0], proof_of(other.record()))})
    worker.hear(Accepted(job.spec, ((0, 0),), (liar.peer,)))
    world.run(600)
    assert "this is the proof of another job" in worker.violations


def test_a_worker_that_restarts_claims_what_it_had_not_claimed() -> None:
    world, job, (submitter, *workers), keepers = settled_world(1, 0.0, 0.0)
    worker = workers[0]
    peers = tuple(one.peer for one in keepers)
    facts = job.accepted([worker.who], range(8))
    worker.hear(Accepted(job.spec, tuple((unit, 0) for unit in range(8)), peers))
    world.run(5)  # nobody can show it yet
    world.leave(worker)
    for keeper in [*keepers, submitter]:
        keeper.kept[job.id] = job.record(facts)
    world.back(worker)
    world.run(300)
    assert worker.agent.account.earned_micro == 8 * PRICE


def test_lots_are_signed_at_most_every_ten_seconds() -> None:
    world, job, (submitter, *workers), _ = settled_world(1, 0.0, 0.0)
    worker = workers[0]
    for unit in range(40):
        submitter.kept[job.id] = job.record(job.accepted([worker.who], range(unit + 1)))
        worker.hear(Accepted(job.spec, ((unit, 0),), ()))
        world.run(1)
    world.run(60)
    assert worker.agent.account.earned_micro == 40 * PRICE
    assert sum(isinstance(one, Work) for one in entries_of(worker, worker)) <= 6


def test_what_was_sealed_after_the_worker_asked_first_is_claimed() -> None:
    world = World()
    submitter, worker = world.add(person(1), person(2), economy=RICH)
    job, ranges = sealed_job(submitter.who, [worker.who, person(3)])
    submitter.hear(Fund(job.spec))
    world.run(60)
    submitter.kept[job.id] = job.record(job.view, job.accepted([worker.who], range(8)))
    worker.hear(Accepted(job.spec, tuple((unit, 0) for unit in range(job.units)), ()))
    world.run(30)
    assert worker.agent.account.earned_micro == 8 * PRICE
    whole = job.record(job.view, seals(job, ranges, KEEPERS))
    assert all(whole.add_sealed(one) for one in ranges)
    submitter.kept[job.id] = whole
    worker.hear(WorkEnded(job.id))
    world.run(120)
    assert worker.agent.account.earned_micro == job.units * PRICE


def test_an_idle_network_says_little() -> None:
    world, *_ = settled_world(1, 0.0, 0.0)
    world.run(700)
    world.sent.clear()
    world.run(3600)
    assert len(world.sent) < len(world.members) * 8 * 8


@pytest.mark.parametrize("kept_here", [True, False])
def test_a_claim_that_only_its_worker_can_prove_is_paid(kept_here: bool) -> None:
    """The keepers accepted a second execution of each unit after the submitter heard the last of its job."""
    world = World()
    submitter, first, second = world.add(person(1), person(2), person(3), economy=RICH)
    keepers = world.add(*KEEPERS, economy=RICH)
    job = Job(submitter.who, 4, keepers=KEEPERS)
    funded_job(world, submitter, job)
    early = job.accepted([first.who], range(4))
    whole = job.record([*early, *job.accepted([second.who], range(4))])
    submitter.hear(Over(job.record(early)))
    for keeper in keepers:
        keeper.kept[job.id] = whole
    world.run(5)
    if kept_here:
        submitter.kept[job.id] = whole
    for worker in (first, second):
        units = tuple((unit, 0) for unit in range(4))
        worker.hear(Accepted(job.spec, units, tuple(keeper.peer for keeper in keepers)))
    world.run(120)
    book = submitter.agent.book
    assert book.unsettled(job.id) == []
    assert [worker.agent.account.earned_micro for worker in (first, second)] == [4 * PRICE] * 2
    assert submitter.agent.account.balance_micro == -8 * PRICE
    assert submitter.agent.account.held_micro == 0
    assert [worker.agent.book.sum_micro() for worker in world.members.values()] == [0] * len(world.members)
    assert sum(
        isinstance(message, ProofRequest) for sender, _, message in world.sent if sender == submitter.peer
    ) == (0 if kept_here else 1)
