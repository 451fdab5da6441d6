"""When a unit needs no further answer, under the trust policy.

- A unit needs the answer of one worker that *counts* (``standing.py``), and of two while it is audited. Answers of
  newcomers are compared with it and decide nothing.
- While fewer than two workers that count are known, plain voting decides: ``quorum`` distinct workers agree
  (``work/quorum.py``). No number of newcomers switches that on: it depends on the others alone.
- A newcomer's answer that differs makes sure that a second one who counts looks at the unit.
- Answers of workers that count and differ are a *dispute*: a result is accepted once its group's credibility is
  theta; until then one answer more that counts is wanted at a time. So no single worker, however senior, can have
  another one convicted.
- The submitter's own node decides alone. For units for which nobody who counts could be found (``JobTrust.relax``)
  everybody counts, and a majority settles a dispute.
"""

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass

from sparkle_protocol.facts import Policy
from sparkle_protocol.ids import PeerId, ResultHash
from sparkle_protocol.trust.credibility import group_credibilities


@dataclass(frozen=True, slots=True)
class Ruling:
    """``accepted``: the result that stands, if one does. ``wanted``: answers that count that are needed in all."""

    accepted: ResultHash | None
    wanted: int
    disputed: bool = False
    dead: bool = False  # max_replicas voted without an end


def rule(
    policy: Policy,
    votes: Mapping[PeerId, ResultHash],
    counts: Callable[[PeerId], bool],
    credibility: Callable[[PeerId], float],
    own: Set[PeerId],
    theta: float,
    *,
    audited: bool = False,
) -> Ruling:
    """What these votes mean.

    Args:
        policy: the job's.
        votes: results that workers showed.
        counts: whose answers count.
        credibility: of each worker, between 0 and 1.
        own: whose vote decides alone.
        theta: credibility that settles a dispute.
        audited: a second answer that counts is wanted.
    """
    for peer in sorted(own & votes.keys()) if own else ():
        return Ruling(votes[peer], 0)
    needed = 2 if audited else 1
    groups: dict[ResultHash, list[PeerId]] = {}
    for worker, given in votes.items():
        groups.setdefault(given, []).append(worker)
    counting = {given: sum(1 for worker in group if counts(worker)) for given, group in groups.items()}
    strong = [given for given in groups if counting[given]]
    if len(strong) <= 1:  # newcomers convince nobody, but make sure that somebody looks again
        needed = 2 if len(groups) > 1 else needed
        accepted = next((given for given in strong if counting[given] >= needed), None)
        dead = accepted is None and len(votes) >= policy.max_replicas
        return Ruling(accepted, max(needed, 1), dead=dead)
    credible = group_credibilities({given: [credibility(w) for w in group] for given, group in groups.items()})
    best = min(groups, key=lambda given: (-credible[given], given))
    total = sum(counting.values())
    if counting[best] > 1 and credible[best] >= theta:
        return Ruling(best, total, disputed=True)
    if len(votes) >= policy.max_replicas:
        return Ruling(None, total, disputed=True, dead=True)
    return Ruling(None, max(needed, total + 1), disputed=True)
