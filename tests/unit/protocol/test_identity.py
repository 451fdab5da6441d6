"""Peer ids and signatures are those of libp2p and RFC 8032."""

import copy
import json
import subprocess
import sys

import pytest

from sparkle_protocol.errors import ConfigError, RemoteProtocolError
from sparkle_protocol.identity import Identity, verify_signature
from sparkle_protocol.ids import JobId, PeerId, find_job, key_from_peer_id, peer_id_from_key

# The Ed25519 test key of the libp2p peer-ids specification (protobuf of private key, then its public key and id).
SPEC_PUBLIC_KEY = "1ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e"
# RFC 8032, section 7.1, test 2.
RFC_SEED = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"
RFC_PUBLIC = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
RFC_SIGNATURE = (
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
)

PEER_IDS_OF_LIBP2P = """
import json, sys
from libp2p.crypto.ed25519 import Ed25519PublicKey
from libp2p.peer.id import ID
keys = [Ed25519PublicKey.from_bytes(bytes.fromhex(key)) for key in sys.argv[1:]]
print(json.dumps([ID.from_pubkey(key).to_string() for key in keys]))
"""


def test_peer_ids_are_those_of_libp2p() -> None:
    keys = [SPEC_PUBLIC_KEY, RFC_PUBLIC] + [
        Identity.from_private_bytes(bytes([n]) * 32).public_key.hex() for n in range(8)
    ]
    shown = subprocess.run(
        [sys.executable, "-c", PEER_IDS_OF_LIBP2P, *keys], capture_output=True, text=True, timeout=60, check=True
    )
    assert [peer_id_from_key(bytes.fromhex(key)) for key in keys] == json.loads(shown.stdout)


def test_id_and_key_turn_into_each_other() -> None:
    identity = Identity.generate()
    assert identity.peer_id.startswith("12D3Koo")
    assert key_from_peer_id(identity.peer_id) == identity.public_key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "not base58: 0OIl",
        "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",  # an RSA key's
        "12D3KooW",
        "1" * 100,
        "é" * 52,
    ],
)
def test_other_texts_are_no_peer_ids(text: str) -> None:
    with pytest.raises(RemoteProtocolError):
        key_from_peer_id(PeerId(text))


def test_signatures_follow_the_rfc() -> None:
    identity = Identity.from_private_bytes(bytes.fromhex(RFC_SEED))
    assert identity.public_key.hex() == RFC_PUBLIC
    assert identity.sign(b"\x72").hex() == RFC_SIGNATURE
    verify_signature(identity.public_key, bytes.fromhex(RFC_SIGNATURE), b"\x72")


@pytest.mark.parametrize("change", ["key", "signature", "message", "short signature", "short key"])
def test_a_wrong_signature_is_the_peers_fault(change: str) -> None:
    identity = Identity.from_private_bytes(b"k" * 32)
    key, signature, message = identity.public_key, identity.sign(b"hello"), b"hello"
    if change == "key":
        key = Identity.from_private_bytes(b"l" * 32).public_key
    elif change == "signature":
        signature = signature[:-1] + bytes([signature[-1] ^ 1])
    elif change == "message":
        message = b"hallo"
    elif change == "short signature":
        signature = signature[:-1]
    else:
        key = key[:-1]
    with pytest.raises(RemoteProtocolError):
        verify_signature(key, signature, message)


def test_the_private_key_shows_nowhere() -> None:
    identity = Identity.from_private_bytes(b"k" * 32)
    assert "6b6b" not in repr(identity)
    with pytest.raises(TypeError):
        copy.copy(identity)
    with pytest.raises(ConfigError, match="32 bytes"):
        Identity.from_private_bytes(b"short")


def test_a_job_is_found_by_a_unique_prefix() -> None:
    jobs = [JobId(bytes.fromhex(start) + b"\0" * 30) for start in ("ab12", "ab34")]
    assert find_job("AB1", jobs) == jobs[0]
    for wrong in ("", "ab", "ff"):
        with pytest.raises(ConfigError):
            find_job(wrong, jobs)
