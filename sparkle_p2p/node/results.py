"""From a user's request to a signed spec, and from accepted units to a combined result."""

import asyncio
import secrets
from collections.abc import Sequence
from typing import Any, cast

from sparkle_p2p.node.array_inputs import CutJob
from sparkle_p2p.node.standings import FLOOR_PERMILLE
from sparkle_p2p.node.store import Store
from sparkle_p2p.runtime.clock import wall_ms
from sparkle_p2p.view import SubmitRequest
from sparkle_protocol.errors import ConfigError
from sparkle_protocol.facts import NONCE_BYTES, Deadlines, JobSpec, Policy, Resources
from sparkle_protocol.identity import Identity
from sparkle_protocol.trust.coin import audit_secret, commitment_to
from sparkle_protocol.work.kept_job import KeptJob
from sparkle_protocol.work.price import job_hold_micro, unit_price_micro
from sparkle_protocol.work.quorum import QUORUMS, check_level
from sparkle_worker.kernels.base import Combined, Description, Kernel
from sparkle_worker.kernels.registry import ARRAY_KERNELS, KERNELS, get_kernel

CHECKED = ("algebraic", "tolerance")  # results of these kernels are checked, those of others compared


def make_spec(request: SubmitRequest, identity: Identity) -> JobSpec:
    """The spec of a requested job without arrays. Raises ConfigError with one sentence when it cannot work."""
    kernel = get_kernel(request.kernel, None, cast("dict[str, Kernel]", {**ARRAY_KERNELS, **KERNELS}))
    if request.inputs:
        raise ConfigError(f"{kernel.name} takes no inputs; its parameters say what to compute")
    if request.sealed:
        raise ConfigError(
            f"{kernel.name} has no arrays to seal; its parameters and results can be read by all of the network"
        )
    params = kernel.validate(request.params)
    most = kernel.max_units(params)
    units = request.units if request.units is not None else kernel.default_units(params)
    if type(units) is not int or not 1 <= units <= most:
        raise ConfigError(f"this {kernel.name} job can be cut into 1 to {most} units, not {units}")
    return _spec(kernel, params, units, request, QUORUMS[check_level(request.verify)], (), identity)


def make_array_spec(request: SubmitRequest, cut: CutJob, identity: Identity) -> JobSpec:
    """The spec of a requested job whose inputs are stored. Raises ConfigError."""
    check_level(request.verify)
    # One result of these is checked by one named verifier; those of other kernels are compared with each other.
    quorum = 1 if cut.kernel.verification in CHECKED else QUORUMS[request.verify]
    return _spec(cut.kernel, cut.params, cut.units, request, quorum, cut.inputs, identity, cut.salt)


def _spec(
    kernel: Description,
    params: dict[str, Any],
    units: int,
    request: SubmitRequest,
    quorum: int,
    inputs: Sequence[bytes],
    identity: Identity,
    salt: bytes = b"",
) -> JobSpec:
    nonce = secrets.token_bytes(NONCE_BYTES)
    compared = kernel.verification not in CHECKED
    floor = FLOOR_PERMILLE if compared and request.verify == "final" else 0
    policy = Policy(request.verify, quorum, audit_permille=floor)
    resources = needed(kernel, params, units)
    price = 0 if request.free else unit_price_micro(resources)
    return JobSpec(
        kernel=kernel.name,
        kernel_version=kernel.version,
        params=params,
        units=units,
        verification=kernel.verification,
        policy=policy,
        resources=resources,
        deadlines=Deadlines(),
        audit_commitment=commitment_to(audit_secret(identity, nonce)),
        nonce=nonce,
        created_ms=wall_ms(),
        price_micro=price,
        hold_micro=job_hold_micro(units, price, policy),
        inputs=list(inputs),
        blob_salt=salt,
    )


def needed(kernel: Description, params: dict[str, Any], units: int) -> Resources:
    """What the largest unit of a job needs; it is the first, the middle or the last one, or hardly larger."""
    costs = [kernel.cost(kernel.unit(params, units, index)) for index in sorted({0, units // 2, units - 1})]
    return Resources(
        max(float(cost.flops) for cost in costs),
        max(float(cost.bytes) for cost in costs),
        max(int(cost.memory_bytes) for cost in costs),
    )


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
