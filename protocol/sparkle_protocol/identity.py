"""A node's Ed25519 key (RFC 8032) and checks of other peers' signatures.

The key is also the libp2p host key, so whoever can open a Noise channel as a peer can sign as it and
nobody else can.
"""

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from sparkle_protocol.errors import ConfigError, RemoteProtocolError
from sparkle_protocol.ids import PUBLIC_KEY_BYTES, PeerId, peer_id_from_key

SIGNATURE_BYTES = 64
PRIVATE_KEY_BYTES = 32


class Identity:
    """The private key of one peer. Never printed, never pickled."""

    __slots__ = ("_key", "peer_id", "public_key")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public_key: bytes = key.public_key().public_bytes_raw()
        self.peer_id: PeerId = peer_id_from_key(self.public_key)

    @classmethod
    def generate(cls) -> "Identity":
        """A new key from the system's randomness."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_private_bytes(cls, seed: bytes) -> "Identity":
        """The identity of a 32-byte private seed.

        Raises:
            ConfigError: it has another length.
        """
        if len(seed) != PRIVATE_KEY_BYTES:
            raise ConfigError(f"an identity key has {PRIVATE_KEY_BYTES} bytes, this one {len(seed)}")
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    def private_bytes(self) -> bytes:
        """The 32-byte seed, for the key file and the libp2p host only."""
        return self._key.private_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """64-byte signature of the message."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        return f"Identity({self.peer_id})"

    def __reduce__(self) -> str:
        raise TypeError("an identity is never pickled")


def verify_signature(public_key: bytes, signature: bytes, message: bytes) -> None:
    """Return when ``signature`` over ``message`` is by ``public_key``.

    Raises:
        RemoteProtocolError: it is not, or key or signature are malformed.
    """
    if len(public_key) != PUBLIC_KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        raise RemoteProtocolError("a key has 32 bytes and a signature 64")
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError) as error:
        raise RemoteProtocolError("the signature does not fit") from error
