"""``sparkle-node`` with an invented node inside: everything around the node is real.

``python fake_service.py MODE SPARKLE-NODE-ARGUMENTS``, where MODE is ``good``, ``stuck`` (never leaves),
``broken`` (cannot start) or ``silent`` (never becomes ready).
"""

import asyncio
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from sparkle_protocol.errors import ConfigError

MODE = sys.argv[1]


def load_fake() -> ModuleType:
    path = Path(__file__).parents[2] / "web" / "fake_node.py"
    spec = importlib.util.spec_from_file_location("sparkle_fake_node", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["sparkle_fake_node"] = module
    spec.loader.exec_module(module)
    return module


class Node(load_fake().FakeControl):  # type: ignore[misc]
    def __init__(self, config: Any, home: Any, executor_factory: Any = None) -> None:
        super().__init__()
        self.api_url: str | None = None
        self.startup_ms = {"network": 1.5}
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        if MODE == "broken":
            raise ConfigError("port 4001 is in use; choose another with --listen")
        await self._stopped.wait()
        if MODE == "stuck":
            await asyncio.Event().wait()

    async def wait_ready(self) -> None:
        if MODE == "broken":
            raise ConfigError("port 4001 is in use; choose another with --listen")
        if MODE == "silent":
            await asyncio.Event().wait()

    async def pause(self) -> None:
        await super().pause()

    def stop(self) -> None:
        self._stopped.set()


module = ModuleType("sparkle_p2p.node.node")
module.Node = Node  # type: ignore[attr-defined]
sys.modules["sparkle_p2p.node.node"] = module

if __name__ == "__main__":
    from sparkle_p2p.cli.node import main

    sys.exit(main(sys.argv[2:]))
