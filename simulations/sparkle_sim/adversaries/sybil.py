"""``sybil``: many keys of one owner, ground until they are near a job's routing place, in one network.

They surround the first job of the scenario, whose id they know beforehand, as no real attacker does. Those that come
to keep it lie as ``equivocate`` does. A key is ground at the ``rate``; the others are as they come.

What stops it: peers of one network are chosen after all others, and those improbably dense around the id get a
quarter of the places at most. Without that eight would keep the job and decide whatever they like.
"""

from hashlib import sha256
from typing import ClassVar

import base58

from sparkle_protocol.ids import peer_id_from_key
from sparkle_sim.adversaries.base import happens
from sparkle_sim.adversaries.equivocate import Equivocate
from sparkle_sim.planned import planned_job
from sparkle_sim.signing import CheapIdentity, simulated_key

KEYS_PER_PEER = 16  # that are tried, for each peer of the network: about so much nearer than the nearest honest one
MOST_KEYS = 65_536
_ID_PREFIX = base58.b58decode(peer_id_from_key(bytes(32)))[:-32]  # of the bytes of every peer id


class Sybil(Equivocate):
    """One key of many."""

    kind: ClassVar[str] = "sybil"

    def make_identity(self) -> CheapIdentity:
        """The nearest of many."""
        group = self.group
        if not group.scenario.jobs or not happens(group.rate, self.salt, b"ground"):
            return super().make_identity()
        place = sha256(planned_job(group.scenario, group.seed, 0)).digest()
        tries = min(MOST_KEYS, KEYS_PER_PEER * group.scenario.peers.count)
        keys = (simulated_key(group.seed, self.number, salt) for salt in range(tries))
        salt = min(enumerate(keys), key=lambda one: _distance(place, one[1]))[0]
        return CheapIdentity(group.seed, self.number, salt)

    def network(self) -> int:
        """All in that of the first of them."""
        return min(self.group.members)


def _distance(place: bytes, key: bytes) -> int:
    return int.from_bytes(place, "big") ^ int.from_bytes(sha256(_ID_PREFIX + key).digest(), "big")
