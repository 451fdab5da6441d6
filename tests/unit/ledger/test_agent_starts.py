"""A node that starts from an old store, and accounts that signed two things for one place."""

from random import Random

import pytest

from sparkle_ledger.agent.core import LedgerAgent
from sparkle_ledger.agent.events import Accepted, Cloned, Fund, Over, WorkEnded
from sparkle_ledger.agent.own import GRACE_NS, State
from sparkle_ledger.agent.rounds import ROUND_NS
from sparkle_ledger.book import Book
from sparkle_ledger.entries import NO_PREV, Entry, Genesis, Hold, Restore, Settled, Work, account_of
from sparkle_protocol import effects as fx
from sparkle_protocol import messages
from sparkle_protocol.facts import Fact, FactCodec
from sparkle_protocol.ledger_messages import (
    EntriesReply,
    EntriesRequest,
    Head,
    HeadsReply,
    HeadsRequest,
    LedgerPush,
    ProofRequest,
)
from tests.unit.ledger.agents import (
    RICH,
    SECOND,
    UNITS,
    Member,
    World,
    entries_of,
    finished,
    liars,
    settled_world,
)
from tests.unit.ledger.ledgers import ECONOMY, ENTRIES, KEEPERS, NET, PRICE, Author, Job, person


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


def test_a_node_whose_key_somebody_else_uses_signs_nothing_more_until_it_starts_anew() -> None:
    world, _, (submitter, *_), _ = settled_world(2, 0.0, 0.0)
    signed = entries_of(submitter, submitter)
    submitter.hear(Cloned())
    assert submitter.agent.state is State.CLONED
    second = Job(submitter.who, UNITS, keepers=KEEPERS, nonce=2)
    submitter.hear(Fund(second.spec))
    world.run(300)
    assert "stop one of the two" in (submitter.funded[second.id] or "")
    assert entries_of(submitter, submitter) == signed
    world.leave(submitter)
    world.back(submitter)
    world.run(60)
    assert submitter.agent.state is State.READY


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


def test_what_a_backup_does_not_have_is_learnt_again_with_what_it_rests_on() -> None:
    """The account's own entries come back from its witnesses, the proofs and the hold from others."""
    world, job, (_, worker, *others), keepers = settled_world(1, 0.0, 0.0)
    backup = dict(worker.disk)
    assert not worker.evidence
    finished(world, job, [worker, *others], keepers)
    world.run(300)
    earned = worker.agent.account.earned_micro
    assert earned
    world.leave(worker)
    worker.disk, worker.evidence = backup, {}
    world.back(worker)
    world.run(300)
    assert worker.agent.account.earned_micro == earned
    assert worker.agent.book.sum_micro() == 0


@pytest.mark.parametrize("seed", [12, 15, 21])  # 15: once, the only witness that knew an entry was not heard
def test_nodes_that_fail_and_come_back_from_old_copies_fork_nothing_and_are_paid_once(seed: int) -> None:
    rng = Random(seed * 7 + 1)
    world, job, (submitter, *workers), keepers = settled_world(seed, rng.choice([0, 0.1, 0.25]), 0.3)
    copies = {peer: dict(member.disk) for peer, member in world.members.items()}
    facts: list[Fact] = []
    told: list[tuple[Member, Accepted]] = []
    for lot in range(0, UNITS, 8):
        pair = [workers[(lot // 8 + n) % len(workers)] for n in range(2)]
        facts += job.accepted([one.who for one in pair], range(lot, lot + 8))
        for keeper in keepers:
            keeper.kept[job.id] = job.record(facts)
        news = Accepted(
            job.spec, tuple((unit, 0) for unit in range(lot, lot + 8)), tuple(one.peer for one in keepers)
        )
        for one in pair:
            told.append((one, news))
            one.hear(news)
        world.run(rng.uniform(0, 8))
        if rng.random() < 0.5:
            failing = rng.choice(list(world.members.values()))
            world.leave(failing)
            world.run(rng.uniform(0, 5))
            if rng.random() < 0.4:
                failing.disk = dict(copies[failing.peer])
            world.back(failing)
            if failing is submitter and rng.random() < 0.5:
                submitter.hear(Fund(job.spec))
    world.run(60)
    for one, news in told:  # what was told just before a crash is told again
        one.hear(news)
    for worker in workers:
        worker.hear(WorkEnded(job.id))
    world.run(7200)
    submitter.hear(Over(job.record(facts)))
    world.run(1800)
    assert not any(member.agent.book.fork_proofs() for member in world.members.values())
    assert sum(one.agent.account.earned_micro for one in workers) == PRICE * UNITS * 2
    assert submitter.agent.book.unsettled(job.id) == []
    assert submitter.agent.account.held_micro == submitter.agent.book.sum_micro() == 0


def test_witnesses_that_are_not_linked_are_looked_up() -> None:
    world, _, (submitter, *_), keepers = settled_world(1, 0.0, 0.0)
    signed = entries_of(submitter, submitter)
    world.leave(submitter)
    submitter.disk.clear()
    strangers = world.add(*(person(n) for n in range(20, 24)))
    world.findable = [keepers[0].peer]
    submitter.start()
    for stranger in strangers:
        submitter.hear(fx.PeerUp(stranger.peer, ()))
    world.run(60)
    assert submitter.agent.state is State.READY
    assert entries_of(submitter, submitter) == signed


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
    assert entries_of(node, node)[-1] == Restore(last.seq, last.id)
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


def test_a_key_that_was_made_just_now_signs_at_once() -> None:
    who = person(1)
    agent = LedgerAgent(who, Book(NET, RICH), FactCodec(NET), lambda: 0, new=True)
    job = Job(who, UNITS, keepers=KEEPERS)
    (kept,) = [one for one in agent.handle(Fund(job.spec), SECOND) if isinstance(one, fx.KeepLedger)]
    assert [type(ENTRIES.open(raw).payload) for raw in kept.entries] == [Genesis, Hold]
    assert fx.JobFunded(job.id, None) in agent.handle(fx.LedgerKept(kept.tag), 2 * SECOND)


def test_who_never_met_anybody_waits_less() -> None:
    agent = LedgerAgent(person(1), Book(NET, RICH), FactCodec(NET), lambda: 0, met=False)
    agent.handle(fx.Tick(), SECOND)
    assert agent.next_deadline() == SECOND + GRACE_NS
    agent.handle(fx.Tick(), SECOND + GRACE_NS)
    assert agent.state is State.READY
    assert agent.next_deadline() == SECOND + ROUND_NS


@pytest.mark.parametrize("away", ["submitter", "keepers"])
def test_work_that_was_accepted_while_its_worker_was_gone_is_paid(away: str) -> None:
    """All that the worker knew before was that there is work, and who keeps it."""
    world, job, (submitter, worker, *_), keepers = settled_world(3, 0.0, 0.0)
    record = job.record(job.accepted([worker.who], range(8)))
    worker.hear(
        Accepted(job.spec, (), (), tuple(fact for fact in record.counting(()) if fact is not record.spec_fact))
    )
    world.run(5)
    world.leave(worker)
    for keeper in keepers:
        keeper.kept[job.id] = record
    submitter.kept[job.id] = record
    for gone in [submitter] if away == "submitter" else keepers:
        world.leave(gone)
    world.back(worker)
    world.run(600)
    works = [one for one in entries_of(worker, worker) if isinstance(one, Work)]
    assert sum(len(work.units) for work in works) == 8


def test_old_jobs_are_asked_about_one_after_the_other_and_not_for_ever() -> None:
    """A job of which it is not known that it is over is no reason to ask at every start for years."""
    world, job, (_, worker, *_), keepers = settled_world(3, 0.0, 0.0)
    jobs = [job, *(Job(person(1), UNITS, keepers=KEEPERS, nonce=nonce) for nonce in range(2, 22))]
    for one in jobs:
        worker.hear(Accepted(one.spec, (), tuple(keeper.peer for keeper in keepers)))
    world.run(5)
    for days, most in ((1, 21), (15, 0)):
        world.leave(worker)
        world.now += days * 86_400 * SECOND
        start = len(world.sent)
        world.back(worker)
        world.run(2.4)
        sent = [m for sender, _, m in world.sent[start:] if sender == worker.peer and isinstance(m, ProofRequest)]
        assert len({m.job for m in sent}) == min(most, 10)
        world.run(60)
        sent = [m for sender, _, m in world.sent[start:] if sender == worker.peer and isinstance(m, ProofRequest)]
        assert len({m.job for m in sent}) == most


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


def test_a_forked_account_brings_entries_now_and_then() -> None:
    """Each message with a lower fork has its whole feed judged anew."""
    world = World()
    (member,) = world.add(person(1))
    cheat = Author(person(66))
    first = [cheat.entries[0], *(cheat.state(Hold(bytes([n]) * 32, 1, 0)) for n in range(1, 6))]
    other = [
        ENTRIES.seal(cheat.who, Hold(b"x" * 32, 1, 0), seq=n, prev=first[n - 1].id, time_ms=0) for n in range(1, 6)
    ]
    for entries in ([one.raw for one in first], [other[4].raw], [other[3].raw], [other[2].raw]):
        member.hear(fx.Requested(0, cheat.who.peer_id, LedgerPush(entries)))
    book = member.agent.book
    assert book.is_frozen(cheat.account)
    assert [book.entry(entry.id) is not None for entry in other] == [False, False, False, True, True]
    world.run(60)
    member.hear(fx.Requested(0, cheat.who.peer_id, LedgerPush([other[2].raw])))
    assert book.entry(other[2].id) is not None


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
