"""A worker takes no unit that needs more memory than it allows, and nobody goes on offering it one."""

from random import Random

from sparkle_protocol import effects as fx
from sparkle_protocol import facts as f
from sparkle_protocol import messages as m
from sparkle_protocol.membership import Membership
from sparkle_protocol.work.keepers import MAX_FAILURES
from sparkle_protocol.work.memory import MAX_TELLERS, TOLD_NS, MemoryLimit
from sparkle_protocol.work.worker import SECOND_NS, WorkerAgent
from tests.unit.protocol.kept_jobs import LoneKeeper, peer
from tests.unit.protocol.test_membership import ME as MEMBER
from tests.unit.protocol.test_working import CODEC, KEEPER, ME, Worker

ALICE, SMALL, LARGE = peer(1), peer(2), peer(3)
MB = 1 << 20
NEEDS = f.Resources(memory_bytes=200 * MB)


def ask(keeper: LoneKeeper, memory_bytes: int, worker=SMALL) -> m.LeaseReply:
    reply = keeper.ask(worker, m.LeaseRequest(8, ["square@1"], [], "", memory_bytes))
    assert isinstance(reply, m.LeaseReply)
    return reply


def test_a_keeper_leaves_out_what_does_not_fit_and_says_so() -> None:
    keeper = LoneKeeper()
    job, _ = keeper.offer(ALICE, 100, resources=NEEDS)
    reply = ask(keeper, 64 * MB)
    assert not reply.leases
    assert reply.open_jobs == 0  # so the worker does not ask again until it is told of more
    assert reply.too_large == [m.TooLarge(job, 200 * MB)]
    fitting, _ = keeper.offer(ALICE, 100)
    reply = ask(keeper, 64 * MB)
    assert {CODEC.open(raw).job for raw in reply.leases} == {fitting}
    assert reply.too_large == [m.TooLarge(job, 200 * MB)]
    assert reply.open_jobs == 1


def test_a_worker_that_allows_enough_or_says_nothing_gets_it() -> None:
    keeper = LoneKeeper()
    keeper.offer(ALICE, 100, resources=NEEDS)
    for number, allowed in enumerate((200 * MB, m.UNSAID)):
        reply = ask(keeper, allowed, peer(10 + number))
        assert reply.leases
        assert not reply.too_large


def test_news_of_a_job_are_no_news_for_whom_it_is_too_large() -> None:
    keeper = LoneKeeper()
    job, _ = keeper.offer(ALICE, 2, resources=NEEDS)
    ask(keeper, 64 * MB)
    given = ask(keeper, m.UNSAID, LARGE)
    assert given.leases
    keeper.sent.clear()
    keeper.report(LARGE, job, returned=[m.UnitEpoch(0, 0)])  # a unit can be had again
    offered = [e.peer for e in keeper.sent if isinstance(e, fx.Send) and isinstance(e.message, m.Offer)]
    assert SMALL.peer_id not in offered


class SmallWorker(Worker):
    """A worker of 64 MB, whose keeper has a job that needs 200."""

    def __init__(self) -> None:
        super().__init__()
        self.agent = WorkerAgent(ME, CODEC, Random(1), ["square@1"], memory_bytes=64 * MB)

    def learn_job(self, number: int) -> None:
        self.spec = CODEC.seal(KEEPER, f.JobSpec(
            "square", 1, {}, self.units, "exact", f.Policy(), NEEDS, f.Deadlines(), b"\0" * 32,
            number.to_bytes(16, "big"), 0,
        ))  # fmt: skip
        self.job = self.spec.job
        self.keepers = CODEC.seal(KEEPER, f.KeeperSet(self.job, 0, [KEEPER.public_key], 1))


def test_a_worker_says_its_limit_and_remembers_what_is_beyond() -> None:
    worker = SmallWorker()
    worker.offer()
    tag, request = worker.sent(m.LeaseRequest)
    assert isinstance(request, m.LeaseRequest)
    assert request.memory_bytes == 64 * MB
    reply = m.LeaseReply([], [], 0, 0, 0, [m.TooLarge(worker.job, 200 * MB)])
    worker.tell(fx.Replied(tag, KEEPER.peer_id, reply))
    assert worker.agent.memory.too_large(worker.now) == {worker.job: 200 * MB}
    assert not worker.agent.memory.too_large(worker.now + TOLD_NS + 1)
    worker.let_pass(600)
    assert not [e for e in worker.took(fx.Send) if isinstance(e, fx.Send) and isinstance(e.message, m.LeaseRequest)]


def test_what_is_given_all_the_same_goes_back_and_is_asked_for_ever_more_rarely() -> None:
    """By a keeper that does not know of limits."""
    worker = SmallWorker()
    worker.offer()
    asked, returned = 0, []
    for _ in range(3600):
        sent = {type(e.message) for e in worker.effects if isinstance(e, fx.Send)}
        if m.LeaseRequest in sent:
            asked += 1
            worker.give(0)
        if m.Report in sent:
            tag, _, report = worker.reported()
            returned += [item.unit for item in report.returned]
            worker.hear(tag)
        worker.let_pass(1)
    assert not worker.took(fx.Prepare)
    assert not worker.took(fx.Compute)
    assert not worker.agent.held
    assert returned == [0] * asked
    assert asked == MAX_FAILURES + 1  # until it is offered again


def test_what_keepers_say_is_bounded_and_no_lie_counts() -> None:
    limit = MemoryLimit(64 * MB)
    for number in range(2 * MAX_TELLERS):
        limit.told(peer(number).peer_id, [m.TooLarge(number.to_bytes(32, "big"), 65 * MB)], 0)
    assert len(limit.too_large(0)) == MAX_TELLERS
    limit.told(KEEPER.peer_id, [m.TooLarge(b"x" * 32, 64 * MB)], 0)  # it would fit
    assert len(limit.too_large(0)) == MAX_TELLERS
    unlimited = MemoryLimit(m.UNSAID)
    unlimited.told(KEEPER.peer_id, [m.TooLarge(b"x" * 32, 1 << 50)], 0)
    assert not unlimited.too_large(0)


def test_peers_tell_each_other_what_they_allow() -> None:
    node = Membership(MEMBER, Random(1), lambda: 0, 64 * MB)
    other = ALICE.peer_id
    (reply,) = [e for e in node.handle(fx.Requested(7, other, m.PeersRequest(0)), 0) if isinstance(e, fx.Reply)]
    assert isinstance(reply.message, m.PeersReply)
    assert reply.message.memory_bytes == 64 * MB
    node.handle(fx.PeerUp(other, ()), 0)
    effects = node.handle(fx.Tick(), 2 * SECOND_NS)
    (asked,) = [e for e in effects if isinstance(e, fx.Send)]
    node.handle(fx.Replied(asked.tag, other, m.PeersReply([], 0, 512 * MB)), 2 * SECOND_NS)
    assert node.memory == {other: 512 * MB}
    node.handle(fx.PeerDown(other), 2 * SECOND_NS)
    assert not node.memory
