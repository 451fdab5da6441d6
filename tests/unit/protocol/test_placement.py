"""Who becomes a keeper, in networks small and large, honest and not."""

from collections import Counter
from math import comb, exp
from random import Random

import pytest

from sparkle_p2p.net.distance import nearest
from sparkle_protocol.ids import JobId, PeerId, peer_id_from_key
from sparkle_protocol.work.placement import (
    LOCAL,
    UNKNOWN,
    Candidate,
    choose_keepers,
    distance,
    holders_needed,
    log_tail,
    network_prefix,
    primaries,
    range_of,
    ranges_of,
    span_of,
    suspiciously_dense,
    threshold,
)

JOB = JobId(bytes(range(32)))


def peers(n: int, rng: Random) -> list[PeerId]:
    return [peer_id_from_key(rng.randbytes(32)) for _ in range(n)]


def ground(n: int, share: float, rng: Random) -> list[PeerId]:
    """Peers whose keys were drawn until they lay within this share of the space around the job."""
    found: list[PeerId] = []
    while len(found) < n:
        found += [peer for peer in peers(64, rng) if distance(JOB, peer) < share * 2**256]
    return found[:n]


def on_own_network(names: list[PeerId]) -> list[Candidate]:
    return [Candidate(peer, (f"/ip4/8.{n // 256}.{n % 256}.1/tcp/4001/p2p/{peer}",)) for n, peer in enumerate(names)]


def on_lan(names: list[PeerId]) -> list[Candidate]:
    return [Candidate(peer, (f"/ip4/192.168.0.{n}/tcp/4001/p2p/{peer}",)) for n, peer in enumerate(names)]


def test_sizes_are_those_of_the_architecture() -> None:
    assert [threshold(n) for n in range(1, 9)] == [1, 1, 1, 3, 4, 5, 6, 6]
    assert [holders_needed(n) for n in range(1, 9)] == [1, 2, 2, 3, 4, 4, 5, 5]


def test_keepers_are_the_peers_that_a_lookup_finds() -> None:
    names = peers(40, Random(1))
    assert choose_keepers(JOB, on_own_network(names), 8) == nearest(JOB, names, 8)


def test_a_lan_is_one_network_and_fills_the_set() -> None:
    names = peers(12, Random(2))
    assert choose_keepers(JOB, on_lan(names), 8) == nearest(JOB, names, 8)


def test_peers_of_a_lan_do_not_exclude_each_other() -> None:
    names = list(nearest(JOB, peers(4, Random(12)), 4))
    home, crowd = on_lan([names[0], names[3]]), [Candidate(peer, ("/ip4/9.9.9.9/tcp/1",)) for peer in names[1:3]]
    assert choose_keepers(JOB, home + crowd, 3) == (names[0], names[1], names[3])


def test_one_keeper_per_network_where_there_are_enough() -> None:
    names = list(nearest(JOB, peers(24, Random(3)), 24))
    crowd = [Candidate(peer, (f"/ip4/9.9.9.{n}/tcp/1",)) for n, peer in enumerate(names[:10])]
    chosen = choose_keepers(JOB, crowd + on_own_network(names[10:]), 8)
    assert chosen == (names[0], *names[10:17])


def test_a_crowded_network_fills_what_is_left() -> None:
    names = list(nearest(JOB, peers(12, Random(4)), 12))
    crowd = [Candidate(peer, (f"/ip6/2a00:1450:4001:{n}::1/tcp/1",)) for n, peer in enumerate(names[:9])]
    assert choose_keepers(JOB, crowd + on_own_network(names[9:]), 8) == (*names[:5], *names[9:])


def test_relayed_peers_only_when_too_few_are_direct() -> None:
    names = list(nearest(JOB, peers(14, Random(5)), 14))
    relayed = [Candidate(peer, (f"/ip4/7.7.7.7/tcp/1/p2p/x/p2p-circuit/p2p/{peer}",)) for peer in names[:6]]
    assert choose_keepers(JOB, relayed + on_own_network(names[6:]), 8) == tuple(names[6:])
    assert choose_keepers(JOB, relayed + on_own_network(names[8:]), 8) == (*names[:2], *names[8:])


def test_nobody_there_means_no_keepers() -> None:
    assert choose_keepers(JOB, [], 8) == ()
    assert choose_keepers(JOB, on_lan(peers(3, Random(6))), 0) == ()


@pytest.mark.parametrize("seed", range(5))
def test_a_ground_cluster_gets_a_quarter_at_most(seed: int) -> None:
    rng = Random(seed)
    honest, cluster = peers(50, rng), ground(10, 1 / 1000, rng)
    assert suspiciously_dense(JOB, honest + cluster) >= set(cluster)
    chosen = choose_keepers(JOB, on_own_network(honest + cluster), 8)
    assert len(chosen) == 8
    assert len(set(chosen) & set(cluster)) <= 2


def test_a_cluster_around_few_honest_peers_leaves_a_small_honest_set() -> None:
    rng = Random(7)
    honest, cluster = peers(2, rng), ground(10, 1 / 1000, rng)
    assert set(choose_keepers(JOB, on_lan(honest + cluster), 8)) == set(honest)


def test_the_nearest_of_a_huge_network_are_not_suspicious() -> None:
    names = peers(5000, Random(8))
    assert not suspiciously_dense(JOB, nearest(JOB, names, 20))


def test_false_alarms_are_as_rare_as_stated() -> None:
    rng = Random(9)
    names = peers(2000, rng)
    alarms = sum(bool(suspiciously_dense(JobId(rng.randbytes(32)), rng.sample(names, 12))) for _ in range(1000))
    assert alarms <= 2  # 0.1 are expected


@pytest.mark.parametrize(("n", "i", "share"), [(19, 8, 0.03), (19, 1, 0.01), (60, 3, 1e-4), (10, 10, 0.5)])
def test_the_tail_is_the_binomial_one(n: int, i: int, share: float) -> None:
    exact = sum(comb(n, j) * share**j * (1 - share) ** (n - j) for j in range(i, n + 1))
    assert exp(log_tail(n, i, share)) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize(
    ("addresses", "prefix"),
    [
        (("/ip4/8.8.8.8/tcp/1",), "8.8.8.0/24"),
        (("/ip4/192.168.1.5/tcp/1", "/ip4/8.8.4.4/tcp/1"), "8.8.4.0/24"),
        (("/ip6/2a00:1450:4001:80b::200e/tcp/1",), "2a00:1450:4001::/48"),
        (("/ip6/::ffff:8.8.8.8/tcp/1",), "8.8.8.0/24"),
        (("/ip6/2002:808:808::1/tcp/1",), "8.8.8.0/24"),
        (("/ip4/127.0.0.1/tcp/1",), LOCAL),
        (("/ip4/100.64.3.3/tcp/1", "/ip6/fe80::1%eth0/tcp/1"), LOCAL),
        (("/ip4/8.8.8.8/tcp/1/p2p/x/p2p-circuit/p2p/y", "/ip4/9.9.9.9/tcp/1"), "9.9.9.0/24"),
        (("/ip4/8.8.8.8/tcp/1/p2p/x/p2p-circuit/p2p/y",), "relay 8.8.8.0/24"),
        (("/ip4/10.0.0.1/tcp/1", "/ip4/8.8.8.8/tcp/1/p2p/x/p2p-circuit/p2p/y"), LOCAL),
        (("/dns4/example.org/tcp/1",), UNKNOWN),
        (("/ip4/not a number/tcp/1", "garbage", ""), UNKNOWN),
        ((), UNKNOWN),
    ],
)
def test_the_network_of_a_peer(addresses: tuple[str, ...], prefix: str) -> None:
    assert network_prefix(addresses) == prefix


def test_ranges_grow_with_the_job() -> None:
    assert [ranges_of(units, 8) for units in (1, 63, 64, 1000, 2048, 1 << 20)] == [1, 1, 2, 31, 64, 64]
    assert ranges_of(1 << 20, 1) == 1


def test_keepers_share_the_ranges_evenly() -> None:
    keys = [Random(n).randbytes(32) for n in range(8)]
    rng = Random(11)
    jobs = [JobId(rng.randbytes(32)) for _ in range(50)]
    firsts = Counter(primaries(job, range_, keys)[0] for job in jobs for range_ in range(64))
    assert len(firsts) == 8
    assert all(abs(count - 400) < 5 * 400**0.5 for count in firsts.values())


def test_the_order_of_a_range_is_fixed_for_ever() -> None:
    keys = [bytes([n]) * 32 for n in range(4)]
    assert [primaries(JOB, range_, keys)[0][0] for range_ in range(8)] == [0, 0, 3, 2, 1, 2, 3, 3]


def test_a_unit_is_found_in_its_range() -> None:
    assert span_of(0, 10, 4) == (0, 2)
    assert [range_of(unit, 10, 4) for unit in range(10)] == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]
