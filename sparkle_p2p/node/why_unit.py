"""Why a unit is where it is: every attempt at it, who holds it now, and what it waits for."""

from sparkle_p2p.node import reading, why_trust
from sparkle_p2p.node.forecast import Held, Pace, lease_forecast, start_forecast
from sparkle_p2p.node.journal_words import seconds
from sparkle_p2p.node.narrate import many, storage_failed
from sparkle_p2p.node.picture import rejection_view
from sparkle_p2p.node.reading import Commitment, Holding
from sparkle_p2p.node.why_trust import names_of
from sparkle_p2p.view import Explanation, Reason, Scalar
from sparkle_protocol.errors import NotFound
from sparkle_protocol.ids import PeerId, ResultHash, peer_id_from_key, short_peer
from sparkle_protocol.work.kept_job import KeptJob


def explain_unit(job: KeptJob, unit: int, pace: Pace, now_ns: int, storage: Exception | None = None) -> Explanation:
    """The headline says how it stands; the first detail what it waits for, the others what was done about it.

    While nothing can be stored (``storage``) nobody can tell when that will be.

    Raises:
        NotFound: the job has no such unit.
    """
    if unit >= job.state.spec.units:
        raise NotFound(f"job {job.state.id.hex()[:12]} has units 0 to {job.state.spec.units - 1}")
    held = reading.holdings(job, unit, now_ns)
    committed = reading.commitments(job, unit, now_ns)
    details = _waits_for(job, unit, held, committed, now_ns)
    details += _expected(job, unit, held, pace, now_ns) if storage is None else [storage_failed(storage)]
    details += why_trust.reasons(job, unit, now_ns)
    details += _attempts(job, unit, committed)
    details += [_holding(one) for one in held]
    details += [rejection_view(r).reason for r in job.rejections if r.unit == unit]
    details += _resets(job, unit)
    return Explanation(f"{job.state.id.hex()}/{unit}", _headline(job, unit, now_ns), tuple(details))


def _headline(job: KeptJob, unit: int, now_ns: int) -> Reason:
    epoch, verdict = job.state.epoch(unit), job.state.verdict(unit)
    if verdict is not None:
        who = ", ".join(short_peer(peer_id_from_key(key)) for key in verdict.accepted)
        gave = verdict.result_hash.hex()[:8]
        return Reason("final", f"Accepted: {who} gave {gave}.", {"epoch": verdict.epoch})
    if unit in job.dead:
        sentence = f"Dead: {job.dead[unit].rstrip('.')}. 'sparkle dead --requeue' begins it anew."
        return Reason("dead", sentence, {"epoch": epoch})
    weighed = why_trust.headline(job, unit, now_ns)
    if weighed is not None:
        return weighed
    missing = max(0, job.missing(unit))
    sentence = f"Not decided yet; {many(missing, 'more worker')} wanted." if missing else "Its workers are at it."
    return Reason("open", sentence, {"missing": missing, "epoch": epoch})


def _waits_for(
    job: KeptJob, unit: int, held: list[Holding], committed: list[Commitment], now_ns: int
) -> list[Reason]:
    """What must happen next, of all that is open the nearest; nothing for a unit that is over."""
    if job.is_decided(unit) or unit in job.dead or job.outcome:
        return []
    pause_s = reading.back_off_s(job, unit, now_ns)
    if pause_s:
        sentence = f"Waits {pause_s:.0f} s more after it failed; then another worker gets it."
        return [Reason("waits_back_off", sentence, {"seconds": round(pause_s, 1)})]
    asked = [one for one in committed if one.vote is None and one.show_within_s is not None]
    if asked:
        within_s = max(one.show_within_s or 0.0 for one in asked)
        sentence = f"Waits for {_names([one.worker for one in asked])} to show the result, at most {within_s:.0f} s."
        return [Reason("waits_result", sentence, {"workers": len(asked), "seconds": round(within_s, 1)})]
    checked = reading.being_checked(job, unit)
    if checked:
        sentence = f"Waits for this node to check the result of {_names(checked)}."
        return [Reason("waits_check", sentence, {"workers": len(checked)})]
    missing = max(0, job.missing(unit))
    weighed = why_trust.waits(job, unit, now_ns) if not reading.never_given(job, unit) else None
    if weighed is not None and not (missing == 0 and held):
        return [weighed]
    if missing:
        if reading.never_given(job, unit):
            ahead = reading.ahead_of(job, unit)
            before = f" after about {many(ahead, 'unit')} before it" if ahead else ""
            return [Reason("waits_turn", f"Waits to be handed out{before}.", {"ahead": ahead})]
        sentence = f"Waits for {many(missing, 'worker')} that had no part in it yet."
        return [Reason("waits_worker", sentence, {"missing": missing})]
    if held:
        sentence = f"Waits for {_names([one.worker for one in held])} to finish it."
        return [Reason("waits_computing", sentence, {"workers": len(held)})]
    return []


def _names(peers: list[PeerId]) -> str:
    return names_of([short_peer(peer) for peer in peers])


def _expected(job: KeptJob, unit: int, held: list[Holding], pace: Pace, now_ns: int) -> list[Reason]:
    """When it probably starts, or ends."""
    if job.is_decided(unit) or unit in job.dead or job.outcome:
        return []
    times = reading.run_times_s(job)
    if held:
        found = [lease_forecast(Held(one.since_s, one.progress), times) for one in held]
        known = [eta for eta in found if eta is not None]
        if not known:
            sentence = "When it will be computed cannot be foreseen: nothing comparable was seen yet."
            return [Reason("end_unknown", sentence)]
        last = max(known, key=lambda eta: eta.finish_s)
        text = f"Probably computed in {seconds(last.finish_s)}; {_between(last.low_s, last.high_s)}."
        return [_spread("expected_end", text, last.finish_s, last.low_s, last.high_s)]
    if not reading.never_given(job, unit):
        return []
    eta = start_forecast(pace, now_ns, reading.ahead_of(job, unit))
    if eta is None:
        what = "no worker has taken a unit yet" if not reading.was_taken(job) else "no unit has been accepted yet"
        return [Reason("start_unknown", f"When it starts cannot be foreseen: {what}.")]
    text = f"Probably starts in {seconds(eta.finish_s)}; {_between(eta.low_s, eta.high_s)}."
    if times:
        text += f" The latest units took {seconds(times[len(times) // 2])}."
    return [_spread("expected_start", text, eta.finish_s, eta.low_s, eta.high_s)]


def _between(low_s: float, high_s: float) -> str:
    return f"between {seconds(low_s)} and {seconds(high_s)} is likely"


def _spread(code: str, sentence: str, likely_s: float, low_s: float, high_s: float) -> Reason:
    return Reason(
        code, sentence, {"seconds": round(likely_s, 1), "low_s": round(low_s, 1), "high_s": round(high_s, 1)}
    )


def _holding(held: Holding) -> Reason:
    sentence = (
        f"{short_peer(held.worker)} computes it ({held.progress:.0%}), leased {seconds(held.since_s)} ago; "
        f"its lease lasts {held.left_s:.0f} s more."
    )
    if held.copy:
        sentence += " It got a copy, since another worker was slow."
    if held.slow:
        sentence += " It is slow, so another worker may get it too."
    numbers: dict[str, Scalar] = {
        "peer": held.worker, "lease": held.counter, "since_s": round(held.since_s, 1),
        "left_s": round(held.left_s, 1), "progress": round(held.progress, 3), "copy": held.copy, "slow": held.slow,
    }  # fmt: skip
    return Reason("leased", sentence, numbers)


def _attempts(job: KeptJob, unit: int, committed: list[Commitment]) -> list[Reason]:
    """Who failed, who committed and what was shown, and who took it and came back with nothing."""
    reasons = _failures(job, unit)
    verdict = job.state.verdict(unit)
    accepted = ResultHash(verdict.result_hash) if verdict is not None else None
    votes = [one.vote for one in committed if one.vote is not None]
    reasons += [_commitment(one, accepted, votes) for one in committed]
    for worker in reading.fruitless(job, unit):
        sentence = f"{short_peer(worker)} was given it and did not deliver."
        reasons.append(Reason("fruitless", sentence, {"peer": worker}))
    return reasons


def _commitment(part: Commitment, accepted: ResultHash | None, votes: list[ResultHash]) -> Reason:
    who, numbers = short_peer(part.worker), {"peer": part.worker}
    if part.vote is None:
        when = ""
        if part.overdue:
            when = ", which is overdue: it counts for nothing until it does"
        elif part.show_within_s is not None:
            when = f"; it has {part.show_within_s:.0f} s left to do so"
        elif accepted is None:
            when = "; that is asked for once every worker wanted has committed"
        return Reason("committed", f"{who} has committed and not shown its result{when}.", numbers)
    gave = part.vote.hex()[:8]
    if accepted is not None:
        how = "agrees with what was accepted" if part.vote == accepted else "disagrees with what was accepted"
    elif len(set(votes)) > 1:
        how = f"{many(votes.count(part.vote), 'vote')} for it, others differ"
    else:
        how = "nobody disagrees so far"
    return Reason("voted", f"{who} gave {gave}: {how}.", {**numbers, "result": part.vote.hex()})


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


def _resets(job: KeptJob, unit: int) -> list[Reason]:
    """Each time it was begun anew, the latest first."""
    resets = job.state.resets(unit)
    return [
        Reason(
            "reset",
            f"Begun anew for the {_ordinal(len(resets) - place)} time because {reason.rstrip('.')}.",
            {"epoch": epoch},
        )
        for place, (epoch, reason) in enumerate(resets)
    ]


def _ordinal(number: int) -> str:
    words = {1: "first", 2: "second", 3: "third"}
    return words.get(number, f"{number}th")
