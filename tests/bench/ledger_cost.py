"""What it costs that work is paid for: the same units of nothing, free and at their price, in turn in the same nodes.

From the submission on until everything is settled, signed, kept by witnesses and the rest of the escrow taken back:
the processor time of all nodes, over the same span for free units, in which the ledger has nothing to do.
"""

import asyncio
import time
from dataclasses import dataclass, field

from sparkle_p2p.api.client import LocalClient
from sparkle_protocol.errors import ConfigError
from tests.bench.jobs import TINY, Peers, local_peers, run_job, tiny
from tests.bench.processes import pause
from tests.bench.rows import Row, median_row

PEERS = 3
UNITS = 3000
WARM_UP = 300
PRICE_MICRO = 1  # of one of these units
SETTLED_S = 20.0  # after the job: lots of claims are signed ten seconds apart, the last five seconds after it
BAR = 1.1


@dataclass
class _Found:
    """Of each job: units per second, and processor milliseconds per unit."""

    rates: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)


def ledger_cost(repeat: int) -> list[Row]:
    """Processor time and throughput of paid units of nothing over those of free ones."""
    free, paid = asyncio.run(_both(repeat))
    against = "the same units for free"
    return [
        median_row(
            "ledger_cost", "CPU ms/unit", paid.costs, free.costs, bar=BAR, judged="ratio", against=against,
        ),
        median_row(
            "noop_units_paid", "units/s", paid.rates, free.rates, bar=1 / BAR, judged="ratio", against=against,
            at_least=True,
        ),
    ]  # fmt: skip


async def _both(repeat: int) -> tuple[_Found, _Found]:
    free, paid = _Found(), _Found()
    async with local_peers("bench-ledger", PEERS, submitter_computes=False) as peers:
        await asyncio.to_thread(_wait_for_ledgers, peers)
        for is_free in (True, False):
            await asyncio.to_thread(_job, peers, WARM_UP, is_free)
        for _ in range(repeat):
            for is_free, found in ((True, free), (False, paid)):
                rate, cost = await asyncio.to_thread(_job, peers, UNITS, is_free)
                found.rates.append(rate)
                found.costs.append(cost)
    return free, paid


def _job(peers: Peers, units: int, free: bool) -> tuple[float, float]:
    """Units per second, and processor milliseconds per unit until all is settled.

    Raises:
        RuntimeError: something was not settled in time.
    """
    earned, began, before = _earned(peers), time.perf_counter(), peers.cpu_s()
    ran = run_job(peers.client, TINY, tiny(units), units, free=free)
    rest_s = ran.took_s + SETTLED_S - (time.perf_counter() - began)
    pause(max(0.0, rest_s))
    spent_s = peers.cpu_s() - before
    owed = 0 if free else PRICE_MICRO * sum(ran.document["workers"].values())
    got = _earned(peers) - earned
    if got != owed:
        raise RuntimeError(f"{got} of {owed} micro-credits were settled within {SETTLED_S:.0f} s")
    return units / ran.took_s, spent_s / units * 1e3


def _wait_for_ledgers(peers: Peers) -> None:
    """Return once all have read theirs."""
    ends = time.perf_counter() + SETTLED_S
    while True:
        try:
            _earned(peers)
            return
        except ConfigError:
            if time.perf_counter() > ends:
                raise
            pause(0.1)


def _earned(peers: Peers) -> int:
    """What all workers have earned by their own ledgers."""
    return sum(int(LocalClient(peer.home).credit()["earned_micro"]) for peer in peers.all[1:])
