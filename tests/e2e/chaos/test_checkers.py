"""The checkers find what they are for: a clean run passes, each planted violation is named."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from sparkle_protocol import facts as f
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import hash_result
from tests.e2e.chaos.checkers import JobEvidence, NodeEvidence, violations

NET = "test"
CODEC = f.FactCodec(NET)
OWNER, FIRST, SECOND = (Identity.from_private_bytes(bytes([number]) * 32) for number in (1, 2, 3))
GOOD, BAD = b"good", b"bad"
UNITS = 2
SPEC = CODEC.seal(
    OWNER,
    f.JobSpec(
        "prime_count",
        1,
        {"stop": 9},
        UNITS,
        "exact",
        f.Policy(),
        f.Resources(),
        f.Deadlines(),
        bytes(32),
        bytes(16),
        0,
    ),
)
JOB = SPEC.job


class Run:
    """What a clean run left: two units, each agreed on by two workers."""

    def __init__(self) -> None:
        self.owner = NodeEvidence("owner", OWNER.peer_id)
        self.worker = NodeEvidence("worker", FIRST.peer_id)
        document = {"job": JOB.hex(), "state": "done", "result": 4, "units": {}, "error": None}
        self.job = JobEvidence("owner", document, 4)
        self.owner.results[JOB, hash_result(GOOD)] = GOOD
        self.store(self.owner, SPEC)
        for unit in range(UNITS):
            for worker in (FIRST, SECOND):
                self.store(self.owner, reveal(worker, unit))
            self.store(self.owner, verdict(unit))
            self.owner.events.append({"event": "unit_final", "job": JOB.hex(), "unit": unit})

    def store(self, node: NodeEvidence, fact: f.Fact) -> None:
        node.facts.append((fact.id, fact.raw))

    def drop(self, fact: f.Fact) -> None:
        self.owner.facts.remove((fact.id, fact.raw))

    def check(self) -> list[str]:
        return violations(NET, [self.owner, self.worker], [self.job])


def reveal(worker: Identity, unit: int, result: bytes = GOOD) -> f.Fact:
    return CODEC.seal(worker, f.Reveals(JOB, [f.RevealItem(unit, 0, hash_result(result), bytes(16))]))


def commit(worker: Identity, value: bytes) -> f.Fact:
    return CODEC.seal(worker, f.Commits(JOB, [f.CommitItem(0, 0, value * 32)]))


def verdict(
    unit: int,
    result: bytes = GOOD,
    by: Identity = OWNER,
    workers: tuple[Identity, ...] = (FIRST, SECOND),
    rejected: tuple[Identity, ...] = (),
) -> f.Fact:
    keys = [[worker.public_key for worker in group] for group in (workers, rejected)]
    return CODEC.seal(by, f.Verdicts(JOB, [f.VerdictItem(unit, 0, hash_result(result), *keys)]))


def test_a_clean_run_passes() -> None:
    assert Run().check() == []


def test_votes_that_came_late_have_a_verdict_of_their_own() -> None:
    run = Run()
    run.drop(verdict(0))
    run.store(run.owner, verdict(0, workers=(FIRST,)))
    run.store(run.owner, verdict(0, workers=(SECOND,)))
    assert run.check() == []


def unsigned(run: Run) -> None:
    fact_id, raw = run.owner.facts[0]
    run.worker.facts.append((fact_id, raw[:-1] + bytes([raw[-1] ^ 1])))


def under_a_wrong_id(run: Run) -> None:
    run.worker.facts.append((bytes(32), SPEC.raw))


def two_finals(run: Run) -> None:
    run.store(run.worker, verdict(0, BAD))


def two_commitments(run: Run) -> None:
    run.store(run.owner, commit(FIRST, b"a"))
    run.store(run.worker, commit(FIRST, b"b"))


def undecided(run: Run) -> None:
    run.drop(verdict(1))


def lost_result(run: Run) -> None:
    run.owner.results.clear()


def damaged_result(run: Run) -> None:
    run.owner.results[JOB, hash_result(GOOD)] = BAD


def one_vote(run: Run) -> None:
    run.drop(verdict(1))
    run.store(run.owner, verdict(1, workers=(FIRST,)))


def no_votes(run: Run) -> None:
    run.drop(reveal(FIRST, 1))


def a_stranger_decides(run: Run) -> None:
    run.drop(verdict(1))
    run.store(run.owner, verdict(1, by=FIRST))


def honest_rejected(run: Run) -> None:
    run.store(run.owner, verdict(0, rejected=(SECOND,)))


def honest_accused(run: Run) -> None:
    run.owner.events.append({"event": "violation", "peer": FIRST.peer_id, "reason": "spam"})


def wrong_answer(run: Run) -> None:
    run.job.document["result"] = 5


def never_ended(run: Run) -> None:
    run.job.document["state"] = "running"


def no_spec(run: Run) -> None:
    run.drop(SPEC)


def taken_back(run: Run) -> None:
    run.job = replace(run.job, document={**run.job.document, "state": "running"})
    run.drop(verdict(1))


@pytest.mark.parametrize(
    ("plant", "words"),
    [
        (unsigned, "worker stores what is no signed fact"),
        (under_a_wrong_id, "worker stores a fact under a wrong id: JobSpec"),
        (two_finals, "2 different final results of unit 0"),
        (two_commitments, "signed 2 different commitments for unit 0"),
        (undecided, "unit 1: no verdict on disk"),
        (lost_result, "the accepted result is not on disk"),
        (damaged_result, "the accepted result is not on disk"),
        (one_vote, "unit 1: final with 1 workers"),
        (no_votes, "unit (1, 0): final without the signed votes for it"),
        (a_stranger_decides, f"its verdict is signed by {FIRST.peer_id}"),
        (honest_rejected, "owner signed that ? was wrong in unit 0"),
        (honest_accused, "owner accuses worker"),
        (wrong_answer, "has the answer 5, which should be 4"),
        (never_ended, "is running"),
        (no_spec, "has no spec of its own on disk"),
        (taken_back, "showed unit 1"),
    ],
)
def test_each_violation_is_found(plant: Callable[[Run], None], words: str) -> None:
    run = Run()
    plant(run)
    assert words in "\n".join(run.check())
