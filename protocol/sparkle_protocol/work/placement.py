"""Who keeps a job, and who of them hands out which of its units.

- A job has up to 8 keepers. With 4 or more, three quarters of them accept a result together, so that two different
  acceptances need half of the keepers to lie; with fewer, only the submitter accepts.
- Keepers are the candidates nearest to the job id, in the routing space of ``Overlay.closest`` (libp2p's Kademlia:
  a key at the SHA-256 of its bytes, a peer at the SHA-256 of its id's bytes), so that whoever looks for the job id
  meets them. Not nearer, but first: peers that can be dialled directly, and of those, different networks.
- Peers improbably dense around the job id (``suspiciously_dense``) get at most a quarter of the places.
- The units are cut into up to 64 equal ranges. Each has its keepers in an order of its own (rendezvous hashing,
  Thaler and Ravishankar 1998): the first is primary, the next takes over when it is gone, and nothing else moves.

A network is an IPv4 /24 or IPv6 /48, what one customer commonly gets. Loopback, private and other addresses that
are not public say nothing about who owns them: a LAN is one network, and its peers do not exclude each other.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from math import inf, lgamma, log, log1p

import base58

from sparkle_protocol.ids import JobId, PeerId, digest

MAX_JOB_KEEPERS = 8
FEWEST_DECIDING = 4  # below that a threshold of three quarters would tolerate nobody who lies
DENSE_SIGNIFICANCE = 1e-4  # of a false alarm per job; one costs nothing but a more distant keeper
SMALLEST_CLUSTER = 3  # two of eight keepers are the quarter that may lie
MAX_RANGES = 64
MIN_RANGE_UNITS = 32  # one full lease request; with smaller ranges workers would run from keeper to keeper
PRIMARY_DOMAIN = b"sparkle/primary/1\x00"
LOCAL = "local"  # the network of addresses that are not public
UNKNOWN = "unknown"  # the network of peers without a numeric address


@dataclass(frozen=True, slots=True)
class Candidate:
    """A peer that could keep the job, with its multiaddrs: the ones we believe most first."""

    peer: PeerId
    addresses: tuple[str, ...]


def threshold(n: int) -> int:
    """How many of n keepers accept a result: three quarters, or only the submitter when there are under 4."""
    return -(-3 * n // 4) if n >= FEWEST_DECIDING else 1


def holders_needed(n: int) -> int:
    """How many of n keepers must have stored spec and inputs before a job counts as published: five eighths.

    Any three of eight may be lost afterwards and two still hold it.
    """
    return -(-5 * n // 8)


def distance(job: JobId, peer: PeerId) -> int:
    """XOR distance in the overlay's routing space, 0 to 2²⁵⁶ − 1."""
    return int.from_bytes(sha256(job).digest(), "big") ^ _place(peer)


@lru_cache(maxsize=32768)  # the same peers are looked at whenever one comes or goes
def _place(peer: PeerId) -> int:
    return int.from_bytes(sha256(base58.b58decode(peer)).digest(), "big")


def is_direct(addresses: Iterable[str]) -> bool:
    """Whether somebody can dial this peer without a relay."""
    return any("/p2p-circuit" not in address for address in addresses)


def network_prefix(addresses: Sequence[str]) -> str:
    """The network that a peer counts for: of its first public direct address, else of its relay.

    Such as ``8.8.8.0/24``, ``2a00:1450:4001::/48`` or ``relay 8.8.8.0/24``; ``LOCAL`` when it has only addresses
    that are not public, ``UNKNOWN`` when it has none that is a number. Peers behind one relay count as one network,
    because they fail together.
    """
    best = UNKNOWN
    for address in sorted(addresses, key=lambda text: "/p2p-circuit" in text):  # stable: direct ones first
        prefix = _prefix(address)
        if prefix == LOCAL:
            best = LOCAL
        elif prefix != UNKNOWN and (best == UNKNOWN or "/p2p-circuit" not in address):
            return f"relay {prefix}" if "/p2p-circuit" in address else prefix
    return best


@lru_cache(maxsize=8192)
def _prefix(address: str) -> str:
    parts = address.split("/", 3)
    if len(parts) < 3 or parts[1] not in ("ip4", "ip6"):
        return UNKNOWN
    try:
        ip: IPv4Address | IPv6Address = ip_address(parts[2].split("%", 1)[0])
    except ValueError:
        return UNKNOWN
    if isinstance(ip, IPv6Address):  # a tunnel's address holds the IPv4 address that its owner really has
        ip = ip.ipv4_mapped or ip.sixtofour or ip
    if not ip.is_global:
        return LOCAL
    return str(ip_network((ip, 24 if ip.version == 4 else 48), strict=False))


def choose_keepers(job: JobId, candidates: Sequence[Candidate], want: int) -> tuple[PeerId, ...]:
    """Up to ``want`` keepers for a job, nearest first; fewer when the others are a suspicious cluster.

    Direct peers come before relayed ones, and of either first the nearest of each network, then the nearest.
    See ``suspiciously_dense`` for what candidates should be.
    """
    by_peer = {candidate.peer: candidate for candidate in candidates}
    nearest = sorted(by_peer, key=lambda peer: distance(job, peer))
    dense = suspiciously_dense(job, nearest)
    prefixes = {peer: network_prefix(by_peer[peer].addresses) for peer in nearest}
    direct = {peer: is_direct(by_peer[peer].addresses) for peer in nearest}
    chosen: dict[PeerId, None] = {}
    taken: set[str] = set()
    places = want // 4  # for the dense
    for reach, spread in ((True, True), (True, False), (False, True), (False, False)):
        for peer in nearest:
            if len(chosen) >= want:
                break
            prefix = prefixes[peer]
            if direct[peer] != reach or peer in chosen or (spread and prefix in taken):
                continue
            if peer in dense:
                if not places:
                    continue
                places -= 1
            chosen[peer] = None
            if prefix not in (LOCAL, UNKNOWN):
                taken.add(prefix)
    return _trimmed([peer for peer in nearest if peer in chosen], dense)


def _trimmed(chosen: list[PeerId], dense: frozenset[PeerId]) -> tuple[PeerId, ...]:
    """A set that came out small keeps fewer of the dense: never more than a quarter of what is left."""
    suspects = [peer for peer in chosen if peer in dense]
    others = len(chosen) - len(suspects)
    kept = set(suspects[: others // 3])
    return tuple(peer for peer in chosen if peer not in dense or peer in kept)


def suspiciously_dense(job: JobId, peers: Iterable[PeerId]) -> frozenset[PeerId]:
    """The peers nearest to the job id, if they are nearer than chance explains; else nobody.

    Peers that did not choose their ids lie uniformly around a job id. Given the distance d of the farthest of N, the
    other N − 1 are uniform in [0, d), so the chance that i or more are as near as the i-th is a binomial tail. The
    cluster is the i of at least 3 for which it is least, if less than ``DENSE_SIGNIFICANCE`` divided by the number
    of sizes tried. As only ratios of distances count, this is right for the k nearest of a network of unknown size,
    and for any sample picked without regard to distance; not for a mixture of both, where it would suspect the k
    nearest of a network far larger than the sample.

    What it can do (simulated): eight ids that are only just nearer than all of 100 others are found in two of three
    cases, three times as near in nine of ten, ten times as near always; of three or four such ids one in eight, and
    at ten times as near a fifth to a half. It sees nothing when all candidates are the attacker's, and an honest
    peer beside a cluster may count as part of it. What protects more is that a job's id is not known before its
    keepers are chosen.
    """
    nearest = sorted((distance(job, peer), peer) for peer in set(peers))
    others = len(nearest) - 1
    sizes = range(SMALLEST_CLUSTER, others + 1)
    if not sizes:
        return frozenset()
    farthest = nearest[-1][0]
    chance, size = min((log_tail(others, i, nearest[i - 1][0] / farthest), i) for i in sizes)
    if chance >= log(DENSE_SIGNIFICANCE / len(sizes)):
        return frozenset()
    return frozenset(peer for _, peer in nearest[:size])


def log_tail(n: int, i: int, p: float) -> float:
    """Natural log of P(X ≥ i) for X ~ Binomial(n, p), 0 ≤ p < 1; 0 (certain) where i is no more than expected."""
    if p <= 0:
        return -inf
    if n * p >= i:
        return 0.0
    first = lgamma(n + 1) - lgamma(i + 1) - lgamma(n - i + 1) + i * log(p) + (n - i) * log1p(-p)
    term = total = 1.0  # relative to the first; each later one is less, as i is above the mean
    for j in range(i, n):
        term *= (n - j) / (j + 1) * p / (1 - p)
        total += term
        if term < 1e-17 * total:
            break
    return min(0.0, first + log(total))


def ranges_of(units: int, keepers: int) -> int:
    """Into how many ranges the units of a job are cut: 1 for a lone keeper, else one per 32 units up to 64."""
    return max(1, min(MAX_RANGES, units // MIN_RANGE_UNITS)) if keepers > 1 else 1


def range_of(unit: int, units: int, ranges: int) -> int:
    """The range that a unit is in."""
    return ((unit + 1) * ranges - 1) // units


def span_of(range_: int, units: int, ranges: int) -> tuple[int, int]:
    """First unit of a range, and the first after it; lengths differ by one at most."""
    return range_ * units // ranges, (range_ + 1) * units // ranges


def primaries(job: JobId, range_: int, keys: Sequence[bytes]) -> tuple[bytes, ...]:
    """The keepers' keys in the order in which they answer for a range: primary first.

    By the BLAKE3 of job, range and key, highest first: without one key, the others stay in order.
    """
    index = range_.to_bytes(4, "big")
    return tuple(sorted(set(keys), key=lambda key: (digest(PRIMARY_DOMAIN, job, index, key), key), reverse=True))
