"""The conformance and fault suite of the overlays, on the simulator's model of the network and its virtual time."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from sparkle_p2p.net.overlay import Overlay
from sparkle_protocol.identity import Identity
from sparkle_sim.kernel import Kernel
from sparkle_sim.loop import VirtualLoop
from tests.e2e.overlay.worlds import FaultyWorld
from tests.sim.overlay.model import Model
from tests.sim.overlay.model_overlay import ModelOverlay

SEEDS = (1, 2, 3)


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """All tests of this folder."""
    return {"virtual": lambda: VirtualLoop(Kernel())}


class ModelWorld(FaultyWorld):
    """The simulator's network."""

    def __init__(self, loop: VirtualLoop, seed: int) -> None:
        super().__init__()
        self.network = Model(loop.kernel, seed)

    def overlay(self, identity: Identity | None, settings: dict[str, Any]) -> Overlay:
        assert identity is None, "in a model peers have the identities of their numbers"
        return ModelOverlay(self.network, **settings)


@pytest.fixture(params=SEEDS, ids="seed {}".format)
async def world(request: pytest.FixtureRequest) -> AsyncIterator[ModelWorld]:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    made = ModelWorld(loop, request.param)
    yield made
    await made.close()
    loop.finish()


@pytest.fixture
def faulty_world(world: ModelWorld) -> ModelWorld:
    """Its network can be broken to order."""
    return world
