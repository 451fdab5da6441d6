"""What the simulator found: two branches of one account, work that nobody spoke of, proofs that got nowhere."""

from sparkle_ledger.agent.events import Accepted, WorkEnded
from sparkle_ledger.entries import account_of
from sparkle_protocol import effects as fx
from sparkle_protocol.ledger_messages import EntriesReply, EntriesRequest, HeadsReply, HeadsRequest, LedgerPush
from tests.unit.ledger.agents import RICH, Liar, Member, World
from tests.unit.ledger.ledgers import KEEPERS, NET, PRICE, Author, Job, person


def shown(world: World, member: Member, author: Author) -> None:
    """An account's own node brings its entries."""
    message = LedgerPush([entry.raw for entry in author.entries])
    member.hear(fx.Requested(-1, author.who.peer_id, message))
    world.run(1)


def two_branches() -> tuple[Author, Author, Job, Job]:
    """An account that signs a hold for each of two jobs in one place."""
    one = Author(person(1))
    other = one.twin()
    jobs = [Job(person(1), 4, nonce=nonce, keepers=KEEPERS) for nonce in (1, 2)]
    one.hold(jobs[0])
    other.hold(jobs[1])
    return one, other, jobs[0], jobs[1]


def test_who_knows_one_branch_finds_the_other_that_pays_it() -> None:
    world = World()
    worker, witness = world.add(person(2), person(3), economy=RICH)
    one, other, _, job = two_branches()
    payer = Liar(world, person(1), RICH)
    payer.answers = {
        HeadsRequest: HeadsReply([None]),
        EntriesRequest: EntriesReply([entry.raw for entry in one.entries]),
    }
    world.members[payer.peer] = payer
    world.link(payer)
    shown(world, worker, one)
    shown(world, witness, other)
    witness.kept[job.id] = job.record(job.accepted([worker.who]))
    worker.hear(Accepted(job.spec, tuple((unit, 0) for unit in range(4)), (witness.peer,)))
    world.run(900)
    assert worker.agent.account.earned_micro == 4 * PRICE
    for member in (worker, witness):
        assert member.agent.forked(account_of(NET, person(1).public_key)) is not None


def test_who_is_linked_later_hears_of_a_fork() -> None:
    world = World()
    (early,) = world.add(person(2), economy=RICH)
    one, other, *_ = two_branches()
    shown(world, early, one)
    shown(world, early, other)
    (late,) = world.add(person(3), economy=RICH)
    world.run(10)
    assert late.agent.forked(account_of(NET, person(1).public_key)) is not None


def test_work_of_which_nobody_spoke_is_claimed_once_keepers_accept_it() -> None:
    world = World()
    submitter, worker = world.add(person(1), person(2), economy=RICH)
    keepers = world.add(*KEEPERS, economy=RICH)
    author = Author(person(1))
    job = Job(person(1), 4, keepers=KEEPERS)
    author.hold(job)
    shown(world, worker, author)
    for member in [submitter, *keepers]:
        member.kept[job.id] = job.record(job.view)
    worker.hear(Accepted(job.spec, (), tuple(one.peer for one in keepers)))
    worker.hear(WorkEnded(job.id, (0,)))
    world.run(15)
    for keeper in keepers:
        keeper.kept[job.id] = job.record(job.accepted([worker.who], [2]))
    world.run(900)
    assert worker.agent.account.earned_micro == PRICE
    assert not [one for one in worker.told if one.event == "pay_not_claimed"]
