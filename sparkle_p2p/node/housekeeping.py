"""What a node does every few seconds: measure itself, look after its journals, and write what may be written late."""

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from sparkle_p2p.node.store import StoreError
from sparkle_p2p.runtime.clock import boot_ns, wall_ms

if TYPE_CHECKING:
    from sparkle_p2p.node.node import Node

log = logging.getLogger("sparkle.node")

EVERY_S = 2.0
USAGE_EVERY_S = 30.0  # so that the first picture in a while does not tell of hours; each picture measures anew
TOTALS_EVERY_S = 30.0  # where there are no journals to write, so that an idle node lets the disk sleep
STOOD_STILL_S = 10.0  # later than planned by so much: suspended, or the machine slept


class Housekeeping:
    """``run`` it in a task of the node; ``save`` once more when the node leaves."""

    def __init__(self, node: "Node") -> None:
        self._node = node
        self._sampled_s = -USAGE_EVERY_S

    async def run(self) -> None:
        """Go on until cancelled."""
        saved_s, looked_ns = time.monotonic(), boot_ns()
        while True:
            now_s, now_ns = time.monotonic(), boot_ns()
            try:
                self._look(now_s, now_ns, late_s=(now_ns - looked_ns) / 1e9 - EVERY_S)
            except Exception:
                log.exception("looking after this node failed")
            looked_ns = now_ns
            await self._save_journals()
            await self.save_standings()
            if now_s - saved_s > TOTALS_EVERY_S:
                saved_s = now_s
                await self._save_totals()
            await asyncio.sleep(EVERY_S)

    async def save(self) -> None:
        """Write everything that is written late."""
        await self._save_journals()
        await self.save_standings()
        await self._save_totals()

    async def save_standings(self) -> None:
        """Write what is known of workers."""
        try:
            await self._node.standings.save()
        except StoreError as error:
            log.warning("could not save standings: %s", error)

    def _look(self, now_s: float, now_ns: int, *, late_s: float) -> None:
        node = self._node
        if now_s - self._sampled_s >= USAGE_EVERY_S:
            self._sampled_s = now_s
            node.usage.sample(now_s)
        if late_s > STOOD_STILL_S:
            node.journals.stood_still(late_s, wall_ms())
        node.journals.look(now_ns, wall_ms())
        node.tidy()

    async def _save_journals(self) -> None:
        try:
            await self._node.journals.save({"alive_ms": wall_ms()})
        except StoreError as error:
            log.warning("could not save journals: %s", error)

    async def _save_totals(self) -> None:
        node = self._node
        totals = {"units_done": node.units_done, "units_verified": node.units_verified, "alive_ms": wall_ms()}
        kept, now_ns = node.submitter.kept.values(), boot_ns()
        ages = {job.state.id: (now_ns - job.started_ns) // 1_000_000_000 for job in kept}
        try:
            await node.store.save_totals(totals, ages)
        except StoreError as error:
            log.warning("could not save totals: %s", error)
