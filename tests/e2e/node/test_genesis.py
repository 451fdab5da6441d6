"""A network with a genesis record of its own: its terms hold, its founder is trusted, others stay outside."""

from pathlib import Path

import pytest

from sparkle_p2p.home import HomeDir
from tests.e2e.node.processes import NodeProcess, Swarm

pytestmark = pytest.mark.timeout(300)

UNITS = 8
TERMS = """
network = "{net}"

[economy]
limit_max_credits = 20.5
starter_credits = 0.000_002

[founders]
{founder} = ["trusted", "unlimited"]
"""


async def credit(node: NodeProcess) -> dict[str, object]:
    """What ``sparkle credit --json`` says, once the node has read its ledger."""

    async def look() -> dict[str, object] | None:
        ran = await node.sparkle("credit", "--json")
        return ran.document if ran.code == 0 else None

    return await node.swarm.until(look, f"{node.name} has read its ledger")  # type: ignore[no-any-return]


async def finding(node: NodeProcess) -> str:
    """What ``sparkle doctor`` says of genesis records."""
    document = (await node.sparkle("doctor", "--json")).document
    return "".join(one["reason"]["sentence"] for one in document["findings"] if one["check"] == "genesis")


async def test_a_swarm_with_terms_of_its_own(swarm: Swarm, tmp_path: Path) -> None:
    founder, member, stranger = (swarm.node(name) for name in ("founder", "member", "stranger"))
    with HomeDir.open(founder.home) as home:
        named = str(home.identity.peer_id)
    file = tmp_path / "swarm.toml"
    file.write_text(TERMS.format(net=swarm.net, founder=named))
    genesis = ("--no-mdns", "--genesis", str(file))
    await founder.spawn(*genesis)
    await founder.wait_ready()
    await member.spawn(*genesis, "--bootstrap", founder.address)
    await stranger.spawn("--no-mdns", "--bootstrap", founder.address)
    await member.event("peer_up", peer=named)

    # It says so in one sentence on both sides, and nobody counts the other as a peer.
    words = "belongs to a network of this name with another genesis record"
    unreachable = await stranger.event("bootstrap_unreachable")
    assert words in unreachable["reason"]
    assert "same --genesis FILE" in unreachable["reason"]
    assert (await founder.event("violation", peer=stranger.peer_id))["reason"] == words
    assert words in await finding(founder)
    assert words in await finding(stranger)
    assert (set(await founder.peers()), await stranger.peers()) == ({member.peer_id}, {})
    assert await finding(member) == ""

    # The terms are those of the file, for the founder and for everybody else.
    own, others, default = [await credit(node) for node in (founder, member, stranger)]
    assert (own["unlimited"], others["unlimited"]) == (True, False)
    assert (others["limit_micro"], default["limit_micro"]) == (2, 10_000_000)
    refused = await member.sparkle("submit", "prime_count", "-p", "stop=1000000000")
    assert refused.code != 0
    assert "your account can set aside 0.000002 credits" in refused.err
    shown = (await member.status())["genesis"]
    assert shown == (await founder.status())["genesis"]
    assert f", genesis {shown}: connected" in (await member.sparkle("status")).out

    # The founder is believed from the first unit on, and its word counts as with --trust.
    assert (await member.status())["known_workers"] == 1
    assert "Named as trusted here" in await member.why(named)
    assert (await founder.status())["known_workers"] == 0
    await founder.done(await founder.submit("prime_count", UNITS, stop=10**8))

    # Whoever corrects it is welcome at once.
    assert await stranger.terminate() == 0
    await stranger.spawn(*genesis, "--bootstrap", founder.address)
    await stranger.event("peer_up", peer=named)
    await founder.event("peer_up", peer=stranger.peer_id)
    assert await finding(founder) == ""

    # The copy knows by what it was judged.
    for node in (founder, member):
        said = (await node.sparkle("ledger", "verify", "--json")).document
        assert (said["ok"], said["genesis"]) == (True, shown)
        assert said["outcomes"].get("booked", 0) > 0
    assert await member.terminate() == 0
    await member.spawn("--no-mdns")
    assert await member.ended() == 2
    told = member.log.read_text().splitlines()[-1]
    assert f"was judged by the genesis record {shown}, not by " in told
    assert "use that --genesis or another --home" in told
    assert "Traceback" not in "".join(node.log.read_text() for node in swarm.nodes)
