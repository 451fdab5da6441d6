"""The node that a program uses: one that runs already, or an embedded one for the duration."""

import threading
import time
from os import PathLike, environ, fspath

from sparkle_p2p.api.client import LocalClient
from sparkle_p2p.api.embedded import EmbeddedNode
from sparkle_p2p.runtime.locate import home_path, is_locked
from sparkle_protocol.errors import ConfigError, HomeInUse, NodeNotRunning, SparkleError

START_TIMEOUT_S = 90.0  # loading the network library on a slow busy core takes half a minute
_LOOK_EVERY_S = 0.05


class Attachment:
    """Holds on to a node from ``open`` to ``close``.

    Args:
        home: the node's directory; None: ``SPARKLE_HOME``, else ``~/.sparkle``.
        net: the network it must be in; None: any.
    """

    def __init__(self, home: "str | PathLike[str] | None", net: str | None) -> None:
        self.home = home_path(fspath(home) if home is not None else None, environ)
        self._net = net
        self._embedded: EmbeddedNode | None = None
        self._given_up = threading.Event()

    @property
    def embedded(self) -> bool:
        """Whether the node is one of our own."""
        return self._embedded is not None

    def open(self) -> LocalClient:
        """The client of a node that can be used.

        Raises:
            ConfigError: the directory or the network cannot work.
            SparkleError: no node could be started, or it was not ready in time.
        """
        client = LocalClient(self.home)
        until = time.monotonic() + START_TIMEOUT_S
        try:
            while not self._is_ready(client, until) or self._given_up.is_set():
                if self._given_up.wait(_LOOK_EVERY_S):
                    raise NodeNotRunning(f"connecting to the node in {self.home} was given up")
                if time.monotonic() > until:
                    raise SparkleError(
                        f"the node in {self.home} was not ready within {START_TIMEOUT_S:.0f} s; look at its log"
                    )
        except BaseException:
            self.close()
            raise
        return client

    def close(self) -> None:
        """End an embedded node; let go of any other. Idempotent, and ends an ``open`` in another thread."""
        self._given_up.set()
        if self._embedded is not None:
            self._embedded.stop()

    def _is_ready(self, client: LocalClient, until: float) -> bool:
        if not is_locked(self.home) and not self._started(max(until - time.monotonic(), 0.0)):
            return False
        try:
            status = client.status()
        except NodeNotRunning:  # it is starting or leaving
            return False
        if self._net is not None and status["net"] != self._net:
            raise ConfigError(
                f"the node in {self.home} is in the network '{status['net']}', not '{self._net}'; "
                "stop it, or choose another home directory"
            )
        return bool(status["network"] != "starting" and status["state"] != "stopping")  # then it is gone in a moment

    def _started(self, timeout_s: float) -> bool:
        """Whether our own node runs now; False if somebody else's was faster."""
        self._embedded = EmbeddedNode(self.home, self._net)
        try:
            self._embedded.start(timeout_s)
        except HomeInUse:
            self._embedded = None
            return False
        return True
