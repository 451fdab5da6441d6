"""Gossip of simulated peers does what gossipsub promises, and keeps its limits."""

import os
import subprocess
import sys
from math import log2
from pathlib import Path

import pytest

from sparkle_sim.gossip import GossipParameters
from sparkle_sim.kernel import SECOND
from sparkle_sim.lookups import RoutingParameters
from sparkle_sim.network import Conditions
from tests.unit.sim.wired import Wired

SPECIFIED = GossipParameters(eager_grafts=0, pruner_backs_off=True)
TRIP_S = 0.01 + 0.0095  # at most, but for jitter: half a round trip, and passing it on


@pytest.mark.parametrize("rules", [GossipParameters(), SPECIFIED], ids=["py-libp2p", "specified"])
def test_all_hear_a_message_once_within_log_n_hops(rules: GossipParameters) -> None:
    world = Wired(500, gossip=rules)
    world.connect(4)
    world.run(10.0)
    began = world.kernel.now
    world.gossip.publish(7, "jobs", b"hello")
    world.run(5.0)
    assert sorted(world.hearers(b"hello")) == [peer for peer in range(500) if peer != 7]
    slowest_s = (world.heard[-1][0] - began) / SECOND
    assert slowest_s < log2(500) * TRIP_S


def test_meshes_stay_within_their_bounds() -> None:
    world = Wired(200, gossip=SPECIFIED)
    world.connect(10)  # twenty connections each
    world.run(70.0)
    sizes = [len(world.gossip.mesh(peer)) for peer in range(200)]
    assert min(sizes) >= SPECIFIED.low
    assert max(sizes) <= SPECIFIED.high
    links = world.network.links
    assert all(other in links[peer] for peer in range(200) for other in world.gossip.mesh(peer))


def test_the_librarys_meshes_take_all_connections_up_to_their_bound() -> None:
    world = Wired(200)
    world.connect(3)
    world.run(20.0)
    few = [peer for peer in range(200) if len(world.network.links[peer]) <= 8]
    assert few
    missing = sum(len(world.network.links[peer]) - len(world.gossip.mesh(peer)) for peer in few)
    assert missing <= 0.05 * sum(len(world.network.links[peer]) for peer in few)
    rules = world.gossip.parameters
    world.connect(10)
    for _ in range(30):
        world.run(1.0)
        # Grafts of others come in between heartbeats; the next one sheds what is too much.
        over = sum(1 for peer in range(200) if len(world.gossip.mesh(peer)) > rules.high + rules.eager_grafts)
        assert over < 20


def test_who_was_pruned_keeps_the_back_off() -> None:
    rules = GossipParameters(degree=2, low=1, high=3, eager_grafts=0, pruner_backs_off=True)
    world = Wired(5, gossip=rules)
    for other in range(1, 5):
        world.network.dial(0, other, lambda _: None)
    world.run(3.0)
    pruned = [other for other in range(1, 5) if other not in world.gossip.mesh(0)]
    assert len(pruned) == 2  # down from four to two
    for _ in range(50):
        world.run(1.0)
        for other in pruned:  # though it has an empty mesh and would need one
            assert other not in world.gossip.mesh(0)
            assert world.gossip.mesh(other) == ()
    grafted = False
    for _ in range(150):
        world.run(0.1)
        grafted = grafted or any(other in world.gossip.mesh(0) for other in pruned)
    assert grafted, "when the time is over they graft again"


def test_who_grafts_during_back_off_is_refused_and_waits_anew() -> None:
    """The library's pruner forgets that it pruned, grafts again, and learns it from the answer."""
    world = Wired(5, gossip=GossipParameters(degree=2, low=1, high=3))
    for other in range(1, 5):
        world.network.dial(0, other, lambda _: None)
    world.run(15.0)
    controls = world.gossip.controls
    world.run(40.0)
    assert world.gossip.controls - controls <= 2, "nobody asks again and again"
    assert len(world.gossip.mesh(0)) <= 4


def test_what_the_mesh_lost_is_asked_for() -> None:
    world = Wired(300, conditions=Conditions(loss=0.4), gossip=SPECIFIED)
    world.connect(8)
    world.run(30.0)
    for number in range(20):
        world.gossip.publish(number, "jobs", b"%d" % number)
    world.run(0.9)
    early = sum(len(world.hearers(b"%d" % number)) for number in range(20))
    world.run(20.0)
    late = sum(len(world.hearers(b"%d" % number)) for number in range(20))
    assert late > early
    assert late >= 0.998 * 20 * 299, "of twelve seeds none misses more than 0.2 %"
    assert len({(peer, what) for _, peer, what in world.heard}) == len(world.heard), "nobody hears a message twice"


def test_a_message_survives_churn() -> None:
    world = Wired(200)
    world.connect(5)
    world.run(10.0)
    for peer in range(40):
        world.stop(peer, silently=peer % 2 == 0)
    world.gossip.publish(100, "jobs", b"news")
    world.run(10.0)
    assert sorted(world.hearers(b"news")) == [peer for peer in range(40, 200) if peer != 100]


def test_who_is_suspended_says_nothing_and_hears_what_it_missed_when_it_goes_on() -> None:
    world = Wired(30)
    world.connect(4)
    world.run(3.0)
    world.network.suspend(9)
    world.gossip.publish(0, "jobs", b"news")
    world.run(5.0)
    assert sorted(world.hearers(b"news")) == [peer for peer in range(1, 30) if peer != 9]
    world.network.resume(9)
    world.run(0.1)
    assert world.hearers(b"news").count(9) == 1


def test_who_comes_soon_after_a_message_is_sent_it() -> None:
    world = Wired(30)
    world.stop(29)
    world.connect(4)
    world.gossip.publish(0, "jobs", b"news")
    world.run(1.0)
    world.start(29)
    world.network.dial(29, 3, lambda _: None)
    world.run(2.0)
    assert world.hearers(b"news").count(29) == 1


def test_a_new_process_knows_nothing_of_what_the_old_one_heard() -> None:
    world = Wired(30)
    world.connect(4)
    world.run(3.0)
    world.gossip.publish(0, "jobs", b"news")
    world.run(1.0)
    world.stop(9)
    assert world.gossip.mesh(9) == ()
    world.run(0.5)
    world.start(9)
    world.network.dial(9, 3, lambda _: None)
    world.run(3.0)
    assert world.hearers(b"news").count(9) == 2


def test_a_partition_keeps_messages_on_its_side() -> None:
    world = Wired(60)
    world.connect(5)
    world.run(5.0)
    world.network.block("split", lambda one, other: (one < 30) != (other < 30))
    world.gossip.publish(0, "jobs", b"news")
    world.run(10.0)
    assert sorted(world.hearers(b"news")) == list(range(1, 30))


def test_idle_peers_cost_next_to_nothing() -> None:
    """Meshes that are as they should be have heartbeats without a single message."""
    world = Wired(300, gossip=SPECIFIED, routing=RoutingParameters(refresh_s=0))
    world.connect(4)
    world.run(70.0)
    controls, events, beats = world.gossip.controls, world.kernel.events, world.gossip.heartbeats
    world.run(10.0)
    assert world.gossip.controls == controls
    assert world.gossip.heartbeats - beats == 3000
    assert world.kernel.events - events <= 1010  # a hundred a second for all of them together


def test_memory_is_bounded() -> None:
    rules = GossipParameters(max_kept=20, max_backing_off=3)
    world = Wired(20, gossip=rules)
    world.connect(15)
    for number in range(300):
        world.gossip.publish(number % 20, "jobs", b"%d" % number)
        world.run(0.01)
    nodes = [node for node in world.gossip._nodes if node is not None]
    assert all(len(node.kept) <= 20 for node in nodes)
    assert all(len(node.backing_off or ()) <= 3 for node in nodes)
    world.run(10.0)
    assert not any(node.kept for node in nodes), "what is old is forgotten"


TRACE = """
from hashlib import sha256
from sparkle_sim.network import Conditions
from tests.unit.sim.wired import Wired
import sys
world = Wired(60, seed=int(sys.argv[1]), conditions=Conditions(loss=0.05))
world.connect(5)
for number in range(100):
    world.gossip.publish(number % 60, "jobs", b"%d" % number)
    world.run(0.3)
    if number % 10 == 0:
        world.stop(number % 60)
        world.run(0.5)
        world.start(number % 60)
        world.network.dial(number % 60, (number + 7) % 60, lambda _: None)
    key = b"key%d" % (number % 5)
    world.routing.provide(number % 60, key)
    world.routing.providers((number * 7) % 60, key, lambda found: world.heard.append((0, 0, bytes(found))))
    world.routing.closest((number * 11) % 60, key, 8, lambda found: world.heard.append((0, 1, bytes(found))))
world.run(10.0)
print(len(world.heard), world.kernel.events, sha256(repr(world.heard).encode()).hexdigest())
"""


def _trace(seed: int, hash_seed: str) -> str:
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    command = [sys.executable, "-c", TRACE, str(seed)]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def test_a_seed_decides_everything() -> None:
    first = _trace(1, "0")
    assert _trace(1, "4711") == first
    assert _trace(2, "0") != first
    assert int(first.split()[1]) > 10_000


def test_a_message_is_known_for_its_time_and_no_longer() -> None:
    world = Wired(20)
    world.connect(3)
    world.gossip.publish(0, "jobs", b"news")
    world.run(1.0)
    message = next(node.kept[0][1] for node in world.gossip._nodes if node is not None and node.kept)
    world.run(115.0)
    assert all(world.gossip._knows(peer, message) for peer in range(20))
    world.run(10.0)
    assert not any(world.gossip._knows(peer, message) for peer in range(20))
