"""The worker agent's rules, one at a time, against a keeper that says what the test wants."""

from random import Random

import pytest

from sparkle_protocol import effects as fx
from sparkle_protocol import facts as f
from sparkle_protocol import messages as m
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import PeerId
from sparkle_protocol.work.held import MAX_HELD_PER_KEEPER
from sparkle_protocol.work.reporting import MAX_JOBS_KEPT, PATIENCE_NS
from sparkle_protocol.work.worker import MAX_DIALS, PAUSE_HOLD_NS, SECOND_NS, WorkerAgent

CODEC = f.FactCodec("test")
ME, KEEPER, OTHER = (Identity.from_private_bytes(bytes([n]) * 32) for n in range(1, 4))


class Worker:
    """The agent, what it asks of its shell, and its disk."""

    def __init__(self, slots: int = 1, units: int = 10) -> None:
        self.agent = WorkerAgent(ME, CODEC, Random(1), ["square@1"], slots)
        self.now = 0
        self.units = units
        self.effects: list[fx.Effect] = []
        self.commits: dict[int, fx.StoreCommit] = {}
        self.learn_job(0)

    def learn_job(self, number: int) -> None:
        self.spec = CODEC.seal(KEEPER, f.JobSpec(
            "square", 1, {}, self.units, "exact", f.Policy(), f.Resources(), f.Deadlines(), b"\0" * 32,
            number.to_bytes(16, "big"), 0,
        ))  # fmt: skip
        self.job = self.spec.job
        self.keepers = CODEC.seal(KEEPER, f.KeeperSet(self.job, 0, [KEEPER.public_key], 1))

    def perform(self, effects: fx.Effects) -> None:
        for effect in effects:
            self.effects.append(effect)
            for record in effect.records if isinstance(effect, fx.Persist) else ():
                if isinstance(record, fx.StoreCommit):
                    self.commits[record.unit] = record
                elif isinstance(record, fx.DropCommit):
                    self.commits.pop(record.unit, None)
                elif isinstance(record, fx.DropCommits):
                    self.commits.clear()

    def tell(self, event: object) -> None:
        self.perform(self.agent.handle(event, self.now))

    def took(self, kind: type) -> list[fx.Effect]:
        found = [effect for effect in self.effects if isinstance(effect, kind)]
        self.effects = [effect for effect in self.effects if not isinstance(effect, kind)]
        return found

    def let_pass(self, seconds: float) -> None:
        self.now += int(seconds * SECOND_NS)
        self.tell(fx.Tick())

    def sent(self, kind: type) -> tuple[int, m.Request]:
        """The last request of that kind, not yet answered."""
        sends = [e for e in self.effects if isinstance(e, fx.Send) and isinstance(e.message, kind)]
        self.effects.remove(sends[-1])
        return sends[-1].tag, sends[-1].message

    def offer(self) -> None:
        self.tell(fx.Requested(1, KEEPER.peer_id, m.Offer(["square@1"])))

    def give(self, *units: int, open_jobs: int = 1) -> None:
        """Answer its request for work."""
        tag, _ = self.sent(m.LeaseRequest)
        items = [f.LeaseItem(unit, unit, 0, ME.public_key, 30_000) for unit in units]
        leases = [CODEC.seal(KEEPER, f.Leases(self.job, items)).raw] if items else []
        jobs = [m.JobFacts(self.spec.raw, [self.keepers.raw])] if items else []
        self.tell(fx.Replied(tag, KEEPER.peer_id, m.LeaseReply(jobs, leases, 0 if items else 2000, open_jobs)))

    def compute(self, unit: int, result: bytes = b"result") -> None:
        self.tell(fx.Computed(self.job, unit, 0, result))

    def hear(self, tag: int, **news: object) -> None:
        fields = {"reveal": [], "drop": [], "settled": [], "ended": False, **news}
        self.tell(fx.Replied(tag, KEEPER.peer_id, m.ReportReply(self.job, **fields)))  # type: ignore[arg-type]

    def reported(self) -> tuple[int, list[f.Payload], m.Report]:
        tag, message = self.sent(m.Report)
        assert isinstance(message, m.Report)
        return tag, [CODEC.open(raw).payload for raw in message.facts], message


def working(slots: int = 1, *units: int) -> Worker:
    worker = Worker(slots)
    worker.offer()
    worker.give(*(units or (0, 1)))
    return worker


def states(worker: Worker) -> dict[int, str]:
    return {unit: held.state for (_, unit, _), held in worker.agent.held.items()}


def test_from_lease_to_settled() -> None:
    worker = working()
    assert [effect.unit for effect in worker.took(fx.Compute) if isinstance(effect, fx.Compute)] == [0]
    worker.compute(0)
    tag, (commits,), _ = worker.reported()
    assert isinstance(commits, f.Commits)
    assert set(worker.commits) == {0}
    assert states(worker) == {0: "committing", 1: "running"}
    worker.hear(tag, reveal=[m.UnitEpoch(0, 0)])
    worker.let_pass(1)
    tag, (reveals,), report = worker.reported()
    assert isinstance(reveals, f.Reveals)
    assert report.results == [b"result"]
    worker.hear(tag, settled=[m.Settled(0, 0, True)])
    assert worker.agent.units_verified == 1
    assert states(worker) == {1: "running"}
    worker.compute(1)
    assert set(worker.commits) == {1}


def test_a_commit_is_durable_before_it_leaves_each_time() -> None:
    worker = working()
    worker.effects.clear()
    worker.compute(0)
    batch = list(worker.effects)
    tag, _, first = worker.reported()
    (kept,) = [place for place, effect in enumerate(batch) if isinstance(effect, fx.Persist)]
    (sent,) = [place for place, effect in enumerate(batch) if getattr(effect, "message", None) == first]
    assert kept < sent
    worker.tell(fx.SendFailed(tag, KEEPER.peer_id, "lost"))
    worker.effects.clear()
    worker.now += 60 * SECOND_NS
    worker.tell(fx.Tick())
    order = [e for e in worker.effects if isinstance(e, fx.Persist) or getattr(e, "message", None) == first]
    assert isinstance(order[0], fx.Persist)
    assert len(order) == 2


def test_a_question_that_overtakes_the_answer_is_not_forgotten() -> None:
    worker = working()
    worker.compute(0)
    tag, _, _ = worker.reported()
    worker.tell(fx.Requested(5, KEEPER.peer_id, m.Notice(worker.job, [m.UnitEpoch(0, 0)], [], [], False)))
    worker.hear(tag)
    worker.let_pass(1)
    _, (reveals,), _ = worker.reported()
    assert isinstance(reveals, f.Reveals)


def test_a_result_is_shown_once_however_often_it_is_asked_for() -> None:
    worker = working()
    worker.compute(0)
    tag, _, _ = worker.reported()
    worker.hear(tag, reveal=[m.UnitEpoch(0, 0)] * 3)
    for _ in range(3):
        worker.tell(fx.Requested(5, KEEPER.peer_id, m.Notice(worker.job, [m.UnitEpoch(0, 0)], [], [], False)))
    worker.let_pass(1)
    tag, (reveals,), _ = worker.reported()
    assert isinstance(reveals, f.Reveals)
    assert len(reveals.items) == 1


@pytest.mark.parametrize("code", ["busy", "storage", "internal", "unserved"])
def test_a_keeper_in_trouble_is_told_again(code: str) -> None:
    worker = working()
    worker.compute(0)
    tag, _, first = worker.reported()
    worker.tell(fx.Replied(tag, KEEPER.peer_id, m.Refusal(code, "later")))
    assert states(worker)[0] == "committing"
    worker.now += 60 * SECOND_NS
    worker.tell(fx.Tick())
    assert worker.reported()[2] == first


def test_an_unknown_job_is_forgotten_with_all_we_hold_of_it() -> None:
    worker = working()
    worker.compute(0)
    tag, _, _ = worker.reported()
    worker.tell(fx.Replied(tag, KEEPER.peer_id, m.Refusal("unknown_job", "no such job")))
    assert not worker.agent.held
    assert not worker.commits
    assert worker.took(fx.StopCompute)
    assert not worker.agent.jobs


def test_a_restart_states_the_same_commit() -> None:
    worker = working()
    worker.compute(0)
    _, (before,), _ = worker.reported()
    again = Worker()
    kept = worker.commits[0]
    commits = [(kept.unit, kept.epoch, kept.nonce, kept.result)]
    again.perform(again.agent.restore(worker.spec, [worker.keepers], commits, 0))
    assert again.reported()[1] == [before]


def test_pause_hands_back_what_waits_at_once_and_what_runs_later() -> None:
    worker = working()
    worker.perform(worker.agent.pause(worker.now))
    tag, _, report = worker.reported()
    assert report.returned == [m.UnitEpoch(1, 0)]
    worker.hear(tag)
    assert states(worker) == {0: "running"}
    worker.now += PAUSE_HOLD_NS
    worker.tell(fx.Tick())
    assert worker.took(fx.StopCompute)
    assert states(worker) == {}


def short_units_handed_over() -> Worker:
    """A worker that knows its units to be short, and has six more in hand."""
    worker = working()
    worker.compute(0)
    worker.took(fx.Compute)
    worker.tell(fx.Computed(worker.job, 1, 0, b"result", seconds=0.001))
    worker.offer()
    worker.give(*range(2, 8))
    return worker


def test_short_units_are_handed_over_together_but_only_the_first_has_begun() -> None:
    worker = short_units_handed_over()
    handed = [effect.unit for effect in worker.took(fx.Compute) if isinstance(effect, fx.Compute)]
    assert handed == [2, 3, 4, 5, 6, 7]
    assert [unit for _, unit, _ in worker.agent.begun] == [2]


def test_pause_hands_back_what_was_handed_over_and_has_not_begun() -> None:
    worker = short_units_handed_over()
    worker.perform(worker.agent.pause(worker.now))
    stopped = [effect.unit for effect in worker.took(fx.StopCompute) if isinstance(effect, fx.StopCompute)]
    assert stopped == [3, 4, 5, 6, 7]
    assert {unit for unit, state in states(worker).items() if state == "running"} == {2}


def test_leases_that_arrive_after_the_pause_go_back() -> None:
    worker = Worker()
    worker.offer()
    worker.perform(worker.agent.pause(worker.now))
    worker.give(0, 1)
    assert not worker.agent.held
    assert len(worker.reported()[2].returned) == 2
    assert not worker.took(fx.Compute)


def test_stop_gives_back_what_is_not_committed_and_says_when_that_is_known() -> None:
    worker = working()
    worker.compute(0)
    tag, _, _ = worker.reported()
    worker.perform(worker.agent.stop(worker.now))
    assert not worker.agent.drained
    worker.hear(tag)
    tag, _, report = worker.reported()
    assert report.returned == [m.UnitEpoch(1, 0)]
    worker.hear(tag)
    assert worker.agent.drained
    assert set(worker.commits) == {0}


def test_many_slots_ask_for_no_more_than_a_request_can() -> None:
    worker = Worker(slots=500)
    worker.offer()
    _, request = worker.sent(m.LeaseRequest)
    assert m.decode_request(m.encode_message(request)) == request


def test_an_offer_during_the_request_is_not_lost() -> None:
    worker = Worker()
    worker.offer()
    worker.offer()
    worker.give(open_jobs=0)
    worker.now += SECOND_NS
    worker.tell(fx.Tick())
    _, request = worker.sent(m.LeaseRequest)
    assert isinstance(request, m.LeaseRequest)
    assert request.want > 0


def test_a_keeper_that_always_offers_and_never_gives_costs_little() -> None:
    worker = Worker()
    asked = 0
    for _ in range(1000):
        worker.offer()
        for effect in worker.took(fx.Send):
            assert isinstance(effect, fx.Send)
            asked += 1
            worker.tell(fx.Replied(effect.tag, KEEPER.peer_id, m.LeaseReply([], [], 0, 5)))
        worker.now += SECOND_NS // 1000
    assert asked < 20


def test_gossip_makes_us_dial_few_strangers() -> None:
    worker = Worker()
    for number in range(4, 60):
        author = Identity.from_private_bytes(bytes([number]) * 32).peer_id
        heard = m.Announcement(1, ["square@1"], [f"/ip4/10.0.0.1/tcp/1/p2p/{author}", "/ip4/10.0.0.2/tcp/1/p2p/x"])
        worker.tell(fx.Gossiped(m.jobs_topic("test"), author, m.encode_message(heard)))
    dials = worker.took(fx.Dial)
    assert len(dials) == MAX_DIALS
    assert isinstance(dials[0], fx.Dial)
    worker.tell(fx.Dialled(dials[0].tag, dials[0].address, None))
    author = PeerId(OTHER.peer_id)
    heard = m.Announcement(1, ["square@1"], [f"/ip4/10.0.0.1/tcp/1/p2p/{author}"])
    worker.tell(fx.Gossiped(m.jobs_topic("test"), author, m.encode_message(heard)))
    assert len(worker.took(fx.Dial)) == 1


def test_a_silent_keeper_is_given_up_after_a_day() -> None:
    worker = working()
    worker.compute(0)
    while worker.now <= PATIENCE_NS + 120 * SECOND_NS:
        for effect in worker.took(fx.Send):
            assert isinstance(effect, fx.Send)
            worker.tell(fx.SendFailed(effect.tag, effect.peer, "lost"))
        due = worker.agent.next_deadline()
        assert due is not None
        assert due >= worker.now
        worker.now = due
        worker.tell(fx.Tick())
    assert not worker.agent.held
    assert not worker.commits
    assert not worker.agent.jobs


def test_specs_of_many_small_jobs_are_not_kept_for_ever() -> None:
    worker = Worker()
    worker.offer()
    for number in range(2 * MAX_JOBS_KEPT):
        worker.learn_job(number)
        worker.give(0)
        worker.compute(0)
        for news in ({"reveal": [m.UnitEpoch(0, 0)]}, {"settled": [m.Settled(0, 0, True)]}):
            tag, _, _ = worker.reported()
            worker.hear(tag, **news)
        worker.now += 3 * SECOND_NS
        worker.tell(fx.Tick())
    assert worker.agent.units_verified == 2 * MAX_JOBS_KEPT
    assert len(worker.agent.jobs) <= MAX_JOBS_KEPT + 1
    assert not worker.commits


def test_a_keeper_that_never_decides_fills_our_hands_only_so_far() -> None:
    worker = Worker(units=2000)
    worker.offer()
    for unit in range(MAX_HELD_PER_KEEPER):
        worker.give(unit)
        worker.compute(unit)
        tag, _, _ = worker.reported()
        worker.hear(tag)
    assert len(worker.agent.held) == MAX_HELD_PER_KEEPER
    worker.took(fx.Send)
    worker.offer()
    assert not [e for e in worker.took(fx.Send) if isinstance(e, fx.Send) and isinstance(e.message, m.LeaseRequest)]
    worker.tell(fx.Requested(1, OTHER.peer_id, m.Offer(["square@1"])))
    _, request = worker.sent(m.LeaseRequest)  # another keeper is asked all the same
    assert isinstance(request, m.LeaseRequest)
