"""Whom this node believes and why: the standing of a peer, and what a unit wants under the trust policy."""

from sparkle_p2p.node import trust_reading
from sparkle_p2p.node.journal_words import seconds
from sparkle_p2p.node.narrate import many
from sparkle_p2p.node.standings import HOUR_FLOPS, Standings, minute_rate
from sparkle_p2p.node.trust_reading import Group, Opinion, Trial
from sparkle_p2p.view import Reason, Scalar
from sparkle_protocol.ids import PeerId, ResultHash, peer_id_from_key, short_peer
from sparkle_protocol.trust.standing import Key, Standing
from sparkle_protocol.work.kept_job import KeptJob

NAMED = 3
DEVICE_UNKNOWN = "of a device that it did not name"


# --- peers ------------------------------------------------------------------------------------------------


def standing_reasons(standings: Standings, peer: PeerId) -> list[Reason]:
    """How far a peer is trusted, by device and class of kernels."""
    if peer in standings.book.named:
        key = Key(peer, "", "")
        sentence = f"Named as trusted here, so its answers count; {_rate(minute_rate(standings.book, key))}."
        return [Reason("standing_named", sentence, _numbers(standings, key))]
    found = [_standing(standings, key, standing) for key, standing in standings.book.about(peer)]
    if peer in standings.book.disowned():
        sentence = (
            "Named as trusted here, but a result of it was proven wrong since: it is not believed any more. "
            "To name it anew with --trust, start this node once without it, then with it."
        )
        found.insert(0, Reason("standing_disowned", sentence))
    found += _vouched(standings, peer)
    if any(reason.code in ("standing_known", "standing_vouched") for reason in found):
        return found
    known, enough = standings.known_workers(), standings.book.rules.enough_known
    alone = known < enough  # then plain voting decides, and newcomers have a part in it
    if not found:
        what = "alone its answers decide nothing" if alone else "its answers decide nothing"
        found = [Reason("standing_unknown", f"Nothing of it was compared here yet: a newcomer, {what}.")]
    if alone:
        text = (
            f"Until {enough} workers are known here, a unit of a job of this node is decided by any two that agree."
        )
        found.append(Reason("votes_decide", text, {"known": known, "enough": enough}))
    return found


def _vouched(standings: Standings, peer: PeerId) -> list[Reason]:
    """Who says that it is known."""
    found = []
    for verification, vouchers in standings.book.words.about(peer).items():
        names = names_of([short_peer(voucher) for voucher in vouchers])
        numbers: dict[str, Scalar] = {"verification": verification, "by": vouchers[0], "vouchers": len(vouchers)}
        if standings.book.is_vouched(peer, verification):
            sentence = (
                f"Known for results of {verification} kernels to {names}, whom you named: its answers count, "
                "and each is compared until it has earned more here."
            )
            found.append(Reason("standing_vouched", sentence, numbers))
        else:
            sentence = f"{names} vouched for it, which is of no weight after what was seen here."
            found.append(Reason("standing_vouched_in_vain", sentence, numbers))
    return found


def _standing(standings: Standings, key: Key, standing: Standing) -> Reason:
    needed, hours = standings.book.rules.passes_to_count, standing.capital / HOUR_FLOPS
    what = f"results of {key.verification} kernels {f'on {key.device}' if key.device else DEVICE_UNKNOWN}"
    failed = f" It was proven wrong {_times(standing.failures)}." if standing.failures else ""
    passed = f"{many(standing.passes, 'comparison')} passed"
    numbers = _numbers(standings, key)
    if standing.passes < needed:
        sentence = f"A newcomer for {what}: {passed} of the {needed} after which its answers count.{failed}"
        return Reason("standing_newcomer", sentence, numbers)
    rate = _rate(minute_rate(standings.book, key))
    sentence = f"Known for {what}: {passed}, {hours_text(hours)} of reference work; {rate}.{failed}"
    return Reason("standing_known", sentence, numbers)


def _rate(rate: float) -> str:
    return f"of its results of a minute of reference work {percent(rate)} are audited"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _numbers(standings: Standings, key: Key) -> dict[str, Scalar]:
    book, standing = standings.book, standings.book.of(key)
    return {
        "device": key.device or None, "verification": key.verification or None, "passes": standing.passes,
        "needed": book.rules.passes_to_count, "capital_h": round(standing.capital / HOUR_FLOPS, 6),
        "audit_rate": round(minute_rate(book, key), 4), "failures": standing.failures,
    }  # fmt: skip


def hours_text(hours: float) -> str:
    """Reference work in words."""
    if hours >= 1:
        return f"{hours:.1f} h"
    return f"{hours * 60:.1f} min" if hours * 60 >= 1 else f"{hours * 3600:.1f} s"


def percent(rate: float) -> str:
    """A probability in words: "5 %"."""
    return f"{rate:.1%}".replace("%", " %").replace(".0 ", " ")


# --- units ------------------------------------------------------------------------------------------------


def headline(job: KeptJob, unit: int, now_ns: int) -> Reason | None:
    """How an open unit stands, in answers that count; None where plain voting decides."""
    found = trust_reading.trial(job, unit, now_ns)
    if found is None or found.voting:
        return None
    missing = max(0, job.missing(unit))
    if found.audit is not None:
        sentence = "Answered, and being audited."
    elif found.held_by:
        sentence = "Answered; held back until audits of its worker are over."
    elif missing:
        who = "" if found.relaxed else " of workers that count"
        sentence = f"Not decided yet; {many(missing, 'more answer')}{who} wanted."
    else:
        sentence = "Its workers are at it."
    numbers: dict[str, Scalar] = {
        "missing": missing, "counting": found.counting, "wanted": found.wanted, "epoch": job.state.epoch(unit),
    }  # fmt: skip
    return Reason("open", sentence, numbers)


def waits(job: KeptJob, unit: int, now_ns: int) -> Reason | None:
    """Whose answer an open unit waits for that nobody is at work to give, or for which audits; None: for nothing."""
    found = trust_reading.trial(job, unit, now_ns)
    if found is None or found.voting:
        return None
    if found.held_by:
        units = names_of([str(one) for one in found.held_by])
        sentence = f"Waits for the audit of {units}, by the same worker: if it fails, this is computed again."
        return Reason("waits_audit", sentence, {"audits": len(found.held_by)})
    if job.missing(unit) <= 0:
        return None
    soon = ""
    if found.relaxes_in_s is not None and not found.relaxed:
        soon = f" If none takes it within {found.relaxes_in_s:.0f} s, everybody counts for it."
    numbers: dict[str, Scalar] = {
        "missing": found.wanted - found.counting,
        "relaxes_in_s": round(found.relaxes_in_s, 1) if found.relaxes_in_s is not None else None,
    }
    if found.relaxed:
        return Reason("waits_anybody", "Waits for any worker that had no part in it yet.", numbers)
    if found.audit is not None and found.audit.auditors is not None:
        who = names_of([short_peer(peer) for peer in found.audit.auditors])
        sentence = f"Waits for its audit, for which {who} was drawn first.{soon}"
        if len(found.audit.auditors) > 1:
            sentence = f"Waits for its audit; {who} may do it now, and others in turn.{soon}"
        return Reason("waits_auditor", sentence, {**numbers, "auditors": len(found.audit.auditors)})
    what = "its audit by" if found.audit is not None else "the answer of"
    return Reason(
        "waits_counting", f"Waits for {what} any worker that counts and had no part in it yet.{soon}", numbers
    )


def names_of(words: list[str]) -> str:
    """The first words, and how many more there are."""
    named = words[:NAMED]
    if len(words) > NAMED:
        named.append(f"{len(words) - NAMED} more")
    return " and ".join([", ".join(named[:-1]), named[-1]] if len(named) > 1 else named)


def reasons(job: KeptJob, unit: int, now_ns: int) -> list[Reason]:
    """Whose answers count and why, what is audited, what is disputed."""
    verdict = job.state.verdict(unit)
    if not trust_reading.is_weighed(job):
        return []
    if verdict is not None:
        accepted = [peer_id_from_key(key) for key in verdict.accepted]
        return _accepted(job, accepted) + _opinions(job, unit)
    found = trust_reading.trial(job, unit, now_ns)
    if found is None or job.outcome or unit in job.dead:
        return []
    if found.voting:
        return [_voting(job, found), *_opinions(job, unit)]
    return [*_relaxed(found), *_audited(job, found), *_dispute(found), *_opinions(job, unit)]


def _accepted(job: KeptJob, accepted: list[PeerId]) -> list[Reason]:
    """How a result came to be believed, as far as who gave it tells."""
    if job.me in accepted:
        return [Reason("accepted_own", "This node computed it itself, which is trusted for its own jobs.")]
    if len(accepted) > 1:
        sentence = f"Compared: {many(len(accepted), 'worker')} gave this result independently."
        return [Reason("compared", sentence, {"workers": len(accepted)})]
    opinion = trust_reading.opinion(job, accepted[0]) if accepted else None
    if opinion is None:
        return []
    sentence = f"Believed without a second answer: {short_peer(opinion.worker)} counted, and no audit was drawn."
    return [Reason("believed", sentence, {"peer": opinion.worker, "audit_rate": round(opinion.audit_rate, 4)})]


def _voting(job: KeptJob, found: Trial) -> Reason:
    numbers: dict[str, Scalar] = {"known": found.known, "needed": found.enough}
    quorum = job.state.spec.policy.quorum
    rule = f"so plain voting decides: {quorum} distinct workers must agree"
    if found.known < found.enough:
        who = many(found.known, "worker") if found.known else "no worker"
        of = f" of the {found.enough} that it takes" if found.known > 1 else ""
        return Reason("voting", f"This node knows {who}{of} whose answers count, {rule}.", numbers)
    return Reason("voting_absent", f"Too few of the workers whose answers count are there, {rule}.", numbers)


def _relaxed(found: Trial) -> list[Reason]:
    if not found.relaxed:
        return []
    sentence = "Nobody whose answers count took it in time; for this unit everybody counts now."
    return [Reason("relaxed", sentence, {"theta": found.theta})]


def _audited(job: KeptJob, found: Trial) -> list[Reason]:
    audit = found.audit
    if audit is not None and not audit.worker:
        return []  # nothing was drawn: answers differ
    if audit is not None:
        who = short_peer(audit.worker)
        ago, share = seconds(audit.since_s), percent(audit.rate)
        sentence = f"The result of {who} was drawn for an audit {ago} ago; {share} of such are."
        numbers: dict[str, Scalar] = {
            "peer": audit.worker, "rate": round(audit.rate, 4), "since_s": round(audit.since_s, 1),
            "drawn": audit.drawn, "may_now": len(audit.auditors) if audit.auditors is not None else None,
        }  # fmt: skip
        return [Reason("audited", sentence, numbers)]
    opinion = trust_reading.opinion(job, found.spared) if found.spared is not None else None
    if opinion is None:
        return []
    who, share = short_peer(opinion.worker), percent(opinion.audit_rate)
    sentence = f"The result of {who} was not drawn for an audit; {share} of such are."
    held: dict[str, Scalar] = {
        "peer": opinion.worker,
        "rate": round(opinion.audit_rate, 4),
        "held_by": len(found.held_by),
    }
    return [Reason("spared", sentence, held)]


def _dispute(found: Trial) -> list[Reason]:
    return [_group(group, found.theta) for group in found.groups] if len(found.groups) > 1 else []


def _group(group: Group, theta: float) -> Reason:
    gave, who = group.result.hex(), names_of([short_peer(peer) for peer in group.workers])
    sentence = (
        f"Answers differ: {gave[:8]}, of {who}, is right with a probability of {group.credibility:.4f}; "
        f"{theta:g} settles it, if somebody who counts gave it."
    )
    numbers: dict[str, Scalar] = {
        "result": gave, "workers": len(group.workers), "counting": group.counting,
        "credibility": round(group.credibility, 6), "theta": theta,
    }  # fmt: skip
    return Reason("dispute", sentence, numbers)


def _opinions(job: KeptJob, unit: int) -> list[Reason]:
    """What the answers so far are worth."""
    votes: dict[PeerId, ResultHash] = job.state.votes(unit)
    found = (trust_reading.opinion(job, peer) for peer in sorted({*votes, *job.participants(unit)} - job.rejected))
    voting = trust_reading.is_voting(job)
    return [_opinion(one, voting=voting) for one in found if one is not None]


def _opinion(one: Opinion, *, voting: bool) -> Reason:
    who = short_peer(one.worker)
    if one.whose == "own":
        return Reason("counts_own", "This node's own answer decides alone.", {"peer": one.worker})
    numbers: dict[str, Scalar] = {
        "peer": one.worker, "passes": one.passes, "capital_h": round(one.capital_h, 6),
        "audit_rate": round(one.audit_rate, 4),
    }  # fmt: skip
    rate = f"{percent(one.audit_rate)} of its results of such units are audited"
    if one.whose == "named":
        return Reason("counts_named", f"{who} is named as trusted here, so its answers count; {rate}.", numbers)
    passed = many(one.passes, "comparison")
    if one.whose == "vouched":
        sentence = f"{who} counts, as somebody whom you named vouches for it; {rate}."
        return Reason("counts_vouched", sentence, numbers)
    if one.whose == "known":
        sentence = f"{who} counts: {passed} passed, {hours_text(one.capital_h)} of reference work; {rate}."
        return Reason("counts_known", sentence, numbers)
    what = "alone its answer decides nothing" if voting else "its answers are compared and decide nothing"
    return Reason("newcomer", f"{who} is a newcomer with {passed} passed: {what}.", numbers)
