"""Builds the frozen view of a node from its cores. Reads only; decides nothing."""

import asyncio
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from sparkle_p2p.net.overlay import Link
from sparkle_p2p.node import narrate, reading
from sparkle_p2p.node.forecast import Pace, job_forecast
from sparkle_p2p.node.offenders import Offenders
from sparkle_p2p.node.standings import standing_views
from sparkle_p2p.runtime.clock import boot_ns
from sparkle_p2p.view import (
    Attempt,
    DeadUnit,
    Eta,
    JobView,
    KernelView,
    NodeView,
    PeerView,
    Reason,
    Rejection,
    Scalar,
    UnitCounts,
    UnitView,
)
from sparkle_protocol.facts import is_encrypted
from sparkle_protocol.ids import PeerId, ResultHash, short_peer
from sparkle_protocol.version import __version__
from sparkle_protocol.work.kept_job import KeptJob
from sparkle_protocol.work.rejection import Rejection as ProvenWrong
from sparkle_protocol.work.worker import WorkerAgent
from sparkle_worker.kernels.arrays import ArrayKernel
from sparkle_worker.kernels.registry import ARRAY_KERNELS, KERNELS

if TYPE_CHECKING:
    from sparkle_p2p.node.node import Node

REJECTIONS_SHOWN = 32
STANDINGS_SHOWN = 64
_SHOWN_STATES = {"committing": "committed", "revealing": "revealed"}


def node_view(node: "Node", jobs: tuple[JobView, ...]) -> NodeView:
    """The whole node with these jobs."""
    now_ns = boot_ns()
    links = node.overlay.links() if node.overlay is not None else ()
    network = narrate.network_state(node.overlay, links, node.ready)
    state, reason = narrate.node_state(node.worker, node.config, network, len(links), stopping=node.stopping)
    if node.presence.cloned is not None and state != "stopping":
        state, reason = "paused", narrate.cloned(node.presence.cloned)
    if node.storage_failure is not None:  # nothing else matters as much, whatever the node does meanwhile
        reason = narrate.storage_failed(node.storage_failure)
    known = node.standings.known_workers()
    return NodeView(
        peer_id=node.identity.peer_id,
        net=node.config.net,
        version=__version__,
        pid=os.getpid(),
        state=state,
        reason=reason,
        network=network,
        uptime_s=(now_ns - node.started_ns) / 1e9,
        addresses=node.overlay.addresses() if node.overlay is not None else (),
        api=node.api_url,
        peers=peer_views(links, node.submitter.jobs.values(), node.offenders, asyncio.get_running_loop().time()),
        units=unit_views(node.worker, now_ns, paused=node.worker.paused),
        jobs=jobs,
        units_done=node.units_done,
        units_verified=node.units_verified,
        credit_micro=node.ledger.balance_micro if node.ledger is not None else 0,
        cpu_percent=node.usage.cpu_percent,
        pss_bytes=node.usage.pss_bytes,
        limits={"slots": node.config.slots if node.worker.kernels else 0},
        log=tuple(node.diary.lines)[-100:],
        safety=narrate.safety(1 + len(links), known),
        missing_protections=node.missing_protections,
        network_key=node.config.network_key.fingerprint if node.config.network_key is not None else None,
        genesis=node.config.genesis.fingerprint if node.config.genesis is not None else None,
        known_workers=known,
        standings=standing_views(node.standings.book, STANDINGS_SHOWN),
    )


def unit_views(worker: WorkerAgent, now_ns: int, *, paused: bool) -> tuple[UnitView, ...]:
    """Units this node holds, those that run first."""
    views = []
    begun = set(worker.begun)
    for key, held in worker.held.items():
        job, unit, _ = key
        waits = held.state == "running" and key not in begun
        state: Any = "queued" if waits else _SHOWN_STATES.get(held.state, held.state)
        if state == "running" and paused:
            state = "paused"
        seconds = (now_ns - held.started_ns) / 1e9 if held.started_ns and not waits else 0.0
        kernel = worker.jobs[job].spec.kernel if job in worker.jobs else "?"
        views.append(UnitView(job.hex(), unit, kernel, state, held.progress, seconds, held.keeper))
    order = {"running": 0, "paused": 0, "queued": 1}
    return tuple(sorted(views, key=lambda view: (order.get(view.state, 2), -view.seconds)))


def peer_views(
    links: Iterable[Link], jobs: Iterable[KeptJob], offenders: Offenders, loop_time_s: float
) -> tuple[PeerView, ...]:
    """Connected peers and how their work fared with us."""
    accepted: Counter[PeerId] = Counter()
    refused: Counter[PeerId] = Counter()
    for job in jobs:
        accepted.update(job.accepted_by)
        refused.update(rejection.worker for rejection in job.rejections)
    return tuple(
        PeerView(
            link.peer, link.addresses, link.direction, link.latency_ms, link.agent,
            max(0.0, loop_time_s - link.since_s), accepted[link.peer], refused[link.peer],
            offenders.of(link.peer).violations, "rejected" if refused[link.peer] else "ok",
        )
        for link in links
    )  # fmt: skip


def kernel_views() -> tuple[KernelView, ...]:
    """Every kernel that a job can be submitted of, as it describes itself."""
    plain = (
        KernelView(k.name, k.version, k.summary, dict(k.parameters), k.verification, k.cost_law, k.example)
        for k in KERNELS.values()
    )
    with_arrays = (
        KernelView(
            k.name, k.version, k.summary, dict(k.parameters), k.verification, k.cost_law, k.example,
            {name: _input_text(k, name) for name in k.inputs}, k.error_law,
        )
        for k in ARRAY_KERNELS.values()
    )  # fmt: skip
    return (*plain, *with_arrays)


def _input_text(kernel: ArrayKernel, name: str) -> str:
    return kernel.inputs[name] + (" (may be left out)" if name in kernel.optional_inputs else "")


def job_view(
    job: KeptJob,
    value: Any,
    pace: Pace,
    now_ns: int,
    now_ms: int,
    storage: Exception | None = None,
    *,
    unfinished: bool = False,
    failure: str | None = None,
) -> JobView:
    """One of our jobs.

    Args:
        job: its record.
        value: its combined result, once there is one.
        pace: how fast it goes.
        now_ns: the same clock as the pace's.
        now_ms: the wall clock.
        storage: why nothing can be written now; None when all is well.
        unfinished: all its units are accepted, but its result is still being put together.
        failure: why the result of a job that is done is not there, if that is so.
    """
    spec = job.state.spec
    counts = reading.unit_counts(job)
    state: Any = job.outcome or ("running" if reading.was_taken(job) else "queued")
    if unfinished:
        state = "running"
    expected = forecast(job, counts, pace, now_ns, storage) if state == "running" else None
    eta = expected if isinstance(expected, Eta) else None
    return JobView(
        job=job.state.id.hex(),
        kernel=spec.kernel,
        params=dict(spec.params),
        state=state,
        verify=spec.policy.level,
        units=counts,
        replicas=job.replicas,
        rejected=job.rejected_count,
        workers={str(peer): units for peer, units in job.accepted_by.items()},
        rejections=tuple(rejection_view(r) for r in job.rejections[:REJECTIONS_SHOWN]),
        result=value,
        error=job.error or failure,
        age_s=max(0.0, (now_ms - spec.created_ms) / 1000),
        eta_s=eta.finish_s if eta is not None else None,
        eta=eta,
        keepers=reading.keepers(job),
        sealed=is_encrypted(spec),
    )


def forecast(
    job: KeptJob, counts: UnitCounts, pace: Pace, now_ns: int, storage: Exception | None = None
) -> Eta | Reason:
    """When a job that goes on will probably end, or why nobody can tell. ``storage``: as of ``job_view``."""
    if storage is not None:
        return narrate.storage_failed(storage)
    return job_forecast(
        pace,
        now_ns,
        remaining=counts.total - counts.final - counts.provisional - counts.dead,
        taken=reading.was_taken(job),
        held=reading.leases_in_hand(job, now_ns),
        run_times_s=reading.run_times_s(job),
    )


def dead_units(job: KeptJob) -> Iterator[DeadUnit]:
    """Units that nobody could compute, with who failed on them or answered what, in their order."""
    state = job.state
    for unit in sorted(job.dead):
        epoch, votes = state.epoch(unit), state.votes(unit)
        failed = list(state.failures_since_reset(unit).values())
        attempts = [Attempt(one.worker, one.epoch, one.code, one.text) for one in failed]
        attempts += [Attempt(worker, epoch, "answered", _short(votes[worker])) for worker in sorted(votes)]
        code = "no_majority"
        if failed and len(failed) >= len(votes):
            code = Counter(one.code for one in failed).most_common(1)[0][0]
        numbers: dict[str, Scalar] = {"failures": len(failed), "answers": len(votes), "epoch": epoch}
        reason = Reason(code, _sentence(job.dead[unit]), numbers)
        yield DeadUnit(state.id.hex(), state.spec.kernel, unit, epoch, reason, tuple(attempts))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def rejection_view(rejection: ProvenWrong) -> Rejection:
    """A refused result in words."""
    worker = short_peer(rejection.worker)
    given, agreed = _short(rejection.given), _short(rejection.accepted)
    others = ", ".join(short_peer(peer) for peer in rejection.agreeing)
    sentences = {
        "minority": f"{worker} answered {given} for unit {rejection.unit}; {others} computed it independently and "
        + (f"agree on {agreed}" if len(rejection.agreeing) > 1 else f"gave {agreed}"),
        "trusted": f"{worker} answered {given} for unit {rejection.unit}; this node computed {agreed} itself",
        "equivocation": f"{worker} signed two different commitments for unit {rejection.unit}",
        "malformed": f"{worker} sent a result of impossible form for unit {rejection.unit}",
        "check": f"{worker} gave a wrong result for unit {rejection.unit}: {rejection.text or 'it failed the check'}",
    }
    numbers: dict[str, Scalar] = {
        "unit": rejection.unit,
        "given": given,
        "accepted": agreed,
        "agreeing": len(rejection.agreeing),
    }
    reason = Reason(rejection.code, sentences[rejection.code], numbers)
    return Rejection(rejection.unit, rejection.worker, reason)


def _short(result_hash: ResultHash | None) -> str:
    return result_hash.hex()[:8] if result_hash is not None else "-"
