"""What can be said of addresses from outside libp2p: whether something answers, and who could dial one."""

import asyncio
import contextlib
import ipaddress
import os
from collections.abc import Sequence

from sparkle_p2p.net.addresses import split_address
from sparkle_protocol.errors import ConfigError

ANSWER_S = 3.0


async def why_unanswered(address: str, timeout_s: float = ANSWER_S) -> str | None:
    """Why no TCP connection to a multiaddr with a peer id comes about, in words; None: one does."""
    try:
        _, _, host, _, port, *_ = address.split("/")
        split_address(address)
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(host, int(port))
    except ConfigError as error:
        return str(error)
    except TimeoutError:
        return "nothing answers"
    except OSError as error:
        number = error.errno or 0  # asyncio's own words name the address once more
        return (os.strerror(number) if number > 0 else error.strerror or "no connection").lower()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return None


def widest(addresses: Sequence[str]) -> str:
    """From where these can be dialled at best: ``anywhere``, ``local network``, ``this machine`` or ``nowhere``."""
    found = {_reach(address) for address in addresses}
    return next((name for name in ("anywhere", "local network", "this machine") if name in found), "nowhere")


def _reach(address: str) -> str:
    host = address.split("/")[2] if address.count("/") > 2 else ""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return "anywhere" if host and host != "localhost" else "this machine"
    if ip.is_loopback:
        return "this machine"
    return "anywhere" if ip.is_global else "local network"
