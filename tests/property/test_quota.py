"""The books of what is kept for others agree with what was added, grown and removed, and no bound is broken."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sparkle_protocol.facts import Deadlines, JobSpec, Policy, Resources
from sparkle_protocol.ids import JobId, PeerId
from sparkle_protocol.work.placement import LOCAL
from sparkle_protocol.work.quota import Bounds, Quota, Usage, expected_fact_bytes

ONE = Bounds(jobs=3, units=1000, fact_bytes=70_000, result_bytes=10_000)
NETWORK = Bounds(jobs=4, units=1500, fact_bytes=110_000, result_bytes=15_000)
ALL = Bounds(jobs=8, units=3000, fact_bytes=200_000, result_bytes=40_000)
REPORT = 500

jobs = st.integers(0, 30).map(lambda n: JobId(bytes([n]) * 32))


def spec(units: int) -> JobSpec:
    return JobSpec("k", 1, {}, units, "exact", Policy(), Resources(), Deadlines(), b"a" * 32, b"n" * 16, 0)


class Books(RuleBasedStateMachine):
    """A quota beside a plain list of what is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.quota = Quota(ONE, NETWORK, ALL)
        self.kept: dict[JobId, tuple[PeerId, str, JobSpec, list[int]]] = {}

    @rule(job=jobs, who=st.integers(0, 5), units=st.integers(1, 1200))
    def offer(self, job: JobId, who: int, units: int) -> None:
        submitter, network = PeerId(str(who)), LOCAL if who == 5 else f"net {who % 2}"
        if job not in self.kept and self.quota.admit(submitter, network, spec(units), 100) is None:
            self.quota.add(job, submitter, network, spec(units), 100)
            self.kept[job] = (submitter, network, spec(units), [0])

    @rule(job=jobs, bytes_=st.integers(-REPORT, REPORT))
    def report(self, job: JobId, bytes_: int) -> None:
        if bytes_ > 0 and self.quota.over(job) is not None:
            return
        self.quota.grow(job, result_bytes=bytes_)
        if job in self.kept:
            self.kept[job][3][0] = max(0, self.kept[job][3][0] + bytes_)

    @rule(job=jobs)
    def end(self, job: JobId) -> None:
        self.quota.remove(job)
        self.kept.pop(job, None)

    @invariant()
    def the_books_are_right(self) -> None:
        def usage(who: PeerId | None, net: str | None) -> Usage:
            mine = [k for k in self.kept.values() if who in (None, k[0]) and net in (None, k[1])]
            facts = sum(expected_fact_bytes(k[2], 100) for k in mine)
            return Usage(len(mine), sum(k[2].units for k in mine), facts, sum(k[3][0] for k in mine))

        holders = [(usage(None, None), ALL)]
        holders += [(usage(None, f"net {n}"), NETWORK) for n in range(2)]
        for who in {kept[0] for kept in self.kept.values()}:
            assert self.quota.of_submitter(who) == usage(who, None)
            holders.append((usage(who, None), ONE))
        assert self.quota.total == usage(None, None)
        for used, bounds in holders:
            assert used.jobs <= bounds.jobs
            assert used.units <= bounds.units
            assert used.fact_bytes <= bounds.fact_bytes
            assert used.result_bytes <= bounds.result_bytes + REPORT  # the one that went over


TestBooks = settings(max_examples=40)(Books).TestCase


@given(st.lists(st.tuples(jobs, st.integers(0, 1200)), max_size=20))
def test_an_empty_node_remembers_nobody(history: list[tuple[JobId, int]]) -> None:
    quota = Quota(ONE, NETWORK, ALL)
    for job, units in history:
        quota.add(job, PeerId("a"), "net", spec(units + 1), 10)
    for job, _ in history:
        quota.remove(job)
    assert (len(quota), quota.total, quota.of_submitter(PeerId("a"))) == (0, Usage(), Usage())
