"""Runs the local API: one port on loopback, one token, bounded requests."""

import asyncio
import errno
import ipaddress
import socket

from aiohttp import web

from sparkle_p2p.config import parse_host_port
from sparkle_p2p.view import NodeControl
from sparkle_p2p.web.guard import errors_as_json, guard, harden
from sparkle_p2p.web.routes import KEEP_ALIVE_S, Routes
from sparkle_protocol.errors import ConfigError

MAX_BODY_BYTES = 256 * 1024  # a job is at most 64 kB on the wire; JSON is wordier
STOP_TIMEOUT_S = 2.0  # part of the ten seconds in which a node leaves
_BACKLOG = 64


class ApiServer:
    """Serves a node's view and commands over HTTP on a loopback address."""

    def __init__(self, control: NodeControl, *, token: str, bind: str, keep_alive_s: float = KEEP_ALIVE_S) -> None:
        """Nothing is opened yet.

        Args:
            control: the node.
            token: what clients must send as bearer token.
            bind: ``HOST:PORT``, loopback only; port 0 takes any free one.
            keep_alive_s: seconds between comments on a silent event stream.

        Raises:
            ConfigError: the address is not a loopback one.
        """
        self._control = control
        self._token = token
        self._bind = bind
        self._host, self._port = _loopback(bind)
        self._keep_alive_s = keep_alive_s
        self._routes: Routes | None = None
        self._runner: web.AppRunner | None = None

    async def start(self) -> str:
        """Listen, and return the URL.

        Raises:
            ConfigError: the port is in use or not allowed.
        """
        listener = _listen(self._host, self._port, self._bind)
        try:
            port = int(listener.getsockname()[1])
            self._routes = Routes(self._control, keep_alive_s=self._keep_alive_s)
            app = web.Application(
                middlewares=[errors_as_json, guard(self._token, _names(self._host, port))],
                client_max_size=MAX_BODY_BYTES,
            )
            app.router.add_routes(self._routes.table())
            app.on_response_prepare.append(harden)
            self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_TIMEOUT_S)
            await self._runner.setup()
            await web.SockSite(self._runner, listener, backlog=_BACKLOG).start()
        except BaseException:
            listener.close()
            raise
        return f"http://{_in_url(self._host)}:{port}"

    async def stop(self) -> None:
        """Stop listening and end open requests within seconds. Idempotent."""
        runner, self._runner = self._runner, None
        if runner is None:
            return
        if self._routes is not None:
            self._routes.close()
        async with asyncio.timeout(2 * STOP_TIMEOUT_S):
            await runner.cleanup()


def _loopback(bind: str) -> tuple[str, int]:
    try:
        host, port = parse_host_port(bind)
    except ValueError as error:
        raise ConfigError(f"the API address is '{bind}', but {error}") from error
    if host == "localhost":
        return "127.0.0.1", port
    try:
        if ipaddress.ip_address(host).is_loopback:
            return host, port
    except ValueError:
        pass  # a name; the sentence below covers it
    raise ConfigError(
        f"the API cannot listen on {host}: it has no transport security yet and stays on this machine; "
        f"use 127.0.0.1:{port}, and an SSH tunnel to reach it from elsewhere"
    )


def _listen(host: str, port: int, bind: str) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # not held up by TIME_WAIT of the last run
        listener.bind((host, port))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"port {port} is in use, so the API cannot listen on {bind}; choose another with --api HOST:PORT"
            ) from error
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(
            f"the API cannot listen on {bind}: {reason}; choose another with --api HOST:PORT"
        ) from error
    return listener


def _names(host: str, port: int) -> frozenset[str]:
    return frozenset(f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]", _in_url(host)))


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
