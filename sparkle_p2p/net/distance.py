"""Where peers and keys lie in the routing space.

As in libp2p's Kademlia: a key at the SHA-256 of its bytes, a peer at the SHA-256 of its id's bytes (the
multihash, not its text); distance is XOR (Maymounkov and Mazieres 2002).
"""

import hashlib
from collections.abc import Iterable

import base58

from sparkle_protocol.ids import PeerId


def distance(key: bytes, peer: PeerId) -> int:
    """Kademlia distance of a peer from a key."""
    place = hashlib.sha256(key).digest()
    position = hashlib.sha256(base58.b58decode(peer)).digest()
    return int.from_bytes(place, "big") ^ int.from_bytes(position, "big")


def nearest(key: bytes, peers: Iterable[PeerId], k: int) -> tuple[PeerId, ...]:
    """The k peers nearest to the key, nearest first."""
    return tuple(sorted(peers, key=lambda peer: distance(key, peer))[:k])
