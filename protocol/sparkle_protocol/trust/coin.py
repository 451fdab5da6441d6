"""Which results are audited, and by whom: drawn after the workers committed, from a secret that was fixed before.

A submitter names H(secret) in the job's spec and opens the secret when the job is over, so that anybody can see that
each draw followed from it. A keeper that decides while the submitter is away draws by a secret of its own. Neither
can be told from outside, nor can a worker choose a commit that suits it.
"""

from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate

from sparkle_protocol.facts import Signer
from sparkle_protocol.ids import JobId, PeerId, digest

SECRET_DOMAIN = b"sparkle/audit-secret/1\x00"
AUDIT_DOMAIN = b"sparkle/audit/1\x00"
AUDITOR_DOMAIN = b"sparkle/auditor/1\x00"
DRAWS_FOR_EACH = 4  # those that are not drawn by then weigh next to nothing


def audit_secret(signer: Signer, nonce: bytes) -> bytes:
    """The secret of a job with this nonce; it follows from the key, so there is nothing to lose."""
    return digest(SECRET_DOMAIN, signer.sign(SECRET_DOMAIN + nonce))


def commitment_to(secret: bytes) -> bytes:
    """What the spec names."""
    return digest(secret)


class Lots:
    """Peers with weights, to be drawn from."""

    __slots__ = ("_sums", "peers")

    def __init__(self, weights: Mapping[PeerId, float]) -> None:
        self.peers = [peer for peer, weight in weights.items() if weight > 0]
        self._sums = list(accumulate(weights[peer] for peer in self.peers))

    def at(self, place: float) -> PeerId:
        """The peer at a place between 0 and 1, of which each has a part."""
        return self.peers[min(bisect_right(self._sums, place * self._sums[-1]), len(self.peers) - 1)]


class Coin:
    """The draws of one keeper in one job."""

    __slots__ = ("_job", "_secret")

    def __init__(self, secret: bytes, job: JobId) -> None:
        self._secret = secret
        self._job = job

    def is_audited(self, unit: int, commit: bytes, rate: float) -> bool:
        """A result that was committed to is to be compared with another one, with this probability."""
        return self.drawn(unit, commit) < rate

    def drawn(self, unit: int, commit: bytes) -> float:
        """What was drawn for it, between 0 and 1; with a rate above that there is an audit."""
        return self._uniform(AUDIT_DOMAIN, unit, commit)

    def order(self, unit: int, answers: int, lots: Lots, most: int) -> list[PeerId]:
        """Workers in a random order, in which those of more weight tend to come first; some may be left out.

        Each is drawn among those that were not, in proportion to its weight. So workers that are many and have done
        little cannot crowd out the others, nor can one come first by being quick.
        """
        found: dict[PeerId, None] = {}
        for draw in range(DRAWS_FOR_EACH * most):
            if len(found) >= min(most, len(lots.peers)):
                break
            what = answers.to_bytes(4, "big") + draw.to_bytes(4, "big")
            found[lots.at(self._uniform(AUDITOR_DOMAIN, unit, what))] = None
        return list(found)

    def _uniform(self, domain: bytes, unit: int, what: bytes) -> float:
        drawn = digest(domain, self._secret, self._job, unit.to_bytes(4, "big"), what)
        return int.from_bytes(drawn[:8], "big") / 2**64
