"""Signatures that cost a hash: whoever knows the public key could forge one, but nobody in a simulation tries.

Ed25519 would take nine tenths of a large run. An adversary that forges signatures is simulated by what others do with
a bad one: they refuse it, which is checked here as well.
"""

from sparkle_protocol.errors import RemoteProtocolError
from sparkle_protocol.ids import PeerId, digest, peer_id_from_key


class CheapIdentity:
    """A ``Signer``."""

    __slots__ = ("peer_id", "public_key")

    def __init__(self, seed: int, number: int, salt: int = 0) -> None:
        self.public_key = simulated_key(seed, number, salt)
        self.peer_id: PeerId = peer_id_from_key(self.public_key)

    def sign(self, message: bytes) -> bytes:
        """64 bytes."""
        return digest(self.public_key, message) * 2


def simulated_key(seed: int, number: int, salt: int = 0) -> bytes:
    """A peer's public key; ``salt``: of those that it made until it liked one, the one after so many."""
    name = f"{seed}/{number}/{salt}" if salt else f"{seed}/{number}"
    return digest(b"sparkle/simulated key/", name.encode())


def verify_cheap(public_key: bytes, signature: bytes, message: bytes) -> None:
    """Raises RemoteProtocolError for a signature that does not fit."""
    if signature != digest(public_key, message) * 2:
        raise RemoteProtocolError("the signature does not fit")
