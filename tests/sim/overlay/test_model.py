"""What of the model only whole runs show."""

import asyncio

from sparkle_protocol.errors import RequestTimeout
from sparkle_sim.kernel import Kernel
from sparkle_sim.loop import VirtualLoop
from tests.sim.overlay.conftest import ModelWorld


def outcomes(seed: int) -> list[tuple[bool, float]]:
    """Which requests were answered over a bad line, and when."""

    async def program() -> list[tuple[bool, float]]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        world = ModelWorld(loop, seed)
        one, other = await world.pair()
        world.network.set_loss(one.id, other.id, 0.5)
        got = []
        for _ in range(12):
            try:
                await one.overlay.request(other.id, b"x", timeout_s=0.02)
                got.append((True, loop.time()))
            except RequestTimeout:
                got.append((False, loop.time()))
        await world.close()
        loop.finish()
        return got

    with asyncio.Runner(loop_factory=lambda: VirtualLoop(Kernel())) as runner:
        return runner.run(program())


def test_loss_is_the_same_for_the_same_seed() -> None:
    first = outcomes(5)
    assert {answered for answered, _ in first} == {True, False}
    assert outcomes(5) == first
    assert outcomes(6) != first
