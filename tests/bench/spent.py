"""Where a node's processor time goes: each piece of work counts for the innermost kind that it belongs to.

``install`` puts clocks around functions of the node, before it is imported. They read the thread's processor time,
so what runs in several threads adds up, and waiting costs nothing.
"""

import functools
import importlib
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

KINDS = ("hash", "sign", "transfer", "store")

# Module, class or "", names: what is timed as a whole. Modules must not be loaded before, if others import the names.
_TIMED: dict[str, tuple[tuple[str, str, tuple[str, ...]], ...]] = {
    "sign": (
        ("sparkle_protocol.identity", "Identity", ("sign",)),
        ("sparkle_protocol.identity", "", ("verify_signature",)),
    ),
    "transfer": (
        ("sparkle_p2p.net.bulk.tls_stream", "TlsStream", ("readinto", "sendall", "_do")),
        ("asyncio.sslproto", "SSLProtocol", ("buffer_updated", "_write_appdata", "_process_outgoing")),
        ("asyncio.selector_events", "_SelectorSocketTransport", ("write", "writelines", "_write_ready")),
    ),
    "hash": (
        ("sparkle_protocol.blobs.tree", "", ("hash_pieces",)),
        ("sparkle_p2p.blobs.writing", "", ("blake3",)),
        ("sparkle_p2p.blobs.draft", "", ("blake3",)),
    ),
    "store": (
        ("sparkle_p2p.blobs.partial", "Partial", ("write", "finish")),
        ("sparkle_p2p.blobs.draft", "Draft", ("__init__", "publish")),
        ("sparkle_p2p.blobs.store", "BlobStore", ("put_array", "begin", "settle", "_sweep")),
        ("sparkle_p2p.node.array_jobs", "", ("write_result",)),
    ),
}


class Clock:
    """Processor seconds by kind."""

    def __init__(self) -> None:
        self._local = threading.local()
        self._lock = threading.Lock()
        self.spent: Counter[str] = Counter()

    def timed(self, kind: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same, with what it takes counted, but for what is of another kind."""

        @functools.wraps(call, updated=())
        def wrapper(*arguments: Any, **named: Any) -> Any:
            inside: list[float] | None = getattr(self._local, "inside", None)
            self._local.inside = inner = [0.0]
            began = time.thread_time()
            try:
                return call(*arguments, **named)
            finally:
                took = time.thread_time() - began
                self._local.inside = inside
                if inside is not None:
                    inside[0] += took
                with self._lock:
                    self.spent[kind] += took - inner[0]

        return wrapper


class _Hasher:
    """A BLAKE3 hasher with a clock."""

    def __init__(self, clock: Clock, plain: Any, *arguments: Any) -> None:
        self._plain = clock.timed("hash", plain)(*arguments)
        self.update = clock.timed("hash", self._plain.update)
        self.digest = clock.timed("hash", self._plain.digest)
        self.reset = self._plain.reset


def install() -> Clock:
    """Put the clocks in."""
    clock = Clock()
    for kind, places in _TIMED.items():
        for module, owner, names in places:
            found = importlib.import_module(module)
            target = getattr(found, owner) if owner else found
            for name in names:
                plain = getattr(target, name)
                hasher = name == "blake3"
                setattr(
                    target, name, functools.partial(_Hasher, clock, plain) if hasher else clock.timed(kind, plain)
                )
    return clock
