"""Some hosts in one process, for ``record_hosts``: ``recorded_hosts COUNT NET PARENT``.

Each is a whole network service of production (a libp2p host, gossip and routing in a thread of its own) without the
node above it. Says who they are, then does what lines on stdin say, several things at a time, and answers each with a
line of the same number. Ends with stdin; the kernel kills it when its parent dies, even while it is stopped.

What the services do not tell is noted on its way through them: each copy of a gossip message, each question of a
lookup, and the processor time of each host's thread.
"""

import asyncio
import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import libp2p.pubsub.pubsub as pubsub

from sparkle_p2p.net.libp2p import Libp2pOverlay
from sparkle_p2p.net.libp2p import routing as routing_module
from sparkle_p2p.net.overlay import OverlayEvents
from sparkle_protocol.errors import SparkleError
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import PeerId
from tests.bench.processes import LOOPBACK

TOPIC = "recording"
_PR_SET_PDEATHSIG = 1  # prctl(2)

copies: dict[str, list[tuple[str, str, int]]] = {}  # by host: payload, who forwarded it, when
questions: dict[str, list[tuple[str, bool, bool, float]]] = {}  # by host: of whom, connected, answered, milliseconds


def note_gossip() -> None:
    """Have each copy of a message written down before the service looks at it."""
    push = pubsub.Pubsub.push_msg

    async def noted(self: Any, forwarder: Any, message: Any) -> None:
        seen = (message.data.decode().strip(), str(forwarder), time.monotonic_ns())
        copies.setdefault(str(self.my_id), []).append(seen)
        await push(self, forwarder, message)

    pubsub.Pubsub.push_msg = noted  # type: ignore[method-assign]


def note_questions() -> None:
    """Have each question of a lookup written down, with what became of it."""
    timed = routing_module.Routing._timed

    def noted(self: Any, query: Callable[..., Awaitable[Any]], nothing: Any) -> Callable[..., Awaitable[Any]]:
        ask = timed(self, query, nothing)

        async def asked(peer: Any, *arguments: object) -> Any:
            name = PeerId(str(peer))
            if self._is_banished(name):
                return nothing
            connected, began = self._host.is_connected(name), time.perf_counter()
            outcome = await ask(peer, *arguments)
            took_ms = (time.perf_counter() - began) * 1e3
            answered = not self._is_banished(name)
            questions.setdefault(self._host.peer, []).append((name, connected, answered, took_ms))
            return outcome

        return asked

    routing_module.Routing._timed = noted  # type: ignore[method-assign]


async def echo(_peer: PeerId, payload: bytes) -> bytes:
    """The request handler."""
    return payload


class Hosts:
    """What can be asked for; ``host`` is a number in this process."""

    def __init__(self, overlays: list[Libp2pOverlay]) -> None:
        self._overlays = overlays

    async def do(self, what: str, host: int, **more: Any) -> dict[str, Any]:
        """One thing; how long it took, and the processor time of the host's thread meanwhile."""
        overlay = self._overlays[host]
        began, cpu = time.perf_counter(), _cpu_ns(overlay)
        outcome: dict[str, Any] = {"ok": True}
        try:
            outcome["found"] = await getattr(self, f"_{what}")(overlay, **more)
        except SparkleError as error:
            outcome = {"ok": False, "why": str(error)}
        outcome["ms"] = (time.perf_counter() - began) * 1e3
        outcome["cpu_ms"] = (_cpu_ns(overlay) - cpu) / 1e6
        outcome["questions"] = questions.pop(overlay.peer_id, [])
        return outcome

    def state(self) -> dict[str, Any]:
        """Of each host: processor time so far, connections, mesh, peers in its table, copies of messages."""
        found = []
        for overlay in self._overlays:
            service: Any = overlay._service
            found.append(
                {
                    "cpu_ms": _cpu_ns(overlay) / 1e6,
                    "links": [link.peer for link in overlay.links()],
                    "mesh": len(service._gossip._router.mesh.get(TOPIC, ())),
                    "table": service._routing._dht.routing_table.size(),
                    "copies": copies.pop(overlay.peer_id, []),
                }
            )
        return {"hosts": found}

    async def _connect(self, overlay: Libp2pOverlay, address: str) -> None:
        await overlay.connect(address)

    async def _request(self, overlay: Libp2pOverlay, peer: str, payload: str) -> None:
        await overlay.request(PeerId(peer), payload.encode())

    async def _publish(self, overlay: Libp2pOverlay, payload: str) -> None:
        await overlay.publish(TOPIC, payload.encode())

    async def _closest(self, overlay: Libp2pOverlay, key: str, k: int) -> list[str]:
        return list(await overlay.closest(key.encode(), k))

    async def _provide(self, overlay: Libp2pOverlay, key: str) -> None:
        await overlay.provide(key.encode())

    async def _providers(self, overlay: Libp2pOverlay, key: str) -> list[str]:
        return list(await overlay.providers(key.encode()))


def _cpu_ns(overlay: Libp2pOverlay) -> int:
    """Processor time of a host's thread so far."""
    thread: Any = overlay._thread
    ident = thread._thread.ident if thread is not None else None
    return time.clock_gettime_ns(time.pthread_getcpuclockid(ident)) if ident else 0


def _say(document: dict[str, Any]) -> None:
    print(json.dumps(document), flush=True)


async def main(count: int, net: str) -> None:
    """Start the hosts and do what is asked."""
    note_gossip()
    note_questions()
    overlays = []
    for _ in range(count):
        overlay = Libp2pOverlay(Identity.generate(), net=net, listen=(LOOPBACK,), agent="recording", mdns=False)
        await overlay.start(echo, OverlayEvents())
        await overlay.subscribe(TOPIC)
        overlays.append(overlay)
    hosts = Hosts(overlays)
    _say({"ready": [[overlay.peer_id, overlay.addresses()[0]] for overlay in overlays]})
    reader = asyncio.StreamReader(limit=1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    async def answer(number: int, what: str, more: dict[str, Any]) -> None:
        outcome = hosts.state() if what == "state" else await hosts.do(what, **more)
        _say({"number": number, **outcome})

    async with asyncio.TaskGroup() as group:
        while line := await reader.readline():
            asked = json.loads(line)
            group.create_task(answer(asked.pop("number"), asked.pop("what"), asked))
    async with asyncio.TaskGroup() as group:
        for overlay in overlays:
            group.create_task(overlay.stop())


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == int(sys.argv[3]):
        with suppress(KeyboardInterrupt):
            asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
