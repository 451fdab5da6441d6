"""How probable it is that a group of agreeing workers is right (Sarmenta 2001, section 4.2, "group credibility").

With Cr the credibility of one worker, and workers independent of each other, a result that the group g gave while
other groups gave other results is right with

    P(g) = ∏_{i∈g} Cr_i · ∏_{i∉g} (1 − Cr_i)  ÷  ( Σ over groups of the same  +  ∏_i (1 − Cr_i) )

where the last term is the case that everybody is wrong.
"""

from collections.abc import Mapping, Sequence
from math import exp, log, log1p

from sparkle_protocol.ids import ResultHash


def group_credibilities(groups: Mapping[ResultHash, Sequence[float]]) -> dict[ResultHash, float]:
    """The probability that each result is the right one.

    Args:
        groups: results, each with the credibilities (0 < Cr < 1) of those who gave it.
    """
    wrong = {result: sum(log1p(-one) for one in group) for result, group in groups.items()}
    right = {result: sum(log(one) for one in group) for result, group in groups.items()}
    all_wrong = sum(wrong.values())
    scores = {result: right[result] + all_wrong - wrong[result] for result in groups}
    most = max(all_wrong, *scores.values()) if scores else 0.0
    total = exp(all_wrong - most) + sum(exp(score - most) for score in scores.values())
    return {result: exp(score - most) / total for result, score in scores.items()}
