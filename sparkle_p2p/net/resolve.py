"""DNS names in addresses, by the system's own resolver (libp2p's asks name servers and skips /etc/hosts)."""

import asyncio
import socket

from sparkle_p2p.net.overlay import sort_addresses
from sparkle_protocol.errors import PeerUnreachable, RequestTimeout

MAX_ADDRESSES = 8  # of one name that are tried


async def resolve(transport: str, *, timeout_s: float) -> tuple[str, ...]:
    """Transport addresses with IP addresses that a transport address stands for, in dialling order.

    Raises:
        PeerUnreachable, RequestTimeout: the name has no address, or nobody could say in time.
    """
    _, kind, host, _, port = transport.split("/", 4)
    family = {"dns": socket.AF_UNSPEC, "dns4": socket.AF_INET, "dns6": socket.AF_INET6}.get(kind)
    if family is None:
        return (transport,)
    try:
        async with asyncio.timeout(timeout_s):
            found = await asyncio.get_running_loop().getaddrinfo(
                host, int(port), family=family, type=socket.SOCK_STREAM
            )
    except TimeoutError as error:
        raise RequestTimeout(f"the name '{host}' was not resolved within {timeout_s:g} s") from error
    except (OSError, UnicodeError) as error:
        raise PeerUnreachable(f"the name '{host}' cannot be resolved; check its spelling and your DNS") from error
    resolved = [
        f"/ip{4 if info[0] == socket.AF_INET else 6}/{info[4][0]}/tcp/{port}"
        for info in found
        if "%" not in str(info[4][0])
    ]
    return sort_addresses(resolved)[:MAX_ADDRESSES]
