"""Two runs of one key find out about each other; nobody else can make a node believe that it is cloned."""

from dataclasses import dataclass, field
from random import Random

import pytest

from sparkle_protocol import effects as fx
from sparkle_protocol import messages
from sparkle_protocol.errors import RemoteProtocolError
from sparkle_protocol.identity import Identity
from sparkle_protocol.presence import (
    EVERY_NS,
    FIRST_NS,
    KEEP_NS,
    SECOND_NS,
    SOON_TIMES,
    Clone,
    Presence,
    open_statement,
    proves,
    seal_statement,
)

NET = "test"
ME = Identity.from_private_bytes(b"m" * 32)
OTHER = Identity.from_private_bytes(b"o" * 32)
PEERS = [Identity.from_private_bytes(bytes([number]) * 32) for number in range(1, 13)]


def instance(number: int) -> bytes:
    return bytes([number]) * messages.INSTANCE_BYTES


@dataclass
class Run:
    """A process: its core, and what it told its user."""

    core: Presence
    events: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    asked: int = 0


class World:
    """Peers that answer, and runs that talk to them; no time passes but by ``pass_time``."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.peers = {peer.peer_id: Run(Presence(peer, NET, instance(100 + n), int)) for n, peer in enumerate(PEERS)}
        self.runs: list[Run] = []

    def start(self, number: int, peers: list[Identity], signer: Identity = ME) -> Run:
        run = Run(Presence(signer, NET, instance(number), int))
        self.runs.append(run)
        for peer in peers:
            known = self.peers[peer.peer_id]
            self.perform(known, known.core.handle(fx.PeerUp(signer.peer_id, ()), self.now_ns))
            self.perform(run, run.core.handle(fx.PeerUp(peer.peer_id, ()), self.now_ns))
        return run

    def stop(self, run: Run) -> None:
        self.runs.remove(run)

    def pass_time(self, seconds: float) -> None:
        until = self.now_ns + int(seconds * SECOND_NS)
        while True:
            dues = [(due, n) for n, run in enumerate(self.runs) if (due := run.core.next_deadline()) is not None]
            due, number = min(dues, default=(until, 0))
            if due > until or not dues:
                break
            self.now_ns = max(self.now_ns, due)
            run = self.runs[number]
            self.perform(run, run.core.handle(fx.Tick(), self.now_ns))
        self.now_ns = until

    def perform(self, run: Run, effects: fx.Effects, token: int = 0) -> list[messages.Reply]:
        replies: list[messages.Reply] = []
        for effect in effects:
            if isinstance(effect, fx.Send):
                run.asked += 1
                self.nudge(run, effect) if effect.peer == ME.peer_id else self.ask(run, effect)
            elif isinstance(effect, fx.Reply):
                replies.append(effect.message)
            elif isinstance(effect, fx.Notify):
                run.events.append(effect.event)
            elif isinstance(effect, fx.Violation):
                run.violations.append(effect.peer)
        return replies

    def nudge(self, peer: Run, effect: fx.Send) -> None:
        """Reaches whichever run has the oldest connection."""
        oldest = self.runs[0]
        told = fx.Requested(1, peer.core._signer.peer_id, effect.message)
        self.perform(oldest, oldest.core.handle(told, self.now_ns))

    def ask(self, run: Run, effect: fx.Send) -> None:
        peer = self.peers[effect.peer]
        asker = run.core._signer.peer_id
        (reply,) = self.perform(peer, peer.core.handle(fx.Requested(1, asker, effect.message), self.now_ns))
        self.perform(run, run.core.handle(fx.Replied(effect.tag, effect.peer, reply), self.now_ns))


def test_two_runs_of_one_key_are_both_told_and_their_peers_have_the_proof() -> None:
    world = World()
    first = world.start(1, PEERS[:3])
    world.pass_time(3600)
    assert first.core.cloned is None
    second = world.start(2, PEERS[:3])
    world.pass_time(6)  # a minute later both might have signed for their account
    assert first.events == second.events == ["cloned"]
    for peer in PEERS[:3]:
        witness = world.peers[peer.peer_id]
        assert witness.events == ["peer_cloned"]
        assert proves(witness.core.clones[ME.peer_id], NET)
        assert witness.core.cloned is None
    world.pass_time(3600)
    assert first.events == second.events == ["cloned"]  # told once


def test_copies_with_one_peer_in_common_among_many_meet_there_or_where_their_key_leads() -> None:
    """Each chooses by the same ranking, so that what they share ranks the same for both."""
    world = World()
    first, second = world.start(1, PEERS[:8]), world.start(2, PEERS[:8])
    world.pass_time(30)
    assert first.core.cloned is not None
    assert second.core.cloned is not None
    apart = World()
    first, second = apart.start(1, PEERS[:4]), apart.start(2, PEERS[4:8])
    apart.pass_time(60)
    assert first.core.cloned is None
    for run in (first, second):
        apart.perform(run, run.core.handle(fx.FoundPeers(1, (PEERS[11].peer_id,)), apart.now_ns))
    apart.pass_time(60)
    assert first.core.cloned is not None
    assert second.core.cloned is not None


def test_restarts_are_no_clones_however_often_and_whoever_remembers_them() -> None:
    world, rng = World(), Random(5)
    for number in range(1, 30):
        run = world.start(number, PEERS[:3])
        world.pass_time(rng.choice([0.5, 3, 25, 90]))
        assert run.events == []
        world.stop(run)
    assert all(peer.events == [] for peer in world.peers.values())


def test_a_peer_forgets_that_another_was_cloned_once_one_of_the_two_is_silent() -> None:
    world = World()
    first, second = world.start(1, PEERS[:1]), world.start(2, PEERS[:1])
    world.pass_time(30)
    witness = world.peers[PEERS[0].peer_id].core
    assert ME.peer_id in witness.clones
    world.stop(first)
    world.stop(second)
    third = world.start(3, PEERS[:1])
    world.pass_time(KEEP_NS / SECOND_NS + 60)
    assert third.core.cloned is None
    assert ME.peer_id not in witness.clones


def reply_to(run: Run, world: World, *others: bytes, statement: bytes = b"", seconds: float = 30) -> None:
    """Have the run's only peer answer all it is asked for a time with this."""
    world.ask = lambda run, effect: world.perform(  # type: ignore[method-assign]
        run, run.core.handle(fx.Replied(effect.tag, effect.peer, messages.HereReply(list(others), statement)), 0)
    )
    world.pass_time(seconds)


def test_strangers_cannot_make_a_node_believe_that_it_is_cloned() -> None:
    old = seal_statement(ME, NET, instance(8), instance(7), 5)  # of runs before this one
    own = seal_statement(ME, NET, instance(1), instance(9), 5)  # what it said itself
    by_another = seal_statement(OTHER, NET, instance(9), instance(1), 5)
    elsewhere = seal_statement(ME, "another network", instance(9), instance(1), 5)
    altered = bytearray(seal_statement(ME, NET, instance(9), instance(7), 5))
    altered[-1] ^= 1
    for statement, wrong in [
        (b"", False), (old, False), (own, False), (by_another, True), (elsewhere, True),
        (bytes(altered), True), (b"nonsense", True), (old + b"\0", True),
    ]:  # fmt: skip
        world = World()
        run = world.start(1, PEERS[:1])
        reply_to(run, world, instance(9), statement=statement)
        assert run.core.cloned is None
        assert bool(run.violations) is wrong, statement
    world = World()
    run = world.start(1, PEERS[:1])
    reply_to(run, world, instance(9), statement=seal_statement(ME, NET, instance(9), instance(1), 5))
    assert run.events == ["cloned"]  # nobody but a holder of the key can have made this one


def test_a_peer_that_makes_instances_up_is_asked_no_more_than_a_bounded_number_of_times() -> None:
    world = World()
    run = world.start(1, PEERS[:1])
    made_up = iter(range(10**6))

    def ask(run: Run, effect: fx.Send) -> None:
        reply = messages.HereReply([next(made_up).to_bytes(messages.INSTANCE_BYTES, "big")])
        world.perform(run, run.core.handle(fx.Replied(effect.tag, effect.peer, reply), world.now_ns))

    world.ask = ask  # type: ignore[method-assign]
    world.pass_time(3600)
    assert run.asked <= 3600 * SECOND_NS // EVERY_NS + SOON_TIMES + 2
    assert run.core.cloned is None


def test_statements_of_others_and_other_instances_are_violations_and_change_nothing() -> None:
    witness = World().peers[PEERS[0].peer_id].core
    wrong = [
        messages.Here(instance(1), seal_statement(OTHER, NET, instance(1), instance(2), 5)),
        messages.Here(instance(1), seal_statement(ME, NET, instance(3), instance(2), 5)),
        messages.Here(instance(1), seal_statement(ME, NET, instance(1), instance(1), 5)),
        messages.Here(instance(1), b"x"),
    ]
    for here in wrong:
        reply, violation = witness.handle(fx.Requested(1, ME.peer_id, here), 0)
        assert isinstance(reply, fx.Reply)
        assert isinstance(reply.message, messages.Refusal)
        assert violation == fx.Violation(ME.peer_id, reply.message.text)
    (reply,) = witness.handle(fx.Requested(1, ME.peer_id, messages.Here(instance(2))), 0)
    assert isinstance(reply, fx.Reply)
    assert reply.message == messages.HereReply([])


def test_a_peer_that_shows_ever_new_instances_takes_bounded_memory() -> None:
    witness = World().peers[PEERS[0].peer_id].core
    for number in range(1000):
        here = messages.Here(number.to_bytes(messages.INSTANCE_BYTES, "big"))
        (reply,) = witness.handle(fx.Requested(1, ME.peer_id, here), number)
        assert isinstance(reply, fx.Reply)
        assert isinstance(reply.message, messages.HereReply)
        assert len(reply.message.others) <= 3


def test_a_pair_of_statements_proves_only_what_it_says() -> None:
    first, second = (
        seal_statement(ME, NET, instance(1), instance(2), 5),
        seal_statement(ME, NET, instance(2), instance(1), 9),
    )
    assert proves(Clone(ME.peer_id, (first, second)), NET)
    assert not proves(Clone(OTHER.peer_id, (first, second)), NET)
    assert not proves(Clone(ME.peer_id, (first, second)), "another network")
    assert not proves(Clone(ME.peer_id, (first, first)), NET)
    assert not proves(Clone(ME.peer_id, (first,)), NET)
    third = seal_statement(ME, NET, instance(3), instance(1), 9)
    assert not proves(Clone(ME.peer_id, (first, third)), NET)


def test_a_statement_says_who_and_when() -> None:
    statement = open_statement(seal_statement(ME, NET, instance(1), instance(2), 5), ME.peer_id, NET)
    assert (statement.instance, statement.heard, statement.time_ms) == (instance(1), instance(2), 5)
    with pytest.raises(RemoteProtocolError, match="another peer"):
        open_statement(seal_statement(ME, NET, instance(1), instance(2), 5), OTHER.peer_id, NET)


def test_our_id_at_another_address_of_the_local_network_is_told_once_and_proves_nothing() -> None:
    run = Presence(ME, NET, instance(1), int)
    here, there = f"/ip4/192.0.2.1/tcp/1/p2p/{ME.peer_id}", f"/ip4/192.0.2.2/tcp/1/p2p/{ME.peer_id}"
    run.own_addresses = lambda: (here,)
    assert run.handle(fx.Discovered(here, "mdns"), 0) == ()
    assert run.handle(fx.Discovered(there, "peer"), 0) == ()
    assert run.handle(fx.Discovered(f"/ip4/192.0.2.2/tcp/1/p2p/{OTHER.peer_id}", "mdns"), 0) == ()
    assert run.handle(fx.Discovered(there, "mdns"), 0) == (fx.Notify("own_id_elsewhere", {"address": there}),)
    assert run.handle(fx.Discovered(there, "mdns"), 0) == ()
    assert run.cloned is None
    assert run.elsewhere == there


def test_peers_are_told_soon_after_they_came_up() -> None:
    world = World()
    run = world.start(1, PEERS[:2])
    world.pass_time(FIRST_NS / SECOND_NS)
    assert run.asked == 2
