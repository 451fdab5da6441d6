"""``sparkle-node`` whose connections to other nodes go through relays, however it learnt the addresses.

``python relayed_node.py PARENT-PID ROUTES SPARKLE-NODE-ARGUMENTS``; ROUTES is JSON: ``{"HOST:PORT": [HOST, PORT]}``,
where a node listens and where its relay listens. SIGUSR2 sets the wall clock a day ahead, and back again.

The detour is made where sockets connect, below every library: peers tell each other the addresses where nodes really
listen, and whoever dials one of these reaches the relay of that link instead. The node itself runs as it is.
"""

import json
import signal
import socket
import sys
import time
from typing import Any

from sparkle_p2p.cli.demo_peer import die_with

DAY_S = 86_400


def main() -> int:
    die_with(int(sys.argv[1]))
    take_detours({address: (host, port) for address, (host, port) in json.loads(sys.argv[2]).items()})
    _let_clock_jump()
    from sparkle_p2p.cli.node import main as node

    return node(sys.argv[3:])


def take_detours(routes: dict[str, tuple[str, int]]) -> None:
    """Have connections to these addresses made to those of their relays."""
    connect = socket.socket.connect

    def through_relay(self: socket.socket, address: Any) -> None:
        if self.family == socket.AF_INET:
            address = routes.get(f"{address[0]}:{address[1]}", address)
        connect(self, address)

    socket.socket.connect = through_relay  # type: ignore[assignment,method-assign]


def _let_clock_jump() -> None:
    real_time, real_time_ns = time.time, time.time_ns
    ahead_s = 0

    def jump(_number: int, _frame: object) -> None:
        nonlocal ahead_s
        ahead_s = DAY_S - ahead_s

    time.time = lambda: real_time() + ahead_s
    time.time_ns = lambda: real_time_ns() + ahead_s * 1_000_000_000
    signal.signal(signal.SIGUSR2, jump)


if __name__ == "__main__":
    sys.exit(main())
