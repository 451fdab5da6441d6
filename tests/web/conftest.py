"""A real server over a fake node, in this process."""

import importlib.util
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sparkle_p2p.api.client import LocalClient
from sparkle_p2p.home import HomeDir
from sparkle_p2p.web.server import ApiServer


def _load_fake() -> ModuleType:
    name = "sparkle_fake_node"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("fake_node.py"))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@dataclass
class Running:
    """A served fake node."""

    control: Any
    home: HomeDir
    url: str
    server: ApiServer

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def client(self) -> LocalClient:
        return LocalClient(self.home.path)


@pytest.fixture
def fake() -> ModuleType:
    """The module of the fake node."""
    return _load_fake()


@pytest.fixture
async def node(tmp_path: Path, fake: ModuleType) -> AsyncIterator[Running]:
    """A fake node whose API answers on a free port."""
    with HomeDir.open(tmp_path / "home") as home:
        control = fake.FakeControl()
        server = ApiServer(control, token=home.token, bind="127.0.0.1:0", keep_alive_s=0.05)
        url = await server.start()
        home.announce(url)
        yield Running(control, home, url, server)
        await server.stop()
