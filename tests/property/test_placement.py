"""Placement for any network: the rules that hold whatever the ids, addresses and sizes are."""

from collections import Counter
from itertools import pairwise
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from sparkle_protocol.ids import JobId, peer_id_from_key
from sparkle_protocol.work.placement import (
    LOCAL,
    UNKNOWN,
    Candidate,
    choose_keepers,
    holders_needed,
    is_direct,
    network_prefix,
    primaries,
    range_of,
    ranges_of,
    span_of,
    suspiciously_dense,
    threshold,
)

hashes = st.binary(min_size=32, max_size=32)
jobs = hashes.map(JobId)
public = st.builds("/ip4/8.8.{}.{}/tcp/1".format, st.integers(0, 5), st.integers(1, 254))
relayed = st.builds("/ip4/9.9.{}.1/tcp/1/p2p/x/p2p-circuit".format, st.integers(0, 3))
texts = st.one_of(public, relayed, st.just("/ip4/10.0.0.1/tcp/1"), st.text(max_size=12))
seeded = st.builds(lambda n, addresses: Candidate(peer_id_from_key(Random(n).randbytes(32)), tuple(addresses)),
                   st.integers(0, 500), st.lists(texts, max_size=3))  # fmt: skip
candidates = st.lists(seeded, max_size=30, unique_by=lambda candidate: candidate.peer)


@given(jobs, candidates, st.integers(0, 16), st.randoms(use_true_random=False))
def test_a_set_is_sound_whatever_the_candidates(job: JobId, known: list[Candidate], want: int, rng: Random) -> None:
    chosen = choose_keepers(job, known, want)
    by_peer = {candidate.peer: candidate for candidate in known}
    assert set(chosen) <= set(by_peer)
    assert len(set(chosen)) == len(chosen) <= want
    dense = suspiciously_dense(job, by_peer)
    assert 4 * len(dense & set(chosen)) <= len(chosen)
    assert dense or len(chosen) == min(want, len(known))
    direct = {peer for peer in by_peer if is_direct(by_peer[peer].addresses)}
    if not dense and set(chosen) - direct:
        assert direct <= set(chosen)  # no relayed peer while a direct one is left out
    shuffled = rng.sample(known, len(known))
    assert choose_keepers(job, shuffled, want) == chosen


@given(jobs, candidates, st.integers(1, 16))
def test_no_network_twice_while_another_is_left_out(job: JobId, known: list[Candidate], want: int) -> None:
    direct = {c.peer: network_prefix(c.addresses) for c in known if is_direct(c.addresses)}
    if suspiciously_dense(job, (c.peer for c in known)):
        return
    chosen = choose_keepers(job, known, want)
    networks = Counter(direct[peer] for peer in chosen if peer in direct)
    crowded = {prefix for prefix, n in networks.items() if n > 1 and prefix not in (LOCAL, UNKNOWN)}
    if crowded:
        assert set(direct.values()) <= set(networks)


@given(st.integers(4, 16))
def test_two_acceptances_share_half_of_the_keepers(n: int) -> None:
    assert 2 * threshold(n) - n >= n / 2
    assert threshold(n) <= n
    assert holders_needed(n) > n / 2


@given(st.integers(1, 1 << 20), st.integers(1, 16), st.data())
def test_ranges_cut_the_units_into_equal_parts(units: int, keepers: int, data: st.DataObject) -> None:
    ranges = ranges_of(units, keepers)
    assert 1 <= ranges <= min(64, units)
    spans = [span_of(index, units, ranges) for index in range(ranges)]
    assert spans[0][0] == 0
    assert spans[-1][1] == units
    assert all(before[1] == after[0] for before, after in pairwise(spans))
    lengths = {end - start for start, end in spans}
    assert max(lengths) - min(lengths) <= 1
    unit = data.draw(st.integers(0, units - 1))
    start, end = spans[range_of(unit, units, ranges)]
    assert start <= unit < end


@given(jobs, st.integers(0, 63), st.sets(hashes, min_size=1, max_size=16), st.data())
def test_only_what_a_keeper_had_moves_when_it_leaves(
    job: JobId, index: int, keys: set[bytes], data: st.DataObject
) -> None:
    order = primaries(job, index, sorted(keys))
    assert set(order) == keys
    gone = data.draw(st.sampled_from(order))
    assert primaries(job, index, list(keys - {gone})) == tuple(key for key in order if key != gone)
