"""Multiaddrs as text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkle_p2p.net.addresses import believable, expand, split_address, split_listen
from sparkle_p2p.net.overlay import sort_addresses
from sparkle_protocol.errors import ConfigError
from sparkle_protocol.identity import Identity

PEER = Identity.from_private_bytes(bytes(32)).peer_id
OTHER = Identity.from_private_bytes(bytes([1] * 32)).peer_id


@pytest.mark.parametrize(
    "transport", ["/ip4/192.0.2.1/tcp/4001", "/ip6/2001:db8::1/tcp/1", "/dns4/example.org/tcp/65535"]
)
def test_dialable_addresses_split_into_transport_and_peer(transport):
    assert split_address(f"{transport}/p2p/{PEER}") == (transport, PEER)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "192.0.2.1:4001",
        f"/ip4/192.0.2.1/tcp/0/p2p/{PEER}",
        f"/ip4/192.0.2.1/tcp/65536/p2p/{PEER}",
        f"/ip4/2001:db8::1/tcp/1/p2p/{PEER}",
        f"/ip4/192.0.2.1/udp/1/quic-v1/p2p/{PEER}",
        f"/dns4/exa mple/tcp/1/p2p/{PEER}",
        "/ip4/192.0.2.1/tcp/1/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",
        f"/ip4/192.0.2.1/tcp/1/p2p/{PEER[:-1]}",
        f"/ip4/192.0.2.1/tcp/1/p2p/{PEER}/p2p-circuit",
        f" /ip4/192.0.2.1/tcp/1/p2p/{PEER}",
        f"/ip4/192.0.2.1/tcp/1/p2p/{PEER}\n",
    ],
)
def test_anything_else_is_a_configuration_error(address):
    with pytest.raises(ConfigError):
        split_address(address)


@given(st.text(max_size=80))
def test_no_text_crashes_the_parsers(text):
    for parse in (split_address, split_listen):
        try:
            parse(text)
        except ConfigError:
            continue


def test_unspecified_addresses_expand_to_the_interfaces_loopback_first():
    found = expand("/ip4/0.0.0.0/tcp/4001")
    assert found[0] == "/ip4/127.0.0.1/tcp/4001"
    assert found == sort_addresses(found)
    assert expand("/ip4/192.0.2.1/tcp/1") == ("/ip4/192.0.2.1/tcp/1",)
    assert all("%" not in address for address in expand("/ip6/::/tcp/1"))


def test_a_peer_elsewhere_is_not_believed_about_our_loopback():
    mine, lan, foreign = (
        f"/ip4/127.0.0.1/tcp/1/p2p/{PEER}",
        f"/ip4/192.168.1.2/tcp/1/p2p/{PEER}",
        f"/ip4/192.168.1.2/tcp/1/p2p/{OTHER}",
    )
    claimed = ["nonsense", foreign, lan, mine, mine, f"/dns4/localhost/tcp/1/p2p/{PEER}"]
    assert believable(claimed, PEER, "203.0.113.5") == (lan,)
    assert believable(claimed, PEER, "127.0.0.1")[:2] == (mine, lan)
