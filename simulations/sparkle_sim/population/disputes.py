"""Whose result counts when two differ, and whom trust leaves: Sarmenta's group credibility over further replicas."""

from math import e, prod

from numpy.random import Generator

THETA = 0.999  # a group of equal results is believed from here on
FAULTY = 0.2  # share of workers that are taken to be bad before anything is known of them
MOST = 64  # replicas of a dispute


def credibility(passes: float) -> float:
    """Of a worker that passed so many audits and failed none (Sarmenta 2001, spot-checks with blacklisting)."""
    return 1.0 - FAULTY / (1.0 - FAULTY) / (e * max(1.0, passes))


def believed(one: list[float], other: list[float]) -> tuple[float, float]:
    """The probability that each of two groups is right; what is left is that neither is."""
    right, wrong = prod(one), prod(1.0 - credible for credible in one)
    right_other, wrong_other = prod(other), prod(1.0 - credible for credible in other)
    whole = right * wrong_other + right_other * wrong + wrong * wrong_other
    return right * wrong_other / whole, right_other * wrong / whole


def lie_wins(random: Generator, honest: float, lying: float, gang: float, typical: float) -> tuple[bool, int]:
    """Whether conspirators win a dispute against honest workers, and how many replicas that took.

    Args:
        random: decides who is asked.
        honest: passes of the honest one who disagrees.
        lying: passes of the one who lies.
        gang: share of the conspirators among those who are asked.
        typical: passes of those who are asked.
    """
    right, wrong = [credibility(honest)], [credibility(lying)]
    for replicas in range(MOST):
        true, false = believed(right, wrong)
        if max(true, false) >= THETA:
            return false > true, replicas
        (wrong if random.random() < gang else right).append(credibility(typical))
    return len(wrong) > len(right), MOST
