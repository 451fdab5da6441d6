"""Hops of a Kademlia lookup by the number of peers and the size of the buckets."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from math import log2
from typing import Protocol

from sparkle_sim.draws import draws
from sparkle_sim.laws.intervals import mean_of, slope_of
from sparkle_sim.laws.law import Axes, Law, Point, about
from sparkle_sim.laws.parties import seed_of

ID_BITS = 64
BUCKETS = (1, 8, 20)
SIZES, QUICK_SIZES = tuple(1 << power for power in range(9, 18)), (512, 2048, 8192, 32768)
LOOKUPS, QUICK_LOOKUPS = 10_000, 4_000  # at each N
NETWORKS = 4  # that these are spread over
SLACK = 0.05  # of the slope: N is not infinite


class Tables(Protocol):
    """What the peers of a network know of each other; ``sparkle_sim.tables.Tables`` fits too."""

    places: Sequence[int]

    def nearest(self, peer: int, place: int, count: int) -> Sequence[int]:
        """Those that a peer knows who are nearest to a place, nearest first."""
        ...


class BucketTables:
    """Tables as Kademlia fills them: of each subtree beside a peer's own, k of the peers there.

    A bucket is drawn when it is looked at, always the same, so that a million of them need no memory.

    Args:
        seed: decides the places and who is in which bucket.
        peers: how many.
        k: the size of a bucket.
    """

    def __init__(self, seed: int, peers: int, k: int) -> None:
        random = draws(seed, "ids")
        drawn: dict[int, None] = {}
        while len(drawn) < peers:
            drawn[random.bits()] = None
        self.places: Sequence[int] = sorted(drawn)
        self._seed = seed
        self._k = k

    def nearest(self, peer: int, place: int, count: int) -> Sequence[int]:
        """Those nearest in the bucket that the place belongs to: the others are all farther away."""
        bucket = self._bucket(peer, (self.places[peer] ^ place).bit_length() - 1)
        return sorted(bucket, key=lambda other: self.places[other] ^ place)[:count]

    def _bucket(self, peer: int, height: int) -> Sequence[int]:
        """Whom a peer knows in the subtree of so many bits beside its own."""
        if height < 0:
            return [peer]
        begin = (self.places[peer] >> height ^ 1) << height
        first, end = bisect_left(self.places, begin), bisect_left(self.places, begin + (1 << height))
        if end - first <= self._k:
            return range(first, end)
        random = draws(self._seed, peer, "bucket", height)
        found: dict[int, None] = {}
        while len(found) < self._k:
            found[first + random.below(end - first)] = None
        return list(found)


def lookup(tables: Tables, start: int, target: int) -> int:
    """Hops from a peer to another, each to the nearest one that the last one knows; -1: they lead nowhere."""
    places, here, hops = tables.places, start, 0
    goal = places[target]
    while here != target:
        known = tables.nearest(here, goal, 1)
        if not known or places[known[0]] ^ goal >= places[here] ^ goal:
            return -1
        here, hops = known[0], hops + 1
    return hops


def bits_per_hop(k: int) -> float:
    """Expected progress: the bit that a bucket stands for, and the most leading bits that one of k happens to share.

    That is 1 + E[max of k geometric variables].
    """
    return 1.0 + sum(1.0 - (1.0 - 2.0**-bit) ** k for bit in range(1, ID_BITS))


def measure(seed: int, quick: bool) -> Iterator[Point]:
    """Mean hops by N, and how they grow with log₂ N, for each size of buckets."""
    for k in BUCKETS:
        series, seen = f"k = {k}", []
        for peers in QUICK_SIZES if quick else SIZES:
            hops = hops_of(seed, peers, k, QUICK_LOOKUPS if quick else LOOKUPS)
            seen += [(log2(peers), float(value)) for value in hops]
            expected = log2(peers) / bits_per_hop(k)
            yield about(series, f"k = {k}, N = {peers}", peers, expected, 1.0, mean_of(hops))
        slope = 1.0 / bits_per_hop(k)
        yield Point(
            "slope", f"k = {k}, hops per log₂ N", None, slope,
            slope * (1 - SLACK), slope * (1 + SLACK), slope_of(seen), slope / 5,
        )  # fmt: skip


def hops_of(seed: int, peers: int, k: int, lookups: int) -> list[int]:
    """Hops between peers drawn at random, in several networks."""
    found = []
    for network in range(NETWORKS):
        own = seed_of(seed, "kademlia", k, peers, network)
        tables, random = BucketTables(own, peers, k), draws(own, "lookups")
        for _ in range(lookups // NETWORKS):
            found.append(lookup(tables, random.below(peers), random.below(peers)))
    return found


LAW = Law(
    "kademlia",
    "Kademlia lookups",
    "hops ~ log₂ N / μ(k), μ(k) = 1 + Σ_{j≥1} (1 - (1 - 2⁻ʲ)ᵏ)",
    "X. S. Cai and L. Devroye, A probabilistic analysis of Kademlia networks, ISAAC 2013, LNCS 8283 (random ids: "
    "The analysis of Kademlia for random IDs, Internet Mathematics 11(6), 2015)",
    "Lookups between peers drawn at random, over tables with k peers of each subtree, drawn with Draws; each hop "
    "goes to the nearest peer that the last one names.",
    "The slope of mean hops over log₂ N is within 5 % of 1/μ(k) (.500, .226, .176), and mean hops are within one hop "
    "of the law, which leaves a constant open.",
    Axes("peers N", "hops", log_x=True),
    measure,
)
