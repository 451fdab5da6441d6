"""Requests over hivemind's P2P (a go-libp2p daemon on either side), in an environment of its own.

    hivemind_requests.py serve         says {"peer", "addresses"} and answers until stdin ends
    hivemind_requests.py ask           for each {"peer", "addresses", "count", "size"} on stdin the seconds of each

Only ``hivemind.p2p`` is loaded: the packages above it want torch, which no request needs, and which takes gigabytes.
"""

import asyncio
import importlib.util
import json
import sys
import time
import types

HANDLER = "bench.echo"


def without_torch() -> None:
    """Have ``hivemind`` and ``hivemind.utils`` be mere folders of modules."""
    found = importlib.util.find_spec("hivemind")
    if found is None or not found.submodule_search_locations:
        raise ImportError("hivemind is not installed")
    (root,) = found.submodule_search_locations
    for name, folder in (("hivemind", root), ("hivemind.utils", f"{root}/utils")):
        package = types.ModuleType(name)
        package.__path__ = [folder]
        sys.modules[name] = package


async def lines() -> asyncio.StreamReader:
    """What comes on stdin."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


def say(document: object) -> None:
    """A line on stdout."""
    print(json.dumps(document), flush=True)


async def serve() -> None:
    """Answer every request with itself."""
    from hivemind.p2p import P2P  # type: ignore[import-not-found, unused-ignore]
    from hivemind.proto.dht_pb2 import NodeInfo  # type: ignore[import-not-found, unused-ignore]

    async def echo(request: "NodeInfo", _context: object) -> "NodeInfo":
        return request

    p2p = await P2P.create()
    try:
        await p2p.add_protobuf_handler(HANDLER, echo, NodeInfo)
        addresses = [str(address) for address in await p2p.get_visible_maddrs()]
        say({"peer": str(p2p.peer_id), "addresses": addresses})
        await (await lines()).read()
    finally:
        await p2p.shutdown()


async def ask() -> None:
    """Requests one after the other."""
    from hivemind.p2p import P2P, PeerID  # type: ignore[import-not-found, unused-ignore]
    from hivemind.proto.dht_pb2 import NodeInfo  # type: ignore[import-not-found, unused-ignore]

    p2p = None
    reader = await lines()
    say({})
    try:
        while line := await reader.readline():
            question = json.loads(line)
            if p2p is None:
                p2p = await P2P.create(initial_peers=question["addresses"])
            peer, request = PeerID.from_base58(question["peer"]), NodeInfo(node_id=b"x" * question["size"])
            times = []
            for _ in range(question["count"]):
                began = time.perf_counter()
                await p2p.call_protobuf_handler(peer, HANDLER, request, NodeInfo)
                times.append(time.perf_counter() - began)
            say({"times": times})
    finally:
        if p2p is not None:
            await p2p.shutdown()


if __name__ == "__main__":
    without_torch()
    asyncio.run(serve() if sys.argv[1] == "serve" else ask())
