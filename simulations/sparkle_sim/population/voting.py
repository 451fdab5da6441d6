"""The accept law of the queue (``sparkle_protocol.work.quorum.decide``) for many units at once.

Votes of a unit are counted in three kinds: right ones, wrong ones on which liars agreed, and wrong ones of which no
two are alike. A test holds this against the law itself for every count that there can be.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.uint8]
RIGHT, AGREED, LONE = 1, 2, 3  # kinds of votes; 0: none yet


class Decisions(NamedTuple):
    """Of each unit: what is accepted (0, RIGHT, AGREED, LONE), how many votes it needs in all, whether it is dead."""

    accepted: Counts
    wanted: NDArray[np.int16]
    dead: NDArray[np.bool_]


def decide(right: Counts, agreed: Counts, lone: Counts, quorum: Counts, most: Counts) -> Decisions:
    """What the votes of each unit mean, at most ``most`` of them."""
    kinds = np.stack([right, agreed, np.minimum(lone, 1), lone > 1]).astype(np.int16)
    leader = kinds.argmax(axis=0)
    ranked = np.sort(kinds, axis=0)
    count, second = ranked[-1], ranked[-2]
    votes = kinds[0] + kinds[1] + lone
    agrees = (count >= quorum) & (count > second)
    needed = votes + np.maximum(quorum, second + 1) - count
    wanted = np.where(agrees, votes, needed)
    dead = ~agrees & (needed > most)
    accepted = np.where(agrees, np.minimum(leader + 1, LONE), 0).astype(np.uint8)
    return Decisions(accepted, np.where(dead, votes, wanted).astype(np.int16), dead)
