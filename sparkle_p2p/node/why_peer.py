"""Why a peer stands as it does here: what it holds, what became of its results, and whether it gets more."""

from typing import TYPE_CHECKING

from sparkle_p2p.node import reading, why_credit
from sparkle_p2p.node.narrate import many
from sparkle_p2p.node.picture import rejection_view
from sparkle_p2p.node.why_trust import standing_reasons
from sparkle_p2p.runtime.clock import boot_ns
from sparkle_p2p.view import Explanation, NodeView, Reason, Scalar
from sparkle_protocol.ids import PeerId
from sparkle_protocol.work.kept_job import KeptJob

if TYPE_CHECKING:
    from sparkle_p2p.node.node import Node

DETAILS_SHOWN = 50
UNITS_SHOWN = 8  # of those that it holds of one job


def explain_peer(node: "Node", view: NodeView, peer: PeerId) -> Explanation:
    """The headline says how it stands with us, the details what that rests on."""
    now_ns, record = boot_ns(), node.offenders.of(peer)
    jobs = list(node.submitter.jobs.values())
    open_jobs = [job for job in jobs if not job.outcome]
    accepted = sum(job.accepted_by[peer] for job in jobs)
    rejections = [rejection for job in jobs for rejection in job.rejections if rejection.worker == peer]
    link = next((shown for shown in view.peers if shown.peer_id == peer), None)
    late, standing = node.journals.late(peer), standing_reasons(node.standings, peer)
    numbers: dict[str, Scalar] = {
        "connected": link is not None,
        "accepted": accepted,
        "rejected": len(rejections),
        "held": sum(reading.held_count(job, peer) for job in open_jobs),
        "late": late,
        "known": any(reason.code in ("standing_known", "standing_named", "standing_vouched") for reason in standing),
        "violations": record.violations,
        "latency_ms": round(link.latency_ms, 1) if link is not None and link.latency_ms is not None else None,
    }
    if node.membership.banned(peer, now_ns):
        code = "banned"
        sentence = f"It broke {many(record.violations, 'rule')}; this node does not deal with it for a while."
    elif peer in node.presence.clones:
        code = "cloned"
        sentence = (
            "Two machines run with its key: each said so, signed, and named the other; what they sign may clash."
        )
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
    details = [*standing]
    details += [rejection_view(rejection).reason for rejection in rejections]
    details += why_credit.peer_reasons(node.ledger, peer)
    if late:
        text = f"{many(late, 'lease')} of jobs that go on ended before it had finished."
        details.append(Reason("late", text, {"leases": late}))
    for job in open_jobs:
        details += _in_job(job, peer, now_ns)
    details += [
        Reason("violation", reason[0].upper() + reason[1:] + ".", {"time": round(time_s, 3)})
        for time_s, reason in reversed(record.reasons)
        if reason
    ]
    return Explanation(peer, Reason(f"peer_{code}", sentence, numbers), tuple(details[:DETAILS_SHOWN]))


def _in_job(job: KeptJob, peer: PeerId, now_ns: int) -> list[Reason]:
    """Its part in a job that goes on."""
    if peer not in reading.workers(job) and peer not in reading.keepers(job):
        return []
    name, reasons = job.state.id.hex()[:12], []
    if peer in reading.keepers(job):
        reasons.append(Reason("keeper", f"It keeps job {name}.", {"job": job.state.id.hex()}))
    held = reading.held_units(job, peer, now_ns)
    for unit, lease in held[:UNITS_SHOWN]:
        sentence = f"Holds {name}/{unit} ({lease.progress:.0%}); its lease lasts {lease.left_s:.0f} s more."
        numbers: dict[str, Scalar] = {
            "unit": unit, "progress": round(lease.progress, 3), "left_s": round(lease.left_s, 1),
        }  # fmt: skip
        reasons.append(Reason("holds", sentence, numbers))
    if len(held) > UNITS_SHOWN:
        more = len(held) - UNITS_SHOWN
        reasons.append(Reason("holds_more", f"Holds {more} more units of {name}.", {"units": more}))
    count = job.accepted_by[peer]
    if count:
        reasons.append(Reason("accepted", f"{many(count, 'result')} of it accepted for {name}.", {"units": count}))
    return reasons + _why_no_more(job, peer, name, now_ns)


def _why_no_more(job: KeptJob, peer: PeerId, name: str, now_ns: int) -> list[Reason]:
    """Why it would be given nothing of a job now, if so."""
    if reading.allowance(job, peer, now_ns) > 0:
        return []
    undecided, overdue = (
        reading.undecided(job, peer) + reading.held_count(job, peer),
        reading.overdue_results(job, peer),
    )
    numbers: dict[str, Scalar] = {"undecided": undecided, "overdue": overdue}
    if peer in job.rejected:
        why = "a result of it was proven wrong"
    elif excluded := reading.class_exclusion(job, peer, now_ns):
        why = excluded
    elif overdue:
        why = f"it has not shown {many(overdue, 'result')} to which it committed"
    elif not reading.delivers(job, peer):
        why = "it took units and did not deliver; it gets one in a while"
    else:
        why = f"{many(undecided, 'unit')} held or answered by it are undecided, as many as it has earned"
    return [Reason("no_more", f"Gets no more of {name} for now: {why}.", numbers)]
