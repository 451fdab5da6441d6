"""Words and bars that say where a job stands, the same for commands, terminals and notebooks."""

from typing import Any

ENDED = ("done", "cancelled", "failed")
JOB_ID_SHOWN = 12
_BAR_WIDTH = 24
_NARROW_BAR_WIDTH = 8
_PATIENT_S = 5.0  # a word that does not change for longer looks like a fault


def clean(text: object) -> str:
    """``text`` without control characters: words that a stranger chose must not steer the terminal."""
    return "".join(character if character.isprintable() else "�" for character in str(text))


def short_job(job: str) -> str:
    """The part of a job's id that people type."""
    return job[:JOB_ID_SHOWN]


def duration(seconds: float | None) -> str:
    """``0.8 s``, ``42 s``, ``3 min 05 s``, ``2 h 10 min``, ``3 d 4 h``."""
    if seconds is None:
        return "–"
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def accepted(job: dict[str, Any]) -> int:
    """Units that need no further work: final ones, and provisional ones of a job that asked for no more."""
    return int(job["units"]["final"] + job["units"].get("provisional", 0))


def share(job: dict[str, Any]) -> float:
    """Accepted units of all, 0 to 1."""
    return accepted(job) / max(int(job["units"]["total"]), 1)


def bar(fraction: float, width: int = _BAR_WIDTH) -> str:
    """A bar of block characters, an eighth of a cell fine."""
    eighths = round(max(0.0, min(1.0, fraction)) * width * 8)
    full, part = divmod(eighths, 8)
    return "▕" + ("█" * full + (" ▏▎▍▌▋▊▉"[part] if full < width else "")).ljust(width) + "▏"


def progress_text(job: dict[str, Any]) -> str:
    """Units, rejections and the time left, in words."""
    units = job["units"]
    parts = [f"{accepted(job)}/{units['total']} units"]
    if job["rejected"]:
        parts.append(f"{job['rejected']} rejected")
    if job["state"] in ("queued", "running"):
        left = job["eta_s"]
        parts.append(_estimating(job) if left is None else f"{duration(left)} left")
    else:
        parts.append(job["state"])
    return ", ".join(parts)


def _estimating(job: dict[str, Any]) -> str:
    """Shows at least that time passes while nothing can be foreseen, as with a single long unit."""
    age_s = job.get("age_s", 0.0)
    return "estimating" if age_s < _PATIENT_S else f"estimating for {duration(age_s)}"


def progress_line(job: dict[str, Any], width: int, suffix: str = "") -> str:
    """One line of at most ``width`` characters, with as much of a bar as there is room for."""
    name, words = clean(job["kernel"]), progress_text(job) + suffix
    for drawn in (bar(share(job)), bar(share(job), _NARROW_BAR_WIDTH)):
        if len(line := f"{name} {drawn} {words}") <= width:
            return line
    return f"{name} {words}"[:width]


def ending(job: dict[str, Any]) -> str:
    """How a job ended that is not done: ``was cancelled``, or ``failed`` with the reason."""
    if job["state"] == "cancelled":
        return "was cancelled"
    return f"failed: {clean(job['error'] or 'no reason is known')}"
