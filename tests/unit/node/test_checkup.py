"""What a running node finds of what blocks it."""

import asyncio

import pytest

from sparkle_p2p.net.overlay import Link
from sparkle_p2p.net.reach import why_unanswered, widest
from sparkle_p2p.node import checkup
from sparkle_protocol.ids import PeerId

ME = PeerId("12D3KooWHrTvH4VQ24pGBZYPKnk61sCSgzFDGEy3FbFGezvmwW7B")
OTHER = PeerId("12D3KooWQzxgnfcaAFLvpAxbN7FmhSKdNBqHFGTAiSwkXrGhWhFM")
HOME, WORLD, SELF = "/ip4/192.168.1.5/tcp/4001", "/ip4/93.184.216.34/tcp/4001", "/ip4/127.0.0.1/tcp/4001"


@pytest.mark.parametrize(
    ("addresses", "reach"),
    [
        ([], "nowhere"), ([SELF], "this machine"), ([SELF, HOME], "local network"), ([SELF, HOME, WORLD], "anywhere"),
        (["/ip6/::1/tcp/1"], "this machine"), (["/ip6/fd00::1/tcp/1"], "local network"),
        (["/ip6/2606:2800:220:1::1/tcp/1"], "anywhere"), (["/dns/node.example.org/tcp/1"], "anywhere"),
        (["/ip4/100.64.0.1/tcp/1"], "local network"), (["nonsense"], "this machine"),
    ],
)  # fmt: skip
def test_how_far_addresses_reach(addresses: list[str], reach: str) -> None:
    assert widest(addresses) == reach


def link(address: str, direction: str) -> Link:
    return Link(OTHER, (f"{address}/p2p/{OTHER}",), direction)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("addresses", "links", "code", "level"),
    [
        ([SELF], [], "listens_on_loopback", "warn"),
        ([SELF, HOME], [], "behind_nat", "ok"),
        ([SELF, HOME], [link(HOME, "in")], "behind_nat", "ok"),
        ([SELF, HOME], [link(WORLD, "out")], "behind_nat", "warn"),
        ([SELF, HOME], [link(WORLD, "in")], "reachable", "ok"),
        ([WORLD], [], "reachable", "ok"),
        ([], [], "no_address", "warn"),
    ],
)
def test_who_can_reach_us_is_guessed_from_addresses_and_from_who_did(
    addresses: list[str], links: list[Link], code: str, level: str
) -> None:
    finding = checkup.reachable(addresses, links)
    assert (finding.reason.code, finding.level) == (code, level)
    assert finding.level == "ok" or finding.fix


@pytest.mark.parametrize(
    ("linked", "unanswered", "peer", "code", "level"),
    [
        ({OTHER}, None, OTHER, "bootstrap_connected", "ok"),
        (set(), "nothing answers", OTHER, "bootstrap_silent", "fail"),
        ({ME}, "nothing answers", OTHER, "bootstrap_silent", "warn"),  # others are connected
        (set(), None, OTHER, "bootstrap_is_another", "fail"),
        (set(), None, ME, "bootstrap_is_self", "warn"),
    ],
)
def test_what_became_of_a_bootstrap_peer(
    linked: set[PeerId], unanswered: str | None, peer: PeerId, code: str, level: str
) -> None:
    finding = checkup.bootstrap(f"{WORLD}/p2p/{peer}", linked, ME, unanswered)
    assert (finding.reason.code, finding.level) == (code, level)


def test_the_clock_and_the_sandbox() -> None:
    assert [checkup.clock(off, peers).reason.code for off, peers in ((0, 0), (0, 3), (900_000, 3))] == [
        "clock_unknown", "clock_agrees", "clock_off",
    ]  # fmt: skip
    assert "900 s behind" in checkup.clock(900_000, 3).reason.sentence
    assert "900 s ahead" in checkup.clock(-900_000, 3).reason.sentence
    assert [finding.level for finding in checkup.sandbox(["no limits here", "nor there"])] == ["warn", "warn"]
    assert checkup.sandbox([])[0].level == "ok"


async def test_an_address_that_answers_is_told_from_one_that_does_not() -> None:
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        assert await why_unanswered(f"/ip4/127.0.0.1/tcp/{port}/p2p/{OTHER}") is None
    assert "refused" in (await why_unanswered(f"/ip4/127.0.0.1/tcp/{port}/p2p/{OTHER}") or "")
    assert "not an address" in (await why_unanswered("/ip4/nowhere/tcp/x/p2p/y") or "")
