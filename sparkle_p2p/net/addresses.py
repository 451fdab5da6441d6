"""Multiaddrs as text: checks and expansion, without any network library.

Only what Sparkle listens on and dials is accepted: an IP address or a DNS name, TCP, a peer id.
"""

import ipaddress
import re
import socket
from collections.abc import Iterable

import psutil

from sparkle_p2p.net.overlay import sort_addresses
from sparkle_protocol.errors import ConfigError, RemoteProtocolError
from sparkle_protocol.ids import PeerId, key_from_peer_id

_DIALABLE = re.compile(r"/(ip4|ip6|dns|dns4|dns6)/([^/]{1,253})/tcp/(\d{1,5})/p2p/([1-9A-HJ-NP-Za-km-z]{1,64})")
_LISTEN = re.compile(r"/(ip4|ip6)/([^/]{1,64})/tcp/(\d{1,5})")


def _check_host(family: str, host: str) -> bool:
    if family.startswith("dns"):
        return re.fullmatch(r"[A-Za-z0-9._-]+", host) is not None
    try:
        return ipaddress.ip_address(host).version == int(family[-1])
    except ValueError:
        return False


def split_address(address: str) -> tuple[str, PeerId]:
    """A dialable multiaddr as (transport part, peer id).

    Raises:
        ConfigError: not ``/ip4|ip6|dns…/<host>/tcp/<port>/p2p/<Ed25519 peer id>``.
    """
    match = _DIALABLE.fullmatch(address)
    if match is None or not _check_host(match[1], match[2]) or not 0 < int(match[3]) < 65536:
        raise ConfigError(
            f"'{address[:120]}' is not an address to dial; it looks like /ip4/192.0.2.1/tcp/4001/p2p/12D3Koo…"
        )
    peer = PeerId(match[4])
    try:
        key_from_peer_id(peer)
    except RemoteProtocolError as error:
        raise ConfigError(f"'{address[:120]}' does not end in the peer id of an Ed25519 key") from error
    return address[: match.start(4) - len("/p2p/")], peer


def split_listen(address: str) -> tuple[str, int]:
    """Host and port of a multiaddr to listen on.

    Raises:
        ConfigError: not ``/ip4|ip6/<address>/tcp/<port>``.
    """
    match = _LISTEN.fullmatch(address)
    if match is None or not _check_host(match[1], match[2]) or int(match[3]) > 65535:
        raise ConfigError(f"'{address[:120]}' is not an address to listen on; it looks like /ip4/0.0.0.0/tcp/0")
    return match[2], int(match[3])


def expand(transport: str) -> tuple[str, ...]:
    """The transport addresses that one listening address stands for: all interfaces for 0.0.0.0 and ::.

    Link-local IPv6 addresses are left out: without a zone nobody can dial them.
    """
    host, port = split_listen(transport)
    address = ipaddress.ip_address(host)
    if not address.is_unspecified:
        return (transport,)
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    hosts = [
        entry.address
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family == family and "%" not in entry.address
    ]
    return sort_addresses([f"/ip{address.version}/{found}/tcp/{port}" for found in hosts])


def believable(addresses: Iterable[str], peer: PeerId, seen_from: str | None) -> tuple[str, ...]:
    """Those of a peer's self-declared addresses that can be its own, in dialling order.

    ``seen_from`` is the IP address under which we see the peer: a loopback address says something only
    about our own machine, so it is kept only for a peer on it.
    """
    kept = []
    local = seen_from is None or _is_own(seen_from)
    for address in addresses:
        try:
            transport, owner = split_address(address)
        except ConfigError:
            continue
        host = transport.split("/")[2]
        loopback = host == "localhost" or (not host[-1].isalpha() and _is_loopback(host))
        if owner == peer and (local or not loopback):
            kept.append(address)
    return sort_addresses(kept)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_own(host: str) -> bool:
    return _is_loopback(host) or any(
        entry.address == host for entries in psutil.net_if_addrs().values() for entry in entries
    )
