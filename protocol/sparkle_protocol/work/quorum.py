"""When results agree well enough: first-to-m voting among distinct workers.

A result is accepted once ``quorum`` distinct workers gave it and no other result has as many. Until then further
replicas are wanted, one at a time beyond a disagreement (Sarmenta 2001: with f wrong workers out of all, m = 2
accepts a wrong result with 3f² − 2f³). A result computed by a trusted peer, which for its own jobs is the
submitter's node, decides alone.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass

from sparkle_protocol.errors import ConfigError
from sparkle_protocol.facts import Policy
from sparkle_protocol.ids import PeerId, ResultHash

QUORUMS = {"fast": 1, "final": 2, "critical": 3}  # workers that must agree, by the level that a user asks for


def check_level(verify: str) -> str:
    """The level if there is such a one. Raises ConfigError."""
    if verify not in QUORUMS:
        raise ConfigError(f"verify is one of {', '.join(QUORUMS)}, not '{verify}'")
    return verify


@dataclass(frozen=True, slots=True)
class Decision:
    """``accepted`` is the agreed result, if any; ``wanted`` how many distinct votes are needed in all so far.

    Under the trust policy only votes of known workers are counted (``trusting.py``).
    """

    accepted: ResultHash | None
    wanted: int
    dead: bool = False  # max_replicas voted without agreement


def decide(policy: Policy, votes: Mapping[PeerId, ResultHash], trusted: Set[PeerId]) -> Decision:
    """What these votes mean under ``policy``."""
    if not votes:
        return Decision(None, policy.quorum)
    for peer in sorted(trusted & votes.keys()) if trusted else ():
        return Decision(votes[peer], len(votes))
    counts: dict[ResultHash, int] = {}
    for given in votes.values():
        counts[given] = counts.get(given, 0) + 1
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    leader, count = ranked[0]
    runner_up = ranked[1][1] if len(ranked) > 1 else 0
    if count >= policy.quorum and count > runner_up:
        return Decision(leader, len(votes))
    wanted = len(votes) + max(policy.quorum, runner_up + 1) - count
    if wanted > policy.max_replicas:
        return Decision(None, len(votes), dead=True)
    return Decision(None, wanted)
