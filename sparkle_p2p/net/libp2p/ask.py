"""A request on its way through the thread, so that either side can give it up."""

from collections.abc import Callable
from typing import Any, Protocol


class _Stream(Protocol):
    def forget(self, frame_id: int) -> None: ...


class Ask:
    """Made on the asyncio side, used on the trio side only."""

    def __init__(self, resolve: Callable[[Any], None]) -> None:
        self.resolve = resolve  # takes the reply's bytes or an exception instance; callable from any thread
        self.cancelled = False
        self._stream: _Stream | None = None
        self._frame_id = 0

    def sent(self, stream: _Stream, frame_id: int) -> None:
        """The request went out on this stream under this id."""
        self._stream = stream
        self._frame_id = frame_id

    def cancel(self) -> None:
        """Nobody waits for the reply any more."""
        self.cancelled = True
        if self._stream is not None:
            self._stream.forget(self._frame_id)
