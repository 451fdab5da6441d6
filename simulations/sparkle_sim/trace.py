"""What happened in a run: a hash of all of it, and as much of it as somebody wants to look at."""

from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct

from blake3 import blake3

_HEAD = Struct("<QIH")
_FLUSH_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened."""

    at_ns: int
    peer: int
    what: str
    detail: str


class Trace:
    """Takes entries in their order. ``keep`` is shown each of them."""

    def __init__(self, keep: Callable[[Entry], None] | None = None) -> None:
        self.count = 0
        self._keep = keep
        self._hasher = blake3()
        self._waiting = bytearray()

    def note(self, at_ns: int, peer: int, what: str, detail: str = "") -> None:
        """Something happened at a peer; ``detail`` must not depend on anything but the run."""
        self.count += 1
        text = f"{what}\0{detail}".encode()
        self._waiting += _HEAD.pack(at_ns, peer, len(text) & 0xFFFF)
        self._waiting += text
        if len(self._waiting) >= _FLUSH_BYTES:
            self._flush()
        if self._keep is not None:
            self._keep(Entry(at_ns, peer, what, detail))

    def _flush(self) -> None:
        self._hasher.update(self._waiting)
        self._waiting = bytearray()

    @property
    def hash(self) -> str:
        """Of everything so far: two runs with one hash did the same."""
        self._flush()
        return self._hasher.hexdigest()
