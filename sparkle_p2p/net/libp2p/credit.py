"""Lets a peer send in portions.

A yamux stream has a window: how many bytes may come before its reader has taken them. py-libp2p widens it again after
every single read, with a frame that both ends encrypt, send and read as they do a message: a small request and its
reply cost four more of them. Nothing is lost by waiting until a quarter of the first window was taken: the sender
never comes to its end meanwhile.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from libp2p.abc import INetStream

PORTION_BYTES = 64 << 10  # of the 256 KiB that every stream begins with

_WIDEN = "_auto_tune_and_send_window_update"


def credit_in_portions(stream: INetStream) -> None:
    """Have the stream's window widened by ``PORTION_BYTES`` or more at a time, if it is a yamux stream."""
    muxed: Any = getattr(stream, "muxed_stream", None)
    widen: Callable[..., Awaitable[None]] | None = getattr(muxed, _WIDEN, None)
    if widen is None:
        return
    taken = 0

    async def widen_at_times(*, bytes_read: int = 0) -> None:
        nonlocal taken
        taken += bytes_read
        if taken >= PORTION_BYTES:
            portion, taken = taken, 0
            await widen(bytes_read=portion)

    vars(muxed)[_WIDEN] = widen_at_times
