"""What a running node can tell of what blocks it: the part of ``sparkle doctor`` that needs one."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import psutil

from sparkle_ledger.agent.own import REASONS, State
from sparkle_p2p.net.overlay import OTHER_GENESIS, Link
from sparkle_p2p.net.reach import why_unanswered, widest
from sparkle_p2p.node import narrate
from sparkle_p2p.node.narrate import many
from sparkle_p2p.node.offenders import Offenders
from sparkle_p2p.node.room import check_disk, check_memory
from sparkle_p2p.view import Finding, Reason
from sparkle_protocol.ids import PeerId, short_peer

if TYPE_CHECKING:
    from sparkle_p2p.node.ledger import LedgerPart
    from sparkle_p2p.node.node import Node

FIX_CLONE = (
    "Decide which machine keeps the identity. On the other one stop the node and move identity.key, node.db and "
    "ledger.db out of its home directory. Then restart the node on the first."
)
FIX_PORT = (
    "Start with a fixed port, as --listen /ip4/0.0.0.0/tcp/4001, and have your router forward it to this machine; "
    "or leave it: this node still reaches others, and they answer on the same connection."
)


async def check_node(node: "Node") -> tuple[Finding, ...]:
    """All findings of a running node, in the order in which they matter."""
    links = node.overlay.links() if node.overlay is not None else ()
    network = narrate.network_state(node.overlay, links, node.ready)
    addresses = node.overlay.addresses() if node.overlay is not None else ()
    findings = [
        identity(node),
        storage(node),
        *account(node.ledger),
        *_network(network, len(links), mdns=node.config.mdns),
        *genesis(node.offenders, {link.peer for link in links}, node.config.record.fingerprint),
    ]
    if network in ("alone", "connected"):
        findings.append(reachable(addresses, links))
    findings += await _bootstraps(node.config.bootstrap, links, node.identity.peer_id)
    memory = check_memory(node.config, psutil.virtual_memory().total)
    findings += [check_disk(node.home.path, node.config), memory]
    findings += [clock(node.membership.clock_off_ms, len(links)), *sandbox(node.missing_protections)]
    return tuple(findings)


def identity(node: "Node") -> Finding:
    """Whether somebody else runs with our key."""
    clone, elsewhere = node.presence.cloned, node.presence.elsewhere
    if clone is not None:
        return Finding("identity", "fail", narrate.cloned(clone), FIX_CLONE)
    if elsewhere is not None:
        said = f"Somebody on the local network announces this node's identity at {elsewhere}; that is not proven."
        fix = f"If that is a machine of yours: {FIX_CLONE[0].lower()}{FIX_CLONE[1:]}"
        return Finding("identity", "warn", Reason("own_id_elsewhere", said, {"address": elsewhere}), fix)
    said = f"{short_peer(node.identity.peer_id)} was seen nowhere else."
    return Finding("identity", "ok", Reason("identity_unique", said))


def storage(node: "Node") -> Finding:
    """Whether facts can be kept."""
    if node.store.failure is None:
        return Finding("storage", "ok", Reason("storage_works", "What this node must remember is written."))
    fix = "Free some space or correct the permissions; the node tries again by itself."
    return Finding("storage", "fail", narrate.storage_failed(node.store.failure), fix)


def account(ledger: "LedgerPart | None") -> list[Finding]:
    """Whether this node may sign for its account."""
    if ledger is None or not ledger.loaded:
        return []
    state = ledger.agent.state
    if state is State.READY:
        return [Finding("account", "ok", Reason("account_ready", "This node's account may sign."))]
    if state is State.LEARNING:
        text = (
            "This node still asks others for the state of its account; until then it sets aside and claims nothing."
        )
        return [Finding("account", "ok", Reason("account_learning", text))]
    said, _, fix = REASONS[state].partition("; ")
    reason = Reason(f"account_{state}", f"{said[0].upper()}{said[1:]}.")
    return [Finding("account", "fail", reason, f"{fix[0].upper()}{fix[1:]}.")]


def genesis(offenders: Offenders, linked: set[PeerId], own: str) -> list[Finding]:
    """Whether peers were turned away that have another genesis record, and did not come back with this one."""
    away = [peer for peer in offenders.all() if peer not in linked]
    others = [peer for peer in away if any(why == OTHER_GENESIS for _, why in offenders.of(peer).reasons)]
    if not others:
        return []
    more = f", and so do {many(len(others) - 1, 'other')}" if len(others) > 1 else ""
    said = f"{short_peer(others[-1])} {OTHER_GENESIS}{more}; the one here is {own}."
    fix = "Start all nodes of the network with the same --genesis FILE; 'sparkle status' shows which one each has."
    return [Finding("genesis", "warn", Reason("genesis_differs", said, {"peers": len(others)}), fix)]


def _network(state: str, peers: int, *, mdns: bool) -> list[Finding]:
    if state == "connected":
        return [
            Finding("network", "ok", Reason("connected", f"Connected to {many(peers, 'peer')}.", {"peers": peers}))
        ]
    if state == "starting":
        reason = Reason("network_starting", "The network is still starting.")
        return [Finding("network", "warn", reason, "Ask again in a moment.")]
    if state == "down":
        reason = Reason("network_down", "The network service failed and is being restarted.")
        return [Finding("network", "fail", reason, "If this lasts, look at the node's log and report it.")]
    fix = "Give the address of a node that runs with --bootstrap; 'sparkle status' there shows it."
    if mdns:
        fix += " On one local network nodes find each other, unless its router or a firewall keeps multicast back."
    return [Finding("network", "warn", Reason("no_peers", "No other node is connected."), fix)]


def reachable(addresses: Sequence[str], links: Sequence[Link]) -> Finding:
    """Who could connect to us, guessed from our own addresses and from who did."""
    came_in = [link for link in links if link.direction == "in"]
    from_afar = any(widest(link.addresses) == "anywhere" for link in came_in)
    reach = widest(addresses)
    numbers = {"addresses": len(addresses), "came_in": len(came_in)}
    if reach == "anywhere" or from_afar:
        how = "has a public address" if reach == "anywhere" else "was reached by a peer from outside"
        said = f"This machine {how}; {many(len(came_in), 'peer')} connected by themselves."
        fix = ""
        if not came_in:
            fix = "If others cannot connect, let the port through the firewall of this machine."
        return Finding("reachability", "ok", Reason("reachable", said, numbers), fix)
    if reach == "this machine":
        said = "This node listens on this machine only; nobody else can connect to it."
        fix = "Leave out --listen, or listen on all interfaces: --listen /ip4/0.0.0.0/tcp/4001."
        return Finding("reachability", "warn", Reason("listens_on_loopback", said, numbers), fix)
    if reach == "nowhere":
        said = "This node has no address at which others could connect."
        return Finding(
            "reachability", "warn", Reason("no_address", said, numbers), "Connect this machine to a network."
        )
    outside = any(widest(link.addresses) == "anywhere" for link in links)
    said = "Only machines of the local network can connect to this node: its addresses are private (NAT)."
    return Finding("reachability", "warn" if outside else "ok", Reason("behind_nat", said, numbers), FIX_PORT)


async def _bootstraps(addresses: Sequence[str], links: Sequence[Link], me: PeerId) -> list[Finding]:
    linked = {link.peer for link in links}
    answers = await asyncio.gather(*(_unanswered(address, linked) for address in addresses))
    return [bootstrap(address, linked, me, why) for address, why in zip(addresses, answers, strict=True)]


async def _unanswered(address: str, linked: set[PeerId]) -> str | None:
    return None if _peer(address) in linked else await why_unanswered(address)


def _peer(address: str) -> PeerId:
    return PeerId(address.rpartition("/p2p/")[2])


def bootstrap(address: str, linked: set[PeerId], me: PeerId, unanswered: str | None) -> Finding:
    """What became of a configured bootstrap peer; ``unanswered``: why nothing answers at its address."""
    numbers = {"address": address}
    if _peer(address) in linked:
        return Finding("bootstrap", "ok", Reason("bootstrap_connected", f"{address} is connected.", numbers))
    if _peer(address) == me:
        said = f"The bootstrap address {address} is this node itself."
        return Finding("bootstrap", "warn", Reason("bootstrap_is_self", said, numbers), "Take it out.")
    if unanswered is not None:
        said = f"The bootstrap peer at {address} does not answer: {unanswered}."
        fix = "See that the node there runs and that its port is let through, or give another with --bootstrap."
        return Finding("bootstrap", "warn" if linked else "fail", Reason("bootstrap_silent", said, numbers), fix)
    said = f"Something answers at {address}, but it is not connected as that peer."
    fix = "Compare the id with what 'sparkle status' shows there; and the network's name, key and genesis on both."
    return Finding("bootstrap", "warn" if linked else "fail", Reason("bootstrap_is_another", said, numbers), fix)


def clock(off_ms: int, peers: int) -> Finding:
    """How the clock compares with those of peers."""
    if off_ms:
        said = f"This machine's clock is {abs(off_ms) // 1000} s {'behind' if off_ms > 0 else 'ahead'} of its peers'."
        fix = "Set the clock, best by NTP: 'timedatectl set-ntp true'. Work goes on meanwhile; shown times are wrong."
        return Finding("clock", "warn", Reason("clock_off", said, {"seconds": off_ms // 1000}), fix)
    if peers < 2:
        reason = Reason("clock_unknown", "Too few peers are connected to compare the clock with theirs.")
        return Finding("clock", "ok", reason)
    return Finding("clock", "ok", Reason("clock_agrees", f"The clock agrees with those of {many(peers, 'peer')}."))


def sandbox(missing: Sequence[str]) -> list[Finding]:
    """What cannot be enforced upon computing processes here."""
    if not missing:
        said = "Computing processes run with all limits that this version knows."
        return [Finding("sandbox", "ok", Reason("protections_work", said))]
    fix = "Run only jobs of people you know here, or run the node on a newer Linux."
    return [
        Finding("sandbox", "warn", Reason("protection_missing", f"{text[0].upper()}{text[1:]}."), fix)
        for text in missing
    ]
