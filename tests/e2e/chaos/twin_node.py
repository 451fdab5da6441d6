"""``relayed_node.py`` whose units take as long as they are told, however busy the machine is.

``python twin_node.py PARENT-PID ROUTES UNIT-SECONDS SPARKLE-NODE-ARGUMENTS``. Each unit is computed by the node's
worker process as always, which takes milliseconds, and then held back until its time has passed. Time during which
the node was suspended does not count, as if its worker had been suspended with it.
"""

import asyncio
import json
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[3]))

from sparkle_p2p.cli.demo_peer import die_with
from sparkle_worker.executor import Executor
from tests.e2e.chaos.relayed_node import take_detours

STEP_S = 0.1
LONGEST_STEP_S = 0.5  # the loop is late by more only if it was suspended


class PacedExecutor(Executor):
    """Computes one unit after the other, each in so many seconds."""

    def __init__(self, unit_s: float) -> None:
        super().__init__()
        self._unit_s = unit_s
        self._turn = asyncio.Lock()

    async def run(
        self,
        kernel: str,
        version: int,
        unit: Mapping[str, Any],
        on_progress: Callable[[float], None],
        on_begin: Callable[[], None] | None = None,
    ) -> bytes:
        """The result, in time."""
        now_s = asyncio.get_running_loop().time
        async with self._turn:
            began_s = now_s()
            result = await super().run(kernel, version, unit, on_progress, on_begin)
            left_s = self._unit_s - min(now_s() - began_s, self._unit_s)
            while left_s > 0:
                step_s = now_s()
                await asyncio.sleep(min(STEP_S, left_s))
                left_s -= min(now_s() - step_s, LONGEST_STEP_S)
            return result


def main() -> int:
    die_with(int(sys.argv[1]))
    take_detours({address: (host, port) for address, (host, port) in json.loads(sys.argv[2]).items()})
    from sparkle_p2p.cli.main import guarded
    from sparkle_p2p.cli.node import run

    factory = partial(PacedExecutor, float(sys.argv[3]))
    return guarded(lambda: run(sys.argv[4:], executor_factory=factory), "twin node")


if __name__ == "__main__":
    sys.exit(main())
