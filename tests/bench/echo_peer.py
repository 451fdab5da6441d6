"""The other end: a libp2p peer and a TCP server that both return what they are sent, until SIGTERM."""

import asyncio
import json
import signal

from sparkle_p2p.net.overlay import OverlayEvents
from tests.bench.network import echo, overlay

CHUNK = 64 * 1024


async def main() -> None:
    """Say where both can be reached, then serve."""
    left = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, left.set)
    peer = overlay()
    await peer.start(echo, OverlayEvents())
    server = await asyncio.start_server(_echo, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        print(json.dumps({"address": peer.addresses()[0], "port": port}), flush=True)
        await left.wait()
    finally:
        server.close()
        await peer.stop()


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(CHUNK):
            writer.write(chunk)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


if __name__ == "__main__":
    asyncio.run(main())
