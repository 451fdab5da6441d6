"""Answers ``sparkle why`` from the cores' own records."""

from typing import TYPE_CHECKING

from sparkle_p2p.node.picture import job_view, rejection_view
from sparkle_p2p.runtime.clock import boot_ns
from sparkle_p2p.view import Explanation, NodeView, PeerView, Reason
from sparkle_protocol.errors import NotFound
from sparkle_protocol.ids import PeerId, peer_id_from_key, short_peer
from sparkle_protocol.work.kept_job import KeptJob

if TYPE_CHECKING:
    from sparkle_p2p.node.node import Node

DETAILS_SHOWN = 50


def explain(node: "Node", view: NodeView, subject: str | None) -> Explanation:
    """Why the node (None), a job ("ID"), a unit ("ID/UNIT") or a peer is as it is.

    Raises:
        NotFound: nothing of that name is known here.
    """
    if subject is None:
        return _explain_node(node, view)
    if "/" in subject:
        job, _, unit = subject.partition("/")
        if not unit.isdecimal():
            raise NotFound(f"'{subject}' names no unit; write JOB/NUMBER")
        return _explain_unit(node.kept_job(job), int(unit))
    peers = [peer for peer in view.peers if peer.peer_id == subject or peer.peer_id.endswith(subject.lstrip("…"))]
    if len(peers) == 1 and subject:
        return _explain_peer(node, peers[0])
    try:
        return _explain_job(node.kept_job(subject))
    except NotFound as error:
        raise NotFound(f"neither a job nor a connected peer is called '{subject}' here") from error


def _explain_node(node: "Node", view: NodeView) -> Explanation:
    details = [
        Reason("peers", f"{len(view.peers)} peer(s) connected.", {"peers": len(view.peers)}),
        Reason("held", f"{len(view.units)} unit(s) in hand.", {"units": len(view.units)}),
        Reason(
            "record",
            f"{view.units_done} unit(s) computed, {view.units_verified} accepted by their owners.",
            {"done": view.units_done, "verified": view.units_verified},
        ),
    ]
    if node.membership.clock_off_ms:
        off_s = node.membership.clock_off_ms // 1000
        details.append(Reason("clock_off", f"This machine's clock is {abs(off_s)} s off.", {"seconds": off_s}))
    if node.violations:
        total = sum(node.violations.values())
        details.append(Reason("violations", f"{total} rule violation(s) of peers recorded.", {"violations": total}))
    return Explanation(view.peer_id, view.reason, tuple(details))


def _explain_job(job: KeptJob) -> Explanation:
    view = job_view(job, None, boot_ns())
    counts = view.units
    done = counts.final + counts.provisional
    headline = {
        "queued": f"No worker has taken a unit yet; {counts.total} wait.",
        "running": f"{done} of {counts.total} units are accepted, {counts.leased} are being computed, "
        f"{counts.committed} wait for a second answer, {counts.pending} wait for a worker.",
        "done": f"All {counts.total} units are accepted, from {job.replicas} executions.",
        "cancelled": f"Cancelled by its owner with {done} of {counts.total} units accepted.",
        "failed": job.error,
    }[view.state]
    numbers = {"accepted": done, "total": counts.total, "replicas": job.replicas, "rejected": job.rejected_count}
    details = [
        Reason("accepted_from", f"{short_peer(peer)}: {units} unit(s) accepted.", {"peer": peer, "units": units})
        for peer, units in job.accepted_by.most_common(DETAILS_SHOWN)
    ]
    details += [rejection_view(rejection).reason for rejection in job.rejections[:DETAILS_SHOWN]]
    policy = job.state.spec.policy
    details.append(
        Reason(
            "policy",
            f"Verified as '{policy.level}': {policy.quorum} distinct worker(s) must agree; this node's own results "
            "need no second one.",
            {"quorum": policy.quorum, "max_replicas": policy.max_replicas},
        )
    )
    return Explanation(job.state.id.hex(), Reason(f"job_{view.state}", headline, numbers), tuple(details))


def _explain_unit(job: KeptJob, unit: int) -> Explanation:
    if unit >= job.state.spec.units:
        raise NotFound(f"job {job.state.id.hex()[:12]} has units 0 to {job.state.spec.units - 1}")
    subject = f"{job.state.id.hex()}/{unit}"
    details: list[Reason] = []
    book = job.leases.books.get(unit)
    for worker, lease in (book.leases if book else {}).items():
        left_s = max(0, lease.deadline_ns - boot_ns()) // 1_000_000_000
        sentence = f"{short_peer(worker)} computes it ({lease.progress:.0%}); its lease lasts {left_s} s more."
        details.append(Reason("leased", sentence, {"peer": worker, "lease": lease.counter, "left_s": left_s}))
    votes = job.state.votes(unit)
    for worker in sorted(job.state.committed(unit)):
        details.append(_commit_reason(worker, votes.get(worker)))
    for worker, code in job.state.failures(unit).items():
        details.append(
            Reason("failed", f"{short_peer(worker)} failed on it ({code}).", {"peer": worker, "code": code})
        )
    details += [rejection_view(r).reason for r in job.rejections if r.unit == unit]
    verdict = job.state.verdict(unit)
    if verdict is not None:
        who = ", ".join(short_peer(peer_id_from_key(key)) for key in verdict.accepted)
        headline = Reason("final", f"Accepted: {who} gave {verdict.result_hash.hex()[:8]}.", {"epoch": verdict.epoch})
    elif unit in job.dead:
        headline = Reason("dead", job.dead[unit])
    else:
        missing = max(0, job.missing(unit))
        sentence = f"Not decided yet; {missing} more worker(s) wanted." if missing else "Its workers are at it."
        headline = Reason("open", sentence, {"missing": missing, "epoch": job.state.epoch(unit)})
    return Explanation(subject, headline, tuple(details))


def _commit_reason(worker: PeerId, vote: bytes | None) -> Reason:
    if vote is None:
        return Reason("committed", f"{short_peer(worker)} has committed and not shown its result.", {"peer": worker})
    return Reason("voted", f"{short_peer(worker)} gave {vote.hex()[:8]}.", {"peer": worker, "result": vote.hex()})


def _explain_peer(node: "Node", peer: PeerView) -> Explanation:
    numbers = {
        "accepted": peer.units_accepted,
        "rejected": peer.units_rejected,
        "violations": peer.violations,
        "latency_ms": peer.latency_ms,
    }
    if peer.standing == "rejected":
        sentence = (
            f"{peer.units_rejected} of its results were proven wrong here; it gets no more units of those jobs."
        )
    else:
        sentence = f"In good standing: {peer.units_accepted} of its results were accepted here."
    details = [
        rejection_view(rejection).reason
        for job in node.submitter.jobs.values()
        for rejection in job.rejections
        if rejection.worker == peer.peer_id
    ]
    return Explanation(
        peer.peer_id, Reason(f"peer_{peer.standing}", sentence, numbers), tuple(details[:DETAILS_SHOWN])
    )
