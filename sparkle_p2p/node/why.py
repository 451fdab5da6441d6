"""Answers ``sparkle why`` from the cores' own records."""

from dataclasses import replace
from typing import TYPE_CHECKING

from sparkle_p2p.node import reading, trust_reading, why_credit, why_trust
from sparkle_p2p.node.journal_words import seconds, timeline
from sparkle_p2p.node.memory import MIB, mib
from sparkle_p2p.node.narrate import many
from sparkle_p2p.node.picture import forecast, job_view, rejection_view
from sparkle_p2p.node.why_line import explain_guest, guest_job, in_line
from sparkle_p2p.node.why_peer import explain_peer
from sparkle_p2p.node.why_unit import explain_unit
from sparkle_p2p.runtime.clock import boot_ns, wall_ms
from sparkle_p2p.view import Eta, Explanation, NodeView, Reason, Scalar
from sparkle_protocol.errors import NotFound, SparkleError
from sparkle_protocol.ids import PeerId, key_from_peer_id, peer_id_from_key, short_peer
from sparkle_protocol.trust.parameters import TRUST_RULES
from sparkle_protocol.work.kept_job import KeptJob

if TYPE_CHECKING:
    from sparkle_p2p.node.node import Node

DETAILS_SHOWN = 50
DETAILS_NAMED = 3
CHECKED = (
    "Each result is checked by this node, or by one keeper while it is away, with numbers drawn after the worker "
    "committed to it; the first that passes is accepted."
)


async def explain(node: "Node", view: NodeView, subject: str | None) -> Explanation:
    """Why the node (None), a job ("ID"), a unit ("ID/UNIT") or a peer is as it is.

    Of a job that this node only keeps for somebody else, it is where it stands in line here.

    Raises:
        NotFound: nothing of that name is known here.
        StoreError: a job's journal cannot be read.
    """
    if subject is None:
        return _explain_node(node, view)
    if "/" in subject:
        name, _, unit = subject.partition("/")
        if not unit.isdecimal():
            raise NotFound(f"'{subject}' names no unit; write JOB/NUMBER")
        job = node.kept_job(name)
        told = explain_unit(job, int(unit), node.journals.pace(job.state.id), boot_ns(), node.store.failure)
        return replace(told, details=(*told.details, *why_credit.unit_reasons(node.ledger, job, int(unit))))
    ending = subject.lstrip("…")
    peers = [peer for peer in _known_peers(node, view) if ending and peer.endswith(ending)]
    if not peers:
        peers = _with_account(node, ending)
    if len(peers) == 1:
        return explain_peer(node, view, peers[0])
    try:
        job = node.kept_job(subject)
    except NotFound as error:
        if not peers and (guest := guest_job(node.submitter, subject)) is not None:
            told = explain_guest(node.submitter, guest, boot_ns())
            return replace(told, details=(*told.details, *why_credit.job_reasons(node.ledger, guest)))
        if len(peers) > 1:
            raise NotFound(f"{len(peers)} peers end in '{subject}'; give more of the id") from error
        raise NotFound(f"neither a job nor a peer is called '{subject}' here") from error
    return await _explain_job(node, job)


def _known_peers(node: "Node", view: NodeView) -> list[PeerId]:
    """Everybody who is connected, worked for us, has a standing here or broke a rule."""
    known = {PeerId(peer.peer_id) for peer in view.peers} | set(node.offenders.all()) | node.standings.peers()
    for job in node.submitter.jobs.values():
        known |= reading.workers(job)
    return sorted(known - {node.identity.peer_id})


def _with_account(node: "Node", name: str) -> list[PeerId]:
    """Who is named by its whole id, if its account is known here."""
    try:
        peer = peer_id_from_key(key_from_peer_id(PeerId(name)))
    except SparkleError:
        return []
    return [peer] if why_credit.has_account(node.ledger, peer) else []


def _explain_node(node: "Node", view: NodeView) -> Explanation:
    details = [
        Reason("peers", f"{many(len(view.peers), 'peer')} connected.", {"peers": len(view.peers)}),
        Reason(f"safety_{view.safety.code}", view.safety.sentence, {"peers": view.safety.peers}),
        Reason("held", f"{many(len(view.units), 'unit')} in hand.", {"units": len(view.units)}),
        Reason(
            "record",
            f"{many(view.units_done, 'unit')} computed, {view.units_verified} accepted by their owners.",
            {"done": view.units_done, "verified": view.units_verified},
        ),
    ]
    details += _too_large(node)
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


def _too_large(node: "Node") -> list[Reason]:
    """Open jobs that this node takes no unit of, because it allows too little memory."""
    limit = node.config.memory_mb
    return [
        Reason(
            "too_large",
            f"This node's limit of {limit} MB is below the {mib(needed)} MB that a unit of {job.hex()[:8]} needs; "
            "it takes none. --memory-mb sets the limit.",
            {"job": job.hex(), "bytes": needed, "limit": limit * MIB},
        )
        for job, needed in list(node.worker.memory.too_large(boot_ns()).items())[:DETAILS_NAMED]
    ]


async def _explain_job(node: "Node", job: KeptJob) -> Explanation:
    now_ns, pace, me = boot_ns(), node.journals.pace(job.state.id), node.identity.peer_id
    storage = node.storage_failure
    view = job_view(job, None, pace, now_ns, wall_ms(), storage)
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
    details: list[Reason] = []
    lacking = node.why_no_result(job)
    if lacking is not None:
        details.append(Reason("result_lacking", f"Its result is not complete here yet: {lacking}.", {}))
    if not job.outcome:
        expected = forecast(job, counts, pace, now_ns, storage)
        details.append(_expected(expected) if isinstance(expected, Eta) else expected)
        details.append(_kept_by(job, me))
        details += in_line(node.submitter, job, now_ns)
        details += _waiting_for_others(job)
        lacking = node.memory.lacking(job.state.spec)
        if lacking:
            sentence = f"{lacking[0].upper()}{lacking[1:]}; it waits for one that does."
            details.append(Reason("too_large", sentence, {"bytes": job.state.spec.resources.memory_bytes}))
    for class_, evidence in sorted(reading.excluded_classes(job).items()):
        sentence = f"Devices of class {class_} get one unit in a while: {evidence}."
        details.append(Reason("class_excluded", sentence, {"class": class_}))
    if job.dead:
        sentence = f"Nobody could compute {many(len(job.dead), 'unit')}; 'sparkle dead' lists the evidence."
        details.append(Reason("dead_units", sentence, {"units": len(job.dead)}))
    details += [
        Reason(
            "accepted_from",
            f"{'This node' if peer == me else short_peer(peer)}: {many(count, 'result')} accepted.",
            {"peer": peer, "units": count},
        )
        for peer, count in job.accepted_by.most_common(DETAILS_SHOWN)
    ]
    details += [rejection_view(rejection).reason for rejection in job.rejections[:DETAILS_SHOWN]]
    details.append(_policy(job, node.standings.known_workers()))
    details += why_credit.job_reasons(node.ledger, job)
    journal = await node.journals.of(job.state.id)
    subject, reason = job.state.id.hex(), Reason(f"job_{view.state}", headline, numbers)
    return Explanation(subject, reason, tuple(details), timeline(journal.entries))


def _expected(eta: Eta) -> Reason:
    low, high = seconds(eta.low_s), seconds(eta.high_s)
    sentence = f"Expected to end in about {seconds(eta.finish_s)}; between {low} and {high} is likely."
    numbers = {"finish_s": round(eta.finish_s, 1), "low_s": round(eta.low_s, 1), "high_s": round(eta.high_s, 1)}
    return Reason("expected_end", sentence, numbers)


def _kept_by(job: KeptJob, me: PeerId) -> Reason:
    """Who could go on with the job."""
    keepers = reading.keepers(job)
    others = [peer for peer in keepers if peer != me]
    names = ", ".join(short_peer(peer) for peer in others)
    if not others:
        sentence = "Kept by this node alone: closing it stops the job."
    elif me in keepers:
        sentence = f"Kept by {many(len(keepers), 'node')}: this one and {names}."
    else:
        sentence = f"Kept by {many(len(keepers), 'node')}: {names}."
    return Reason("kept_by", sentence, {"keepers": len(keepers)})


def _policy(job: KeptJob, known: int) -> Reason:
    """How results of the job are verified by a node that knows so many workers."""
    policy = job.state.spec.policy
    numbers: dict[str, Scalar] = {"quorum": policy.quorum, "max_replicas": policy.max_replicas}
    verified = f"Verified as '{policy.level}':"
    own = "this node's own results need no second one."
    if job.checks is not None:
        return Reason("policy", CHECKED, numbers)
    if trust_reading.is_weighed(job):
        numbers |= {"audit_floor": policy.audit_permille / 1000, "known": known}
        one = (
            "the answer of one known worker is enough, of which at least "
            f"{why_trust.percent(policy.audit_permille / 1000)} are audited by another"
        )
        many_agree = f"{policy.quorum} distinct workers must agree"
        if known < TRUST_RULES.enough_known:
            sentence = f"{verified} {many_agree}, as fewer than two are known here by their work; {own} Later {one}."
        else:
            sentence = f"{verified} {one}; while fewer than two are known, {many_agree}; {own}"
        return Reason("policy", sentence, numbers)
    if policy.quorum == 1:
        return Reason(
            "policy", f"{verified} the first result of a unit counts, unchecked by a second worker.", numbers
        )
    if policy.level == "critical":
        own = "this node's own counts as one of them."
    return Reason("policy", f"{verified} {policy.quorum} distinct workers must agree; {own}", numbers)


def _waiting_for_others(job: KeptJob) -> list[Reason]:
    """Units that got all the answers they can get from the workers there are, and need further workers."""
    waiting = reading.waiting_for_workers(job)
    if waiting is None:
        return []
    answered = f"{many(waiting.units, 'unit')} answered by {many(waiting.workers, 'worker')} so far"
    them = "them" if waiting.units > 1 else "it"
    sentence = f"{answered}; {many(waiting.more, 'more distinct worker')} must compute {them} too."
    if trust_reading.is_weighed(job) and not trust_reading.is_voting(job):
        sentence = f"{answered}; a worker whose answers count must compute {them} too, or an audit is due."
    numbers = {"units": waiting.units, "workers": waiting.workers, "more": waiting.more}
    return [Reason("wants_workers", sentence, numbers)]
