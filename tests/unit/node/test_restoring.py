"""What an earlier run left is sorted by job; what is damaged is left out, and the rest stays usable."""

from random import Random

from sparkle_p2p.node.restoring import sort_stored
from sparkle_protocol.facts import SEAL_UNITS, FactCodec
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import JobId, ResultHash, digest
from sparkle_protocol.work.sealed import SealedRange, SealedUnit
from tests.property.world import spec

ME = Identity.from_private_bytes(bytes(31) + b"\1")


def record(index: int) -> SealedRange:
    ends = [SealedUnit(0, ResultHash(digest(bytes([unit % 256]))), (ME.peer_id,)) for unit in range(SEAL_UNITS)]
    return SealedRange.pack(index * SEAL_UNITS, ends)


def test_records_of_sealed_ranges_come_back_with_their_job() -> None:
    job = FactCodec("test").seal(ME, spec(3 * SEAL_UNITS, Random(1)))
    whole = record(1)
    rows = [(job.job, b"damaged"), (job.job, whole.encode()), (JobId(b"?" * 32), record(0).encode())]
    stored = sort_stored("test", [(job.id, job.raw)], [], rows)
    assert stored.keys() == {job.job}
    assert stored[job.job].sealed == [whole]
    assert stored[job.job].spec == job
