"""Two machines with one key: each says so, takes on nothing more, and their peers can tell."""

import shutil
from pathlib import Path

from tests.e2e.node.processes import NodeProcess, Swarm


def copy_home(node: NodeProcess, home: Path) -> None:
    """What somebody does who sets up a second machine from a backup of the first."""
    shutil.copytree(node.home, home, ignore=shutil.ignore_patterns("lock", "node.json", "api.token"))


async def test_a_copied_home_is_found_out_on_both_machines_and_seen_by_the_third(swarm: Swarm) -> None:
    third, first = await swarm.start(2)
    copy = swarm.node("copy")
    copy_home(first, copy.home)
    await copy.spawn("--no-mdns", "--bootstrap", third.address)
    await copy.wait_ready()
    assert copy.peer_id == first.peer_id
    for node in (first, copy):
        await node.event("cloned")
        status = (await node.sparkle("status", "--json")).document
        assert (status["state"], status["reason"]["code"]) == ("paused", "cloned")
        ran = await node.sparkle("doctor", "--json")
        assert ran.code == 1
        (finding,) = [one for one in ran.document["findings"] if one["check"] == "identity"]
        assert (finding["level"], finding["reason"]["code"]) == ("fail", "cloned")
        assert "move identity.key" in finding["fix"]
        assert "account_cloned" in {one["reason"]["code"] for one in ran.document["findings"]}
        refused = await node.sparkle("submit", "prime_count", "-p", "stop=1000")
        assert refused.code == 2
        assert "a copy of this node's key" in refused.err
    await third.event("peer_cloned", peer=first.peer_id)
    assert "Two machines run with its key" in await third.why(first.peer_id)
    assert (await third.status())["reason"]["code"] != "cloned"

    await copy.terminate()
    await first.terminate()
    await first.spawn("--no-mdns", "--bootstrap", third.address)
    await first.wait_ready()
    await first.event("peer_up", peer=third.peer_id)
    healthy = await first.sparkle("doctor")
    assert healthy.code == 0, healthy.out + healthy.err
    assert "was seen nowhere else" in healthy.out
    assert not first.count("cloned")
