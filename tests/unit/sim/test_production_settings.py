"""The simulated network services have the settings that the node and its library have."""

import ast
import inspect
import json
from pathlib import Path

import pytest
from libp2p.kad_dht import common, kad_dht
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pubsub import Pubsub

from sparkle_p2p.net.libp2p import gossip, routing, sessions
from sparkle_p2p.net.overlay import Overlay
from sparkle_sim import costs
from sparkle_sim.gossip import GossipParameters
from sparkle_sim.lookups import RoutingParameters
from sparkle_sim.network import DIAL_LIMIT_S, SILENCE_S

RECORDING = Path(__file__).parents[3] / "simulations" / "recordings" / "hosts-50.json"


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


COSTS = {
    "dial_path": costs.DIAL,
    "dial_work": costs.DIAL_WORK,
    "refused_work": costs.REFUSED,
    "request_work": costs.REQUEST,
    "question_work": costs.ASKING,
    "answer_work": costs.ANSWERING,
    "hop_path": costs.PASSING,
    "hop_work": costs.HEARING,
}


def test_costs_are_those_of_the_recording() -> None:
    """After ``run.py record`` the constants follow it by hand, so that a measurement alone changes no run."""
    fits = json.loads(RECORDING.read_text())["fits"]
    assert sorted(fits) == sorted(COSTS)
    for name, cost in COSTS.items():
        assert cost.median_ms == pytest.approx(fits[name]["median"], rel=0.05), name
        assert cost.sigma == pytest.approx(fits[name]["sigma"], rel=0.05, abs=0.01), name


def test_questions_hang_as_seldom_as_in_the_recording() -> None:
    there = json.loads(RECORDING.read_text())["shares"]["hung"]
    assert there["low"] <= RoutingParameters().hanging <= there["high"]


def test_silence_is_noticed_when_two_pings_were_in_vain() -> None:
    noticed = json.loads(RECORDING.read_text())["samples"]["noticed_s"]
    assert SILENCE_S[0] <= noticed["p5"] < noticed["p95"] <= SILENCE_S[1]
    shortest_s = sessions.MISSED_PINGS * sessions.PING_TIMEOUT_S + 0.8 * sessions.PING_INTERVAL_S
    assert shortest_s <= SILENCE_S[0] < SILENCE_S[1] <= shortest_s + 2 * sessions.PING_INTERVAL_S
    assert _default(Overlay.connect, "timeout_s") == DIAL_LIMIT_S
