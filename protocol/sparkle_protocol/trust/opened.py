"""What can be checked of a submitter's audits once it has opened their secret."""

from sparkle_protocol.ids import peer_id_from_key
from sparkle_protocol.trust.coin import Coin
from sparkle_protocol.trust.judges import PERMILLE
from sparkle_protocol.work.state import JobState


def skipped(state: JobState) -> list[int]:
    """Units that the submitter accepted by one answer, though the coin fell below the floor of the job's policy.

    A submitter may trust a worker less than others do, so that a unit above the floor proves nothing. Of units whose
    commits are not known here any more (they were sealed) nothing can be said. Empty while the secret is not open.
    """
    if state.standings.secret is None:
        return []
    coin, floor = Coin(state.standings.secret, state.id), state.spec.policy.audit_permille / PERMILLE
    found = set()
    for unit in state.touched_units():
        commits, final = state.committed(unit), state.final(unit)
        for fact_id, verdict in state.agreeing(unit, final) if final is not None else ():
            fact, worker = state.fact(fact_id), peer_id_from_key(verdict.accepted[0])
            if fact is None or fact.author != state.submitter or state.accepted_workers(unit) != {worker}:
                continue
            if worker != state.submitter and worker in commits and coin.drawn(unit, commits[worker]) < floor:
                found.add(unit)
    return sorted(found)
