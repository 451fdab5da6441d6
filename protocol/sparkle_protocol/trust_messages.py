"""A question about workers, to a peer that the owner of the asking node named.

=============  ===========  ==============================================
request        reply        about
=============  ===========  ==============================================
KnownRequest   KnownReply   workers that the other has known for long
=============  ===========  ==============================================
"""

from typing import Annotated

from msgspec import Meta

from sparkle_protocol.codec import Wire
from sparkle_protocol.facts import Key32, Name

MAX_KNOWN = 128  # in one answer


class Known(Wire, frozen=True):
    """A worker whose answers count with the sender, for what it saw itself in jobs of its own."""

    worker: Key32
    verification: Name  # class of kernels


class KnownRequest(Wire, tag=48, frozen=True):
    """Whom do you know?"""


class KnownReply(Wire, tag=49, frozen=True):
    """Those with the most capital; it replaces what was said before."""

    workers: Annotated[list[Known], Meta(max_length=MAX_KNOWN)]
