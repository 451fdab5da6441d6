"""How many wrong results those may get accepted who cheat jobs under the trust policy (``trust/parameters.py``).

Whoever counts, and is audited with probability a per result, has wrong ones accepted until one of them is audited by
somebody honest: a geometric number, however it chooses them. With a share g of all lots in the hands of cheaters that
auditor is one of them with probability g. So k cheaters gain a negative binomial number with p = a · (1 - g), each
once in each job, as who was proven wrong gets no more of it. What was accepted though nobody who counts gave it was
voted on, by those who do not count: there the law of voting holds for their share of cheaters.

It works out the rates for itself, from the capital in the submitter's book alone.
"""

import sys
from collections.abc import Callable, Iterable

from sparkle_protocol.facts import JobSpec
from sparkle_protocol.ids import JobId, PeerId
from sparkle_protocol.trust.parameters import TRUST_RULES
from sparkle_protocol.trust.standing import TrustBook
from sparkle_sim.world import World

LEAST_LOT = 0.999  # of 1/a: who is always audited has a lot still, of a thousandth
DEVIATIONS = 6.0  # beyond which a normal number is less often than a checker may be wrong
TINY = 1e-290


class TrustLaw:
    """Of all jobs under the policy in one run.

    Args:
        world: whose peers.
        cheats: a peer of this number may give wrong results.
    """

    def __init__(self, world: World, cheats: Callable[[int], bool]) -> None:
        self._world = world
        self._cheats = cheats
        self._jobs: dict[JobId, tuple[JobSpec, int]] = {}  # and whose they are
        self._rates: dict[tuple[JobId, PeerId], float] = {}  # the lowest one of each cheater that counted
        self._friends = 0.0  # the largest share of lots that cheaters ever had
        self._strangers = 0.0  # the largest share of cheaters among those who did not count

    def __len__(self) -> int:
        return len(self._jobs)

    def watch(self, job: JobId, spec: JobSpec, submitter: PeerId) -> None:
        """Look at the standings in the submitter's book, now and with every scan."""
        if job not in self._jobs:
            self._jobs[job] = spec, self._world.index[submitter]
            self._look(job, *self._jobs[job])

    def look(self) -> None:
        """See how everybody stands."""
        for job, (spec, submitter) in self._jobs.items():
            self._look(job, spec, submitter)

    def _look(self, job: JobId, spec: JobSpec, submitter: int) -> None:
        book = self._world.peers[submitter].disk.trust
        rates = _rates_of(book, spec) if book is not None else {}
        lots, theirs = 0.0, 0.0
        for worker, rate in rates.items():
            lot = 1.0 / rate - LEAST_LOT
            lots += lot
            if self._is_cheat(worker):
                theirs += lot
                self._rates[job, worker] = min(rate, self._rates.get((job, worker), 1.0))
        if theirs:
            self._friends = max(self._friends, theirs / lots)
        strangers = [peer for peer in self._world.peers if peer.works and peer.id not in rates]
        if strangers:
            share = sum(1 for peer in strangers if self._cheats(peer.number)) / len(strangers)
            self._strangers = max(self._strangers, share)

    def believed(self, job: JobId, workers: Iterable[PeerId]) -> bool:
        """Somebody who counts is among these, or the submitter itself."""
        spec, submitter = self._jobs[job]
        peer = self._world.peers[submitter]
        return any(
            worker == peer.id or (peer.disk.trust is not None and _counts(peer.disk.trust, spec, worker))
            for worker in workers
        )

    def _is_cheat(self, worker: PeerId) -> bool:
        number = self._world.index.get(worker)
        return number is not None and self._cheats(number)

    @property
    def strangers(self) -> float:
        """The share of cheaters among those whose answers do not count."""
        return self._strangers

    def limit(self, chance: float) -> int:
        """What those who count may have got accepted; exceeded with at most this probability."""
        rate = min(self._rates.values(), default=1.0) * (1.0 - self._friends)
        return lives_limit(len(self._rates), rate, chance)


def _counts(book: TrustBook, spec: JobSpec, worker: PeerId) -> bool:
    standings = (standing for key, standing in book.about(worker) if key.verification == spec.verification)
    return any(standing.passes >= TRUST_RULES.passes_to_count for standing in standings)


def _rates_of(book: TrustBook, spec: JobSpec) -> dict[PeerId, float]:
    """Everybody who counts in a job, with the probability with which a result is audited."""
    rules, found = TRUST_RULES, dict[PeerId, float]()
    work = min(spec.resources.flops or rules.longest_unit_flops, rules.longest_unit_flops)
    for key, standing in book.latest():
        if key.verification == spec.verification and standing.passes >= rules.passes_to_count:
            rate = rules.discount * work / (rules.discount * work + standing.capital)
            found[key.peer] = min(max(spec.policy.audit_permille / 1000, rate), found.get(key.peer, 1.0))
    return found


def lives_limit(lives: int, caught: float, chance: float) -> int:
    """The least number of wrong results that so many cheaters exceed with at most this probability.

    Args:
        lives: how many there are.
        caught: how probable it is for each wrong result that its cheater is found out by it.
        chance: of a false alarm.
    """
    if not lives or caught >= 1.0:
        return 0
    if caught <= 0.0:  # all lots are theirs: nobody is found out
        return sys.maxsize
    at: float = caught**lives
    if at < TINY:  # too many to sum from the lower end
        return int(lives * (1.0 - caught) / caught + DEVIATIONS * (lives * (1.0 - caught)) ** 0.5 / caught) + 1
    number, below = 0, at
    while 1.0 - below > chance:
        number += 1
        at *= (number + lives - 1) / number * (1.0 - caught)
        below += at
    return number
