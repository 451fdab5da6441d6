"""What jobs a scenario plans: their specs, and so their ids, as they are known before the run begins."""

from sparkle_protocol.facts import Deadlines, FactCodec, JobSpec, ParamValue, Policy, Resources, Signer
from sparkle_protocol.ids import HASH_BYTES, JobId, digest
from sparkle_protocol.trust.coin import audit_secret, commitment_to
from sparkle_sim.blobs import MB, input_blob
from sparkle_sim.scenario import JobPlan, Scenario
from sparkle_sim.signing import CheapIdentity, verify_cheap
from sparkle_sim.world import EPOCH_MS, KERNEL, NET

GIGA = 1e9


def planned_spec(scenario: Scenario, seed: int, plan: JobPlan, number: int) -> JobSpec:
    """The spec of the job of that number, of all that the scenario plans in the order of its plans."""
    nonce = digest(f"{seed}/job/{number}".encode())[:16]
    return spec_of(scenario, plan, nonce, identity=CheapIdentity(seed, plan.submitter))


def spec_of(
    scenario: Scenario,
    plan: JobPlan,
    nonce: bytes,
    *,
    identity: Signer,
    level: str = "final",
    created_ms: int = EPOCH_MS,
) -> JobSpec:
    """The spec of a job as a plan describes it; ``identity``: of its submitter."""
    flops = plan.unit_s * scenario.peers.machines.gigaflops * GIGA
    total_s = total_s_of(scenario)
    quorum = 1 if plan.check == "algebraic" else plan.quorum  # each result is checked by itself
    committed = commitment_to(audit_secret(identity, nonce)) if plan.audit_permille else bytes(HASH_BYTES)
    permille = plan.audit_permille if level == "final" else 0
    policy = Policy(level, quorum, max_replicas=max(8, quorum), audit_permille=permille)
    inputs: list[bytes] = [input_blob(nonce, position) for position in range(plan.inputs)] if plan.input_mb else []
    return JobSpec(
        KERNEL, 1, _params(plan), plan.units, plan.check, policy,
        Resources(flops=flops), Deadlines(total_s=total_s), committed, nonce, created_ms,
        price_micro=plan.unit_price_micro if scenario.credit.enabled else 0, inputs=inputs,
    )  # fmt: skip


def total_s_of(scenario: Scenario) -> int:
    """The time that a job has: no run is longer."""
    return max(1, int(scenario.seconds) + 1)


def _params(plan: JobPlan) -> dict[str, ParamValue]:
    """A result that is a blob is known by its name; what a plan has none of is not mentioned."""
    params: dict[str, ParamValue] = {"result_bytes": HASH_BYTES if plan.result_mb else plan.result_bytes}
    if plan.input_mb:
        params["input_bytes"] = int(plan.input_mb * MB)
    if plan.result_mb:
        params["result_blob_bytes"] = int(plan.result_mb * MB)
    if plan.check == "algebraic":
        params["check_share"] = plan.check_share
    return params


def planned_job(scenario: Scenario, seed: int, number: int) -> JobId:
    """The id of the job of that number, of an honest submitter."""
    plans = [plan for plan in scenario.jobs for _ in range(plan.repeat)]
    plan = plans[number]
    spec = planned_spec(scenario, seed, plan, number)
    return FactCodec(NET, verify_cheap).seal(CheapIdentity(seed, plan.submitter), spec).job
