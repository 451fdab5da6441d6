"""First-to-m voting, held against Sarmenta's formula by going through every order of right and wrong votes."""

from itertools import product
from math import comb

import pytest

from sparkle_protocol.facts import Policy
from sparkle_protocol.ids import PeerId, ResultHash
from sparkle_protocol.work.quorum import decide

RIGHT, WRONG = ResultHash(b"r" * 32), ResultHash(b"w" * 32)
NOBODY: frozenset[PeerId] = frozenset()


def vote(policy: Policy, answers: tuple[ResultHash, ...]) -> tuple[ResultHash, int]:
    """The accepted result, and how many of the answers were asked for."""
    votes: dict[PeerId, ResultHash] = {}
    while True:
        decision = decide(policy, votes, NOBODY)
        if decision.accepted is not None:
            return decision.accepted, len(votes)
        assert decision.wanted > len(votes)
        for _ in range(decision.wanted - len(votes)):
            votes[PeerId(f"worker {len(votes)}")] = answers[len(votes)]


@pytest.mark.parametrize("m", [1, 2, 3])
@pytest.mark.parametrize("f", [0.05, 0.2, 0.5])
def test_error_rate_is_sarmentas(m: int, f: float) -> None:
    most = 2 * m - 1
    wrong = 0.0
    for answers in product((RIGHT, WRONG), repeat=most):
        accepted, used = vote(Policy(quorum=m, max_replicas=most), answers)
        assert used <= most
        if accepted == WRONG:
            lies = sum(answer == WRONG for answer in answers)
            wrong += f**lies * (1 - f) ** (most - lies)
    law = sum(comb(2 * m - 1, j) * f**j * (1 - f) ** (2 * m - 1 - j) for j in range(m, 2 * m))
    assert wrong == pytest.approx(law)


def test_agreeing_workers_are_not_asked_for_more() -> None:
    assert vote(Policy(quorum=2), (RIGHT, RIGHT)) == (RIGHT, 2)
    assert vote(Policy(quorum=2), (RIGHT, WRONG, RIGHT)) == (RIGHT, 3)


def test_a_trusted_worker_decides_alone() -> None:
    votes = {PeerId("a"): WRONG, PeerId("b"): WRONG, PeerId("me"): RIGHT}
    assert decide(Policy(quorum=3), votes, frozenset({PeerId("me")})).accepted == RIGHT


def test_a_unit_on_which_nobody_agrees_dies() -> None:
    votes = {PeerId(str(n)): ResultHash(bytes([n]) * 32) for n in range(4)}
    decision = decide(Policy(quorum=2, max_replicas=4), votes, NOBODY)
    assert decision.dead
    assert decision.accepted is None


def test_a_tie_wants_exactly_one_more() -> None:
    votes = {PeerId("a"): RIGHT, PeerId("b"): RIGHT, PeerId("c"): WRONG, PeerId("d"): WRONG}
    decision = decide(Policy(quorum=2), votes, NOBODY)
    assert (decision.accepted, decision.wanted) == (None, 5)
