"""From a user's request to a signed spec, and from accepted units to a combined result."""

import asyncio
import secrets

from sparkle_p2p.node.computing import unit_parameters
from sparkle_p2p.node.store import Store
from sparkle_p2p.runtime.clock import wall_ms
from sparkle_p2p.view import SubmitRequest
from sparkle_protocol.errors import ConfigError
from sparkle_protocol.facts import NONCE_BYTES, Deadlines, JobSpec, Policy, Resources
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import digest
from sparkle_protocol.work.kept_job import KeptJob
from sparkle_worker.kernels.base import Combined
from sparkle_worker.kernels.registry import get_kernel

QUORUMS = {"fast": 1, "final": 2, "critical": 3}


def make_spec(request: SubmitRequest, identity: Identity) -> JobSpec:
    """The spec of a requested job. Raises ConfigError with one sentence when it cannot work."""
    kernel = get_kernel(request.kernel)
    params = kernel.validate(request.params)
    most = kernel.max_units(params)
    units = request.units if request.units is not None else kernel.default_units(params)
    if type(units) is not int or not 1 <= units <= most:
        raise ConfigError(f"this {kernel.name} job can be cut into 1 to {most} units, not {units}")
    if request.verify not in QUORUMS:
        raise ConfigError(f"verify is one of {', '.join(QUORUMS)}, not '{request.verify}'")
    cost = kernel.cost(kernel.unit(params, units, 0))
    nonce = secrets.token_bytes(NONCE_BYTES)
    # The audit secret follows from the key and the nonce, so there is nothing to keep and nothing to lose.
    secret = digest(b"sparkle/audit/1\x00", identity.private_bytes(), nonce)
    return JobSpec(
        kernel=kernel.name,
        kernel_version=kernel.version,
        params=params,
        units=units,
        verification=kernel.verification,
        policy=Policy(request.verify, QUORUMS[request.verify]),
        resources=Resources(float(cost.flops), float(cost.bytes), int(cost.memory_bytes)),
        deadlines=Deadlines(),
        audit_commitment=digest(secret),
        nonce=nonce,
        created_ms=wall_ms(),
    )


def check_result(spec: JobSpec, unit: int, result: bytes) -> None:
    """Refuse a result of impossible form. Raises VerificationError."""
    get_kernel(spec.kernel, spec.kernel_version).check_result(unit_parameters(spec, unit), result)


async def combine(job: KeptJob, store: Store) -> Combined:
    """The result of a finished job, computed off the loop."""
    spec = job.state.spec
    hashes = []
    for unit in range(spec.units):
        final = job.state.final(unit)
        if final is None:
            raise ConfigError(f"job {job.state.id.hex()[:12]} is not finished yet; 'sparkle wait' follows it")
        hashes.append(final)
    await store.write(())  # the job is over as soon as it is decided; its last results may still be on their way
    results = await store.results(job.state.id, hashes)
    kernel = get_kernel(spec.kernel, spec.kernel_version)
    return await asyncio.to_thread(kernel.combine, kernel.validate(spec.params), spec.units, results)
