"""Jobs through real local peers, followed to their end."""

import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from sparkle_p2p.api.client import LocalClient
from sparkle_p2p.cli.swarm import LocalPeer, Swarm
from tests.bench.processes import cpu_s, own_cpu_s, pause

LIMIT_S = 300.0
POLL_S = 0.05
POLL_AT_MOST_S = 1.0
ENDED = ("done", "failed", "cancelled")

TINY = "collatz"  # over a single number: 3 µs of arithmetic


def tiny(units: int) -> dict[str, int]:
    """Parameters with which a ``TINY`` job has so many units, each of one number."""
    return {"start": 1, "stop": units + 1}


@dataclass(frozen=True, slots=True)
class Ran:
    """A job that is done."""

    took_s: float
    executions: int
    document: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Peers:
    """Peers that are up; jobs are submitted at the first, which ``client`` talks to."""

    all: tuple[LocalPeer, ...]

    @property
    def client(self) -> LocalClient:
        """The submitting node."""
        return LocalClient(self.all[0].home)

    def cpu_s(self) -> float:
        """Processor seconds of all nodes and their worker processes so far."""
        return sum(self.node_cpu_s(place) for place in range(len(self.all)))

    def own_cpu_s(self) -> float:
        """The same without the worker processes."""
        return sum(own_cpu_s(peer.process.pid) for peer in self.all)

    def node_cpu_s(self, place: int) -> float:
        """Of one of them."""
        return cpu_s(self.all[place].process.pid)


@contextlib.asynccontextmanager
async def local_peers(net: str, count: int, *, submitter_computes: bool = True) -> AsyncIterator[Peers]:
    """So many nodes, connected, in processes of their own.

    A node trusts its own worker, whose result needs no second one. Where every unit shall be computed by two peers
    and agreed on by them, the submitting node must not compute.
    """
    async with Swarm(net, count, 0) as swarm:
        await swarm.start()
        peers = Peers(tuple(swarm.peers))
        if not submitter_computes:
            peers.client.pause()
        yield peers


def run_job(client: LocalClient, kernel: str, params: dict[str, int], units: int, *, free: bool = False) -> Ran:
    """Submit a job, at the usual price unless it is to be free, and return when it is done.

    Raises:
        RuntimeError: it failed, or did not end in time.
    """
    began = time.perf_counter()
    document = client.job(client.submit(kernel, params, units=units, free=free))
    unknown_s = POLL_S
    while document["state"] not in ENDED and time.perf_counter() - began < LIMIT_S:
        # Asking costs the node something too, so we ask seldom while the end is far, or cannot be foreseen.
        eta_s = document["eta_s"]
        unknown_s = 2 * unknown_s if eta_s is None else POLL_S
        pause(min(max(unknown_s if eta_s is None else eta_s / 2, POLL_S), POLL_AT_MOST_S))
        document = client.job(document["job"])
    took = time.perf_counter() - began
    if document["state"] != "done":
        raise RuntimeError(f"the job is {document['state']} after {took:.0f} s: {document['units']}")
    return Ran(took, int(document["replicas"]), document)


def check_quorum(ran: Ran, units: int, quorum: int = 2) -> None:
    """Raises RuntimeError unless every unit was computed by so many peers: else the figure would flatter us."""
    agreed = sum(ran.document["workers"].values())
    if min(agreed, ran.executions) < quorum * units:
        raise RuntimeError(f"{units} units were accepted from {agreed} results, not from {quorum} each")
