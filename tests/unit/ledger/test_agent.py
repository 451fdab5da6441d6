"""Several nodes' accounts, on a network that loses, doubles and reorders what they say."""

import pytest

from sparkle_ledger.agent.events import Accepted, Fund, Over, WorkEnded
from sparkle_ledger.agent.own import State
from sparkle_ledger.economy import Economy
from sparkle_ledger.entries import NO_PREV, Entry, Genesis, Hold, Pay, Restore, Settled, Work, account_of
from sparkle_protocol import effects as fx
from sparkle_protocol import messages
from sparkle_protocol.ledger_messages import (
    EntriesReply,
    EntriesRequest,
    Head,
    HeadsReply,
    HeadsRequest,
    LedgerPush,
    ProofReply,
    ProofRequest,
)
from tests.unit.ledger.agents import Member, World
from tests.unit.ledger.ledgers import ECONOMY, ENTRIES, KEEPERS, NET, PRICE, Author, Job, person

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
    dear = Job(second.who, 15, price=10, keepers=KEEPERS)
    assert dear.cover > economy.starter_micro
    second.hear(Fund(dear.spec))
    world.run(60)
    assert second.funded == {dear.id: None}
    facts = dear.accepted([worker.who])
    for keeper in keepers:
        keeper.kept[dear.id] = dear.record(facts)
    worker.hear(Accepted(dear.spec, tuple((unit, 0) for unit in range(15)), tuple(one.peer for one in keepers)))
    world.run(600)
    assert worker.agent.account.earned_micro == 150


# --- starting from an old store --------------------------------------------------------------------------------


def test_a_node_whose_store_was_put_back_finds_what_it_signed_and_does_not_fork() -> None:
    world, _, (submitter, *_), _ = settled_world(2, 0.2, 0.3)
    copy = dict(submitter.disk)
    second = Job(submitter.who, UNITS, keepers=KEEPERS, nonce=2)
    submitter.hear(Fund(second.spec))
    world.run(300)
    signed = entries_of(submitter, submitter)
    world.leave(submitter)
    submitter.disk, submitter.funded = copy, {}
    world.back(submitter)
    third = Job(submitter.who, UNITS, keepers=KEEPERS, nonce=3)
    submitter.hear(Fund(third.spec))
    assert submitter.agent.state is State.LEARNING
    world.run(600)
    assert submitter.funded == {third.id: None}
    assert entries_of(submitter, submitter)[:-1] == signed
    assert not any(member.agent.book.fork_proofs() for member in world.members.values())


def test_a_node_that_lost_its_store_finds_its_account() -> None:
    world, _, (submitter, *_), _ = settled_world(1, 0.0, 0.0)
    signed = entries_of(submitter, submitter)
    world.leave(submitter)
    submitter.disk.clear()
    submitter.evidence.clear()
    world.back(submitter)
    world.run(60)
    assert submitter.agent.state is State.READY
    assert entries_of(submitter, submitter) == signed


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


def test_entries_of_ours_whose_predecessors_are_gone_begin_a_new_incarnation() -> None:
    author = Author(person(1))
    for n in range(5):
        author.state(Hold(bytes([n]) * 32, 1, 0))
    last = author.entries[-1]
    world = World()
    liars(world, 3, {
        HeadsRequest: HeadsReply([Head(0, last.seq, last.id)]),
        EntriesRequest: EntriesReply([last.raw]),
        LedgerPush: messages.Refusal("quota", "no"),
    })  # fmt: skip
    node = Member(world, author.who, ECONOMY)
    node.disk = dict.fromkeys(entry.raw for entry in author.entries[:3])
    world.members[node.peer] = node
    world.back(node)
    world.run(60)
    assert node.agent.state is State.READY
    assert entries_of(node, node)[-1] == Restore(2, author.entries[2].id)
    assert node.agent.book.fork_of(author.account) is None


def test_a_claim_that_nobody_shows_an_entry_for_changes_nothing() -> None:
    world = World()
    liars(world, 3, {
        HeadsRequest: HeadsReply([Head(7, 99, b"x" * 32)]),
        EntriesRequest: EntriesReply([]),
        LedgerPush: messages.Refusal("quota", "no"),
    })  # fmt: skip
    (node,) = world.add(person(1))
    job = Job(node.who, 2)
    node.hear(Fund(job.spec))
    world.run(120)
    assert node.funded == {job.id: None}
    assert [type(one) for one in entries_of(node, node)] == [Genesis, Hold]
    assert len(world.sent) < 100


def test_nothing_is_signed_while_no_witness_answers() -> None:
    world = World(loss=1.0)
    (node, *_) = world.add(person(1), person(2), person(3))
    job = Job(node.who, 2)
    node.hear(Fund(job.spec))
    world.run(600)
    assert node.agent.state is State.LEARNING
    assert node.funded == {}
    assert node.disk == {}


def test_a_node_alone_goes_on() -> None:
    world = World()
    (node,) = world.add(person(1))
    job = Job(node.who, 2)
    node.hear(Fund(job.spec))
    world.run(60)
    assert node.funded == {job.id: None}


# --- forks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_large", [False, True])  # small enough for gossip, or pushed from peer to peer
def test_a_fork_is_found_and_its_proof_reaches_all(is_large: bool) -> None:
    world = World(4, loss=0.1, twice=0.3)
    members = world.add(*(person(n) for n in range(1, 7)))
    cheat = Author(person(77))
    twin = cheat.twin()
    if is_large:
        one, other = large(cheat, 1), large(twin, 2)
    else:
        one, other = cheat.state(Hold(b"a" * 32, 1, 0)), twin.state(Hold(b"b" * 32, 1, 0))
    (node,) = world.add(cheat.who)  # its own agent says nothing of it
    world.leave(node)
    for raw, member in (
        ((cheat.entries[0].raw, one.raw), members[0]),
        ((cheat.entries[0].raw, other.raw), members[1]),
    ):
        member.hear(fx.Requested(0, cheat.who.peer_id, LedgerPush(list(raw))))
    world.run(10)
    assert not any(member.forks for member in members)
    members[2].hear(fx.Requested(0, cheat.who.peer_id, LedgerPush([cheat.entries[0].raw, one.raw, other.raw])))
    world.run(300)
    for member in members:
        assert member.agent.forked(cheat.account) is not None
        assert len(member.forks) == 1
        assert sum(told.event == "account_forked" for told in member.told) == 1
    assert members[0].agent.book.account(cheat.account).frozen


def large(author: Author, n: int) -> Entry:
    settled = [Settled(unit, 1 << 20) for unit in range(1024)]
    return author.state(Work(bytes([n]) * 32, b"p" * 32, b"h" * 32, author.key, 1, settled))


def test_a_fork_in_anothers_name_is_no_proof() -> None:
    world = World()
    members = world.add(*(person(n) for n in range(1, 4)))
    liar, victim = person(66), account_of(NET, person(1).public_key)
    one, other = (
        ENTRIES.seal(liar, Hold(bytes([n]) * 32, 1, 0), seq=1, prev=NO_PREV, time_ms=0, account=victim)
        for n in (1, 2)
    )
    for member in members:
        member.hear(fx.Requested(0, liar.peer_id, LedgerPush([one.raw, other.raw])))
    world.run(60)
    for member in members:
        assert member.agent.forked(victim) is None
        assert member.forks == []


def test_an_account_that_forked_is_told_so_and_signs_no_more() -> None:
    world, _, (submitter, *_), keepers = settled_world(1, 0.0, 0.0)
    author = Author(submitter.who)
    assert author.entries[0].raw == next(iter(submitter.disk))  # whoever opens the account, it is one entry
    keepers[0].hear(fx.Requested(0, submitter.peer, LedgerPush([author.state(Hold(b"z" * 32, 1, 0)).raw])))
    world.run(900)
    assert submitter.agent.state is State.FORKED
    job = Job(submitter.who, 2, nonce=9)
    submitter.hear(Fund(job.spec))
    world.run(10)
    assert "use a new identity" in (submitter.funded[job.id] or "")


# --- answering ----------------------------------------------------------------------------------------------


def ask(world: World, member: Member, message: messages.Request, peer: str | None = None) -> messages.Reply:
    """What a member answers a stranger."""
    found: list[messages.Reply] = []
    world.answer = lambda token, reply: found.append(reply) if token == -1 else None  # type: ignore[method-assign]
    who = person(50).peer_id if peer is None else peer
    member.hear(fx.Requested(-1, who, message))  # type: ignore[arg-type]
    world.run(1)
    (reply,) = found
    return reply


def test_nothing_is_known_before_it_is_durable() -> None:
    world = World()
    (node,) = world.add(person(1))
    author = Author(person(2))
    node.disk_fails = True
    node.hear(fx.Requested(5, author.who.peer_id, LedgerPush([author.entries[0].raw])))
    assert ask(world, node, HeadsRequest([author.account])) == HeadsReply([None])
    assert ask(world, node, EntriesRequest(author.account, 0, 0)) == EntriesReply([])
    node.disk_fails = False
    world.run(20)
    head = Head(0, 0, author.entries[0].id)
    assert ask(world, node, HeadsRequest([author.account])) == HeadsReply([head])


def test_strangers_entries_come_from_their_author_only() -> None:
    world = World()
    (node,) = world.add(person(1))
    author = Author(person(2))
    reply = ask(world, node, LedgerPush([author.entries[0].raw]))
    assert isinstance(reply, messages.Refusal)
    assert reply.code == "stranger"
    assert node.disk == {}


def test_entries_that_hang_in_the_air_are_not_kept() -> None:
    world = World()
    (node,) = world.add(person(1))
    author = Author(person(2))
    later = [author.state(Pay(bytes([n]) * 32)) for n in range(4)][1:]
    push = LedgerPush([entry.raw for entry in later])
    assert ask(world, node, push, author.who.peer_id) == HeadsReply([None])
    assert node.disk == {}


def test_long_feeds_are_shown_in_pages() -> None:
    world = World()
    (node,) = world.add(person(1))
    author = Author(person(2))
    for n in range(700):
        author.state(Pay(n.to_bytes(32, "big")))
    node.disk = dict.fromkeys(entry.raw for entry in author.entries)
    node.start()
    first = ask(world, node, EntriesRequest(author.account, 0, 0))
    assert isinstance(first, EntriesReply)
    assert first.more
    rest = ask(world, node, EntriesRequest(author.account, 0, len(first.entries)))
    assert isinstance(rest, EntriesReply)
    assert not rest.more
    assert first.entries + rest.entries == [entry.raw for entry in author.entries]


def test_a_proof_is_shown_as_far_as_it_fits_and_unknown_jobs_are_refused() -> None:
    world = World()
    (node,) = world.add(person(1))
    job = Job(person(9), 3000)
    keeper = job.accepted([person(5)], range(100)) + job.accepted([person(5)], range(1024, 1100))
    node.kept[job.id] = job.record(keeper)
    reply = ask(world, node, ProofRequest(job.id, [1, 0, 1]))
    assert isinstance(reply, ProofReply)
    assert reply.ranges == [1, 0]
    refused = ask(world, node, ProofRequest(b"?" * 32, [0]))
    assert isinstance(refused, messages.Refusal)
    assert refused.code == "unknown_job"


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
    (liar,) = liars(world, 1, {ProofRequest: ProofReply(job.id, [0], other.record().encode())})
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


def test_an_idle_network_says_little() -> None:
    world, *_ = settled_world(1, 0.0, 0.0)
    world.run(700)
    world.sent.clear()
    world.run(3600)
    assert len(world.sent) < len(world.members) * 8 * 8
