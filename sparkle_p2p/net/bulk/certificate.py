"""A TLS certificate that lives as long as the process, and the record by which a peer says that it is its own."""

import datetime
import hashlib
import os
import ssl
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from sparkle_protocol.identity import Identity, verify_signature
from sparkle_protocol.ids import PeerId, key_from_peer_id

_DOMAIN = b"sparkle/blob/certificate/v1"
_YEARS = datetime.timedelta(days=3650)  # pinned by its hash; the dates say nothing
_NAME = "sparkle"


@dataclass(frozen=True, slots=True)
class Certificate:
    """The server's context, the SHA-256 of its certificate, and the node's signature over that."""

    context: ssl.SSLContext
    fingerprint: bytes
    signature: bytes


def make_certificate(identity: Identity, net: str) -> Certificate:
    """A new key and a certificate for it, signed for by the node's own key, which TLS never touches."""
    key = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _NAME)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _YEARS)
        .not_valid_after(now + _YEARS)
        .sign(key, None)
    )
    der = certificate.public_bytes(serialization.Encoding.DER)
    pem = certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0  # connections are kept, sessions are not
    _load(context, pem)
    fingerprint = hashlib.sha256(der).digest()
    return Certificate(context, fingerprint, identity.sign(_record(net, fingerprint)))


def check_certificate(peer: PeerId, net: str, fingerprint: bytes, signature: bytes) -> None:
    """Return when the peer says that the certificate is its own. Raises RemoteProtocolError."""
    verify_signature(key_from_peer_id(peer), signature, _record(net, fingerprint))


def client_context() -> ssl.SSLContext:
    """TLS 1.3 to a server whose certificate is compared by the caller, as nobody vouches for it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _record(net: str, fingerprint: bytes) -> bytes:
    encoded = net.encode()
    return _DOMAIN + bytes([len(encoded)]) + encoded + fingerprint


def _load(context: ssl.SSLContext, pem: bytes) -> None:
    """``ssl`` reads keys from files only: one that no disk ever holds."""
    descriptor = os.memfd_create("sparkle-certificate", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
