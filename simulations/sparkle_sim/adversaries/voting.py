"""How often colluders get through, as the law of first-to-m voting has it (TRUST.md; Sarmenta 2001)."""

from math import comb


def expected_wrong(f: float, m: int) -> float:
    """The share of wrong acceptances when m equal votes decide and each vote is the same wrong one by chance f.

    Sum over j = m .. 2m - 1 of C(2m - 1, j) f^j (1 - f)^(2m - 1 - j): first to m is the majority of 2m - 1.
    """
    votes = 2 * m - 1
    return sum(comb(votes, j) * f**j * (1.0 - f) ** (votes - j) for j in range(m, votes + 1))


def expected_wrong_among(workers: int, colluders: int, m: int) -> float:
    """The same where so many of all workers collude always, and none of them votes twice about a unit."""
    votes = 2 * m - 1
    if workers < votes:
        raise ValueError(f"{workers} workers cannot give {votes} votes")
    ways = sum(comb(colluders, j) * comb(workers - colluders, votes - j) for j in range(m, votes + 1))
    return ways / comb(workers, votes)
