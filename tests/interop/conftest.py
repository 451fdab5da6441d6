"""A node and a foreign peer of each kind, all real processes."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.interop import setup
from tests.interop.foreign_peer import ForeignPeer
from tests.interop.go_peer import GoPeer
from tests.interop.js_peer import JsPeer
from tests.interop.sparkle_node import SparkleNode

KINDS: dict[str, type[ForeignPeer]] = {"go": GoPeer, "js": JsPeer}


@pytest.fixture(scope="session", autouse=True)
def _foreign_programs() -> None:
    """Fails, rather than skips, where the foreign peers are missing: a skipped interop test proves nothing."""
    if not setup.is_ready():
        pytest.fail("the foreign peers are not set up: run 'python3 run.py test', which does that first")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SparkleNode]:
    """One node for all tests of a module."""
    async with SparkleNode.running(tmp_path_factory.mktemp("node")) as running:
        yield running


@pytest_asyncio.fixture(params=KINDS, loop_scope="module")
async def foreign(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ForeignPeer]:
    """A fresh peer of each implementation."""
    async with KINDS[request.param].running(tmp_path) as peer:
        yield peer
