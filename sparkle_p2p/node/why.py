"""Answers ``sparkle why`` from the cores' own records."""

from typing import TYPE_CHECKING

from sparkle_p2p.node.narrate import many
from sparkle_p2p.node.picture import job_view, rejection_view
from sparkle_p2p.runtime.clock import boot_ns, wall_ms
from sparkle_p2p.view import Explanation, NodeView, Reason, Scalar
from sparkle_protocol.errors import NotFound
from sparkle_protocol.ids import PeerId, peer_id_from_key, short_peer
from sparkle_protocol.work.kept_job import KeptJob

if TYPE_CHECKING:
    from sparkle_p2p.node.node import Node

DETAILS_SHOWN = 50
DETAILS_NAMED = 3


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
    ending = subject.lstrip("…")
    peers = [peer for peer in _known_peers(node, view) if ending and peer.endswith(ending)]
    if len(peers) == 1:
        return _explain_peer(node, view, peers[0])
    try:
        return _explain_job(node.kept_job(subject))
    except NotFound as error:
        if len(peers) > 1:
            raise NotFound(f"{len(peers)} peers end in '{subject}'; give more of the id") from error
        raise NotFound(f"neither a job nor a peer is called '{subject}' here") from error


def _known_peers(node: "Node", view: NodeView) -> list[PeerId]:
    """Everybody who is connected, worked for us or broke a rule."""
    known = {PeerId(peer.peer_id) for peer in view.peers} | set(node.offenders.all())
    for job in node.submitter.jobs.values():
        known |= job.accepted_by.keys() | job.rejected
    return sorted(known - {node.identity.peer_id})


def _explain_node(node: "Node", view: NodeView) -> Explanation:
    details = [
        Reason("peers", f"{many(len(view.peers), 'peer')} connected.", {"peers": len(view.peers)}),
        Reason("held", f"{many(len(view.units), 'unit')} in hand.", {"units": len(view.units)}),
        Reason(
            "record",
            f"{many(view.units_done, 'unit')} computed, {view.units_verified} accepted by their owners.",
            {"done": view.units_done, "verified": view.units_verified},
        ),
    ]
    if node.membership.clock_off_ms:
        off_s = node.membership.clock_off_ms // 1000
        details.append(Reason("clock_off", f"This machine's clock is {abs(off_s)} s off.", {"seconds": off_s}))
    offenders = node.offenders.all()
    if offenders:
        total = node.offenders.total
        who = ", ".join(short_peer(peer) for peer in reversed(offenders[-DETAILS_NAMED:]))
        sentence = f"{many(total, 'rule violation')} by {many(len(offenders), 'peer')}, the latest by {who}."
        details.append(Reason("violations", sentence, {"violations": total, "offenders": len(offenders)}))
    return Explanation(view.peer_id, view.reason, tuple(details))


def _explain_job(job: KeptJob) -> Explanation:
    view = job_view(job, None, boot_ns(), wall_ms())
    counts = view.units
    done = counts.final + counts.provisional
    headline = {
        "queued": f"No worker has taken a unit yet; {many(counts.total, 'unit')} to be done.",
        "running": f"{done} of {many(counts.total, 'unit')} accepted, {counts.leased} being computed, "
        f"{counts.committed} waiting for further answers, {counts.pending} for a worker.",
        "done": f"All {many(counts.total, 'unit')} accepted, from {many(job.replicas, 'execution')}.",
        "cancelled": f"Cancelled by its owner with {done} of {counts.total} units accepted.",
        "failed": job.error,
    }[view.state]
    numbers = {"accepted": done, "total": counts.total, "replicas": job.replicas, "rejected": job.rejected_count}
    details = [
        Reason(
            "accepted_from", f"{short_peer(peer)}: {many(count, 'unit')} accepted.", {"peer": peer, "units": count}
        )
        for peer, count in job.accepted_by.most_common(DETAILS_SHOWN)
    ]
    details += [rejection_view(rejection).reason for rejection in job.rejections[:DETAILS_SHOWN]]
    if job.dead:
        sentence = f"Nobody could compute {many(len(job.dead), 'unit')}; 'sparkle dead' lists the evidence."
        details.insert(0, Reason("dead_units", sentence, {"units": len(job.dead)}))
    waiting = _waiting_for_others(job) if not job.outcome else None
    if waiting is not None:
        details.insert(0, waiting)
    policy = job.state.spec.policy
    details.append(
        Reason(
            "policy",
            _policy_sentence(policy.level, policy.quorum),
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
        if lease.copy:
            sentence += " It got a copy, since another worker was slow."
        numbers: dict[str, Scalar] = {"peer": worker, "lease": lease.counter, "left_s": left_s, "copy": lease.copy}
        details.append(Reason("leased", sentence, numbers))
    votes = job.state.votes(unit)
    for worker in sorted(job.state.committed(unit)):
        details.append(_commit_reason(worker, votes.get(worker)))
    details += [rejection_view(r).reason for r in job.rejections if r.unit == unit]
    details += _failures(job, unit)
    for epoch, reason in job.state.resets(unit):
        sentence = f"Begun anew for the {_ordinal(epoch)} time because {reason.rstrip('.')}."
        details.append(Reason("reset", sentence, {"epoch": epoch}))
    verdict = job.state.verdict(unit)
    if verdict is not None:
        who = ", ".join(short_peer(peer_id_from_key(key)) for key in verdict.accepted)
        headline = Reason("final", f"Accepted: {who} gave {verdict.result_hash.hex()[:8]}.", {"epoch": verdict.epoch})
    elif unit in job.dead:
        sentence = f"Dead: {job.dead[unit].rstrip('.')}. 'sparkle dead --requeue' begins it anew."
        headline = Reason("dead", sentence, {"epoch": job.state.epoch(unit)})
    else:
        missing = max(0, job.missing(unit))
        sentence = f"Not decided yet; {many(missing, 'more worker')} wanted." if missing else "Its workers are at it."
        headline = Reason("open", sentence, {"missing": missing, "epoch": job.state.epoch(unit)})
    return Explanation(subject, headline, tuple(details))


def _failures(job: KeptJob, unit: int) -> list[Reason]:
    """Who failed on a unit, in this epoch and in those before."""
    now, reasons = job.state.epoch(unit), []
    for failed in job.state.all_failures(unit):
        text = f": {failed.text.rstrip('.')}" if failed.text else ""
        when = "" if failed.epoch == now else " before it was begun anew"
        sentence = f"{short_peer(failed.worker)} failed on it{when} ({failed.code}{text})."
        numbers: dict[str, Scalar] = {"peer": failed.worker, "code": failed.code, "epoch": failed.epoch}
        reasons.append(Reason("failed" if failed.epoch == now else "failed_before", sentence, numbers))
    return reasons


def _ordinal(number: int) -> str:
    words = {1: "first", 2: "second", 3: "third"}
    return words.get(number, f"{number}th")


def _commit_reason(worker: PeerId, vote: bytes | None) -> Reason:
    if vote is None:
        return Reason("committed", f"{short_peer(worker)} has committed and not shown its result.", {"peer": worker})
    return Reason("voted", f"{short_peer(worker)} gave {vote.hex()[:8]}.", {"peer": worker, "result": vote.hex()})


def _policy_sentence(level: str, quorum: int) -> str:
    if quorum == 1:
        return f"Verified as '{level}': the first result of a unit counts, unchecked by a second worker."
    return f"Verified as '{level}': {quorum} distinct workers must agree; this node's own results need no second one."


def _waiting_for_others(job: KeptJob) -> Reason | None:
    """Units that got all the answers they can get from the workers there are, and need further workers."""
    units = [
        unit
        for unit, book in job.leases.books.items()
        if not job.is_decided(unit) and unit not in job.dead and not book.leases
        and job.participants(unit) and job.missing(unit) > 0
    ]  # fmt: skip
    if not units:
        return None
    workers = {worker for unit in units for worker in job.participants(unit)}
    more = max(job.missing(unit) for unit in units)
    sentence = (
        f"{many(len(units), 'unit')} answered by {many(len(workers), 'worker')} so far; "
        f"{many(more, 'more distinct worker')} must compute {'them' if len(units) > 1 else 'it'} too."
    )
    return Reason("wants_workers", sentence, {"units": len(units), "workers": len(workers), "more": more})


def _explain_peer(node: "Node", view: NodeView, peer: PeerId) -> Explanation:
    record = node.offenders.of(peer)
    jobs = list(node.submitter.jobs.values())
    accepted = sum(job.accepted_by[peer] for job in jobs)
    rejections = [rejection for job in jobs for rejection in job.rejections if rejection.worker == peer]
    link = next((shown for shown in view.peers if shown.peer_id == peer), None)
    numbers: dict[str, Scalar] = {
        "connected": link is not None,
        "accepted": accepted,
        "rejected": len(rejections),
        "violations": record.violations,
        "latency_ms": round(link.latency_ms, 1) if link is not None and link.latency_ms is not None else None,
    }
    if node.membership.banned(peer, boot_ns()):
        code = "banned"
        sentence = f"It broke {many(record.violations, 'rule')}; this node does not deal with it for a while."
    elif rejections:
        code = "rejected"
        proven = f"{many(len(rejections), 'result')} of it {'were' if len(rejections) > 1 else 'was'} proven wrong"
        sentence = f"{proven} here; it gets no more units of those jobs."
    elif record.violations:
        code = "warned"
        sentence = f"It broke {many(record.violations, 'rule')} here; {many(accepted, 'result')} of it accepted."
    else:
        code = "ok"
        sentence = f"In good standing: {many(accepted, 'result')} of it accepted here."
    details = [rejection_view(rejection).reason for rejection in rejections]
    details += [
        Reason("violation", reason[0].upper() + reason[1:] + ".", {"time": round(time_s, 3)})
        for time_s, reason in reversed(record.reasons)
        if reason
    ]
    return Explanation(peer, Reason(f"peer_{code}", sentence, numbers), tuple(details[:DETAILS_SHOWN]))
