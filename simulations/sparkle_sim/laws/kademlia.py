"""Hops of a Kademlia lookup by the number of peers and the size of the buckets."""

from collections.abc import Iterator, Sequence
from math import log2
from typing import Protocol

from sparkle_sim.draws import draws
from sparkle_sim.laws.intervals import mean_of, slope_of
from sparkle_sim.laws.law import Axes, Law, Point, about
from sparkle_sim.laws.parties import seed_of
from sparkle_sim.tables import Tables as SimulatedTables

ID_BITS = 64
BUCKETS = (1, 8, 20)
SIZES, QUICK_SIZES = tuple(1 << power for power in range(9, 16)), (512, 2048, 8192)
LOOKUPS, QUICK_LOOKUPS = 6_000, 2_000  # at each N
NETWORKS = 2  # that these are spread over
SLACK = 0.05  # of the slope: N is not infinite


class Tables(Protocol):
    """What the peers of a network know of each other."""

    places: Sequence[int]

    def nearest(self, peer: int, place: int, count: int) -> Sequence[int]:
        """Those that a peer knows who are nearest to a place, nearest first."""
        ...


def full_tables(seed: int, peers: int, k: int) -> Tables:
    """The simulator's tables as after a long time in which nobody left, with buckets of k."""
    random = draws(seed, "places")
    places = [random.bits() for _ in range(peers)]
    tables = SimulatedTables(places, k, [draws(seed, peer, "tables") for peer in range(peers)], lambda _: True)
    for peer in range(peers):
        tables.prime_when_needed(peer, 0.0)
    return tables


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
        tables, random = full_tables(own, peers, k), draws(own, "lookups")
        for _ in range(lookups // NETWORKS):
            found.append(lookup(tables, random.below(peers), random.below(peers)))
    return found


LAW = Law(
    "kademlia",
    "Kademlia lookups",
    "hops ~ log₂ N / μ(k), μ(k) = 1 + Σ_{j≥1} (1 - (1 - 2⁻ʲ)ᵏ)",
    "X. S. Cai and L. Devroye, A probabilistic analysis of Kademlia networks, ISAAC 2013, LNCS 8283 (random ids: "
    "The analysis of Kademlia for random IDs, Internet Mathematics 11(6), 2015)",
    "Lookups between peers drawn at random over the tables that the simulator's routing uses (Tables), filled as "
    "after a long time in which nobody left; each hop goes to the nearest peer that the last one knows.",
    "The slope of mean hops over log₂ N is within 5 % of 1/μ(k) (.500, .226, .176), and mean hops are within one hop "
    "of the law, which leaves a constant open.",
    Axes("peers N", "hops", log_x=True),
    measure,
)
