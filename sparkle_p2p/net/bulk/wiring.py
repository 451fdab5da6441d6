"""Connects the data plane with the overlay: who asks, and where peers are reached."""

import re
from collections.abc import Callable

from sparkle_p2p.net.bulk.peer_source import Hosts
from sparkle_p2p.net.bulk.source import Asker
from sparkle_p2p.net.overlay import Overlay
from sparkle_protocol import messages
from sparkle_protocol.blobs.limits import REPLY_S
from sparkle_protocol.errors import OverlayDown, RemoteProtocolError
from sparkle_protocol.ids import PeerId

CONNECT_S = 10.0

_HOST = re.compile(r"/(?:ip4|ip6|dns|dns4|dns6)/([^/]+)/tcp/\d+(?:/p2p/[^/]+)?")
_MAX_HOSTS = 4

Current = Callable[[], Overlay | None]
"""The overlay, once it is up."""


def ask_through(current: Current, on_violation: Callable[[PeerId, str], None]) -> Asker:
    """Sends requests over the overlay and connects to the peer first if need be."""

    async def ask(peer: PeerId, request: messages.BlobRequest) -> messages.Reply:
        overlay = current()
        if overlay is None:
            raise OverlayDown("the network service is not running")
        if not any(link.peer == peer for link in overlay.links()):
            await overlay.connect_peer(peer, timeout_s=CONNECT_S)
        answer = await overlay.request(peer, messages.encode_message(request), timeout_s=REPLY_S)
        try:
            return messages.decode_reply(answer)
        except RemoteProtocolError as error:
            on_violation(peer, str(error))
            raise

    return ask


def hosts_through(current: Current) -> Hosts:
    """Where live links lead that do not pass a relay: the same hosts serve blobs on another port."""

    def hosts(peer: PeerId) -> tuple[str, ...]:
        overlay = current()
        links = [link for link in overlay.links() if link.peer == peer] if overlay is not None else []
        found = (match[1] for link in links for address in link.addresses if (match := _HOST.fullmatch(address)))
        return tuple(dict.fromkeys(found))[:_MAX_HOSTS]

    return hosts
