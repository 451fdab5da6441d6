"""Whom the node dials, drops and believes."""

from random import Random

import pytest

from sparkle_protocol import membership as rules
from sparkle_protocol import messages
from sparkle_protocol.effects import (
    Dial,
    Dialled,
    Discovered,
    Effects,
    Hangup,
    Notify,
    PeerDown,
    PeerUp,
    Replied,
    Reply,
    Requested,
    Send,
    Tick,
)
from sparkle_protocol.ids import PeerId, key_from_peer_id, peer_id_from_key
from sparkle_protocol.membership import SECOND_NS, Membership, peer_of

WALL_MS = 1_800_000_000_000
ME = peer_id_from_key(b"\xff" * 32)


def peer(number: int) -> PeerId:
    return peer_id_from_key(number.to_bytes(32, "big"))


def address(number: int, port: int = 4001) -> str:
    return f"/ip4/10.0.0.{number % 250}/tcp/{port}/p2p/{peer(number)}"


def member() -> Membership:
    return Membership(ME, Random(1), lambda: WALL_MS)


def dials(effects: Effects) -> list[Dial]:
    return [effect for effect in effects if isinstance(effect, Dial)]


def names(effects: Effects) -> list[str]:
    return [effect.event for effect in effects if isinstance(effect, Notify)]


def sample(node: Membership, asked: PeerId, records: list[messages.PeerRecord], time_ms: int = WALL_MS) -> Effects:
    """``asked`` comes up, is asked for a sample and answers."""
    node.handle(PeerUp(asked, ()), 0)
    due = node.next_deadline()
    assert due is not None
    sends = [e for e in node.handle(Tick(), due + SECOND_NS) if isinstance(e, Send) and e.peer == asked]
    return node.handle(Replied(sends[0].tag, asked, messages.PeersReply(records, time_ms)), due + SECOND_NS)


def test_a_few_are_dialled_at_a_time_bootstraps_first() -> None:
    effects = member().start([address(1)], [address(n) for n in range(2, 20)], 0)
    assert len(dials(effects)) == rules.MAX_DIALS
    assert dials(effects)[0].address == address(1)


def test_nobody_is_dialled_with_enough_links() -> None:
    node = member()
    for number in range(1, rules.LOW_LINKS + 1):
        node.handle(PeerUp(peer(number), ()), 0)
    assert not dials(node.handle(Discovered(address(99), "mdns"), 0))


def test_a_dead_address_is_tried_ever_more_rarely_and_a_bootstrap_never_given_up() -> None:
    node = member()
    now, gaps = 0, []
    effects = node.start([address(1)], [], now)
    for _ in range(12):
        (dial,) = dials(effects)
        effects = node.handle(Dialled(dial.tag, dial.address, None, "refused"), now)
        assert names(effects) == ["bootstrap_unreachable"]
        due = node.next_deadline()
        assert due is not None
        assert due > now
        gaps.append(due - now)
        now = due
        effects = node.handle(Tick(), now)
    assert gaps[0] <= 2 * SECOND_NS
    assert max(gaps) <= rules.LONELY_BACKOFF_S * SECOND_NS


def test_other_dead_peers_are_forgotten() -> None:
    node = member()
    now = 0
    effects = node.start([], [address(1)], now)
    for _ in range(rules.MAX_ATTEMPTS + 1):
        (dial,) = dials(effects)
        node.handle(Dialled(dial.tag, dial.address, None), now)
        now = node.next_deadline() or now
        effects = node.handle(Tick(), now)
    assert node.next_deadline() is None


def test_our_own_address_is_named_and_not_dialled() -> None:
    node = member()
    effects = node.start([f"/ip4/127.0.0.1/tcp/1/p2p/{ME}"], [], 0)
    assert names(effects) == ["bootstrap_is_self"]
    assert not dials(effects)


@pytest.mark.parametrize("text", ["", "/ip4/1.2.3.4/tcp/1", "x/p2p/" + peer(1), f"/p2p/{peer(1)}/x", "/ip4/1/p2p/no"])
def test_texts_without_a_peer_are_no_addresses(text: str) -> None:
    with pytest.raises(rules.RemoteProtocolError):
        peer_of(text)
    assert member().handle(Discovered(text, "mdns"), 0) == ()


def test_too_many_violations_end_a_link_for_a_while_without_burning_the_processor() -> None:
    node = member()
    (dial,) = dials(node.start([address(1)], [], 0))
    node.handle(PeerUp(peer(1), (address(1),)), 0)
    node.handle(Dialled(dial.tag, dial.address, peer(1)), 0)
    for _ in range(rules.MAX_STRIKES - 1):
        assert Hangup not in map(type, node.violation(peer(1), SECOND_NS))
    effects = node.violation(peer(1), SECOND_NS)
    assert Hangup(peer(1), "too many rule violations") in effects
    node.handle(PeerDown(peer(1)), SECOND_NS)
    assert Hangup(peer(1), "banned") in node.handle(PeerUp(peer(1), ()), 2 * SECOND_NS)
    due = node.next_deadline()
    assert due is not None
    assert due >= SECOND_NS + rules.BAN_NS
    assert dials(node.handle(Tick(), due))


def test_old_violations_are_forgiven() -> None:
    node = member()
    for strike in range(3 * rules.MAX_STRIKES):
        assert not node.violation(peer(1), strike * (rules.FORGIVE_NS + SECOND_NS))


def test_strangers_cannot_fill_the_memory() -> None:
    node = member()
    for number in range(1, 5000):
        node.violation(peer(number), 0)
        node.handle(Discovered(address(number), "sample"), 0)
    assert len(node.standings) <= rules.MAX_STANDINGS
    assert len(node._hearsay) <= rules.MAX_HEARSAY


def test_a_neighbour_found_on_the_lan_displaces_hearsay() -> None:
    node = member()
    for number in range(1, 2 * rules.MAX_CANDIDATES):
        node.handle(Discovered(address(number), "remembered"), 0)
    node.handle(Discovered(address(9999), "mdns"), 0)
    assert peer(9999) in node._candidates


def test_hearsay_cannot_push_out_the_bootstrap_address() -> None:
    node = member()
    node.start([address(1)], [], 0)
    lies = [messages.PeerRecord(key_from_peer_id(peer(1)), tuple(address(1, port) for port in range(1, 9)))]
    for liar in range(2, 6):
        sample(node, peer(liar), lies)
    assert address(1) in node._candidates[peer(1)].addresses
    assert len(node._candidates[peer(1)].addresses) <= messages.MAX_ADDRESSES


def test_a_sample_that_names_others_addresses_is_not_believed() -> None:
    node = member()
    sample(node, peer(1), [messages.PeerRecord(key_from_peer_id(peer(2)), (address(3),))])
    assert not dials(node.handle(PeerDown(peer(1)), 10 * SECOND_NS))


def test_samples_are_small_and_leave_out_the_asker() -> None:
    node = member()
    for number in range(1, 60):
        node.handle(PeerUp(peer(number), (address(number), address(number + 500), "/x" * 300)), 0)
    (reply,) = [e for e in node.handle(Requested(7, peer(1), messages.PeersRequest(0)), 0) if isinstance(e, Reply)]
    assert isinstance(reply.message, messages.PeersReply)
    assert len(reply.message.peers) == rules.SAMPLE
    assert key_from_peer_id(peer(1)) not in {record.key for record in reply.message.peers}
    assert all(len(record.addresses) == 1 for record in reply.message.peers)
    messages.decode_reply(messages.encode_message(reply.message))


def asked_for_samples(effects: Effects) -> list[PeerId]:
    return [e.peer for e in effects if isinstance(e, Send) and isinstance(e.message, messages.PeersRequest)]


def test_a_node_with_links_enough_asks_nobody_and_begins_again_little_by_little() -> None:
    node = member()
    for number in range(1, rules.HIGH_LINKS + 1):
        node.handle(PeerUp(peer(number), ()), 0)
    assert not asked_for_samples(node.handle(Tick(), 600 * SECOND_NS))
    assert node.next_deadline() is None
    node.handle(PeerDown(peer(1)), 601 * SECOND_NS)
    due = node.next_deadline()
    assert due is not None
    assert due > 601 * SECOND_NS
    assert 1 <= len(asked_for_samples(node.handle(Tick(), due))) <= 3


def test_samples_name_only_those_who_are_there_now() -> None:
    node = member()
    for number in range(1, 60):
        node.handle(PeerUp(peer(number), (address(number),)), 0)
    gone = {peer(number) for number in range(2, 60, 3)}
    for one in sorted(gone):
        node.handle(PeerDown(one), SECOND_NS)
    node.handle(PeerUp(peer(2), (address(2),)), SECOND_NS)  # one of them is back, and another has no address now
    node.handle(PeerUp(peer(3), ()), SECOND_NS)
    told: set[PeerId] = set()
    for token in range(60):
        (reply,) = node.handle(Requested(token, peer(1), messages.PeersRequest(WALL_MS)), SECOND_NS)
        assert isinstance(reply, Reply)
        assert isinstance(reply.message, messages.PeersReply)
        keys = [record.key for record in reply.message.peers]
        assert len(set(keys)) == len(keys) == rules.SAMPLE
        told |= {peer_id_from_key(key) for key in keys}
    there = {peer(number) for number in range(1, 60)} - gone | {peer(2)}
    assert told == there - {peer(1), peer(3)}


def test_a_clock_that_most_others_contradict_is_reported_once() -> None:
    node, day_ms = member(), 86_400_000
    assert "clock_off" not in names(sample(node, peer(1), [], WALL_MS + day_ms))
    assert "clock_off" in names(sample(node, peer(2), [], WALL_MS + day_ms))
    assert node.clock_off_ms == day_ms
    assert "clock_off" not in names(sample(node, peer(3), [], WALL_MS + day_ms))


def test_one_liar_does_not_move_the_clock() -> None:
    node = member()
    sample(node, peer(1), [], WALL_MS)
    assert "clock_off" not in names(sample(node, peer(2), [], 1 << 62))
    assert node.clock_off_ms == 0


def test_a_peer_that_hangs_up_at_once_is_not_redialled_without_end() -> None:
    node = member()
    now, attempts = 0, 0
    effects = node.start([], [address(1)], 0)
    while now < 600 * SECOND_NS:
        for dial in dials(effects):
            attempts += 1
            node.handle(Dialled(dial.tag, dial.address, peer(1)), now)
            node.handle(PeerUp(peer(1), (address(1),)), now)
            node.handle(PeerDown(peer(1)), now)
        due = node.next_deadline()
        assert due is not None
        assert due > now
        now = due
        effects = node.handle(Tick(), now)
    assert attempts < 15


def test_nothing_is_due_after_stop() -> None:
    node = member()
    node.start([address(1)], [], 0)
    node.handle(PeerUp(peer(2), ()), 0)
    node.stop()
    assert node.next_deadline() is None
    assert node.handle(Tick(), 10**12) == ()
