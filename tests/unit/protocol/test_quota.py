"""What a node keeps for others, and in what words it refuses more."""

from sparkle_protocol.facts import Deadlines, JobSpec, Policy, Resources
from sparkle_protocol.ids import JobId, PeerId
from sparkle_protocol.work.placement import LOCAL
from sparkle_protocol.work.quota import IN_ALL, MB, PER_SUBMITTER, Bounds, Quota, Usage, expected_fact_bytes

A, B = PeerId("a"), PeerId("b")
NET = "8.8.8.0/24"


def spec(units: int = 10, quorum: int = 2) -> JobSpec:
    policy = Policy(quorum=quorum)
    return JobSpec("k", 1, {}, units, "exact", policy, Resources(), Deadlines(), b"a" * 32, b"n" * 16, 0)


def job(n: int) -> JobId:
    return JobId(n.to_bytes(32, "big"))


def flood(quota: Quota, units: int, submitters: int, networks: int, jobs: int, first: int = 0) -> int:
    """How many jobs of how many strangers get in."""
    admitted = 0
    for n in range(jobs):
        peer, network = PeerId(f"s{n % submitters}"), f"net {n % submitters % networks}"
        if quota.admit(peer, network, spec(units), 500) is None:
            quota.add(job(first + n), peer, network, spec(units), 500)
            admitted += 1
    return admitted


def test_one_submitter_gets_so_many_jobs() -> None:
    quota = Quota()
    for n in range(PER_SUBMITTER.jobs):
        assert quota.admit(A, NET, spec(), 500) is None
        quota.add(job(n), A, NET, spec(), 500)
    assert quota.admit(A, NET, spec(), 500) == "this node keeps at most 32 jobs of one submitter"
    assert quota.admit(B, NET, spec(), 500) is None
    quota.remove(job(3))
    assert quota.admit(A, NET, spec(), 500) is None


def test_many_names_of_one_network_get_no_more() -> None:
    quota = Quota()
    assert flood(quota, 10, submitters=100, networks=1, jobs=200) == 64
    assert quota.admit(A, "net 0", spec(), 500) == "this node keeps at most 64 jobs of one network"
    assert quota.admit(A, NET, spec(), 500) is None


def test_a_lan_is_not_bounded_as_a_network() -> None:
    quota = Quota()
    for n in range(100):
        peer = PeerId(str(n))
        assert quota.admit(peer, LOCAL, spec(), 500) is None
        quota.add(job(n), peer, LOCAL, spec(), 500)


def test_the_largest_job_there_is_fits_and_a_second_one_does_not() -> None:
    quota = Quota()
    assert expected_fact_bytes(spec(1 << 20), 65_536) < PER_SUBMITTER.fact_bytes
    assert quota.admit(A, NET, spec(1 << 20), 65_536) is None
    quota.add(job(0), A, NET, spec(1 << 20), 65_536)
    assert quota.admit(A, NET, spec(1), 500) == "this node keeps at most 1048576 units of one submitter"
    assert (
        quota.admit(B, NET, spec(1 << 20, quorum=3), 500) == "this node keeps at most 72 MB of facts of one submitter"
    )


def test_a_flood_of_large_jobs_leaves_room_for_small_ones() -> None:
    quota = Quota()
    flood(quota, 100_000, submitters=1000, networks=1000, jobs=1000)
    assert quota.total.fact_bytes <= IN_ALL.fact_bytes * 0.75
    refused = quota.admit(A, NET, spec(100_000), 500)
    assert refused == "this node keeps at most 65536 units of one submitter now that it is nearly full"
    assert quota.admit(A, NET, spec(10_000), 500) is None
    flood(quota, 10_000, submitters=1000, networks=1000, jobs=1000, first=1000)
    assert quota.total.units <= IN_ALL.units
    assert quota.total.fact_bytes <= IN_ALL.fact_bytes
    assert len(quota) <= IN_ALL.jobs


def test_results_are_counted_as_they_come_and_stop_at_the_bound() -> None:
    quota = Quota()
    quota.add(job(1), A, NET, spec(), 500)
    quota.add(job(2), A, NET, spec(), 500)
    quota.add(job(3), B, NET, spec(), 500)
    quota.grow(job(1), result_bytes=PER_SUBMITTER.result_bytes)
    assert quota.over(job(2)) is None
    quota.grow(job(2), result_bytes=1)
    assert quota.over(job(1)) == quota.over(job(2)) == "this node keeps at most 256 MB of results of one submitter"
    assert quota.over(job(3)) is None
    assert quota.admit(A, NET, spec(), 500) == quota.over(job(1))
    quota.grow(job(1), result_bytes=-100 * MB)  # fetched
    assert quota.over(job(2)) is None


def test_results_of_the_largest_stop_first() -> None:
    quota = Quota()
    for n in range(7):
        quota.add(job(n), PeerId(f"large {n}"), f"net {n}", spec(), 500)
        quota.grow(job(n), result_bytes=220 * MB)
    quota.add(job(9), A, NET, spec(), 500)
    quota.grow(job(9), result_bytes=20 * MB)
    assert (
        quota.over(job(0))
        == "this node keeps at most 31.25 MB of results of one submitter now that it is nearly full"
    )
    assert quota.over(job(9)) is None


def test_who_got_in_may_finish() -> None:
    quota = Quota()
    quota.add(job(1), A, NET, spec(1 << 20), 500)
    before = quota.total.fact_bytes
    quota.grow(job(1), fact_bytes=60 * MB)
    assert quota.total.fact_bytes == before  # as expected
    flood(quota, 100_000, submitters=1000, networks=1000, jobs=1000, first=10)
    assert quota.over(job(1)) is None
    quota.grow(job(1), fact_bytes=20 * MB)
    assert quota.over(job(1)) == "this node keeps at most 72 MB of facts of one submitter"


def test_our_own_jobs_are_not_counted() -> None:
    quota = Quota()
    quota.grow(job(1), fact_bytes=1 << 40)
    quota.remove(job(1))
    assert quota.over(job(1)) is None
    assert quota.total == Usage()


def test_a_full_node_says_so() -> None:
    small = Bounds(jobs=2, units=100, fact_bytes=MB, result_bytes=MB)
    quota = Quota(small, small, small)
    quota.add(job(1), A, NET, spec(), 500)
    quota.add(job(2), B, "net", spec(), 500)
    assert quota.admit(PeerId("c"), "other", spec(), 500) is not None
