"""What keepers and workers decide by their own judgement, each for itself.

A node runs with ``PRODUCTION``. A study overrides what it is about in a subclass of ``Rules``, which the cores take
in its place; the simulator does so for the key ``policy`` of a scenario. What may be *said* is no matter of
judgement and does not stand here: facts are checked alike whatever the rules are.
"""

from collections.abc import Iterable, Mapping, Set
from typing import TYPE_CHECKING

from sparkle_protocol.facts import JobSpec, Policy
from sparkle_protocol.ids import PeerId, ResultHash
from sparkle_protocol.work.lease import usual_ttl_ns
from sparkle_protocol.work.prefetch import Prefetch
from sparkle_protocol.work.quorum import Decision, decide

if TYPE_CHECKING:
    from sparkle_protocol.work.granting import Granting


class Rules:
    """The decisions of production."""

    def decide(self, policy: Policy, votes: Mapping[PeerId, ResultHash], trusted: Set[PeerId]) -> Decision:
        """What the votes on a unit mean, and how many workers shall compute it as far as is known.

        Args:
            policy: what the submitter asked for.
            votes: results that workers showed; they show them once all who are wanted have committed.
            trusted: whose vote decides alone. Nobody else is asked while one of them is at work on the unit, so a
                vote of theirs must lead to a decision.
        """
        return decide(policy, votes, trusted)

    def order(self, job: "Granting", worker: PeerId) -> Iterable[int]:
        """Units for a worker, the one that it should get first first; what it may not take is passed over.

        Only units that this keeper hands out (``job.leases.serves``), or two keepers would give each the same ones.
        """
        return job.usual_order(worker)

    def lease_ttl_ns(self, p95_ns: int) -> int:
        """How long a new lease lasts without a sign of life, when 95 % of units took less than this (0: unknown)."""
        return usual_ttl_ns(p95_ns)

    def pays(self, spec: JobSpec) -> bool:
        """Whether a job offers what its work is worth; else it is in the lottery lane. Asked once for a job."""
        return True

    def prefetch(self, slots: int) -> Prefetch:
        """How many units a worker of so many slots asks for, and when."""
        return Prefetch(slots)


PRODUCTION = Rules()
