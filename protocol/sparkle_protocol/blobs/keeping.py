"""Which blobs must stay: each as long as somebody keeps it under a name of his own."""

from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager

from sparkle_protocol.blobs.tree import BlobId


class Keeping:
    """Names and the blobs that are kept under them.

    Args:
        pin: has a blob stay that is or will be here; called once more for each further name.
        unpin: takes one such call back.
    """

    def __init__(self, pin: Callable[[BlobId], None], unpin: Callable[[BlobId], None]) -> None:
        self._pin = pin
        self._unpin = unpin
        self._kept: dict[Hashable, dict[BlobId, None]] = {}

    def keep(self, name: Hashable, blobs: Iterable[BlobId]) -> None:
        """These blobs stay until ``let_go(name)``; they need not be here yet."""
        kept = self._kept.setdefault(name, {})
        for blob in blobs:
            if blob not in kept:
                kept[blob] = None
                self._pin(blob)

    def let_go(self, name: Hashable) -> None:
        """What is kept under this name is not needed for its sake any more."""
        for blob in self._kept.pop(name, ()):
            self._unpin(blob)

    @contextmanager
    def keeping(self, name: Hashable, blobs: Iterable[BlobId]) -> Iterator[None]:
        """Keep blobs while this lasts; the name must be free."""
        self.keep(name, blobs)
        try:
            yield
        finally:
            self.let_go(name)
