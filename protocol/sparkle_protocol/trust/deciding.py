"""When a unit needs no further answer, under the trust policy.

- A unit needs the answer of one worker that *counts* (``standing.py``), and of one more while it is audited. Answers
  of newcomers are compared with it and decide nothing; but where one differs, two that count must agree.
- While fewer than two workers that count are known, plain voting decides: ``quorum`` distinct workers agree
  (``work/quorum.py``). No number of newcomers switches that on: it depends on the others alone.
- Answers that count and differ are a *dispute*: a result is accepted once somebody who counts gave it and its group's
  credibility is theta; until then one answer more that counts is wanted at a time. So no single worker, however
  senior, can have another one convicted. Once ``max_replicas`` gave answers that count, a majority settles it.
- The submitter's own node decides alone. For units for which nobody who counts could be found (``JobTrust.relax``)
  everybody counts, and a majority settles a dispute; but what no known worker gave never stands against what one did.
"""

from collections.abc import Callable, Mapping, Sequence, Set
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
    known: Callable[[PeerId], bool],
    theta_at_last: float,
    needed: int = 1,
) -> Ruling:
    """What these votes mean.

    Args:
        policy: the job's.
        votes: results that workers showed.
        counts: whose answers count.
        credibility: of each worker, between 0 and 1.
        own: whose vote decides alone.
        theta: credibility that settles a dispute.
        known: of those whose answers count, who would count about any unit.
        theta_at_last: the same once nobody else may be asked.
        needed: how many that count must agree, if nobody differs.
    """
    for peer in sorted(own & votes.keys()) if own else ():
        return Ruling(votes[peer], 0)
    groups: dict[ResultHash, list[PeerId]] = {}
    for worker in votes:
        if counts(worker):
            groups.setdefault(votes[worker], []).append(worker)
    differ, total = len({*votes.values()}) > 1, sum(map(len, groups.values()))
    last = total >= policy.max_replicas
    trusted = {given: group for given, group in groups.items() if any(map(known, group))}
    if len(trusted or groups) <= 1:
        return _unopposed(trusted or groups, total, max(needed, 2) if differ else needed, last=last, differ=differ)
    credible = group_credibilities({given: [credibility(w) for w in group] for given, group in groups.items()})
    best = min(groups, key=lambda given: (-credible[given], given))
    if credible[best] >= (min(theta, theta_at_last) if last else theta):
        return Ruling(best, total, disputed=True)
    if last:
        return Ruling(None, total, disputed=True, dead=True)
    return Ruling(None, max(needed, total + 1), disputed=True)


def _unopposed(
    groups: Mapping[ResultHash, Sequence[PeerId]], total: int, needed: int, *, last: bool, differ: bool
) -> Ruling:
    """At most one result was given by those whose word has weight; others may differ."""
    result, group = next(iter(groups.items()), (None, ()))
    if len(group) >= needed or (last and differ):
        return Ruling(result, needed, disputed=differ)
    return Ruling(None, needed + total - len(group), disputed=differ and bool(group))
