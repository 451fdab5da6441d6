"""Why it is not a job's turn: its lane, its weight and who goes before it, at this node."""

from sparkle_p2p.node import reading
from sparkle_p2p.node.journal_words import seconds
from sparkle_p2p.node.narrate import many
from sparkle_p2p.view import Explanation, Reason, Scalar
from sparkle_protocol.errors import ConfigError
from sparkle_protocol.ids import find_job, short_peer
from sparkle_protocol.work.kept_job import KeptJob
from sparkle_protocol.work.line import Place
from sparkle_protocol.work.submitter import Submitter


def guest_job(keeper: Submitter, name: str) -> KeptJob | None:
    """The job of somebody else that is kept here under this id or unique prefix."""
    try:
        return keeper.kept[find_job(name, keeper.kept)]
    except ConfigError:
        return None


def explain_guest(keeper: Submitter, job: KeptJob, now_ns: int) -> Explanation:
    """Why a job that is kept for somebody else stands where it does here."""
    owner, (accepted, total) = short_peer(job.state.submitter), reading.accepted_of(job)
    sentence = f"Kept here for {owner}: {accepted} of {many(total, 'unit')} accepted."
    numbers: dict[str, Scalar] = {"owner": job.state.submitter, "accepted": accepted, "total": total}
    details = in_line(keeper, job, now_ns)
    if not details and not job.outcome:
        details = [Reason("line_none", "This node has no unit of it to hand out now.")]
    state = job.outcome or ("running" if reading.was_taken(job) else "queued")
    return Explanation(job.state.id.hex(), Reason(f"guest_{state}", sentence, numbers), tuple(details))


def in_line(keeper: Submitter, job: KeptJob, now_ns: int) -> list[Reason]:
    """Where a job stands in line here; nothing when there is nothing of it to hand out."""
    place = keeper.place_of(job.state.id, now_ns)
    return [line_reason(place)] if place is not None else []


def line_reason(place: Place) -> Reason:
    """A place in line in words."""
    numbers: dict[str, Scalar] = {"lane": place.lane, "waiting": place.waiting, "jobs_before": place.jobs_before}
    if place.weight is not None:
        numbers["weight"] = round(place.weight, 3)
    if place.ahead is not None:
        numbers["ahead"] = place.ahead
    if place.chance is not None:
        numbers["chance"] = round(place.chance, 4)
    numbers["start_s"] = round(place.start_s, 1) if place.start_s is not None else None
    return Reason(f"line_{place.lane}", " ".join((_lane(place), _start(place))), numbers)


def _lane(place: Place) -> str:
    if place.lane == "own":
        return "This node's own jobs come before those of others."
    if place.chance is not None and not place.pays:
        return (
            "In the lottery lane, as it offers less than the price of its work: "
            f"it has a chance of {_percent(place.chance)} to be served next."
        )
    if place.chance is not None:
        return (
            "In the lottery lane, as too little credit flows from this node to its owner: "
            f"it has a chance of {_percent(place.chance)} to be served next."
        )
    others = place.waiting - 1
    queue = (
        f"{place.ahead or 'none'} of {many(others, 'other submitter')} before it" if others else "nobody before it"
    )
    return f"In the fair lane with weight {place.weight:.2f}, {queue}."


def _start(place: Place) -> str:
    before = ""
    if place.jobs_before:
        whose = "yours" if place.lane == "own" else "its owner's"
        before = f", after {many(place.jobs_before, 'other job')} of {whose}"
    if place.start_s is None:
        return f"When its next unit is handed out is too far off to foresee{before}."
    if place.start_s < 1:
        return f"Its next unit goes to the next worker that asks{before}."
    return f"Its next unit is probably handed out in {seconds(place.start_s)}{before}."


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else f"{share:.2%}"
