"""Things that go wrong in a run, and their ends.

=================  =================================================================================================
kind               what happens to each peer that it hits
=================  =================================================================================================
``kill``           its process is killed, and starts again after ``for_s`` with its disk; 0: it never does
``restore-ledger`` its ledger's file is copied; ``for_s`` later it is killed, and starts again with that copy
``lose-disk``      it is gone for good, with all it had, and nobody is told
``freeze``         its process is suspended: it hears and does nothing, its connections look alive, messages wait
``partition``      those that are hit are cut off from the others, in both directions
``one-way``        what it says reaches nobody, and it still hears the others
``stall``          it reads nothing and still speaks: its windows fill, and it and others give their connections up
``half-open``      it loses its connections; the others believe in them until they use them or notice the silence
``slow-link``      what it sends and hears takes ``factor`` times as long, and its line is as many times slower
``slow``           units that it begins take ``factor`` times as long
``skew``           its wall clock jumps by ``amount_s``, and back
``slow-reader``    its event loop takes ``factor`` times as long for everything
=================  =================================================================================================

Where faults of one kind overlap, factors multiply, and a peer is gone (or suspended) until the last is over. Each
fault draws its own numbers, by its place in the list. ``pinned`` names whom each one hits: then faults can be taken
out of the list, and those that stay hit the same peers.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from math import inf, prod

from msgspec.structs import replace as with_fields

from sparkle_protocol.errors import ConfigError
from sparkle_sim.disk import LedgerFile
from sparkle_sim.draws import draws
from sparkle_sim.kernel import MS, SECOND
from sparkle_sim.peer import Machine, Peer
from sparkle_sim.scenario import Fault, Scenario
from sparkle_sim.world import World

KINDS = (
    "kill", "restore-ledger", "lose-disk", "freeze", "partition", "one-way", "stall", "half-open", "slow-link",
    "slow", "skew", "slow-reader",
)  # fmt: skip
FACTORED = ("slow-link", "slow", "slow-reader")


def begin(world: World, scenario: Scenario) -> None:
    """Have a scenario's faults happen at their times.

    Raises:
        ConfigError: one of them is of no known kind, or hits peers or regions that there are not.
    """
    check(scenario.faults)
    regions = [place.region for place in world.network.places]
    machines = _Machines(world)
    for index, fault in enumerate(scenario.faults):
        hit = _hit(index, fault, scenario, world.seed, regions)
        start, end = _actions(index, fault, [world.peers[number] for number in hit], machines)
        world.kernel.at(int(fault.at_s * SECOND), start)
        if fault.for_s:
            world.kernel.at(int((fault.at_s + fault.for_s) * SECOND), end)


def pinned(world: World, scenario: Scenario) -> Scenario:
    """The same scenario, each of its faults naming the peers that it hits."""
    check(scenario.faults)
    regions = [place.region for place in world.network.places]
    faults = [
        with_fields(fault, peers=_hit(index, fault, scenario, world.seed, regions), share=0.0, regions=[])
        for index, fault in enumerate(scenario.faults)
    ]
    return with_fields(scenario, faults=[fault for fault in faults if fault.peers])


def quiet_from_s(scenario: Scenario) -> float:
    """When the last fault is over and nodes have ceased to come and go; a fault that stays has only its beginning."""
    churn = scenario.peers.churn
    restless_s = 0.0 if churn.kind == "none" else churn.end_s or inf
    return max([restless_s, *(fault.at_s + fault.for_s for fault in scenario.faults)])


def check(faults: Iterable[Fault]) -> None:
    """Return when every fault is of a known kind and hits somebody. Raises ConfigError."""
    for index, fault in enumerate(faults):
        if fault.kind not in KINDS:
            raise ConfigError(f"faults[{index}].kind is '{fault.kind}'; it can be one of {', '.join(KINDS)}")
        if not (fault.peers or fault.share or fault.regions):
            raise ConfigError(f"faults[{index}] hits nobody; name its peers, its regions or a share")


def _hit(index: int, fault: Fault, scenario: Scenario, seed: int, regions: list[int]) -> list[int]:
    """The peers that a fault hits, in order."""
    far = [number for number in fault.peers if not 0 <= number < len(regions)]
    if far:
        raise ConfigError(f"faults[{index}].peers names {far[0]}; the last peer is {len(regions) - 1}")
    names = [region.name for region in scenario.wires.regions]
    unknown = [name for name in fault.regions if name not in names]
    if unknown:
        raise ConfigError(f"faults[{index}].regions names '{unknown[0]}'; there are {', '.join(names)}")
    inside = {names.index(name) for name in fault.regions}
    found = [number for number, region in enumerate(regions) if region in inside or number in fault.peers]
    if not fault.share:
        return found
    submitters = {plan.submitter for plan in scenario.jobs}
    random = draws(seed, "fault", index)
    order = sorted((random.random(), number) for number in range(len(regions)) if number not in submitters)
    drawn = [number for _, number in order[: round(fault.share * len(order))]]
    return sorted({*found, *drawn})


class _Machines:
    """What faults make of the peers' machines: factors of several faults multiply, and go again."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._before: dict[int, Machine] = {}
        self._factors: dict[tuple[str, int], dict[int, float]] = {}  # by kind and peer, then by fault

    def change(self, peer: Peer, kind: str, fault: int, factor: float | None) -> None:
        """A fault slows a peer down by a factor from now on; None: it does not any more."""
        before = self._before.setdefault(peer.number, peer.machine)
        factors = self._factors.setdefault((kind, peer.number), {})
        if factor is None:
            factors.pop(fault, None)
        else:
            factors[fault] = factor
        slower = prod(factors.values())
        if kind == "slow":
            peer.machine = replace(peer.machine, flops_per_s=before.flops_per_s / slower)
            if peer.life is not None:
                peer.life.slots.flops_per_s = peer.machine.flops_per_s
        elif kind == "slow-reader":
            peer.machine = replace(peer.machine, event_ns=int(before.event_ns * slower))
        else:
            self.world.network.slow_down(peer.number, slower if factors else None)


Action = Callable[[], None]


def _actions(index: int, fault: Fault, peers: list[Peer], machines: _Machines) -> tuple[Action, Action]:
    """What happens when a fault begins, and when it ends."""
    name, network = f"fault {index}", machines.world.network
    if fault.kind in ("kill", "lose-disk"):
        return _deaths(fault, name, peers)
    if fault.kind == "restore-ledger":
        return _backups(peers)
    if fault.kind in ("partition", "one-way"):
        return lambda: network.block(name, _blocks(fault, peers)), lambda: network.unblock(name)
    if fault.kind == "freeze":
        return _each(peers, lambda peer: peer.freeze(name)), _each(peers, lambda peer: peer.thaw(name))
    if fault.kind == "stall":
        return (
            _each(peers, lambda peer: network.stall(peer.number, name)),
            _each(peers, lambda peer: network.read_on(peer.number, name)),
        )
    if fault.kind == "half-open":
        return _each(peers, lambda peer: network.forget_links(peer.number)), lambda: None
    if fault.kind == "skew":
        amount_ms = int(fault.amount_s * SECOND) // MS
        return _each(peers, lambda peer: _skew(peer, amount_ms)), _each(peers, lambda peer: _skew(peer, -amount_ms))
    return (
        _each(peers, lambda peer: machines.change(peer, fault.kind, index, fault.factor)),
        _each(peers, lambda peer: machines.change(peer, fault.kind, index, None)),
    )


def _each(peers: list[Peer], act: Callable[[Peer], None]) -> Action:
    def run() -> None:
        for peer in peers:
            act(peer)

    return run


def _deaths(fault: Fault, name: str, peers: list[Peer]) -> tuple[Action, Action]:
    def kill(peer: Peer) -> None:
        if peer.life is None and not peer.away:  # it has not arrived
            return
        if fault.kind == "lose-disk":
            peer.lose_disk()
            return
        peer.lost = peer.lost or not fault.for_s
        peer.leave(name)

    if fault.kind == "lose-disk":
        return _each(peers, kill), lambda: None
    return _each(peers, kill), _each(peers, lambda peer: peer.come_back(name) if name in peer.away else None)


def _backups(peers: list[Peer]) -> tuple[Action, Action]:
    """The files as they are when the fault begins are put back when it ends."""
    copies: dict[int, LedgerFile | None] = {}

    def copy(peer: Peer) -> None:
        copies[peer.number] = peer.disk.ledger.copy() if peer.disk.ledger is not None else None

    def put_back(peer: Peer) -> None:
        if peer.life is not None:
            peer.leave("restored")
            peer.disk.ledger = copies[peer.number]
            if peer.world.credit is not None:
                peer.world.credit.restored[peer.number] = peer.world.kernel.now / SECOND
            peer.come_back("restored")

    return _each(peers, copy), _each(peers, put_back)


def _blocks(fault: Fault, peers: list[Peer]) -> Callable[[int, int], bool]:
    hit = {peer.number for peer in peers}
    if fault.kind == "one-way":
        return lambda sender, receiver: sender in hit
    return lambda sender, receiver: (sender in hit) is not (receiver in hit)


def _skew(peer: Peer, amount_ms: int) -> None:
    peer.machine = replace(peer.machine, skew_ms=peer.machine.skew_ms + amount_ms)
