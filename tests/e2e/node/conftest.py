"""A swarm for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.e2e.node.processes import Swarm


@pytest_asyncio.fixture
async def swarm(tmp_path: Path) -> AsyncIterator[Swarm]:
    """Real nodes of a network of their own; all ended after the test."""
    async with Swarm(tmp_path) as running:
        yield running
