"""Under the trust policy, whatever network, disks and liars do: jobs end, and what is believed is earned.

Liars do not agree with each other here; what becomes of those who do is in ``tests/sim/test_trust_adversaries.py``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from unittest.mock import patch

from hypothesis import example, given, settings
from hypothesis import strategies as st

from sparkle_protocol.facts import Policy
from sparkle_protocol.ids import JobId, PeerId, ResultHash, digest, hash_result
from sparkle_protocol.trust.job_trust import JobTrust
from sparkle_protocol.trust.judges import OwnJudgement
from sparkle_protocol.trust.standing import Key, Standing, TrustBook
from sparkle_protocol.work.kept_job import KeptJob
from tests.property.world import World, WorldNode, spec, true_result

HOUR_S = 3600
MANY = 2_000_000


class TrustingNode(WorldNode):
    """A node whose book of standings outlives its crashes."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.book = TrustBook()

    def equip(self) -> None:
        self.submitter.believe(self.book)


@dataclass(frozen=True)
class Outage:
    at_s: float
    node: int
    down_s: float


@dataclass(frozen=True)
class Case:
    """Who is known, who lies, and what goes wrong."""

    seed: int
    units: int = 10
    known: int = 4  # honest ones
    sleepers: int = 0  # known, and lie about a third of the units
    strangers: int = 1  # honest
    cheats: int = 0  # unknown, and lie about all
    passes: int = 1000
    permille: int = 50
    own_works: bool = False
    stalls: bool = False  # one of the known
    withholds: bool = False  # one of the strangers
    loss: float = 0.0
    twice: float = 0.0
    disk_s: float = 0.005
    outages: tuple[Outage, ...] = ()


outages = st.builds(Outage, st.floats(0.1, 60), st.integers(0, 9), st.sampled_from([0.05, 3, 50, 200]))
cases = st.builds(
    Case,
    seed=st.integers(0, 2**32),
    units=st.integers(1, 16),
    known=st.integers(4, 6),
    sleepers=st.integers(0, 1),
    strangers=st.integers(0, 2),
    cheats=st.integers(0, 2),
    passes=st.sampled_from([10, 1000, 10**6]),
    permille=st.sampled_from([50, 300, 1000]),
    own_works=st.booleans(),
    stalls=st.booleans(),
    withholds=st.booleans(),
    loss=st.sampled_from([0.0, 0.05, 0.3]),
    twice=st.sampled_from([0.0, 0.3]),
    disk_s=st.sampled_from([0.0, 0.005, 1.0]),
    outages=st.lists(outages, max_size=4).map(tuple),
)


def build(case: Case) -> tuple[World, TrustingNode, JobId]:
    world = World(case.seed, loss=case.loss, twice=case.twice, disk_s=case.disk_s)

    def add(**how: object) -> TrustingNode:
        node = world.add(kind=TrustingNode, **how)  # type: ignore[arg-type]
        assert isinstance(node, TrustingNode)
        return node

    submitter = add(works=case.own_works)
    known = [add() for _ in range(case.known)]
    known += [add(lie=lambda unit: unit % 3 == 0) for _ in range(case.sleepers)]
    strangers = [add() for _ in range(case.strangers)]
    for _ in range(case.cheats):
        add(lie=lambda unit: True)
    known[0].stalls = case.stalls
    for stranger in strangers[:1]:
        stranger.withholds = case.withholds
    for node in known:
        capital = case.passes * submitter.book.work_of(0.0)
        submitter.book.restore(Key(node.id, "", "exact"), Standing(case.passes, capital))
    policy = Policy(audit_permille=case.permille)
    job = submitter.submit(spec(case.units, Random(case.seed), policy, total_s=100 * HOUR_S))
    world.run(lambda: job in {fact.job for fact in submitter.disk.facts.values()})
    for outage in case.outages:
        node = world.nodes[outage.node % len(world.nodes)]
        world.later(outage.at_s, None, lambda n=node: n.crash() if n.up else None)  # type: ignore[misc]
        world.later(outage.at_s + outage.down_s, None, lambda n=node: None if n.up else n.start())  # type: ignore[misc]
    return world, submitter, job


@contextmanager
def watched() -> Iterator[None]:
    """Whatever is accepted by a job's submitter has the answers that it needs, and only right ones earn trust."""
    accept, passed = KeptJob._accept, KeptJob._compared

    def accepts(job: KeptJob, unit: int, accepted: ResultHash) -> ResultHash | None:
        trust, givers = job.trust, [w for w, given in job.state.votes(unit).items() if given == accepted]
        if job.mine and trust is not None and not trust.bootstrap and job.trusted.isdisjoint(givers):
            count = trust.counting(unit, [one for one in givers if one not in job.rejected])
            assert count >= 1, "only strangers gave what is accepted"
            assert count >= 2 or trust.audits.of(unit) is None, "an audited unit was accepted with one answer"
            assert count >= 2 or not any(trust.audits.is_open(one) for one in givers), "nothing waited for an audit"
        return accept(job, unit, accepted)

    def compared(job: KeptJob, trust: JobTrust, unit: int, worker: PeerId, others: frozenset[PeerId]) -> None:
        judges = trust.judges
        before = judges.book.of(judges.key(worker)).passes if isinstance(judges, OwnJudgement) else 0
        passed(job, trust, unit, worker, others)
        if isinstance(judges, OwnJudgement) and judges.book.of(judges.key(worker)).passes > before:
            right = hash_result(true_result(unit))
            assert job.state.votes(unit)[worker] == right, "trust was earned by a wrong result"

    with patch.object(KeptJob, "_accept", accepts), patch.object(KeptJob, "_compared", compared):
        yield


def check(world: World, submitter: TrustingNode, job: JobId, case: Case) -> None:
    kept = submitter.submitter.jobs[job]
    assert kept.outcome == "done", kept.error
    liars = {node.id for node in world.nodes if node.lie is not None}
    honest = {node.id for node in world.nodes} - liars
    wrong = [unit for unit in range(case.units) if kept.state.final(unit) != hash_result(true_result(unit))]
    assert not wrong or case.sleepers, wrong
    assert all(unit % 3 == 0 for unit in wrong), wrong
    if case.permille == 1000:
        assert not wrong, wrong
    if not wrong:
        assert not kept.rejected & honest
    for node in world.nodes:
        assert not node.violations
        for unit, result in [(unit, kept.state.final(unit)) for unit in range(case.units)]:
            assert node.shown.get((job, unit), result) == result, "two results were final"


@settings(max_examples=40, deadline=None)
@example(Case(1, units=16, sleepers=1, cheats=2, permille=1000, passes=10))
@example(
    Case(2, units=16, stalls=True, withholds=True, loss=0.3, outages=(Outage(2.0, 0, 200.0), Outage(9.0, 1, 50)))
)
@given(cases)
def test_jobs_end_and_trust_is_earned(case: Case) -> None:
    with watched():
        world, submitter, job = build(case)

        def is_done() -> bool:
            kept = submitter.submitter.jobs.get(job)
            return submitter.up and kept is not None and bool(kept.outcome)

        assert world.run(is_done, seconds=3 * HOUR_S, events=MANY), "a unit waits for ever"
        check(world, submitter, job, case)


def test_a_unit_goes_to_strangers_once_nobody_known_comes() -> None:
    case = Case(digest(b"alone")[0], units=6, known=4, strangers=2)
    world, submitter, job = build(case)
    world.run(lambda: world.now > 2_000_000_000)
    for node in world.nodes[1:5]:
        node.leave()
    assert world.run(lambda: bool(submitter.submitter.jobs[job].outcome), seconds=HOUR_S, events=MANY)
    check(world, submitter, job, case)
