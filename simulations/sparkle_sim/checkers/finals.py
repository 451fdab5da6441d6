"""What is accepted: once, for reasons that anybody can check, and rightly."""

from dataclasses import dataclass
from math import comb

from sparkle_protocol.effects import Notify
from sparkle_protocol.facts import is_checked, view_of
from sparkle_protocol.ids import JobId, PeerId, ResultHash, hash_result
from sparkle_sim.checkers.base import KEEPERS, Checker, job_of, named, unit_of
from sparkle_sim.checkers.evidence import Evidence
from sparkle_sim.checkers.trust_law import TrustLaw
from sparkle_sim.computing import Honest, result_size, true_result
from sparkle_sim.peer import Peer
from sparkle_sim.scenario import Scenario
from sparkle_sim.world import World

CHANCE = 1e-6  # of a false alarm: honest runs are made by the ten thousand


@dataclass(frozen=True, slots=True)
class Claim:
    """A peer's word that a unit is final."""

    peer: int
    at_s: float
    result: ResultHash


def claim_of(peer: Peer, effect: Notify) -> tuple[JobId, int, int, ResultHash] | None:
    """Job, unit, epoch and result of a ``unit_final``, as the peer knows it; None when it let the job go since."""
    job, unit = job_of(effect), unit_of(effect)
    kept = peer.submitter.job(job)
    final = kept.state.final(unit) if kept is not None else None
    return (job, unit, kept.state.epoch(unit), final) if kept is not None and final is not None else None


class SingleFinal(Checker):
    """At most one result of a unit is final in an epoch, over all honest peers and all their lives.

    Of a view in which more keepers lie than ``lying_keepers`` in eight nothing is said.
    """

    name = "single_final"
    listens = True

    def __init__(self, world: World, scenario: Scenario, evidence: Evidence) -> None:
        super().__init__(world, scenario, evidence)
        self._claims: dict[tuple[JobId, int, int], Claim] = {}

    def heard(self, peer: Peer, effect: Notify) -> None:
        """Somebody says that a unit is final."""
        if effect.event != "unit_final" or not self.is_honest(peer):
            return
        claim = claim_of(peer, effect)
        if claim is None or self._is_beyond(claim[0], claim[2]):
            return
        job, unit, epoch, result = claim
        first = self._claims.setdefault((job, unit, epoch), Claim(peer.number, self.now_s, result))
        if first.result != result:
            self.found(peer.number, self._conflict(job, unit, epoch, [first.result, result], first))

    def scan(self) -> None:
        """What was signed, together, must not make two results final either."""
        for name, (unit, epoch) in self.evidence.disputed:
            job = self.evidence.jobs[name]
            given = sorted(job.given[unit, epoch])
            final = [ResultHash(result) for result in given if job.certified(unit, epoch, result)]
            if len(final) > 1 and not self._is_beyond(name, epoch):
                self.found(None, self._conflict(name, unit, epoch, final, None))
        self.evidence.disputed.clear()

    def _is_beyond(self, job: JobId, epoch: int) -> bool:
        """More keepers of the epoch's view lie than what is accepted must withstand."""
        known = self.evidence.jobs.get(job)
        keepers = known.keepers(view_of(epoch)) if known is not None and self.world.adversaries else ()
        lying = sum(1 for one in keepers if not self.keeps_honestly(self.world.peers[self.world.index[one]]))
        return lying > self.scenario.checks.lying_keepers * len(keepers) // KEEPERS

    def _conflict(self, job: JobId, unit: int, epoch: int, results: list[ResultHash], first: Claim | None) -> str:
        """Both results, and who signed for each."""
        known, sides = self.evidence.jobs.get(job), []
        for result in results:
            by = known.supporters(unit, epoch, result) if known is not None else set()
            sides.append(f"{result.hex()[:8]} (signed for by {self._numbers(by)})")
        where = "" if first is None else f"; peer {first.peer} said the first at {first.at_s:.3f} s"
        return f"unit {named(job, unit)} is final in epoch {epoch} with {' and with '.join(sides)}{where}"

    def _numbers(self, peers: set[PeerId]) -> list[int]:
        return sorted(self.world.index[peer] for peer in peers)


class Unsigned(Checker):
    """Nothing that is not signed changes state: facts on disks verify, and what is final rests on such facts.

    Of a final result that is: keepers of its view signed for it, three quarters of them; and as many workers as the
    job's policy wants committed to it and showed it, or the submitter's own worker did and the submitter signed.
    """

    name = "unsigned"
    listens = True

    def __init__(self, world: World, scenario: Scenario, evidence: Evidence) -> None:
        super().__init__(world, scenario, evidence)
        self._good: set[tuple[JobId, int, int, ResultHash]] = set()

    def heard(self, peer: Peer, effect: Notify) -> None:
        """Somebody says that a unit is final."""
        claim = claim_of(peer, effect) if effect.event == "unit_final" and self.is_honest(peer) else None
        if claim is None or claim in self._good:
            return
        job, unit, epoch, result = claim
        why = self._why_not(job, unit, epoch, result)
        if why:
            self.found(peer.number, f"unit {named(job, unit)} is final in epoch {epoch}, but {why}")
        else:
            self._good.add(claim)

    def _why_not(self, job: JobId, unit: int, epoch: int, result: ResultHash) -> str:
        known = self.evidence.jobs.get(job)
        if known is None or known.spec is None:
            return "nobody signed for the job"
        if not known.certified(unit, epoch, result):
            by = sorted(self.world.index[one] for one in known.supporters(unit, epoch, result))
            return f"only peers {by} signed for the result"
        voters = known.voters(unit, epoch, result)
        policy = known.spec.policy
        own = known.submitter in voters and known.submitter in known.supporters(unit, epoch, result)
        if policy.audit_permille and voters:  # one may be enough: whom the submitter trusts is for it to judge
            return ""
        if len(voters) < policy.quorum and not (own and policy.level != "critical"):
            gave = sorted(self.world.index[one] for one in voters)
            return f"only workers {gave} gave the result, of {policy.quorum} that are to agree"
        return ""

    def scan(self) -> None:
        """Facts on disks verify."""
        for peer, text in self.evidence.unsigned:
            self.found(peer, text)
        self.evidence.unsigned.clear()


class WrongAccepts(Checker):
    """Wrong results are accepted no more often than first-to-m voting lets cheaters get through.

    The law (Sarmenta 2001): a unit is wrong with probability sum over j = m .. 2m - 1 of C(2m - 1, j) f^j
    (1 - f)^(2m - 1 - j), where f is the share of workers that give the same wrong result. Workers that may be
    dishonest are counted as if they always were. Of jobs under the trust policy the law of ``trust_law.py`` holds.
    """

    name = "wrong_accepts"

    def __init__(self, world: World, scenario: Scenario, evidence: Evidence) -> None:
        super().__init__(world, scenario, evidence)
        self._right: dict[tuple[JobId, int], bool] = {}  # by unit that was called final
        self._believed: set[tuple[JobId, int]] = set()  # of these, those that somebody gave who counts
        self._quorum: int | None = min((plan.quorum for plan in scenario.jobs), default=None)
        self._trust = TrustLaw(world, lambda number: not isinstance(world.peers[number].behaviour, Honest))

    def heard(self, peer: Peer, effect: Notify) -> None:
        """A unit is final."""
        claim = claim_of(peer, effect) if effect.event == "unit_final" and self.is_honest(peer) else None
        if claim is None:
            return
        job, unit, _, result = claim
        kept = peer.submitter.job(job)
        if (job, unit) not in self._right and kept is not None:
            spec = kept.state.spec
            if not is_checked(spec):
                self._quorum = min(self._quorum or spec.policy.quorum, spec.policy.quorum)  # a client's may be less
            if kept.trust is not None:
                self._trust.watch(job, spec, kept.state.submitter)
                if not kept.trust.bootstrap and self._trust.believed(job, kept.state.accepted_workers(unit)):
                    self._believed.add((job, unit))
            right = result == hash_result(true_result(job, unit, result_size(spec)))
            self._right[job, unit] = right
            if not right and not self._cheaters():
                self.found(
                    peer.number, f"unit {named(job, unit)} was accepted with a wrong result, and nobody cheats"
                )

    def _cheaters(self) -> float:
        works = [peer for peer in self.world.peers if peer.works]
        cheats = sum(1 for peer in works if not isinstance(peer.behaviour, Honest))
        return cheats / len(works) if works else 0.0

    def scan(self) -> None:
        """See how those stand who are believed."""
        self._trust.look()

    def finish(self) -> None:
        """Count."""
        self.scan()
        seen = self.report()
        if self._quorum and int(str(seen["wrong"])) > int(str(seen["limit"])) and self._cheaters():
            text = "{wrong} of {units} units were accepted with a wrong result; the voting law allows for {limit}"
            self.found(None, text.format(**seen))
        if int(str(seen["wrong_believed"])) > int(str(seen["limit_believed"])):
            text = (
                "{wrong_believed} of {believed} units that known workers gave were accepted with a wrong result; "
                "the law of audits allows for {limit_believed}"
            )
            self.found(None, text.format(**seen))

    def report(self) -> dict[str, object]:
        """Wrong results, and how many there may be: of those that were voted on, and of those that were believed."""
        law, voted = 0.0, len(self._right) - len(self._believed)
        if self._quorum:  # a check errs never
            law = voting_law(max(self._cheaters(), self._trust.strangers), self._quorum)
        wrong = [place for place, right in self._right.items() if not right]
        believed = sum(1 for place in wrong if place in self._believed)
        return {
            "units": voted, "wrong": len(wrong) - believed, "law": law, "limit": binomial_limit(voted, law, CHANCE),
            "believed": len(self._believed), "wrong_believed": believed, "limit_believed": self._trust.limit(CHANCE),
        }  # fmt: skip


def voting_law(cheaters: float, m: int) -> float:
    """How often first-to-m voting accepts a wrong result when this share of workers gives the same wrong one."""
    n = 2 * m - 1
    return sum(comb(n, j) * cheaters**j * (1.0 - cheaters) ** (n - j) for j in range(m, n + 1))


def binomial_limit(count: int, share: float, chance: float) -> int:
    """The least number that a binomial one exceeds with at most this probability."""
    if share <= 0.0 or count == 0:
        return 0
    if share >= 1.0:
        return count
    at = (1.0 - share) ** count
    if at == 0.0:  # too many to sum from the lower end: the normal tail, 5.2 deviations for 1e-6 and more
        return min(count, int(count * share + 6.0 * (count * share * (1.0 - share)) ** 0.5) + 1)
    below = at
    for number in range(count):
        if 1.0 - below <= chance:
            return number
        at *= (count - number) / (number + 1) * share / (1.0 - share)
        below += at
    return count
