"""When nobody can compute a unit, and when a job with such units has failed.

A unit is dead when three distinct workers fail on it alike, after five failures, when the submitter's own worker
finds that it cannot be computed, or when ``max_replicas`` answers gave no majority. Failures of an excluded class of
devices do not count, and with those that may be the fault of a class the unit waits for another (``exclusion.py``).
The job goes on with the other units and fails once nothing else is open; at once only when many units are dead and
none was ever accepted, for then it is the job that is at fault. A ``Reset`` begins a dead unit anew; from then on a
job always goes on to its end.
"""

from collections import Counter
from collections.abc import Mapping, Set

from sparkle_protocol.ids import PeerId
from sparkle_protocol.work.devices import Devices
from sparkle_protocol.work.state import JobState

MAX_FAILURES = 5
OUR_VERDICT = ("kernel", "refused")  # failures of the trusted worker that only the unit can be blamed for
HOPELESS_DEAD = 16
UNITS_NAMED = 8


def failure_verdict(
    state: JobState, unit: int, rejected: Set[PeerId], me: PeerId, devices: Devices, now_ns: int
) -> str | None:
    """Why a unit is dead of its failures, in words; empty while it is not, None when another class must show it."""
    committed = state.committed(unit)
    failures = [
        failed
        for failed in state.failures_since_reset(unit).values()
        if failed.worker not in rejected and failed.worker not in committed
    ]
    by_worker = devices.with_classes({failed.worker: failed.code for failed in failures})
    counted = devices.exclusion.counted(by_worker)
    failures = [failed for failed in failures if failed.worker in counted]
    for failed in failures:
        if failed.worker == me and failed.code in OUR_VERDICT:
            return f"unit {unit} failed on this node: {failed.text or failed.code}"
    if not failures:
        return ""
    if not devices.exclusion.blames_unit(by_worker, now_ns):
        if devices.in_doubt(by_worker, now_ns):
            return None
        if len(failures) < MAX_FAILURES:
            return ""
    code, _ = Counter(failed.code for failed in failures).most_common(1)[0]
    text = next(failed.text for failed in failures if failed.code == code)
    return f"unit {unit} failed on {len(failures)} workers: {text or code}"


def has_failed(state: JobState, dead: Mapping[int, str]) -> bool:
    """The job cannot be done, and nothing of it is worth going on with."""
    final = len(state.final_units)
    if len(dead) >= HOPELESS_DEAD and not final and not state.restarts:
        return True
    return bool(dead) and final + len(dead) >= state.spec.units


def failure_text(dead: Mapping[int, str]) -> str:
    """Why a job with these dead units failed."""
    first = min(dead)
    if len(dead) == 1:
        return dead[first]
    named = ", ".join(str(unit) for unit in sorted(dead)[:UNITS_NAMED])
    more = ", …" if len(dead) > UNITS_NAMED else ""
    return f"{len(dead)} units could not be computed ({named}{more}); {dead[first]}"
