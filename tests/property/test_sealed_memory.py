"""What a keeper remembers of final units does not grow beyond what it promised, however the facts came."""

import gc
import tracemalloc
from random import Random

from sparkle_protocol import facts as f
from sparkle_protocol.facts import MAX_UNITS, SEAL_UNITS
from sparkle_protocol.ids import ResultHash, digest
from sparkle_protocol.work.placement import threshold
from sparkle_protocol.work.state import JobState
from tests.property.world import NET, CheapIdentity, spec, verify_cheap

PROMISED_BYTES = 64 << 20  # of a job of 2²⁰ units
UNITS = 8 * SEAL_UNITS
LOT = 64  # units of one fact
CODEC = f.FactCodec(NET, verify_cheap)
SUBMITTER, KEEPERS, WORKERS = CheapIdentity(1), [CheapIdentity(9 + n) for n in range(7)], [
    CheapIdentity(50 + n) for n in range(20)
]  # fmt: skip
NONCE = b"n" * f.NONCE_BYTES


def work_on(state: JobState, first: int, rng: Random) -> None:
    """All facts about some units, from leases to what makes them final."""
    job, units = state.id, range(first, first + LOT)
    found = {unit: ResultHash(digest(unit.to_bytes(4, "big"))) for unit in units}
    pair = rng.sample(WORKERS, 2)
    for worker in pair:
        key = worker.public_key
        state.add(CODEC.seal(KEEPERS[0], f.Leases(job, [f.LeaseItem(u, u, 0, key, 30_000) for u in units])))
        bound = {u: f.commitment(NET, job, u, 0, key, found[u], NONCE) for u in units}
        state.add(CODEC.seal(worker, f.Commits(job, [f.CommitItem(u, 0, bound[u]) for u in units])))
        state.add(CODEC.seal(worker, f.Reveals(job, [f.RevealItem(u, 0, found[u], NONCE) for u in units])))
    keys = sorted(worker.public_key for worker in pair)
    verdicts = CODEC.seal(KEEPERS[0], f.Verdicts(job, [f.VerdictItem(u, 0, found[u], keys, []) for u in units]))
    state.add(verdicts)
    for keeper in KEEPERS[1:]:
        state.add(CODEC.seal(keeper, f.Endorsements(job, [bytes(verdicts.id)], first // SEAL_UNITS)))
    state.take_fresh_finals()


def seal(state: JobState, index: int) -> None:
    """All keepers state the root, and the record takes the place of the facts."""
    record = state.pack(index)
    for keeper in KEEPERS:
        state.add(CODEC.seal(keeper, f.Seals(state.id, [f.SealItem(index, record.root)])))
    certain = state.certified_root(index)
    assert certain is not None
    assert certain[0] == record.root
    assert state.take_fresh_seals() == [index]
    assert state.seal(record)


def test_a_job_of_a_million_units_costs_its_keeper_64_mb() -> None:
    spec_fact = CODEC.seal(SUBMITTER, spec(MAX_UNITS, Random(1)))
    state, rng = JobState(spec_fact, NET), Random(3)
    keys = [keeper.public_key for keeper in KEEPERS]
    state.add(CODEC.seal(SUBMITTER, f.KeeperSet(state.id, 0, keys, threshold(len(keys)))))
    fixed = len(state)
    tracemalloc.start()
    try:
        for first in range(0, UNITS, LOT):
            work_on(state, first, rng)
            if (first + LOT) % SEAL_UNITS == 0:
                seal(state, first // SEAL_UNITS)
        gc.collect()
        per_unit = tracemalloc.get_traced_memory()[0] / UNITS
    finally:
        tracemalloc.stop()
    assert len(state.final_units) == UNITS
    assert len(state) == fixed + len(KEEPERS) * UNITS // SEAL_UNITS  # what the keepers state, and nothing finer
    assert not list(state.touched_units())
    assert per_unit * MAX_UNITS < PROMISED_BYTES
