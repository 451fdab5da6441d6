"""Token buckets, on explicit time."""

from sparkle_p2p.net.libp2p.limits import MAX_BUCKETS, RateLimiter


def test_a_burst_then_the_lasting_rate():
    limiter = RateLimiter(per_s=2.0, burst=5.0)
    assert [limiter.allow("a", 0.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert limiter.allow("b", 0.0), "keys do not share a bucket"
    assert [limiter.allow("a", 1.0) for _ in range(3)] == [True, True, False]
    assert [limiter.allow("a", 100.0) for _ in range(6)] == [True] * 5 + [False]


def test_only_the_first_refusal_in_a_row_is_reported():
    limiter = RateLimiter(per_s=1.0, burst=1.0)
    assert limiter.allow("a", 0.0)
    reported = []
    for now in (0.1, 0.2, 0.3, 2.0, 2.1):
        if not limiter.allow("a", now):
            reported.append((now, limiter.first_refusal("a")))
    assert reported == [(0.1, True), (0.2, False), (0.3, False), (2.1, True)]


def test_memory_is_bounded():
    limiter = RateLimiter(per_s=1.0, burst=1.0)
    for number in range(3 * MAX_BUCKETS):
        limiter.allow(str(number), 0.0)
    assert len(limiter._buckets) == MAX_BUCKETS
