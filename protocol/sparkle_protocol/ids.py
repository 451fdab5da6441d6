"""Names of peers, jobs and units.

A peer's id is its libp2p PeerId: the identity multihash of the protobuf-encoded Ed25519 public key, in
base58btc ("12D3Koo…"; libp2p peer-ids spec). So id and key turn into each other without a lookup.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import NewType

import base58
from blake3 import blake3

from sparkle_protocol.errors import ConfigError, RemoteProtocolError

PeerId = NewType("PeerId", str)
JobId = NewType("JobId", bytes)  # BLAKE3 of the signed spec's body, 32 bytes
FactId = NewType("FactId", bytes)  # BLAKE3 of an envelope's body, 32 bytes
ResultHash = NewType("ResultHash", bytes)  # BLAKE3 of a unit's result bytes, 32 bytes

HASH_BYTES = 32
PUBLIC_KEY_BYTES = 32

# multihash "identity" (0x00), length 36, then protobuf {Type: Ed25519 (08 01), Data: 32 bytes (12 20)}
_PEER_ID_PREFIX = bytes.fromhex("002408011220")


def digest(*parts: bytes) -> bytes:
    """32-byte BLAKE3 of the concatenated parts."""
    return blake3(b"".join(parts)).digest()


def hash_result(result: bytes) -> ResultHash:
    """Name of a unit's result bytes."""
    return ResultHash(blake3(result).digest())


@lru_cache(maxsize=32768)
def peer_id_from_key(public_key: bytes) -> PeerId:
    """PeerId of a raw 32-byte Ed25519 public key."""
    if len(public_key) != PUBLIC_KEY_BYTES:
        raise RemoteProtocolError(f"a public key has 32 bytes, this one {len(public_key)}")
    return PeerId(base58.b58encode(_PEER_ID_PREFIX + public_key).decode("ascii"))


@lru_cache(maxsize=32768)
def key_from_peer_id(peer: PeerId) -> bytes:
    """Raw 32-byte Ed25519 public key inside a PeerId.

    Raises:
        RemoteProtocolError: it is not the id of an Ed25519 key.
    """
    if len(peer) > 64:
        raise RemoteProtocolError("a peer id is at most 64 characters long")
    try:
        raw = base58.b58decode(peer)
    except ValueError as error:
        raise RemoteProtocolError(f"'{peer[:16]}…' is not a base58 peer id") from error
    if len(raw) != len(_PEER_ID_PREFIX) + PUBLIC_KEY_BYTES or not raw.startswith(_PEER_ID_PREFIX):
        raise RemoteProtocolError(f"'{peer[:16]}…' is not the peer id of an Ed25519 key")
    return raw[len(_PEER_ID_PREFIX) :]


def short_peer(peer: str) -> str:
    """The part of a peer id by which people tell peers apart: its last eight characters."""
    return "…" + peer[-8:]


def find_job(prefix: str, known: Iterable[JobId]) -> JobId:
    """The one known job whose hex id starts with ``prefix``.

    Raises:
        ConfigError: none or several match.
    """
    matches = [job for job in known if job.hex().startswith(prefix.lower())] if prefix else []
    if not matches:
        raise ConfigError(f"no job '{prefix}' is known to this node; 'sparkle jobs' lists them")
    if len(matches) > 1:
        raise ConfigError(f"'{prefix}' names {len(matches)} jobs; give more of the id")
    return matches[0]
