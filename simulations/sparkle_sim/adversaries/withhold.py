"""``withhold``: commits to results and does not show them, for a share ``rate`` of the units.

It says that its reveal is on its way: its reports arrive without it.

What stops it: after 30 s another worker gets the unit; a worker that owes more than two results gets no more units.
"""

from dataclasses import replace
from typing import ClassVar

import msgspec

from sparkle_protocol import effects as fx
from sparkle_protocol.facts import RevealItem, Reveals
from sparkle_protocol.messages import Report
from sparkle_sim.adversaries.base import Adversary
from sparkle_sim.requests import WORKER


class Withhold(Adversary):
    """Promises and does not keep it."""

    kind: ClassVar[str] = "withhold"

    def effects(self, core: int, effects: fx.Effects) -> fx.Effects:
        """Reports go without what is withheld."""
        if core != WORKER:
            return effects
        return tuple(self._without(one) if isinstance(one, fx.Send) else one for one in effects)

    def _without(self, effect: fx.Send) -> fx.Send:
        report = effect.message
        if not isinstance(report, Report) or not report.results:
            return effect
        facts: list[bytes] = []
        shown: list[bytes] = []
        results = iter(report.results)  # they match the reveals' items in order
        for raw in report.facts:
            payload = self.peer.world.codec.open(raw).payload
            if not isinstance(payload, Reveals):
                facts.append(raw)
                continue
            kept: list[RevealItem] = []
            for item in payload.items:
                result = next(results)
                if not self.does(report.job, item.unit.to_bytes(4, "big")):
                    kept.append(item)
                    shown.append(result)
            if kept:
                facts.append(self.peer.sign(Reveals(report.job, kept)).raw)
        return replace(effect, message=msgspec.structs.replace(report, facts=facts, results=shown))
