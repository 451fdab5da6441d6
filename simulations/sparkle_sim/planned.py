"""What jobs a scenario plans: their specs, and so their ids, as they are known before the run begins."""

from sparkle_protocol.facts import Deadlines, FactCodec, JobSpec, Policy, Resources
from sparkle_protocol.ids import JobId, digest
from sparkle_sim.scenario import JobPlan, Scenario
from sparkle_sim.signing import CheapIdentity, verify_cheap
from sparkle_sim.world import EPOCH_MS, KERNEL, NET

GIGA = 1e9


def planned_spec(scenario: Scenario, seed: int, plan: JobPlan, number: int) -> JobSpec:
    """The spec of the job of that number, of all that the scenario plans in the order of its plans."""
    return spec_of(scenario, plan, digest(f"{seed}/job/{number}".encode())[:16])


def spec_of(
    scenario: Scenario, plan: JobPlan, nonce: bytes, *, level: str = "final", created_ms: int = EPOCH_MS
) -> JobSpec:
    """The spec of a job as a plan describes it."""
    flops = plan.unit_s * scenario.peers.machines.gigaflops * GIGA
    total_s = max(1, int(scenario.seconds) + 1)
    policy = Policy(level, plan.quorum, max_replicas=max(8, plan.quorum))
    return JobSpec(
        KERNEL, 1, {"result_bytes": plan.result_bytes}, plan.units, "exact", policy,
        Resources(flops=flops), Deadlines(total_s=total_s), bytes(32), nonce, created_ms,
    )  # fmt: skip


def planned_job(scenario: Scenario, seed: int, number: int) -> JobId:
    """The id of the job of that number, of an honest submitter."""
    plans = [plan for plan in scenario.jobs for _ in range(plan.repeat)]
    plan = plans[number]
    spec = planned_spec(scenario, seed, plan, number)
    return FactCodec(NET, verify_cheap).seal(CheapIdentity(seed, plan.submitter), spec).job
