"""Finding peers on the local network (libp2p mDNS discovery), on the asyncio side.

The service name carries a fingerprint of the network's name (``_p2p-<hex>._udp.local.``, as the libp2p
mDNS specification has it for private networks), so nodes of different networks do not see each other. Each
TXT string is ``dnsaddr=<multiaddr>/p2p/<peer id>``. Whoever finds an address reports it; the node decides
whether to dial.
"""

import asyncio
import hashlib
import logging
import secrets
import socket
from collections.abc import Callable, Sequence

from zeroconf import Error as ZeroconfError
from zeroconf import IPVersion, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from sparkle_p2p.net.addresses import split_address
from sparkle_p2p.net.overlay import sort_addresses
from sparkle_protocol.errors import ConfigError

logger = logging.getLogger("sparkle.net")

RESOLVE_TIMEOUT_MS = 3000
CLOSE_TIMEOUT_S = 1.5
MAX_RESOLVING = 64
MAX_TXT_BYTES = 1200  # a multicast packet; further addresses are left out
_KEY = b"dnsaddr="


def service_type(net: str) -> str:
    """MDNS service name of a network."""
    return f"_p2p-{hashlib.sha256(net.encode()).hexdigest()[:10]}._udp.local."


class Mdns:
    """Announces our addresses and reports others' until stopped."""

    def __init__(self, net: str, discovered: Callable[[str], None]) -> None:
        self._type = service_type(net)
        self._name = f"{secrets.token_hex(16)}.{self._type}"  # random, as the specification asks
        self._discovered = discovered
        self._zeroconf: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self.addresses: tuple[str, ...] = ()
        self._announcing: asyncio.Task[None] | None = None
        self._resolving: set[asyncio.Task[None]] = set()

    def start(self, addresses: tuple[str, ...]) -> None:
        """Begin, in the background; without working multicast a warning is logged and nothing happens."""
        self.addresses = addresses
        self._announcing = asyncio.get_running_loop().create_task(self._announce(), name="sparkle-mdns")

    async def _announce(self) -> None:
        try:
            self._zeroconf = AsyncZeroconf(ip_version=IPVersion.V4Only)
            await self._zeroconf.zeroconf.async_wait_for_start()
            self._browser = AsyncServiceBrowser(self._zeroconf.zeroconf, self._type, handlers=[self._changed])
            await (await self._zeroconf.async_register_service(self._info(self.addresses)))
        except (OSError, ZeroconfError, TimeoutError) as error:
            logger.warning("finding peers on the local network does not work here (mDNS): %s", error)

    def _info(self, addresses: Sequence[str]) -> AsyncServiceInfo:
        txt = bytearray()
        for address in addresses:
            entry = _KEY + address.encode()
            if len(entry) <= 255 and len(txt) + len(entry) < MAX_TXT_BYTES:
                txt += bytes([len(entry)]) + entry
        host = self._name.split(".", 1)[0]
        return AsyncServiceInfo(
            self._type,
            self._name,
            port=_port(addresses),
            properties=bytes(txt),
            server=f"{host}.local.",
            addresses=[socket.inet_aton(ip) for ip in _ips(addresses)],
        )

    def _changed(self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        # Overflow policy: with too many at once the newest is left out; it is announced again.
        if state_change is ServiceStateChange.Removed or name == self._name:
            return
        if len(self._resolving) < MAX_RESOLVING:
            task = asyncio.get_running_loop().create_task(self._resolve(zeroconf, name))
            self._resolving.add(task)
            task.add_done_callback(self._resolving.discard)

    async def _resolve(self, zeroconf: Zeroconf, name: str) -> None:
        info = AsyncServiceInfo(self._type, name)
        try:
            if not await info.async_request(zeroconf, RESOLVE_TIMEOUT_MS):
                return
        except (OSError, ZeroconfError) as error:
            logger.debug("mDNS: cannot resolve %s: %s", name, error)
            return
        for address in sort_addresses(list(_entries(info.text or b""))):
            if address not in self.addresses:  # our own id elsewhere: somebody copied our key
                self._discovered(address)

    async def stop(self) -> None:
        """Withdraw the announcement."""
        tasks = [*self._resolving, *([self._announcing] if self._announcing is not None else [])]
        self._announcing = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        browser, self._browser = self._browser, None
        zeroconf, self._zeroconf = self._zeroconf, None
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                if browser is not None:
                    await browser.async_cancel()
                if zeroconf is not None:
                    await zeroconf.async_close()
        except (TimeoutError, OSError, ZeroconfError) as error:
            logger.debug("mDNS: closing failed: %s", error)


def _entries(text: bytes) -> list[str]:
    """Well-formed peer addresses in a TXT record."""
    found = []
    position = 0
    while position < len(text):
        length = text[position]
        entry = text[position + 1 : position + 1 + length]
        position += 1 + length
        if entry.startswith(_KEY):
            address = entry[len(_KEY) :].decode(errors="replace")
            try:
                split_address(address)
            except ConfigError:
                continue
            found.append(address)
    return found


def _ips(addresses: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(a.split("/")[2] for a in addresses if a.startswith("/ip4/")))[:8]


def _port(addresses: Sequence[str]) -> int:
    return next((int(a.split("/")[4]) for a in addresses), 0)
