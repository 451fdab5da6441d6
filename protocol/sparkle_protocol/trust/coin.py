"""Which results are audited, and by whom: drawn after the workers committed, from a secret that was fixed before.

A submitter names H(secret) in the job's spec and opens the secret when the job is over, so that anybody can see that
each draw followed from it. A keeper that decides while the submitter is away draws by a secret of its own. Neither
can be told from outside, nor can a worker choose a commit that suits it.
"""

from collections.abc import Mapping

from sparkle_protocol.facts import Signer
from sparkle_protocol.ids import JobId, PeerId, digest, key_from_peer_id

SECRET_DOMAIN = b"sparkle/audit-secret/1\x00"
AUDIT_DOMAIN = b"sparkle/audit/1\x00"
AUDITOR_DOMAIN = b"sparkle/auditor/1\x00"


def audit_secret(signer: Signer, nonce: bytes) -> bytes:
    """The secret of a job with this nonce; it follows from the key, so there is nothing to lose."""
    return digest(SECRET_DOMAIN, signer.sign(SECRET_DOMAIN + nonce))


def commitment_to(secret: bytes) -> bytes:
    """What the spec names."""
    return digest(secret)


class Coin:
    """The draws of one keeper in one job."""

    __slots__ = ("_job", "_secret")

    def __init__(self, secret: bytes, job: JobId) -> None:
        self._secret = secret
        self._job = job

    def is_audited(self, unit: int, commit: bytes, rate: float) -> bool:
        """A result that was committed to is to be compared with another one, with this probability."""
        return self._uniform(AUDIT_DOMAIN, unit, commit) < rate

    def auditors(self, unit: int, commit: bytes, weights: Mapping[PeerId, float]) -> list[PeerId]:
        """Who may audit it, in a random order in which those of more weight tend to come first.

        (Efraimidis and Spirakis 2006: the order of u^(1/weight), with u uniform.) Workers that are many and have
        done little cannot crowd out the others, nor can one come first by being quick.
        """
        drawn = {
            peer: self._uniform(AUDITOR_DOMAIN, unit, commit + key_from_peer_id(peer)) ** (1.0 / weight)
            for peer, weight in weights.items()
            if weight > 0
        }
        return sorted(drawn, key=lambda peer: (-drawn[peer], peer))

    def _uniform(self, domain: bytes, unit: int, what: bytes) -> float:
        drawn = digest(domain, self._secret, self._job, unit.to_bytes(4, "big"), what)
        return int.from_bytes(drawn[:8], "big") / 2**64
