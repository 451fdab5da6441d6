"""Whose clock is off: what a node concludes from the times that its peers tell."""

from random import Random

import pytest

from sparkle_protocol import messages
from sparkle_protocol.effects import Effects, Notify, PeerUp, Replied, Send, Tick
from sparkle_protocol.identity import Identity
from sparkle_protocol.membership import Membership

SECOND_NS = 1_000_000_000
DAY_MS = 86_400_000
NOW_MS = 1_800_000_000_000


def told_times(offsets_ms: list[int]) -> tuple[Membership, list[Notify]]:
    """A node that asked its peers, whose clocks differ from its own by these."""
    node = Membership(Identity.generate().peer_id, Random(1), lambda: NOW_MS)
    offset_of = {Identity.generate().peer_id: offset for offset in offsets_ms}
    effects: list[Effects] = [node.handle(PeerUp(peer, ()), 0) for peer in offset_of]
    effects.append(node.handle(Tick(), 2 * SECOND_NS))
    asked = [effect for batch in effects for effect in batch if isinstance(effect, Send)]
    assert len(asked) == len(offset_of)
    told: list[Notify] = []
    for send in asked:
        reply = messages.PeersReply([], NOW_MS + offset_of[send.peer])
        out = node.handle(Replied(send.tag, send.peer, reply), 3 * SECOND_NS)
        told += [effect for effect in out if isinstance(effect, Notify) and effect.event == "clock_off"]
    return node, told


@pytest.mark.parametrize("offsets", [[DAY_MS], [0, DAY_MS], [0, 0, DAY_MS], [DAY_MS, -DAY_MS], [60_000, 60_000]])
def test_one_odd_clock_among_others_is_not_ours(offsets: list[int]) -> None:
    node, told = told_times(offsets)
    assert told == []
    assert node.clock_off_ms == 0


@pytest.mark.parametrize("offsets", [[DAY_MS, DAY_MS], [-DAY_MS, -DAY_MS, 0], [DAY_MS] * 5])
def test_a_clock_that_differs_from_most_others_is_told_once(offsets: list[int]) -> None:
    node, told = told_times(offsets)
    assert len(told) == 1
    assert abs(int(str(told[0].fields["seconds"]))) == DAY_MS // 1000
    assert abs(node.clock_off_ms) == DAY_MS
