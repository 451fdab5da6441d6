"""A run of the full engine: a scenario becomes a world, and the world lives until it is over."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from math import exp
from typing import TYPE_CHECKING

from sparkle_protocol.effects import Notify, Violation
from sparkle_protocol.errors import ConfigError
from sparkle_protocol.facts import JobSpec
from sparkle_protocol.ids import JobId
from sparkle_protocol.trust.standing import Key, Standing, TrustBook
from sparkle_protocol.work.rules import PRODUCTION, Rules
from sparkle_sim import churn, faults
from sparkle_sim.adversaries import assign
from sparkle_sim.blobs import MIB
from sparkle_sim.draws import draws
from sparkle_sim.kernel import SECOND
from sparkle_sim.loading import load
from sparkle_sim.network import NAT, PUBLIC, SYMMETRIC, Conditions, Place
from sparkle_sim.peer import Machine, Peer
from sparkle_sim.planned import GIGA, planned_spec, total_s_of
from sparkle_sim.scenario import JobPlan, Machines, Peers, Scenario, Wires
from sparkle_sim.trace import Trace
from sparkle_sim.world import Watcher, World

if TYPE_CHECKING:
    from sparkle_sim.workflows import Workflow, Workflows

BOOTSTRAPS = 3  # peers that a new one knows
DONE, COMPLETE = "job_done", "result_complete"
ENDED = (DONE, COMPLETE, "job_failed", "job_cancelled")
REFUSED = "job_refused"  # its submitter cannot pay for it


class Run:
    """One run. Jobs are submitted as the scenario plans; it is over at its end, or when all jobs and clients are.

    Args:
        scenario: what happens.
        seed: decides everything that the scenario leaves open.
        trace: where it is written down.
        watchers: who else is told what happens.
        clients: peers, and the programs that run beside their nodes.
    """

    def __init__(
        self,
        scenario: Scenario,
        seed: int,
        *,
        trace: Trace | None = None,
        watchers: Sequence[Watcher] = (),
        clients: Sequence[tuple[int, "Workflow"]] = (),
    ) -> None:
        self.scenario = scenario
        self.seed = seed
        self.world = build_world(scenario, seed, trace, [number for number, _ in clients])
        self.plans: dict[JobId, JobPlan] = {}
        self.submitted_ns: dict[JobId, int] = {}
        self.ended_ns: dict[JobId, int] = {}
        self.outcomes: dict[JobId, str] = {}  # the last of "job_done", "job_failed", "job_cancelled"
        self.over = False
        self._waiting = sum(plan.repeat for plan in scenario.jobs)  # jobs that are not submitted yet
        self.world.watchers += [self, *watchers]
        self._let_arrive()
        number = 0
        for plan in scenario.jobs:
            for repeat in range(plan.repeat):
                at_s = plan.at_s + repeat * plan.every_s
                self.world.kernel.at(int(at_s * SECOND), self._submit, plan, number)
                number += 1
        faults.begin(self.world, scenario)
        churn.begin(self.world, scenario)
        self._workflows: Workflows | None = None
        if clients:
            from sparkle_sim import workflows  # asyncio is loaded for them alone

            self._workflows = workflows.Workflows(self.world, scenario, clients, self._submitted, self._end_if_done)

    def advance(self, until_s: float) -> bool:
        """Let virtual time pass up to then; True when the run is over. Raises what a client's mistake raised."""
        end_ns = int(min(until_s, self.scenario.seconds) * SECOND)
        if not self.over:
            self.world.kernel.run(end_ns)
        self.over = self.over or self.world.kernel.now >= int(self.scenario.seconds * SECOND)
        if self._workflows is not None:
            self._workflows.loop.raise_failure()
            if self.over:
                self._workflows.loop.finish()
        return self.over

    @property
    def now_s(self) -> float:
        """Virtual seconds that have passed."""
        return self.world.kernel.now / SECOND

    def summary(self) -> dict[str, object]:
        """What became of it, as plain values."""
        kernel = self.world.kernel
        jobs = [
            {
                "job": job.hex(),
                "units": self.plans[job].units,
                "outcome": self.outcomes.get(job, "running").removeprefix("job_"),
                "submitted_s": self.submitted_ns[job] / SECOND,
                "ended_s": self.ended_ns[job] / SECOND if job in self.ended_ns else None,
            }
            for job in self.plans
        ]
        return {
            "virtual_seconds": kernel.now / SECOND,
            "events": kernel.events,
            "peers": len(self.world.peers),
            "online": sum(1 for peer in self.world.peers if peer.life is not None),
            "jobs": jobs,
            **({"clients": self._workflows.summary()} if self._workflows is not None else {}),
        }

    # --- what is planned --------------------------------------------------------------------------------------

    def _let_arrive(self) -> None:
        """Each peer starts at its time and knows a few that were there before."""
        world, plan = self.world, self.scenario.peers
        random = draws(self.seed, "arrivals")
        for number, peer in enumerate(world.peers):
            known = min(number, max(1, number // 2), BOOTSTRAPS)
            bootstrap = [world.addresses[random.below(number)][0] for _ in range(known)] if number else []
            at_s = random.uniform(0.0, plan.arrive_s) * number / len(world.peers)
            world.kernel.at(int(at_s * SECOND), self._arrive, peer, bootstrap)

    @staticmethod
    def _arrive(peer: Peer, bootstrap: Sequence[str]) -> None:
        if peer.life is None:
            peer.start(bootstrap)

    def _submit(self, plan: JobPlan, number: int) -> None:
        self._waiting -= 1
        peer = self.world.peers[plan.submitter]
        if peer.life is None:  # its owner waits until it is back
            self._waiting += 1
            self.world.kernel.after(SECOND, self._submit, plan, number)
            return
        spec = planned_spec(self.scenario, self.seed, plan, number)
        if spec.price_micro and self.world.credit is not None:
            self._fund(peer, plan, number, spec)
        else:
            self._publish(peer, plan, spec)

    def _fund(self, peer: Peer, plan: JobPlan, number: int, spec: JobSpec) -> None:
        """Publish a job once it is paid for in advance; a node that ends before that begins again."""
        credit, life, fact = self.world.credit, peer.life, self.world.codec.seal(peer.identity, spec)
        done = False
        self._waiting += 1

        def funded(refused: str | None) -> None:
            nonlocal done
            done = True
            self._waiting -= 1
            if refused is None:
                self._publish(peer, plan, spec)
                return
            self._submitted(fact.job, plan)
            self.outcomes[fact.job] = REFUSED
            self.ended_ns[fact.job] = self.world.kernel.now
            self._end_if_done()

        def look() -> None:
            if not done and peer.life is life:
                self.world.kernel.after(SECOND, look)
            elif not done:
                self._submit(plan, number)

        if credit is not None:
            credit.fund(peer, fact, funded)
            self.world.kernel.after(SECOND, look)

    def _publish(self, peer: Peer, plan: JobPlan, spec: JobSpec) -> None:
        job, effects = peer.submitter.submit(spec, peer.now())
        if spec.inputs or plan.result_mb:
            self.world.arrays.of(peer).submitted(job, spec)
        self._submitted(job, plan)
        self.world.note(plan.submitter, "submit", job.hex())
        peer.command(lambda _submitter, _now: effects)

    def _submitted(self, job: JobId, plan: JobPlan) -> None:
        self.plans[job] = plan
        self.submitted_ns[job] = self.world.kernel.now

    # --- watching ---------------------------------------------------------------------------------------------

    def heard(self, peer: Peer, effect: Notify) -> None:
        """Jobs end, or go on once more."""
        if effect.event == "units_requeued":
            self.outcomes.pop(JobId(bytes.fromhex(str(effect.fields["job"]))), None)
        if effect.event not in ENDED:
            return
        job = JobId(bytes.fromhex(str(effect.fields["job"])))
        plan, event = self.plans.get(job), effect.event
        if plan is not None and plan.submitter == peer.number:
            if event in (DONE, COMPLETE) and (event == COMPLETE) is not bool(plan.result_mb):
                return  # a job whose results are blobs is over when its submitter has them
            self.outcomes[job] = DONE if event == COMPLETE else event
            self.ended_ns[job] = self.world.kernel.now
            self._end_if_done()

    def _end_if_done(self) -> None:
        """A job has ended, or a client."""
        busy = self._waiting or (self._workflows is not None and self._workflows.running)
        if self.scenario.until_done and not busy and len(self.outcomes) == len(self.plans):
            if self.world.credit is None:
                self._end()
            else:
                self.world.kernel.after(int(self.scenario.credit.settle_s * SECOND), self._end)

    def _end(self) -> None:
        self.over = True
        self.world.kernel.stop()

    def violated(self, peer: Peer, effect: Violation) -> None:
        """Nothing follows from it here."""


def build_world(scenario: Scenario, seed: int, trace: Trace | None = None, clients: Sequence[int] = ()) -> World:
    """The peers of a scenario, where they are and what they run on; none lives yet. ``clients``: who is honest."""
    submitters = {plan.submitter for plan in scenario.jobs}
    places = _places(scenario.peers, scenario.wires, seed, submitters)
    wires = scenario.wires
    conditions = Conditions(
        _round_trips(wires), wires.jitter, wires.loss, wires.twice, wires.upload_mbps, wires.download_mbps
    )
    adversaries = assign(seed, scenario, clients)
    world = World(seed, places, conditions, trace, adversaries, rules_of(scenario.policy))
    for number in range(scenario.peers.count):
        world.add(machine_of(scenario.peers.machines, seed, number))
    if scenario.credit.enabled:
        from sparkle_sim.credit import give_credit  # the ledger is loaded for those who have one

        give_credit(world, scenario.credit, total_s_of(scenario))
    for submitter in submitters if scenario.trust.known else ():
        world.peers[submitter].disk.trust = _book_of(scenario, seed, world, submitter)
    return world


def _book_of(scenario: Scenario, seed: int, world: World, submitter: int) -> TrustBook:
    """What a submitter thinks of the others before the run begins; all submitters think the same."""
    book, plan = TrustBook(), scenario.trust
    flops = plan.unit_s * scenario.peers.machines.gigaflops * GIGA
    for peer in world.peers:
        if peer.number != submitter and draws(seed, peer.number, "known").random() < plan.known:
            standing = Standing(plan.passes, plan.passes * book.work_of(flops))
            book.restore(Key(peer.id, peer.machine.device, "exact"), standing)
    return book


def rules_of(policy: str) -> Rules:
    """How the cores decide in a run. Raises ConfigError, to follow the key that names it."""
    return PRODUCTION if policy == "production" else load(policy, Rules)()


def machine_of(machines: Machines, seed: int, number: int) -> Machine:
    """What one peer runs on."""
    random = draws(seed, number, "machine")
    speed = machines.gigaflops * GIGA * exp(machines.spread * random.normal())
    if random.random() < machines.slow_share:
        speed /= machines.slow_factor
    return Machine(
        flops_per_s=speed,
        slots=machines.slots,
        blobs_bytes=int(machines.blobs_mb * MIB),
        noise=machines.noise,
        drift=machines.drift * random.uniform(-1.0, 1.0),
        skew_ms=int(1000 * machines.skew_s * random.uniform(-1.0, 1.0)),
    )


def _places(peers: Peers, wires: Wires, seed: int, submitters: AbstractSet[int]) -> list[Place]:
    """Peers by their regions' shares; those who submit, and the first, whom all know, have public addresses."""
    places = []
    for number in range(peers.count):
        random = draws(seed, number, "place")
        drawn, region = random.random(), 0
        for region, one in enumerate(wires.regions):  # noqa: B007 - the last one takes what rounding leaves
            drawn -= one.share
            if drawn < 0:
                break
        kind, nat = random.random(), PUBLIC
        if number and number not in submitters and kind < wires.nat_share + wires.symmetric_share:
            nat = NAT if kind < wires.nat_share else SYMMETRIC
        places.append(Place(region, nat))
    return places


def _round_trips(wires: Wires) -> list[list[float]]:
    """Between each two regions. Raises ConfigError for a distance to a region that there is not."""
    numbers = {region.name: number for number, region in enumerate(wires.regions)}
    table = [[wires.far_ms] * len(numbers) for _ in numbers]
    for name, number in numbers.items():
        table[number][number] = next(region.inside_ms for region in wires.regions if region.name == name)
    for distance in wires.distances:
        unknown = [name for name in distance.between if name not in numbers]
        if unknown:
            raise ConfigError(f"wires.distances names '{unknown[0]}', which is no region of the scenario")
        one, other = (numbers[name] for name in distance.between)
        table[one][other] = table[other][one] = distance.round_trip_ms
    return table
