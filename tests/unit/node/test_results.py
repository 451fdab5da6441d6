"""From accepted units to a combined result."""

import types
from pathlib import Path
from typing import Any

import pytest

from sparkle_p2p.node.results import combine, make_spec
from sparkle_p2p.node.store import Store
from sparkle_p2p.view import SubmitRequest
from sparkle_protocol.effects import StoreResult
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import JobId, hash_result
from sparkle_protocol.trust.coin import audit_secret, commitment_to

JOB = JobId(b"j" * 32)


async def test_results_that_are_still_being_written_are_waited_for(tmp_path: Path) -> None:
    """Whoever asks in the moment of the last decision must not hear that a result is missing."""
    result = (25).to_bytes(8, "little")
    spec = types.SimpleNamespace(kernel="prime_count", kernel_version=1, params={"start": 0, "stop": 100}, units=1)
    final = hash_result(result)
    job: Any = types.SimpleNamespace(state=types.SimpleNamespace(id=JOB, spec=spec, final=lambda _unit: final))
    store = Store(tmp_path / "node.db")
    await store.open()
    try:
        store.write_soon([StoreResult(JOB, hash_result(result), result)])
        assert (await combine(job, store)).value == 25
    finally:
        await store.close()


@pytest.mark.parametrize(("level", "quorum", "permille"), [("fast", 1, 0), ("final", 2, 50), ("critical", 3, 0)])
def test_known_workers_are_believed_at_the_level_final_only(level: Any, quorum: int, permille: int) -> None:
    me = Identity.from_private_bytes(bytes(31) + b"\7")
    spec = make_spec(SubmitRequest("prime_count", {"stop": 1000}, 4, level), me)
    assert (spec.policy.level, spec.policy.quorum, spec.policy.audit_permille) == (level, quorum, permille)
    assert spec.audit_commitment == commitment_to(audit_secret(me, spec.nonce))
