"""A node with arrays in this process, and a mesh through it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import sparkle_p2p as sparkle
from tests.unit.api.array_node import ArrayNode, serving


@pytest.fixture
def node(tmp_path: Path) -> Iterator[ArrayNode]:
    """A node in this process."""
    with serving(tmp_path / "home") as running:
        yield running


@pytest.fixture
def mesh(node: ArrayNode) -> Iterator[sparkle.Mesh]:
    """A mesh through it."""
    with sparkle.connect(node.home) as connected:
        yield connected
