"""Which results a keeper has the blobs of kept: two besides the worker, whoever is gone or full, and until when."""

from collections.abc import Sequence

from sparkle_protocol import effects as fx
from sparkle_protocol import facts as f
from sparkle_protocol import messages as m
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import JobId, PeerId, ResultHash, hash_result
from sparkle_protocol.work.blob_sizes import BlobSizes
from sparkle_protocol.work.failover import order_of
from sparkle_protocol.work.lease import SECOND_NS
from sparkle_protocol.work.quota import MB
from sparkle_protocol.work.spares import FULL_NS
from tests.unit.protocol.kept_jobs import ME, OTHERS, LoneKeeper, peer
from tests.unit.protocol.test_keeping import CODEC, NONCE

ALICE, WORKER = peer(1), peer(10)
SIZE = MB  # of a result's blob
FELLOWS = OTHERS[:3]  # they keep the job too
SIZES = BlobSizes(lambda spec: tuple(SIZE for _ in spec.inputs), lambda _spec, _unit: SIZE)


def given(unit: int) -> bytes:
    return bytes([unit]) * 5


def shown(job: JobId, worker: Identity, unit: int) -> list[f.Fact]:
    name = ResultHash(hash_result(given(unit)))
    commit = f.commitment("test", job, unit, 0, worker.public_key, name, NONCE)
    return [
        CODEC.seal(FELLOWS[0], f.Leases(job, [f.LeaseItem(unit, unit, 0, worker.public_key, 60_000)])),
        CODEC.seal(worker, f.Commits(job, [f.CommitItem(unit, 0, commit)])),
        CODEC.seal(worker, f.Reveals(job, [f.RevealItem(unit, 0, name, NONCE)])),
    ]


def verdict(author: Identity, job: JobId, worker: Identity, unit: int) -> f.Fact:
    item = f.VerdictItem(unit, 0, hash_result(given(unit)), [worker.public_key], [])
    return CODEC.seal(author, f.Verdicts(job, [item]))


class Keeper(LoneKeeper):
    """A keeper of one job in a place of its own in the order of those that keep it; its fellows are there."""

    def __init__(self, place: int, *, space: int = 400 * SIZE, units: int = 2, away: bool = True) -> None:
        super().__init__()
        self.core.lend(space, SIZES)
        self.full: set[PeerId] = set()
        while True:  # the order follows from the job's id
            self.id, reply = self.offer(ALICE, units, away=False, verification="algebraic")
            assert isinstance(reply, m.PushReply), reply
            if self.order().index(ME.peer_id) == place:
                break
        for job in [job for job in self.core.kept if job != self.id]:
            self.ask(ALICE, m.Release(job))
        self.sent.clear()
        if away:
            self.wait(60)

    def order(self) -> list[PeerId]:
        return list(order_of(self.job(self.id).state, 0)[1:])

    def wait(self, seconds: int, there: Sequence[Identity] = FELLOWS) -> None:
        """Time passes, and these say every five seconds that they are here."""
        for _ in range(seconds // 5):
            for fellow in there:
                if self.id in self.core.kept:
                    total = self.job(self.id).state.tally.total()
                    beat = m.JobBeat(self.id, total, complete=True, room=fellow.peer_id not in self.full)
                    self.said = self.ask(fellow, m.Beat([beat]))
            self.pass_time(5 * SECOND_NS)

    def accept(self, unit: int = 0, worker: Identity = WORKER, author: Identity = FELLOWS[0]) -> None:
        """A fellow tells of a result that it found right."""
        facts = [*shown(self.id, worker, unit), verdict(author, self.id, worker, unit)]
        reply = self.ask(FELLOWS[0], m.Push(self.id, [fact.raw for fact in facts], [given(unit)]))
        assert isinstance(reply, m.PushReply), reply

    @property
    def held(self) -> list[fx.HoldResult]:
        return [effect for effect in self.sent if isinstance(effect, fx.HoldResult)]

    @property
    def room(self) -> bool:
        """What this keeper said of itself last."""
        assert isinstance(self.said, m.BeatReply)
        return self.said.jobs[0].room


def test_the_first_two_keep_it_and_nobody_else() -> None:
    for place in range(4):
        keeper = Keeper(place)
        keeper.accept()
        keeper.wait(15)
        assert [one.unit for one in keeper.held] == ([0] if place < 2 else [])
        keeper.wait(60)
        assert len(keeper.held) <= 1  # it is said once


def test_it_is_fetched_from_its_worker_before_anybody_else() -> None:
    keeper = Keeper(1)
    keeper.accept()
    keeper.wait(15)
    (effect,) = keeper.held
    assert (effect.result, effect.size) == (hash_result(given(0)), SIZE)
    assert effect.sources[: effect.likely] == (WORKER.peer_id,)
    assert effect.sources[effect.likely] == keeper.order()[0]
    assert effect.sources[-1] == ALICE.peer_id
    assert ME.peer_id not in effect.sources


def test_a_keeper_keeps_what_it_computed_and_two_others_do_as_well() -> None:
    keeper = Keeper(3)
    keeper.accept(worker=ME)
    keeper.wait(15)
    assert [one.likely for one in keeper.held] == [0]
    keeper = Keeper(2)
    first = next(fellow for fellow in FELLOWS if fellow.peer_id == keeper.order()[0])
    keeper.accept(worker=first)
    keeper.wait(15)
    assert len(keeper.held) == 1


def test_in_place_of_a_keeper_without_room_the_next_one_keeps_it() -> None:
    keeper = Keeper(2)
    keeper.accept()
    keeper.wait(15)
    assert not keeper.held
    keeper.full = {keeper.order()[0]}
    keeper.wait(15)
    assert len(keeper.held) == 1


def test_in_place_of_a_keeper_that_is_gone_the_next_one_keeps_it_after_a_minute() -> None:
    keeper = Keeper(2)
    keeper.accept()
    there = [fellow for fellow in FELLOWS if fellow.peer_id != keeper.order()[0]]
    keeper.wait(50, there)
    assert not keeper.held
    keeper.wait(30, there)
    assert len(keeper.held) == 1


def test_while_the_submitter_is_there_it_has_the_results() -> None:
    keeper = Keeper(0, away=False)
    keeper.accept()
    keeper.wait(60, (*FELLOWS, ALICE))
    assert not keeper.held
    keeper.wait(60)
    assert len(keeper.held) == 1


def test_what_the_submitter_checked_it_has() -> None:
    keeper = Keeper(0)
    keeper.accept(author=ALICE)
    keeper.wait(15)
    assert not keeper.held


def test_a_keeper_without_room_says_so_and_tries_again_later() -> None:
    keeper = Keeper(0, space=3 * SIZE)  # of which a submitter gets less than one
    keeper.accept()
    keeper.wait(20)
    assert not keeper.held
    assert not keeper.room
    keeper.core.lend(400 * SIZE, SIZES)
    keeper.wait(FULL_NS // SECOND_NS + 20)
    keeper.wait(20)
    assert len(keeper.held) == 1
    assert keeper.room


def test_what_the_shell_has_no_place_for_is_said_too() -> None:
    keeper = Keeper(0)
    keeper.accept()
    keeper.wait(15)
    before = keeper.core.quota.of_submitter(ALICE.peer_id).blob_bytes
    keeper.perform(keeper.core.handle(fx.ResultNotHeld(keeper.id, 0, full=True), keeper.now))
    assert keeper.core.quota.of_submitter(ALICE.peer_id).blob_bytes == before - SIZE
    keeper.wait(20)
    assert not keeper.room
    assert len(keeper.held) == 1


def test_what_could_not_be_had_is_tried_again_soon() -> None:
    keeper = Keeper(0)
    keeper.accept()
    keeper.wait(15)
    keeper.perform(keeper.core.handle(fx.ResultNotHeld(keeper.id, 0, full=False), keeper.now))
    keeper.wait(15)
    assert len(keeper.held) == 2
    assert keeper.room


def test_results_are_kept_until_the_submitter_has_what_it_wants() -> None:
    keeper = Keeper(0, units=1)
    keeper.accept()
    for fellow in FELLOWS:
        reply = keeper.ask(fellow, m.Push(keeper.id, [verdict(fellow, keeper.id, WORKER, 0).raw], [given(0)]))
        assert isinstance(reply, m.PushReply)
    assert keeper.job(keeper.id).outcome == "done"
    keeper.wait(15)
    assert len(keeper.held) == 1
    assert fx.ReleaseResults(keeper.id) not in keeper.sent
    keeper.ask(ALICE, m.Release(keeper.id))
    assert fx.ReleaseResults(keeper.id) in keeper.sent


def test_a_job_whose_inputs_are_too_large_for_one_submitter_is_refused_with_the_reason() -> None:
    keeper = LoneKeeper()
    keeper.core.lend(40 * SIZE, SIZES)
    inputs = [bytes([n]) * 32 for n in range(11)]
    _, refused = keeper.offer(ALICE, 1, away=False, inputs=inputs)
    assert refused == m.Refusal("quota", "this node keeps at most 10 MB of arrays of one submitter")
    _, taken = keeper.offer(ALICE, 1, away=False, inputs=inputs[:6])
    assert isinstance(taken, m.PushReply)
    hold = [effect for effect in keeper.sent if isinstance(effect, fx.HoldInputs)][-1]
    assert (hold.sources[0], hold.likely, hold.sizes) == (ALICE.peer_id, 1, (SIZE,) * 6)
    _, refused = keeper.offer(ALICE, 1, away=False, inputs=inputs[:6])
    assert isinstance(refused, m.Refusal)
    _, taken = keeper.offer(peer(2), 1, away=False, inputs=inputs[:6])
    assert isinstance(taken, m.PushReply)  # others have room of their own
