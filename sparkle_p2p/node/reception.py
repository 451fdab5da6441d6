"""What other peers ask of a node: which part answers, and what is refused before any part hears of it."""

from typing import TYPE_CHECKING

from sparkle_p2p.node.shell import Core
from sparkle_p2p.runtime.clock import boot_ns
from sparkle_protocol import messages
from sparkle_protocol.ids import JobId, PeerId
from sparkle_protocol.ledger_messages import LedgerRequest

if TYPE_CHECKING:
    from sparkle_p2p.node.node import Node


class Reception:
    """Answers requests; all of it reads the node and changes nothing."""

    def __init__(self, node: "Node") -> None:
        self._node = node

    async def serve(self, peer: PeerId, payload: bytes) -> bytes:
        """The answer to a request as it came."""
        if self.bans(peer):  # until its connection is closed
            return messages.encode_message(messages.Refusal("banned", "too many rule violations"))
        message = messages.decode_request(payload)
        if isinstance(message, messages.BlobRequest):
            reply = await self._serve_blob(peer, message)
        else:
            reply = await self._node.shell.serve_message(peer, message)
        return messages.encode_message(reply)

    async def _serve_blob(self, peer: PeerId, request: messages.BlobRequest) -> messages.Reply:
        arrays = self._node.arrays
        if arrays is None:
            return messages.Refusal("unknown_blob", "this node only helps others to meet and has no blobs")
        return await arrays.plane.serve(peer, request)

    def bans(self, peer: PeerId) -> bool:
        """The peer broke so many rules that it is not listened to now."""
        return self._node.membership.banned(peer, boot_ns())

    def route(self, message: messages.Request) -> Core:
        """The core that answers."""
        node = self._node
        if node.ledger is not None and isinstance(message, LedgerRequest):
            return node.ledger.agent
        if isinstance(message, messages.Offer | messages.Notice):
            return node.worker
        if isinstance(message, messages.Here):
            return node.presence
        return node.membership if isinstance(message, messages.PeersRequest) else node.submitter

    def refuses(self, message: messages.Request) -> messages.Refusal | None:
        """With ``--bootstrap-only`` a node has no ledger, and keeps no jobs but those that it already has."""
        node = self._node
        if isinstance(message, LedgerRequest) and node.ledger is not None and not node.ledger.loaded:
            return messages.Refusal("busy", "this node still reads its ledger")
        if isinstance(message, LedgerRequest) and node.ledger is None:
            return messages.Refusal("unserved", "this node has no part in the ledger")
        if not isinstance(message, messages.Push) or node.submitter.job(JobId(message.job)) is not None:
            return None
        if node.presence.cloned is not None:
            return messages.Refusal("quota", "the identity of this node is used by another one too")
        if not node.config.bootstrap_only:
            return None
        return messages.Refusal("quota", "this node only helps others to meet and keeps no jobs")
