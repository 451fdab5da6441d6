"""From accepted units to a combined result."""

import types
from pathlib import Path
from typing import Any

from sparkle_p2p.node.results import combine
from sparkle_p2p.node.store import Store
from sparkle_protocol.effects import StoreResult
from sparkle_protocol.ids import JobId, hash_result

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
