"""A script run by the simulator: the production cores on virtual time."""

from collections.abc import Mapping, Sequence

from sparkle_p2p.node.array_units import check_result
from sparkle_protocol.effects import Record, StoreFact
from sparkle_protocol.facts import JobSpec, Signer
from sparkle_protocol.identity import verify_signature
from sparkle_protocol.ids import JobId
from sparkle_sim.kernel import SECOND
from sparkle_sim.network import Conditions, Place
from sparkle_sim.peer import Machine as Hardware
from sparkle_sim.peer import Peer
from sparkle_sim.world import World
from tests.sim.twins.said import Left
from tests.sim.twins.script import DEVICE, ROUND_TRIP_S, SYNC_S, VERSIONED, Act, Machine, Script, unit_of

CANCELLED = "cancelled by its owner"  # as the node words it


class Works:
    """Computes what the script's kernel computes."""

    def __init__(self, script: Script, machine: Machine) -> None:
        self._script = script
        self._machine = machine

    def result(self, spec: JobSpec, job: JobId, unit: int) -> bytes | None:
        """The right bytes, or a liar's. Raises ComputeError."""
        return self._script.outcome(self._machine, unit_of(spec, unit))


class KernelTwin:
    """One run. ``specs``: the jobs by name, as the shell has signed them."""

    def __init__(self, script: Script, signers: Sequence[Signer], specs: Mapping[str, JobSpec], seed: int) -> None:
        self.script = script
        self.specs = specs
        self.left = Left()
        places = [Place() for _ in signers]
        conditions = Conditions(((ROUND_TRIP_S * 1000,),), jitter=0.0)
        self.world = World(seed, places, conditions, identities=signers, verify=verify_signature)
        self.world.kernel_key = VERSIONED
        self.world.check_result = check_result
        hardware = Hardware(flops_per_s=script.flops_per_s, noise=0.0, sync_s=(SYNC_S, SYNC_S), device=DEVICE)
        for machine in script.machines:
            self.world.add(hardware, works=machine.works, behaviour=Works(script, machine))
        self.world.listen(self)

    def run(self) -> Left:
        """What it left."""
        for act in self.script.acts:
            self.world.at(int(act.at_s * SECOND), lambda act=act: self._act(act))  # type: ignore[misc]
        self.world.kernel.run(int(self.script.length_s * SECOND))
        for peer in self.world.peers:
            for job, records in peer.disk.jobs.items():
                for name, result in records.results.items():
                    self.left.results[peer.number][job, name] = result
        for name, job in self.left.jobs.items():
            kept = self._submitter(name).submitter.jobs[job]
            self.left.outcomes[name], self.left.dead[name] = kept.outcome, dict(sorted(kept.dead.items()))
        return self.left

    def _submitter(self, name: str) -> Peer:
        return self.world.peers[next(act.node for act in self.script.acts if (act.what, act.job) == ("submit", name))]

    def _act(self, act: Act) -> None:
        peer = self.world.peers[act.node]
        if act.what == "start":
            peer.start(() if not act.node else self.world.addresses[0])
        elif act.what == "kill":
            peer.crash()
        elif act.what == "submit":
            job, effects = peer.submitter.submit(self.specs[act.job], peer.now())
            self.left.jobs[act.job] = job
            peer.command(lambda _submitter, _now: effects)
        elif act.what == "cancel":
            job = self.left.jobs[act.job]
            peer.command(lambda submitter, now: submitter.cancel(job, CANCELLED, now))
        else:
            job = self.left.jobs[act.job]
            peer.command(lambda submitter, now: submitter.requeue(job, None, now)[1])

    # --- Listener -----------------------------------------------------------------------------------------

    def said(self, peer: Peer, effect: object) -> None:
        """Nothing follows from what is said."""

    def wrote(self, peer: Peer, record: Record) -> None:
        """A fact is durable."""
        if isinstance(record, StoreFact):
            self.left.facts[peer.number].append(record.fact.raw)
