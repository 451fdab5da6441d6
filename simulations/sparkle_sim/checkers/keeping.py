"""What keepers must not lose, and that they come to agree."""

from math import comb

from sparkle_protocol.effects import Notify
from sparkle_protocol.facts import Verdicts
from sparkle_protocol.ids import JobId, PeerId, ResultHash
from sparkle_protocol.work.sealed import SealedRange
from sparkle_sim.checkers.base import KEEPERS, Checker, job_of, named
from sparkle_sim.checkers.evidence import Evidence
from sparkle_sim.checkers.finals import claim_of
from sparkle_sim.disk import JobRecords
from sparkle_sim.faults import quiet_from_s
from sparkle_sim.peer import Peer
from sparkle_sim.scenario import Scenario
from sparkle_sim.world import World

SETTLE_S = 60.0  # for keepers to tell each other everything, once nothing goes wrong any more


class Acknowledged(Checker):
    """Nothing that was acknowledged is lost while no more keepers of a view are lost than it is made for.

    From ``job_published`` on the job is on the disk of one of its keepers, or of its submitter, and so is every
    result that was called final, with the verdict, until the job ends; and a job does not fail for want of what was
    accepted. Of smaller views as many may be lost as their share of ``lost_keepers`` in eight. A job that lost more
    is only counted: ``report`` tells how many there are beside how many there would be if those who were lost had
    been drawn at random. A keeper that lies is as good as lost.
    """

    name = "acknowledged"
    listens = True

    def __init__(self, world: World, scenario: Scenario, evidence: Evidence) -> None:
        super().__init__(world, scenario, evidence)
        self._limit = scenario.checks.lost_keepers
        self._open: dict[JobId, dict[int, ResultHash]] = {}  # published jobs, and what of them is final
        self._views: dict[JobId, int] = {}  # the newest when it was looked at last
        self._beyond: dict[JobId, None] = {}
        self._lost: dict[JobId, None] = {}  # of these, those of which something is gone
        self._jobs = 0
        self._dead: dict[JobId, None] = {}  # jobs with dead units

    def heard(self, peer: Peer, effect: Notify) -> None:
        """Jobs are acknowledged, units become final, jobs end."""
        if effect.event == "job_published":
            self._jobs += 1
            self._open.setdefault(job_of(effect), {})
        elif effect.event == "unit_final":
            claim = claim_of(peer, effect) if self.is_honest(peer) else None
            if claim is not None and claim[0] in self._open:
                self._open[claim[0]][claim[1]] = claim[3]
        elif effect.event == "unit_dead":
            self._dead[job_of(effect)] = None
        elif effect.event in ("job_done", "job_cancelled", "job_failed"):
            self._ended(peer, effect)

    def _ended(self, peer: Peer, effect: Notify) -> None:
        job, known = job_of(effect), self.evidence.jobs.get(job_of(effect))
        if known is None or known.submitter != peer.id:
            return
        was_open = job in self._open
        error = str(effect.fields.get("error") or "")
        late = "did not finish within" in error or "nobody took" in error
        if effect.event == "job_failed" and was_open and job not in self._dead and not late:
            self._missed(job, f"job {named(job)} failed though no unit of it is dead: {error}", peer.number)
        self._open.pop(job, None)

    def scan(self) -> None:
        """Look for all of it on disks."""
        for job, finals in self._open.items():
            if self._is_beyond(job):
                self._beyond[job] = None
            self._look(job, finals)

    def _missed(self, job: JobId, text: str, peer: int | None = None) -> None:
        if job in self._beyond or self._is_beyond(job):
            self._beyond[job] = None
            self._lost[job] = None
        else:
            self.found(peer, text)

    def _is_beyond(self, job: JobId) -> bool:
        """More keepers are lost than the job is made for, of the newest view or of the one that was that before."""
        known = self.evidence.jobs[job]
        newest = known.newest()
        views = {view: None for view in (newest, self._views.get(job)) if view is not None}
        if newest is not None:
            self._views[job] = newest
        for view in views:
            keepers = known.keepers(view)
            lost = sum(1 for peer in keepers if self._is_lost(self.world.peers[self.world.index[peer]]))
            if lost > self._limit * len(keepers) // KEEPERS:
                return True
        return False

    def _look(self, job: JobId, finals: dict[int, ResultHash]) -> None:
        known = self.evidence.jobs[job]
        there = [*self._records(known.submitter, job)]
        for view in sorted({keepers.view for _, keepers in known.sets.values()}):
            for keeper in known.keepers(view):
                there += self._records(keeper, job)
        if not any(records.spec is not None for records in there):
            self._missed(job, f"job {named(job)} was published and is on no keeper's disk any more")
            return
        results: set[ResultHash] = set()
        decided: set[int] = set()
        for records in there:
            results.update(records.results)
            decided.update(_decided(records))
        for unit, result in finals.items():
            if result not in results:
                self._missed(job, f"the final result of unit {named(job, unit)} is on no keeper's disk any more")
            elif unit not in decided:
                self._missed(job, f"that unit {named(job, unit)} is final is on no keeper's disk any more")

    def _records(self, peer: PeerId, job: JobId) -> list[JobRecords]:
        """What a peer has of a job that is not gone for good, nor lies about what it has."""
        one = self.world.peers[self.world.index[peer]]
        return [one.disk.jobs[job]] if not self._is_lost(one) and job in one.disk.jobs else []

    def _is_lost(self, peer: Peer) -> bool:
        return peer.lost or not self.keeps_honestly(peer)

    def report(self) -> dict[str, object]:
        """Jobs whose keepers were lost beyond the limit, beside how many that would be by chance."""
        peers, lost = len(self.world.peers), sum(1 for peer in self.world.peers if self._is_lost(peer))
        keepers = min(KEEPERS, peers)
        share = more_than(self._limit * keepers // KEEPERS, keepers, lost, peers)
        return {
            "jobs": self._jobs,
            "beyond": len(self._beyond),
            "beyond_by_chance": share * self._jobs,
            "lost": len(self._lost),
        }


def _decided(records: JobRecords) -> set[int]:
    """Units of which a disk says how they ended."""
    found: set[int] = set()
    for fact in records.facts.values():
        if isinstance(fact.payload, Verdicts):
            found.update(item.unit for item in fact.payload.items)
    for raw in records.sealed.values():
        sealed = SealedRange.decode(raw)
        found.update(range(sealed.first, sealed.first + sealed.count))
    return found


def more_than(limit: int, keepers: int, lost: int, peers: int) -> float:
    """The probability that of so many keepers, drawn from all peers, more than ``limit`` are among those lost."""
    some = range(limit + 1, min(keepers, lost) + 1)
    return sum(comb(lost, n) * comb(peers - lost, keepers - n) for n in some) / comb(peers, keepers)


class Convergence(Checker):
    """Copies of a job agree: some time after the last fault, while nodes do not come and go.

    Keepers of the newest view that have run for a while know that view and every unit that anybody called final
    longer ago than that, with the same result.
    """

    name = "convergence"
    listens = True

    def __init__(self, world: World, scenario: Scenario, evidence: Evidence) -> None:
        super().__init__(world, scenario, evidence)
        self._steady_s = quiet_from_s(scenario)
        self._finals: dict[JobId, dict[int, tuple[float, ResultHash]]] = {}  # since when, and as what
        self._views: dict[JobId, tuple[int, float]] = {}  # the newest, and since when it is known that it is
        self._lives: dict[int, tuple[int, float]] = {}  # number of a peer's life, and since when it is known

    def heard(self, peer: Peer, effect: Notify) -> None:
        """A unit is final somewhere."""
        claim = claim_of(peer, effect) if effect.event == "unit_final" and self.is_honest(peer) else None
        if claim is not None:
            self._finals.setdefault(claim[0], {}).setdefault(claim[1], (self.now_s, claim[3]))

    def scan(self) -> None:
        """Compare copies."""
        for peer in self.world.peers:
            if self._lives.get(peer.number, (-1, 0.0))[0] != peer.lives:
                self._lives[peer.number] = peer.lives, self.now_s
        for job, finals in self._finals.items():
            known = self.evidence.jobs.get(job)
            newest = known.newest() if known is not None else None
            if known is None or newest is None:
                continue
            if self._views.get(job, (-1, 0.0))[0] != newest:
                self._views[job] = newest, self.now_s
            for keeper in known.keepers(newest):
                self._compare(self.world.peers[self.world.index[keeper]], job, finals)

    def _compare(self, peer: Peer, job: JobId, finals: dict[int, tuple[float, ResultHash]]) -> None:
        """What a keeper knows; nothing follows from it while it may still be told."""
        settled_s = self.now_s - SETTLE_S
        kept = peer.submitter.job(job) if peer.life is not None else None
        if kept is None or kept.outcome or max(self._steady_s, self._lives[peer.number][1]) > settled_s:
            return
        newest, since_s = self._views[job]
        number = kept.state.view.number if kept.state.view is not None else None
        if number != newest and since_s <= settled_s:
            self.found(peer.number, f"to it view {number} of job {named(job)} is the newest, and that is {newest}")
        for unit, (at_s, result) in finals.items():
            final = kept.state.final(unit)
            if final is None and at_s <= settled_s:
                self.found(peer.number, f"it does not know that unit {named(job, unit)} is final since {at_s:.1f} s")
            elif final is not None and final != result:
                sides = f"{final.hex()[:8]}, to others with {result.hex()[:8]}"
                self.found(peer.number, f"to it unit {named(job, unit)} is final with {sides}")
