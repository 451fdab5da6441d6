"""What happens in a node beside messages: effects that are not communication, and peers that come, go or break rules.

Everything here is told to whoever has to know: the parts that compute, the diary that clients read, the journals.
"""

import logging
from typing import TYPE_CHECKING

from sparkle_ledger.agent.events import Cloned
from sparkle_p2p.net.overlay import OTHER_GENESIS, Link
from sparkle_p2p.node import narrate
from sparkle_p2p.runtime.clock import boot_ns, wall_ms
from sparkle_protocol import effects as fx
from sparkle_protocol.ids import JobId, PeerId, short_peer

if TYPE_CHECKING:
    from sparkle_p2p.node.node import Node

log = logging.getLogger("sparkle.node")

GOT_ON = ("job_published", "job_done", "job_failed", "job_cancelled")


class Happenings:
    """``perform`` is what the shell calls; the rest hears of the network."""

    def __init__(self, node: "Node") -> None:
        self._node = node

    # --- effects ------------------------------------------------------------------------------------------

    def perform(self, effect: fx.Effect) -> None:
        """Do what is not communication."""
        node = self._node
        if node.arrays is not None:
            node.arrays.perform(effect)
        if node.ledger is not None:
            node.ledger.perform(effect)
        if isinstance(effect, fx.Compute) and node.computing is not None:
            node.computing.start(effect)
        elif isinstance(effect, fx.StopCompute) and node.computing is not None:
            node.computing.drop(effect)
        elif isinstance(effect, fx.JobUnfunded):
            node.shell.tell(node.worker, effect)
        elif isinstance(effect, fx.Violation):
            self.violated(effect.peer, effect.reason)
        elif isinstance(effect, fx.Notify):
            self._notified(effect)

    def _notified(self, effect: fx.Notify) -> None:
        node = self._node
        narrate.tell(node.diary, effect)
        try:
            node.journals.hear(effect.event, effect.fields, boot_ns(), wall_ms())
        except Exception:  # a story with a gap must not stop what it tells of
            log.exception("the journal could not take in %s", effect.event)
        if effect.event == "cloned":
            self._stop_signing()
        if effect.event == "worker_rejected":
            node.spawn(node.housekeeping.save_standings(), "save standings")
        if effect.event in GOT_ON:
            node.job_got_on(JobId(bytes.fromhex(str(effect.fields["job"]))), effect.event)

    def _stop_signing(self) -> None:
        """Somebody else runs with our key: what both sign looks like the work of a liar, so take on nothing more."""
        node = self._node
        node.shell.perform(node.worker, node.worker.stop(boot_ns()))
        if node.ledger is not None:
            node.ledger.tell(Cloned())

    # --- the network --------------------------------------------------------------------------------------

    def tell_all(self, event: object) -> None:
        """Let all cores know."""
        node = self._node
        for core in (node.membership, node.presence, node.submitter, node.worker):
            node.shell.tell(core, event)
        if node.ledger is not None:
            node.ledger.tell(event)

    def peer_up(self, link: Link) -> None:
        """A peer is connected."""
        node = self._node
        node.diary.note("info", f"Connected to {short_peer(link.peer)}")
        node.diary.publish("peer_up", {"peer": link.peer, "direction": link.direction})
        node.journals.peer_back(link.peer, wall_ms())
        self.tell_all(fx.PeerUp(link.peer, link.addresses))

    def peer_down(self, peer: PeerId, reason: str) -> None:
        """A peer's connection is gone."""
        node = self._node
        node.diary.note("info", f"Lost {short_peer(peer)}: {reason}")
        node.diary.publish("peer_down", {"peer": peer, "reason": reason})
        if not node.stopping:
            node.journals.peer_lost(peer, node.submitter.jobs, wall_ms())
        self.tell_all(fx.PeerDown(peer))

    def violated(self, peer: PeerId | None, reason: str) -> None:
        """A peer broke a rule, or belongs elsewhere."""
        node = self._node
        who = short_peer(peer) if peer is not None else "an unknown peer"
        slip = reason == OTHER_GENESIS  # as a rule somebody forgot a file, and will be welcome with it
        node.diary.note("warning", f"{who} {reason}" if slip else f"Rule broken by {who}: {reason}")
        node.diary.publish("violation", {"peer": peer, "reason": reason})
        if peer is not None and peer != node.identity.peer_id:
            node.offenders.note(peer, reason, wall_ms() / 1000)
            if not slip:
                node.shell.perform(node.membership, node.membership.violation(peer, boot_ns()))
