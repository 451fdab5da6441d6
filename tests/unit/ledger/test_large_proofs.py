"""A proof of thousands of facts is judged a little at a time, and costs no more than it has facts."""

from functools import partial

import pytest

from sparkle_ledger.agent.events import Accepted, WorkEnded
from sparkle_ledger.agent.fetching import SIGNATURES
from sparkle_ledger.evidence import JobRecord
from sparkle_ledger.proofs import ProofReading
from sparkle_protocol import facts as f
from sparkle_protocol.errors import RemoteProtocolError
from sparkle_protocol.identity import verify_signature
from tests.unit.ledger.agents import RICH, World, funded_job
from tests.unit.ledger.growing import steps
from tests.unit.ledger.ledgers import FACTS, KEEPERS, Job, person, proof_of

SUBMITTER, WORKER = person(1), person(2)
UNITS = 300


class Counting:
    """Verifies signatures and counts them."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, key: bytes, signature: bytes, message: bytes) -> None:
        self.count += 1
        verify_signature(key, signature, message)


def slow_record(units: int) -> tuple[Job, JobRecord]:
    """Every unit had a verdict of its own."""
    job = Job(SUBMITTER, units)
    verdicts = [job.verdict([WORKER], [unit]) for unit in range(units)]
    return job, job.record(job.view, verdicts)


def test_no_event_takes_longer_than_some_signatures() -> None:
    world = World(3)
    submitter, worker = world.add(SUBMITTER, WORKER, economy=RICH)
    job, record = slow_record(UNITS)
    funded_job(world, submitter, job)
    counting = Counting()
    worker.agent._desk.facts._verify = counting  # the node's own
    most = [0]
    hear = worker.hear

    def heard(event: object) -> None:
        before = counting.count
        hear(event)
        most[0] = max(most[0], counting.count - before)

    worker.hear = heard  # type: ignore[method-assign]
    submitter.kept[job.id] = record
    worker.hear(Accepted(job.spec, tuple((unit, 0) for unit in range(UNITS)), (submitter.peer,)))
    worker.hear(WorkEnded(job.id))
    world.run(120)
    assert worker.agent.account.earned_micro == job.price * UNITS
    assert counting.count > UNITS
    assert most[0] <= SIGNATURES


def to_the_end(reading: ProofReading, size: int) -> JobRecord:
    while (found := reading.step(size)) is None:
        continue
    return found


def test_a_forged_fact_at_the_end_voids_the_proof() -> None:
    _, record = slow_record(20)
    raw = proof_of(record)
    signature = next(reversed([fact for fact in record.counting() if isinstance(fact.payload, f.Verdicts)])).raw[-8:]
    forged = raw.replace(signature, bytes(8))
    assert forged != raw
    reading = ProofReading(forged, FACTS)
    with pytest.raises(RemoteProtocolError):
        to_the_end(reading, 1)


def test_steps_of_any_size_find_the_same() -> None:
    _, record = slow_record(20)
    for size in (1, 3, 7, 1000):
        found = to_the_end(ProofReading(proof_of(record), FACTS), size)
        assert list(found.all_payable()) == list(record.all_payable())


def test_many_keeper_sets_cost_what_they_are() -> None:
    """A submitter may sign any number of them, each for the same place."""

    def sets(n: int) -> list[f.Fact]:
        keys = [one.public_key for one in KEEPERS]
        others = [person(9000 + k).public_key for k in range(n)]
        return [FACTS.seal(SUBMITTER, f.KeeperSet(job.id, 0, [*keys, other], 4)) for other in others]

    job = Job(SUBMITTER, 2)
    few, many = sets(20), sets(160)
    taken = [steps(partial(record_of, job, facts)) for facts in (few, many)]
    assert taken[1] < 2 * 8 * taken[0]


def record_of(job: Job, facts: list[f.Fact]) -> JobRecord:
    record = job.record(facts)
    assert record.executions == 0
    return record
