"""``flood``: far more of everything than anybody allows, to everybody that it is connected to.

Twenty times a second, at the ``rate``: four requests, each to a peer drawn anew. They ask for as many units as a
message can, offer work that there is not, bring jobs that nobody named the receiver a keeper of, report about jobs
that are unknown, or are no messages at all; now and then it gossips nonsense.

What stops it: what breaks a rule is recorded, and whoever does that five times is hung up on; a peer keeps few jobs
of one submitter and one network, hands few units to one worker, and remembers few keepers. Its time is not protected:
each message costs the receiver some, until it is banned.
"""

from typing import ClassVar

from sparkle_protocol import messages
from sparkle_protocol.facts import Deadlines, JobSpec, Policy, Resources
from sparkle_sim.adversaries.base import Adversary

TURN_S = 0.05
REQUESTS = 4
GOSSIP_EVERY = 20  # turns
GARBAGE_BYTES = 200
GARBAGE, LEASES, OFFER, JOB, REPORT = range(5)


class Flood(Adversary):
    """Shouts."""

    kind: ClassVar[str] = "flood"

    def begin(self) -> None:
        """Never be still."""
        self.peer.every(TURN_S, self._turn)

    def _turn(self) -> None:
        world, random = self.peer.world, self.random
        if random.random() >= self.group.rate:
            return
        known = list(world.network.links[self.number])
        for _ in range(REQUESTS if known else 0):
            target = known[random.below(len(known))]
            self.peer.say_raw(target, self._request(random.below(5)))
        if random.below(GOSSIP_EVERY) == 0:
            world.gossip.publish(self.number, messages.jobs_topic(world.codec.network), self._noise())

    def _noise(self) -> bytes:
        return b"".join(self.random.bits().to_bytes(8, "big") for _ in range(GARBAGE_BYTES // 8))

    def _request(self, kind: int) -> bytes:
        world = self.peer.world
        if kind == GARBAGE:
            return self._noise()
        if kind == LEASES:
            return messages.encode_message(messages.LeaseRequest(messages.MAX_WANT, [world.kernel_key]))
        if kind == OFFER:
            return messages.encode_message(messages.Offer([world.kernel_key], 1 << 20))
        if kind == JOB:
            spec = self.peer.sign(self._spec())
            return messages.encode_message(messages.Push(spec.job, [spec.raw]))
        job, noise = self._noise()[:32], [self._noise()]
        return messages.encode_message(messages.Report(job, noise, [], []))

    def _spec(self) -> JobSpec:
        kernel, version = self.peer.world.kernel_key.split("@")
        return JobSpec(
            kernel, int(version), {}, 1 << 20, "exact", Policy(), Resources(flops=1e12), Deadlines(), bytes(32),
            self._noise()[:16], self.peer.world.epoch_ms,
        )  # fmt: skip
