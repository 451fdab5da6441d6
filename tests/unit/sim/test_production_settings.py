"""The simulated network services have the settings that the node and its library have."""

import ast
import inspect

from libp2p.kad_dht import common, kad_dht
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pubsub import Pubsub

from sparkle_p2p.net.libp2p import gossip, routing
from sparkle_p2p.net.overlay import Overlay
from sparkle_sim.gossip import GossipParameters
from sparkle_sim.lookups import RoutingParameters


def _default(call: object, name: str) -> object:
    return inspect.signature(call).parameters[name].default  # type: ignore[arg-type]


def test_gossip() -> None:
    calls = [one for one in ast.walk(ast.parse(inspect.getsource(gossip))) if isinstance(one, ast.Call)]
    [made] = [one for one in calls if isinstance(one.func, ast.Name) and one.func.id == "GossipSub"]
    ours = {one.arg: one.value.value for one in made.keywords if isinstance(one.value, ast.Constant)}
    rules = GossipParameters()
    assert (ours["degree"], ours["degree_low"], ours["degree_high"]) == (rules.degree, rules.low, rules.high)
    assert ours["heartbeat_interval"] == rules.heartbeat_s
    assert (ours["gossip_window"], ours["gossip_history"]) == (rules.window, rules.history)
    assert ours["adaptive_gossip_enabled"] is False
    assert ours["eclipse_protection_enabled"] is False
    assert _default(GossipSub.__init__, "prune_back_off") == rules.back_off_s
    assert _default(Pubsub.__init__, "seen_ttl") == rules.seen_s


def test_routing() -> None:
    rules = RoutingParameters()
    assert (rules.bucket_size, rules.alpha) == (common.BUCKET_SIZE, common.ALPHA)
    assert rules.bucket_size == routing.LOOKUP_WIDTH
    assert rules.query_s == routing.QUERY_TIMEOUT_S
    assert (rules.banished_s, rules.max_banished) == (routing.BANISHED_S, routing.MAX_BANISHED)
    assert (rules.asked, rules.provided_s) == (routing.PROVIDERS_ASKED, routing.PROVIDED_S)
    assert rules.refresh_s == kad_dht.ROUTING_TABLE_REFRESH_INTERVAL
    assert _default(Overlay.closest, "timeout_s") == rules.lookup_s
    assert _default(Overlay.providers, "timeout_s") == rules.lookup_s
    assert _default(Overlay.provide, "timeout_s") == rules.lookup_s
    assert _default(Overlay.providers, "limit") == rules.max_found
