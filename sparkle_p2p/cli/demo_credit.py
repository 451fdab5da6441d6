"""The end of ``sparkle demo``: every peer says what it earned, and the submitter's copy of the ledger is audited."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sparkle_p2p.api.client import LocalClient
from sparkle_p2p.cli import output
from sparkle_p2p.cli.ledger_copy import Audited, audited, opened, verdict
from sparkle_p2p.cli.swarm import LocalPeer
from sparkle_protocol.errors import SparkleError, VerificationError
from sparkle_protocol.work.price import in_words

SETTLED_S = 90.0
POLL_S = 0.25
AMOUNTS = ("earned_micro", "spent_micro", "held_micro", "balance_micro")


@dataclass(frozen=True, slots=True)
class Settled:
    """What everybody's account came to. ``amounts``: by peer id, as the peer's own node has them."""

    amounts: dict[str, dict[str, int]]
    audit: Audited
    seconds: float

    def sentence(self) -> str:
        """For people."""
        earned = in_words(self.audit.report.earned_micro)
        return f"earned: {earned}, paid within {output.duration(self.seconds)}; ledger: {verdict(self.audit)}"

    def document(self) -> dict[str, Any]:
        """For ``--json``."""
        report = self.audit.report
        return {
            "accounts": self.amounts,
            "sum_micro": report.sum_micro,
            "earned_micro": report.earned_micro,
            "final_price_micro": report.final_price_micro,
            "violations": [text for _, text in self.audit.violations],
            "verdict": verdict(self.audit),
            "seconds": round(self.seconds, 3),
        }


async def settle(peers: Sequence[LocalPeer], net: str) -> Settled:
    """Wait until all accepted work is paid, and every peer has the same of it as the submitter, who is the first.

    Raises:
        SparkleError: that took too long.
    """
    begun = time.monotonic()
    try:
        async with asyncio.timeout(SETTLED_S):
            while True:
                amounts = {peer.peer_id: await asyncio.to_thread(_amounts, peer) for peer in peers}
                if _agreed(amounts):
                    audit = await asyncio.to_thread(_audited, peers[0], net)
                    if not audit.report.unsettled_micro:  # the last claim is on the submitter's disk, too
                        return Settled(amounts, audit, time.monotonic() - begun)
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise SparkleError(f"the work of the demo was not paid within {SETTLED_S:.0f} s") from None


def _amounts(peer: LocalPeer) -> dict[str, int]:
    document = LocalClient(peer.home).credit()
    return {name: document[name] for name in AMOUNTS}


def _agreed(amounts: dict[str, dict[str, int]]) -> bool:
    """Nothing is set aside any more, and what some spent the others earned."""
    sums = {name: sum(one[name] for one in amounts.values()) for name in AMOUNTS}
    return not sums["held_micro"] and sums["earned_micro"] == sums["spent_micro"] > 0


def _audited(peer: LocalPeer, net: str) -> Audited:
    with opened(str(peer.home), net) as db:
        return audited(db, lambda what, done, whole: None)


def check_credit(settled: Settled, liars: Sequence[str]) -> None:
    """Everything adds up, and no liar was paid.

    Raises:
        VerificationError: not so.
    """
    report = settled.audit.report
    if not settled.audit.ok or report.sum_micro:
        raise VerificationError(f"the ledger does not add up: {verdict(settled.audit)}")
    earned = sum(one["earned_micro"] for one in settled.amounts.values())
    if not earned == report.earned_micro == report.final_price_micro > 0:
        raise VerificationError(
            f"the peers say that they earned {earned} micro-credits, the ledger says {report.earned_micro}, "
            f"and the accepted work has a price of {report.final_price_micro}"
        )
    paid = [peer for peer in liars if settled.amounts[peer]["earned_micro"]]
    if paid:
        raise VerificationError(f"{len(paid)} lying peers were paid")
