"""The production overlay: py-libp2p in a trio thread of its own.

Importing this package loads neither libp2p nor trio; only ``Libp2pOverlay.start`` does, in the thread, so
that the asyncio loop (and a terminal interface on it) stays live meanwhile.

======================  =========================================================================
``overlay``             what the node sees: callbacks, supervision, restart; asyncio side
``wakeful``             a clock that stands still while the process sleeps
``bridge``              the thread: calls in, answers out, everything pending fails when it dies
``service``             the parts below put together; trio side
``host``                listening, Noise only, dialling, tearing connections down
``sessions``, ``rpc``   who is connected and greeted; request streams
``frames``              the bytes on a request stream (a specification, no I/O)
``gossip``, ``routing`` gossipsub and Kademlia behind our limits and time-outs
``mdns``                finding peers on the local network; asyncio side
======================  =========================================================================
"""

from sparkle_p2p.net.libp2p.overlay import Libp2pOverlay

__all__ = ["Libp2pOverlay"]
