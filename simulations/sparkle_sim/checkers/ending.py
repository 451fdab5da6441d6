"""Every unit ends, and nothing grows without bound on the way."""

from sparkle_protocol.effects import Notify
from sparkle_protocol.ids import JobId
from sparkle_protocol.membership import MAX_CANDIDATES, MAX_HEARSAY, MAX_STANDINGS
from sparkle_protocol.work.held import MAX_HELD
from sparkle_sim.checkers.base import Checker, job_of, named, unit_of
from sparkle_sim.checkers.evidence import Evidence
from sparkle_sim.faults import quiet_from_s
from sparkle_sim.peer import Peer
from sparkle_sim.planned import GIGA
from sparkle_sim.requests import MAX_SENDS
from sparkle_sim.scenario import Scenario
from sparkle_sim.world import World

PATIENCE_S = 600.0  # between two units' ends: the longest pause before a unit is tried again, or a peer dialled
UNITS_PATIENCE = 20  # and so many times what a unit takes
SERVED = 4096  # requests that a node has not answered
FACTS = (4096, 256)  # of a job, and of each unit: sixteen workers, eight keepers, and several views
PENDING = 20_000  # events for each peer


class Termination(Checker):
    """Every unit of a published job ends: once nothing goes wrong any more, units end one after the other.

    While nodes come and go for ever, or fewer honest workers are left than a unit wants, nothing is said.
    """

    name = "termination"

    def __init__(self, world: World, scenario: Scenario, evidence: Evidence) -> None:
        super().__init__(world, scenario, evidence)
        self._quiet_s = quiet_from_s(scenario)
        self._open: dict[JobId, dict[int, None]] = {}  # units that ended, of jobs that are not over
        self._moved_s: dict[JobId, float] = {}  # when the last of them did
        # Of the most demanding job, planned or submitted by a client:
        self._unit_s = max((plan.unit_s for plan in scenario.jobs), default=0.0)
        self._quorum = max((plan.quorum for plan in scenario.jobs), default=1)

    def heard(self, peer: Peer, effect: Notify) -> None:
        """Jobs begin and end, and so do units."""
        if effect.event == "job_published":
            self._open.setdefault(job_of(effect), {})
            self._moved_s[job_of(effect)] = self.now_s
            if self.is_honest(peer):
                self._learn(peer, job_of(effect))
        elif effect.event in ("unit_final", "unit_dead") and self.is_honest(peer):
            job = job_of(effect)
            if job in self._open and unit_of(effect) not in self._open[job]:
                self._open[job][unit_of(effect)] = None
                self._moved_s[job] = self.now_s
        elif effect.event in ("job_done", "job_cancelled", "job_failed"):
            known = self.world.peers[peer.number].submitter.jobs.get(job_of(effect))
            if known is not None and known.mine:
                self._open.pop(job_of(effect), None)

    def scan(self) -> None:
        """Something must have ended lately."""
        for job, ended in list(self._open.items()):
            since_s = max(self._moved_s[job], self._quiet_s)
            if self.now_s - since_s <= patience_s(self.scenario, self._unit_s) or not self._can_go_on(job):
                continue
            units = self._units(job)
            if len(ended) < units:
                first = next(unit for unit in range(units) if unit not in ended)
                text = f"{units - len(ended)} of {units} units of job {named(job)} are open"
                self.found(None, f"{text}, the first is {first}, and none ended for {self.now_s - since_s:.0f} s")
                del self._open[job]

    def _learn(self, peer: Peer, job: JobId) -> None:
        """What a job that is published demands."""
        known = peer.submitter.jobs.get(job)
        if known is not None:
            spec = known.state.spec
            self._unit_s = max(self._unit_s, spec.resources.flops / (self.scenario.peers.machines.gigaflops * GIGA))
            self._quorum = max(self._quorum, spec.policy.quorum)

    def _units(self, job: JobId) -> int:
        for peer in self.world.peers:
            kept = peer.submitter.job(job) if peer.life is not None else None
            if kept is not None:
                return kept.state.spec.units
        return 0

    def _can_go_on(self, job: JobId) -> bool:
        up = [peer for peer in self.world.peers if peer.life is not None]
        kept = [peer for peer in up if peer.submitter.job(job) is not None]
        lost = [peer for peer in self.world.peers if peer.lost or not self.keeps_honestly(peer)]
        workers = sum(1 for peer in up if peer.works and not peer.paused and self.is_honest(peer))
        return bool(kept) and len(lost) <= self.scenario.checks.lost_keepers and workers >= 2 * self._quorum


def patience_s(scenario: Scenario, unit_s: float) -> float:
    """How long nothing need end."""
    machines = scenario.peers.machines
    slowest = machines.slow_factor if machines.slow_share else 1.0
    return PATIENCE_S + UNITS_PATIENCE * unit_s * slowest * (1.0 + machines.spread)


class Bounds(Checker):
    """Queues and memory of the cores stay within what they are made for."""

    name = "bounds"

    def scan(self) -> None:
        """Measure every peer."""
        for peer in self.world.peers:
            if peer.life is not None:
                self._measure(peer)
        pending = self.world.kernel.pending
        if pending > PENDING * len(self.world.peers):
            self.found(None, f"{pending} events wait, more than {PENDING} for each peer")

    def _measure(self, peer: Peer) -> None:
        life, membership = peer.life, peer.membership
        sizes = (
            ("units in hand", len(peer.worker.held), MAX_HELD),
            ("requests under way", len(life.requests.asked) if life is not None else 0, MAX_SENDS),
            ("requests without an answer", len(life.requests.served) if life is not None else 0, SERVED),
            ("peers that could be dialled", len(membership._candidates), MAX_CANDIDATES),
            ("peers that strangers told of", len(membership._hearsay), MAX_HEARSAY),
            ("records of conduct", len(membership.standings), MAX_STANDINGS),
        )
        for what, size, limit in sizes:
            if size > limit:
                self.found(peer.number, f"{size} {what}, and {limit} are the limit")
        for kept in peer.submitter.all_jobs():
            limit = FACTS[0] + FACTS[1] * kept.state.spec.units
            if len(kept.state) > limit:
                name = named(kept.state.id)
                self.found(peer.number, f"{len(kept.state)} facts of job {name}, more than {limit}")
