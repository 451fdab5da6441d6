"""A node without a network: the real home directory, API server and event queues over invented contents.

Tests import it; run as a script it is a process that ``sparkle`` commands can talk to:
``python fake_node.py HOME`` prints ``ready`` and lives until its standard input closes.
"""

import asyncio
import dataclasses
import sys
from collections.abc import AsyncIterator
from typing import Any

from sparkle_p2p.home import HomeDir
from sparkle_p2p.ledger_view import BalancePoint, CreditView, EntryView, EscrowView, ForkView, PartnerView
from sparkle_p2p.view import (
    Attempt,
    DeadUnit,
    Event,
    Explanation,
    Finding,
    JobResult,
    JobView,
    KernelView,
    LogLine,
    Moment,
    NodeView,
    PeerView,
    Reason,
    Rejection,
    Requeued,
    Safety,
    SubmitRequest,
    UnitCounts,
    UnitView,
)
from sparkle_p2p.web.server import ApiServer
from sparkle_protocol.errors import ConfigError, NotFound

ME = "12D3KooWGRUf7wkzqgZFN1r5ZfUqcjdnzDgWqTCxbK2nBN1NqBd5"
OTHER = "12D3KooWH3uVF6wv47WnArKHk5p6cvgCJEb74UTmxztmQDc298L3"
LIAR = "12D3KooWLRPJAA5o6W8y2YV9FmdJfYoQwWgkvM5kHVnKYgcRCqj5"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))


class FakeControl:
    """Keeps jobs in memory. Each look at a running job finishes a quarter of it."""

    def __init__(self) -> None:
        self.paused = False
        self.network: Any = "connected"
        self.reason: Reason | None = None  # instead of the usual one
        self.records: dict[str, JobView] = {}
        self.perished: dict[str, tuple[DeadUnit, ...]] = {}
        self.submitted: list[SubmitRequest] = []
        self.queues: list[asyncio.Queue[Event]] = []
        self.listening = asyncio.Event()
        self.broken: Exception | None = None

    def view(self) -> NodeView:
        if self.broken is not None:
            raise self.broken
        state: Any = "paused" if self.paused else "working"
        reason = Reason("paused-by-user", "You paused it.") if self.paused else Reason("ok", "Computing.", {"n": 1})
        return NodeView(
            peer_id=ME, net="test", version="0.1.0", pid=1, state=state, reason=self.reason or reason,
            network=self.network, uptime_s=12.5, addresses=(f"/ip4/127.0.0.1/tcp/4001/p2p/{ME}",), api="http://127.0.0.1:1",
            peers=(
                PeerView(OTHER, ("/ip4/10.0.0.2/tcp/4001",), "out", 1.25, "sparkle/0.1.0", 60.0, 31, 0),
                PeerView(LIAR, ("/ip4/10.0.0.3/tcp/4001",), "in", None, "x/1", 5.0, 0, 2, 1, "rejected"),
            ),
            units=(
                UnitView("ab" * 32, 3, "prime_count", "running", 0.25, 1.5, OTHER),
                UnitView("ab" * 32, 4, "prime_count", "committed", 1.0, 2.5, OTHER),
            ),
            jobs=tuple(self.records.values()), units_done=7, units_verified=5, credit_micro=1_500_000,
            cpu_percent=42.126, pss_bytes=100 << 20, limits={"slots": 1},
            log=(LogLine(1_700_000_000.0, "good", "hello"),),
            safety=Safety("submitter_only", "With 3 peers only the submitter accepts.", 3),
            known_workers=2,
            missing_protections=("the memory of worker processes cannot be limited: not Linux",),
        )  # fmt: skip

    async def pause(self) -> None:
        self.paused = True
        self.emit("paused")

    async def resume(self) -> None:
        self.paused = False

    async def submit(self, request: SubmitRequest) -> str:
        if request.kernel not in ("prime_count", "mandelbrot", "endless"):
            raise ConfigError(f"there is no kernel '{request.kernel}'; 'sparkle kernels' lists them")
        self.submitted.append(request)
        job = f"{len(self.records):02x}" * 32
        units = request.units or 4
        self.records = {
            job: JobView(
                job, request.kernel, request.params, "running", request.verify,
                UnitCounts(units, pending=units), 0, 0, {}, (), None, None, 0.5, None,
            ),
            **self.records,
        }  # fmt: skip
        if "dead" in request.params:
            self.perish(job, *range(int(request.params["dead"])))
        return job

    async def job(self, job: str) -> JobView:
        matches = [name for name in self.records if name.startswith(job)]
        if len(matches) != 1:
            raise NotFound(f"no job '{job}' is known to this node; 'sparkle jobs' lists them")
        view = self.records[matches[0]]
        if view.state == "running" and view.kernel != "endless":
            view = self._advanced(view)
            self.records[view.job] = view
        return view

    def _advanced(self, view: JobView) -> JobView:
        total = view.units.total
        final = min(total, view.units.final + max(1, total // 4))
        rejection = Rejection(1, LIAR, Reason("wrong-hash", "two other peers agree on another result", {"n": 2}))
        return dataclasses.replace(
            view,
            units=UnitCounts(total, pending=total - final, final=final),
            replicas=2 * final, rejected=1, workers={OTHER: final}, rejections=(rejection,), eta_s=3.0,
            state="done" if final == total else "running",
            result=({"count": 25} if final == total else None),
        )  # fmt: skip

    async def jobs(self) -> tuple[JobView, ...]:
        return tuple(self.records.values())

    async def result(self, job: str) -> JobResult:
        view = next((v for name, v in self.records.items() if name.startswith(job)), None)
        if view is None:
            raise NotFound(f"no job '{job}' is known to this node; 'sparkle jobs' lists them")
        if view.state != "done":
            raise ConfigError(f"job {view.job[:12]} is {view.state}; 'sparkle wait {view.job[:12]}' waits for it")
        if view.kernel == "mandelbrot":
            return JobResult(view.job, view.kernel, {"width": 16}, "image/png", PNG)
        return JobResult(view.job, view.kernel, {"count": 25})

    async def cancel(self, job: str) -> JobView:
        view = await self.job(job)
        if view.state == "running":
            self.records[view.job] = dataclasses.replace(view, state="cancelled")
        return self.records[view.job]

    async def dead(self, job: str | None = None) -> tuple[DeadUnit, ...]:
        found = [(await self.job(job)).job] if job is not None else [*self.perished]
        return tuple(unit for name in found for unit in self.perished.get(name, ()))

    async def requeue(self, job: str, unit: int | None = None) -> Requeued:
        view = await self.job(job)
        again = [one.unit for one in self.perished.get(view.job, ()) if unit in (None, one.unit)]
        if not again:
            raise ConfigError(f"nothing to requeue in {job}")
        left = tuple(one for one in self.perished[view.job] if one.unit not in again)
        self.perished = {**self.perished, view.job: left}
        return Requeued(view.job, tuple(again), "running")

    def perish(self, job: str, *units: int) -> None:
        """Units of a job that nobody could compute."""
        reason = Reason("kernel", "Unit failed on 3 workers: it \x1b[2Jbroke.", {"failures": 3})
        attempts = (Attempt(OTHER, 0, "kernel", "it \x1b[2Jbroke"),)
        self.perished[job] = tuple(DeadUnit(job, "endless", unit, 0, reason, attempts) for unit in units)

    async def why(self, subject: str | None = None) -> Explanation:
        if subject not in (None, OTHER, "ab/3"):
            raise NotFound(f"nothing called '{subject}' is known to this node")
        detail = Reason("latency", "It answers quickly.", {"latency_ms": 1.25})
        told = (
            Moment(1_700_000_000.0, 1_700_000_000.0, Reason("job_submitted", "Submitted: primes in 4 units.")),
            Moment(1_700_000_060.0, 1_700_000_091.9, Reason("lease_expired", "…Other lost 3 \x1b[2Jleases.")),
            Moment(1_700_172_800.0, 1_700_172_800.0, Reason("job_done", "Done.", {"count": 1})),
        )
        headline = Reason("ok", "Computing because work is there.")
        return Explanation(subject or "node", headline, (detail,), told if subject == "ab/3" else ())

    async def checkup(self) -> tuple[Finding, ...]:
        return (
            Finding("clock", "warn", Reason("clock_off", "The clock is \x1b[2Jwrong.", {"seconds": 900}), "Set it."),
        )

    async def credit(self, account: str | None = None) -> CreditView:
        if account not in (None, "ab" * 32):
            raise NotFound(f"no entry of an account called '{account}' is kept here")
        ready = Reason("account_ready", "Ready: pay is claimed by itself.")
        return CreditView(
            account="ab" * 32, peer_id=ME, own=account is None, state="ready", reason=ready,
            balance_micro=1_500_000, held_micro=250_000, earned_micro=2**70 + 1_750_000, spent_micro=2**70,
            limit_micro=10_000_000, spendable_micro=11_500_000, pending_micro=1_144, unlimited=False, incarnation=0,
            entries=12,
            history=(
                BalancePoint(1_699_990_000_000, -400_000), BalancePoint(1_699_996_000_000, 900_000),
                BalancePoint(1_700_000_000_000, 1_500_000),
            ),
            partners=(PartnerView("cd" * 32, OTHER, 2**70 + 1_750_000, 0), PartnerView("ef" * 32, "", 0, 2**70)),
            partner_count=2,
            escrows=(EscrowView("0a" * 32, 250_000, 100_000, 0, 50_000, True),), escrow_count=1,
            pending=(EntryView(0, 11, 1_700_000_000_000, "work", "0b" * 32, 1_144, "pending:hold", "\x1b[2J"),),
            pending_count=1, void=(), void_count=0,
            forks=(ForkView("ef" * 32, LIAR, 0, 7, 1_700_000_000_000),), fork_count=1,
        )  # fmt: skip

    async def kernels(self) -> tuple[KernelView, ...]:
        example = "sparkle submit prime_count -p stop=1e9"
        params = {"start": "whole number", "stop": "whole number"}
        return (KernelView("prime_count", 1, "Counts primes.", params, "exact", "n log log n", example),)

    def emit(self, event: str, **fields: Any) -> None:
        for queue in self.queues:
            queue.put_nowait(Event(event, 1_700_000_000.0, fields))

    async def events(self) -> AsyncIterator[Event]:
        queue: asyncio.Queue[Event] = asyncio.Queue()
        self.queues.append(queue)
        self.listening.set()
        try:
            while True:
                yield await queue.get()
        finally:
            self.queues.remove(queue)


async def main(path: str) -> None:
    with HomeDir.open(path) as home:
        server = ApiServer(FakeControl(), token=home.token, bind="127.0.0.1:0")
        home.announce(await server.start())
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        await server.stop()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
