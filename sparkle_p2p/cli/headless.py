"""The node as a daemon: log lines on stderr, with ``--json`` events on stdout, signals to leave."""

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from sparkle_p2p.api.documents import event_document
from sparkle_p2p.cli.logs import LineWriter, set_up_logging
from sparkle_p2p.cli.service import Service, limit_leaving
from sparkle_p2p.config import NodeConfig
from sparkle_p2p.home import HomeDir
from sparkle_p2p.view import Event

log = logging.getLogger("sparkle")

_JSON = json.JSONEncoder(default=str)


def run_headless(config: NodeConfig, *, as_json: bool, executor_factory: Callable[[], Any] | None = None) -> int:
    """Run until SIGTERM or SIGINT; 0 after a clean end.

    Raises:
        SparkleError: the node cannot start or has failed.
    """
    set_up_logging(config.log_level)
    with HomeDir.open(config.home) as home:
        asyncio.run(_serve(Service(config, home, executor_factory), as_json=as_json))
    return 0


async def _serve(service: Service, *, as_json: bool) -> None:
    _leave_on_signals(service)
    writer = LineWriter(sys.stdout) if as_json else None

    def on_ready() -> None:
        document = service.ready_document()
        log.info("ready as %s", document["peer_id"])
        for address in document["addrs"]:
            log.info("others reach this node at %s", address)
        if writer is not None:
            writer.write(json.dumps(document))

    def on_event(event: Event) -> None:
        if writer is not None:
            writer.write(_JSON.encode(event_document(event)))

    try:
        await service.run(on_ready, on_event if writer is not None else None)
        log.info("left")
    finally:
        limit_leaving()  # threads of libraries that refuse to end must not keep the process
        if writer is not None:
            writer.close()


def _leave_on_signals(service: Service) -> None:
    loop = asyncio.get_running_loop()
    asked = False

    def leave(number: int) -> None:
        nonlocal asked
        if asked:
            os._exit(128 + number)  # the second signal: now
        asked = True
        log.info("leaving on %s; once more ends it at once", signal.Signals(number).name)
        limit_leaving()
        service.node.stop()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup stays nohup
            loop.add_signal_handler(number, leave, number)
