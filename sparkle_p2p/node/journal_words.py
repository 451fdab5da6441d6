"""The sentence of every kind of journal entry."""

from collections.abc import Callable, Iterable

from sparkle_p2p.node.journal import Entry
from sparkle_p2p.node.narrate import many, why_keepers
from sparkle_p2p.view import Moment, Reason, Scalar
from sparkle_protocol.ids import PeerId, short_peer


def timeline(entries: Iterable[Entry]) -> tuple[Moment, ...]:
    """Entries for people and programs, in the order in which they began."""
    ordered = sorted(entries, key=lambda entry: (entry.first_ms, entry.number))
    return tuple(Moment(entry.first_ms / 1000, entry.last_ms / 1000, reason_of(entry)) for entry in ordered)


def reason_of(entry: Entry) -> Reason:
    """An entry in words; the numbers name its peer and how often it happened."""
    words = _WORDS.get(entry.kind)
    sentence = words(entry) if words is not None else entry.kind
    numbers: dict[str, Scalar] = {"count": entry.count, **entry.notes}
    if entry.peer:
        numbers["peer"] = entry.peer
    return Reason(entry.kind, sentence, numbers)


def _number(entry: Entry, name: str) -> int:
    value = entry.notes.get(name)
    return int(value) if isinstance(value, int | float) else 0


def _text(entry: Entry, name: str) -> str:
    value = entry.notes.get(name)
    return str(value).rstrip(".") if value else ""


def _who(entry: Entry, several: str = "several workers") -> str:
    return short_peer(PeerId(entry.peer)) if entry.peer else several


def _times(count: int) -> str:
    return "" if count == 1 else " twice" if count == 2 else f" {count} times"


def seconds(value: float) -> str:
    """A stretch of time in words: "40 s", "2 min 05 s", "3 h 10 min"."""
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _submitted(entry: Entry) -> str:
    return f"Submitted: {_text(entry, 'kernel') or 'a job'} in {many(_number(entry, 'units'), 'unit')}."


def _published(entry: Entry) -> str:
    keepers, holding = _number(entry, "keepers"), _number(entry, "holding")
    verb = "holds" if holding == 1 else "hold"
    return f"Published: {holding} of {many(keepers, 'keeper')} {verb} its spec and inputs."


def _keepers_changed(entry: Entry) -> str:
    reason, now = _text(entry, "reason"), many(_number(entry, "keepers"), "node")
    why = f" ({why_keepers(reason)})" if reason else ""
    return f"Keepers changed{_times(entry.count)}: kept by {now} now{why}."


def _lost(entry: Entry) -> str:
    units, moved = many(_number(entry, "units"), "unit"), _number(entry, "moved")
    words = f"Worker {_who(entry)} lost{_times(entry.count)} with {units} in hand"
    if not entry.peer:
        words = f"Several workers lost{_times(entry.count)} with {units} in hand"
    return f"{words}; {moved} went to others." if moved else f"{words}."


def _expired(entry: Entry) -> str:
    return f"{_who(entry)} lost {many(entry.count, 'lease')}: not finished in time, others get the units."


def _rejected(entry: Entry) -> str:
    evidence = _text(entry, "evidence") or f"a wrong result for unit {_number(entry, 'unit')}"
    if entry.peer and evidence.startswith(who := _who(entry)):
        evidence = "it" + evidence.removeprefix(who)
    further = f" ({many(entry.count - 1, 'further result')} refused)" if entry.count > 1 else ""
    return f"{_who(entry)} rejected: {evidence}{further}."


def _dead(entry: Entry) -> str:
    unit, why = _number(entry, "unit"), _text(entry, "reason")
    if entry.count == 1:
        return f"Nobody could compute unit {unit}: {why}."
    return f"Nobody could compute {entry.count} units, unit {unit} first; the latest: {why}."


def _back(entry: Entry) -> str:
    away = seconds(_number(entry, "away_s"))
    if entry.count > 1:
        return f"This node restarted {entry.count} times, away for {away} altogether."
    if entry.notes.get("clean"):
        return f"This node is back after {away}."
    return f"This node is back; it had ended without notice {away} before."


def _milestone(entry: Entry) -> str:
    percent, units = _number(entry, "percent"), many(_number(entry, "total"), "unit")
    return f"{percent} % reached: {_number(entry, 'accepted')} of {units} accepted."


def _first_lease(entry: Entry) -> str:
    if entry.notes.get("own"):
        return "This node took the first unit itself."
    return f"{_who(entry, 'A worker')} took the first unit."


def _duty(entry: Entry) -> str:
    ranges = many(_number(entry, "ranges") or entry.count, "range")
    who = _who(entry, "several keepers")
    if entry.kind == "duty_taken":
        return f"This node hands out {ranges} of units in place of {who}."
    return f"{who} {'is' if entry.peer else 'are'} back and hands out {ranges} of units again."


_WORDS: dict[str, Callable[[Entry], str]] = {
    "job_submitted": _submitted,
    "job_published": _published,
    "first_lease": _first_lease,
    "milestone": _milestone,
    "job_done": lambda e: "Done." if not e.notes.get("late") else "Done; noticed when this node came back.",
    "job_cancelled": lambda e: "Cancelled by its owner.",
    "job_failed": lambda e: f"Failed{_times(e.count)}: {_text(e, 'error') or 'no reason was given'}.",
    "keepers_changed": _keepers_changed,
    "keeper_away": lambda e: f"Keeper {_who(e, 'after keeper')} away{_times(e.count)}.",
    "keeper_back": lambda e: f"Keeper {_who(e, 'after keeper')} back{_times(e.count)}.",
    "duty_taken": _duty,
    "duty_returned": _duty,
    "units_moved": lambda e: (
        f"{many(_number(e, 'units'), 'unit')} moved to other keepers (view {_number(e, 'view')})."
    ),
    "submitter_back": lambda e: f"The submitter is back{_times(e.count)}.",
    "worker_lost": _lost,
    "worker_back": lambda e: f"Worker {_who(e)} is back{_times(e.count)}.",
    "lease_expired": _expired,
    "result_withheld": lambda e: f"{_who(e)} did not show {many(e.count, 'result')} in time.",
    "worker_rejected": _rejected,
    "class_excluded": lambda e: f"Excluded for now: {_text(e, 'reason') or _text(e, 'device')}.",
    "unit_dead": _dead,
    "units_requeued": lambda e: f"{many(_number(e, 'units'), 'dead unit')} begun anew.",
    "node_stopped": lambda e: f"This node was stopped{_times(e.count)}.",
    "node_back": _back,
    "node_stood_still": lambda e: f"This node stood still{_times(e.count)} for {seconds(_number(e, 'away_s'))}.",
}
