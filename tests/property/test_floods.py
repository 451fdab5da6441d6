"""Floods at one core: each is refused or survived in bounded memory, and whoever broke a rule is recorded."""

import tracemalloc
from collections.abc import Iterable
from random import Random

from sparkle_protocol import effects as fx
from sparkle_protocol import facts as f
from sparkle_protocol import messages as m
from sparkle_protocol.ids import JobId, PeerId, ResultHash, hash_result
from sparkle_protocol.work.co_keeping import OFFERED_NS
from sparkle_protocol.work.kept_job import MAX_PROPOSALS
from sparkle_protocol.work.placement import threshold
from sparkle_protocol.work.presence import BEAT_NS
from sparkle_protocol.work.quota import IN_ALL, PER_SUBMITTER
from sparkle_protocol.work.state import JobState
from sparkle_protocol.work.submitter import Submitter
from tests.property.world import NET, SECOND, CheapIdentity, check_form, spec, true_result, verify_cheap

CODEC = f.FactCodec(NET, verify_cheap)
ME, WORKER, STRANGER = (CheapIdentity(n) for n in range(3))
KEEPERS = [CheapIdentity(n) for n in range(10, 18)]
KEYS = [keeper.public_key for keeper in KEEPERS]
MB = 1 << 20


class Host:
    """A core, what it put on disk, and whom it recorded."""

    def __init__(self) -> None:
        self.core = Submitter(ME, CODEC, Random(1), check_form)
        self.now = 0
        self.token = 0
        self.offenders: list[PeerId] = []
        self.facts = 0
        self.results = 0

    def perform(self, effects: fx.Effects) -> m.Reply | None:
        answer = None
        for effect in effects:
            if isinstance(effect, fx.Violation):
                self.offenders.append(effect.peer)
            elif isinstance(effect, fx.Reply):
                answer = effect.message
            elif isinstance(effect, fx.Persist):
                self.facts += sum(isinstance(record, fx.StoreFact) for record in effect.records)
                self.results += sum(isinstance(record, fx.StoreResult) for record in effect.records)
        return answer

    def ask(self, peer: CheapIdentity, message: m.Request) -> m.Reply | None:
        self.token += 1
        return self.perform(self.core.handle(fx.Requested(self.token, peer.peer_id, message), self.now))

    def pass_time(self, ns: int) -> None:
        end = self.now + ns
        while (due := self.core.next_deadline()) is not None and due <= end:
            self.now = max(self.now, due)
            self.perform(self.core.handle(fx.Tick(), self.now))
        self.now = end

    def with_own_job(self, units: int, keepers: Iterable[bytes] = KEYS) -> JobId:
        """A job of ours, with its keepers named."""
        one = CODEC.seal(ME, spec(units, Random(1)))
        keys = [*keepers]
        named = CODEC.seal(ME, f.KeeperSet(one.job, 0, keys, threshold(len(keys))))
        self.perform(self.core.restore(one, [named], self.now))
        self.pass_time(6 * SECOND)  # it is held back first, for others to tell what they know
        return one.job


def spec_of(submitter: CheapIdentity, units: int, seed: int) -> f.Fact:
    return CODEC.seal(submitter, spec(units, Random(seed)))


def push(job: JobId, *facts: f.Fact, results: Iterable[bytes] = ()) -> m.Push:
    return m.Push(job, [fact.raw for fact in facts], [*results])


def test_a_huge_job_of_an_unknown_submitter_costs_what_its_spec_costs() -> None:
    host = Host()
    one = spec_of(STRANGER, 100_000, 1)
    tracemalloc.start()
    try:
        answer = host.ask(STRANGER, push(one.job, one))
        used = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert isinstance(answer, m.PushReply)
    assert used < MB
    host.pass_time(2 * OFFERED_NS)
    assert not host.core.kept  # nobody named us a keeper of it


def test_many_jobs_of_one_submitter_are_refused_beyond_its_share() -> None:
    host = Host()
    for seed in range(3 * PER_SUBMITTER.jobs):
        one = spec_of(STRANGER, 10, seed)
        host.ask(STRANGER, push(one.job, one))
    assert len(host.core.kept) <= PER_SUBMITTER.jobs


def test_many_jobs_of_many_submitters_are_refused_beyond_what_this_node_keeps() -> None:
    host = Host()
    for seed in range(2 * IN_ALL.jobs):
        one = spec_of(CheapIdentity(1000 + seed), 10, seed)
        host.ask(CheapIdentity(1000 + seed), push(one.job, one))
    assert len(host.core.kept) <= IN_ALL.jobs
    host.pass_time(2 * OFFERED_NS)
    assert not host.core.kept


def commits(job: JobId, units: Iterable[int], salt: int = 0) -> m.Report:
    items = [f.CommitItem(unit, 0, (salt << 32 | unit).to_bytes(32, "big")) for unit in units]
    return m.Report(job, [CODEC.seal(WORKER, f.Commits(job, items)).raw], [], [])


def test_commits_without_leases_leave_nothing_behind() -> None:
    host = Host()
    job = host.with_own_job(10_000, [ME.public_key])
    known, stored = len(host.core.jobs[job].state), host.facts
    for start in range(0, 10_000, 1_000):
        assert isinstance(host.ask(WORKER, commits(job, range(start, start + 1_000))), m.Refusal)
    assert len(host.core.jobs[job].state) == known
    assert host.facts == stored
    assert host.offenders == [WORKER.peer_id] * 10


def test_of_ten_thousand_different_commits_two_are_kept_as_proof() -> None:
    host = Host()
    job = host.with_own_job(64, [ME.public_key])
    reply = host.ask(WORKER, m.LeaseRequest(1, ["square@1"], []))
    assert isinstance(reply, m.LeaseReply)
    (lease,) = [CODEC.open(raw).payload for raw in reply.leases]
    assert isinstance(lease, f.Leases)
    unit, stored = lease.items[0].unit, host.facts
    for salt in range(10_000):
        host.ask(WORKER, commits(job, [unit], salt))
    assert host.facts == stored + 2
    assert WORKER.peer_id in host.core.jobs[job].rejected
    assert host.core.jobs[job].may_take(unit, KEEPERS[0].peer_id, host.now)


def test_a_worker_that_never_answers_holds_few_units_and_not_for_long() -> None:
    host = Host()
    job = host.with_own_job(1_000, [ME.public_key])
    for _ in range(200):
        host.ask(WORKER, m.LeaseRequest(m.MAX_WANT, ["square@1"], []))
    leases = host.core.jobs[job].leases
    assert 0 < leases.holds(WORKER.peer_id) < 500
    host.pass_time(120 * SECOND)
    assert leases.holds(WORKER.peer_id) == 0


def test_facts_with_a_bad_signature_are_refused_and_held_against_the_sender() -> None:
    host = Host()
    job = host.with_own_job(10)
    verdict = CODEC.seal(KEEPERS[1], f.Verdicts(job, [f.VerdictItem(0, 0, b"r" * 32, [KEYS[1]], [])]))
    forged = verdict.raw[:-1] + bytes([verdict.raw[-1] ^ 1])
    known = len(host.core.jobs[job].state)
    for _ in range(100):
        assert isinstance(host.ask(KEEPERS[0], m.Push(job, [forged])), m.Refusal)
    assert len(host.core.jobs[job].state) == known
    assert host.offenders == [KEEPERS[0].peer_id] * 100


def test_results_that_nobody_asked_for_are_not_kept() -> None:
    host = Host()
    job = host.with_own_job(10)
    for salt in range(1_000):
        host.ask(KEEPERS[0], push(job, results=[salt.to_bytes(8, "big") * 100]))
    assert host.results == 0


def test_strangers_push_nothing_into_a_job() -> None:
    host = Host()
    job = host.with_own_job(10)
    known = len(host.core.jobs[job].state)
    for number in range(1_000):
        keys = [STRANGER.public_key]
        other = CODEC.seal(STRANGER, f.KeeperSet(job, 256 * (number + 1), keys, 1))
        host.ask(STRANGER, push(job, other))
    assert len(host.core.jobs[job].state) == known


def test_a_keeper_cannot_bury_a_job_under_keeper_sets() -> None:
    """Nor do its own keep the submitter from naming another set."""
    host = Host()
    job = host.with_own_job(10)
    kept = host.core.jobs[job]
    liar, first = KEEPERS[0], kept.state.view
    assert first is not None
    for number in range(1_500):
        previous = bytes(first.fact.id) if number % 2 else number.to_bytes(32, "big")
        keys = [liar.public_key, *(CheapIdentity(10_000 + number * 8 + n).public_key for n in range(7))]
        view = 1 if number % 2 else number % 255 + 1
        host.ask(liar, push(job, CODEC.seal(liar, f.KeeperSet(job, view, keys, 6, previous))))
    assert len(kept.state.views) <= 1 + MAX_PROPOSALS
    for keeper in KEEPERS:  # away, all of them
        host.perform(host.core.handle(fx.PeerDown(keeper.peer_id), host.now))
    host.pass_time(10 * BEAT_NS)
    host.perform(host.core.handle(fx.PeerUp(KEEPERS[1].peer_id, ()), host.now))
    for _ in range(10):  # one is back, so it is not we who are cut off
        host.ask(KEEPERS[1], m.Beat([]))
        host.pass_time(BEAT_NS)
    assert kept.state.view is not None
    assert kept.state.view.number == f.VIEWS_PER_GENERATION


def test_two_finals_of_a_lying_majority_are_settled_alike_everywhere_and_proven() -> None:
    """Beyond what is promised: four of eight lie. All copies agree, and signatures show who it was."""
    one = spec_of(ME, 1, 1)
    facts = [one, CODEC.seal(ME, f.KeeperSet(one.job, 0, KEYS, 6))]
    results = sorted(hash_result(result) for result in (true_result(0), b"\xff" * 8))
    for result, side in zip(results, (KEEPERS[:6], KEEPERS[2:]), strict=True):
        item = f.VerdictItem(0, 0, result, [WORKER.public_key], [])
        facts += [CODEC.seal(keeper, f.Verdicts(one.job, [item])) for keeper in side]
    for seed in range(20):
        state = JobState(one, NET)
        state.merge(Random(seed).sample(facts[1:], len(facts) - 1))
        assert state.final(0) == ResultHash(results[0])
        assert state.two_faced.keys() == {keeper.peer_id for keeper in KEEPERS[2:6]}
