"""Which verdicts of others a keeper stands by.

It endorses a result of a unit when

- the unit's epoch is of the view that it is a keeper of, and it has not agreed to a successor of that view;
- it stands by no other result of that unit and epoch, and never will;
- it keeps the result's bytes, so that whatever is final is kept by as many keepers as made it so;
- the submitter accepted it; or, while that is away, a keeper of the view did and the votes known here say the same;
- whoever the verdict calls wrong is proven so by commits and reveals known here.

Where results are checked, not compared, the checker's word is taken, be it the submitter's or a keeper's while that
is away, for a result that a worker named by it has committed to and shown, unless it was found wrong here.

It endorses a verdict fact as a whole if that holds for all its items; for a part of them it states a verdict of its
own. What cannot be told yet (a result or a vote is not here) is looked at again.
"""

from sparkle_protocol.facts import VerdictItem, Verdicts, view_of
from sparkle_protocol.ids import FactId, PeerId, ResultHash, peer_id_from_key
from sparkle_protocol.work.kept_job import KeptJob

MAX_PENDING = 4096  # verdict facts; more are dropped, the oldest first, and come again by comparison


def consider(job: KeptJob, *, bound: bool) -> tuple[list[FactId], list[VerdictItem]]:
    """Verdicts to endorse as a whole, and items of others to state ourselves.

    Args:
        job: the job, whose ``to_endorse`` are looked at.
        bound: this keeper agreed to a successor of the view.
    """
    whole: list[FactId] = []
    parts: list[VerdictItem] = []
    view = job.state.view
    if view is None or not view.certifying or not view.holds(job.me):
        job.to_endorse.clear()
        job.keep_seeking(())
        return whole, parts
    for fact_id, fact in list(job.to_endorse.items()):
        if bound or type(fact.payload) is not Verdicts:
            del job.to_endorse[fact_id]
            continue
        found = [(_judge(job, fact.author, item), item) for item in fact.payload.items]
        answers = {answer for answer, _ in found}
        good = [item for answer, item in found if answer == "yes"]
        if "wait" in answers:
            if job.checks is not None:  # what may be joined is joined at once, before other results are supported
                parts += _support(job, [item for item in good if job.supports(item.unit, item.epoch) is None])
            continue
        del job.to_endorse[fact_id]
        _support(job, good)
        if answers == {"yes"}:
            whole.append(fact.id)
        else:
            parts += good
    while len(job.to_endorse) > MAX_PENDING:
        del job.to_endorse[next(iter(job.to_endorse))]
    pending = (fact.payload for fact in job.to_endorse.values())
    job.keep_seeking(ResultHash(item.result_hash) for one in pending if type(one) is Verdicts for item in one.items)
    return whole, parts


def _support(job: KeptJob, items: list[VerdictItem]) -> list[VerdictItem]:
    for item in items:
        job.support(item.unit, item.epoch, ResultHash(item.result_hash))
    return items


def _judge(job: KeptJob, author: PeerId, item: VerdictItem) -> str:
    """Whether to stand by an item: "yes", "no", or "wait"."""
    state, result = job.state, ResultHash(item.result_hash)
    if state.view is None or view_of(item.epoch) != state.view.number or item.epoch != state.epoch(item.unit):
        return "no"
    if not state.may_keep(author, item.epoch):
        return "no"
    own = job.supports(item.unit, item.epoch)
    if own is not None and own != result:
        return "no"
    if job.checks is not None:
        answer = _judge_checked(job, author, item)
        if answer != "yes":
            return answer
    elif author != state.submitter and own != result and not _is_agreed(job, item.unit, result):
        return "wait"
    if author != state.submitter and own != result and not job.may_join(item.unit):
        return "wait"
    if not job.has_result(result) and (state.final(item.unit) != result or result in job.lacking):
        job.seek(result)
        return "wait"
    return _judge_rejections(job, item)


def _is_agreed(job: KeptJob, unit: int, result: ResultHash) -> bool:
    """It is for keepers to decide, and the votes known here say so."""
    if not job.leads:
        return False  # the submitter is there: it decides
    return job.agreed(unit) == result


def _judge_checked(job: KeptJob, author: PeerId, item: VerdictItem) -> str:
    """Whether a verdict on a result that was checked may be joined: "yes", "no", or "wait"."""
    state, result = job.state, ResultHash(item.result_hash)
    if job.supports(item.unit, item.epoch) == result:
        return "yes"
    if item.rejected or (job.checks is not None and job.checks.why_wrong(item.unit, result) is not None):
        return "no"
    if author != state.submitter and not job.leads:
        return "wait"  # the submitter is there: it decides
    shown = any(state.has_shown(item.unit, peer_id_from_key(key), result) for key in item.accepted)
    return "yes" if shown else "wait"


def _judge_rejections(job: KeptJob, item: VerdictItem) -> str:
    """Whether everybody whom a verdict calls wrong is proven so: "yes", "no", or "wait" for what would prove it."""
    votes, proven = job.state.votes(item.unit), job.state.equivocators(item.unit)
    given = [votes.get(worker) for worker in map(peer_id_from_key, item.rejected) if worker not in proven]
    if item.result_hash in given:
        return "no"
    return "wait" if None in given else "yes"
