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
OWNER, FIRST, SECOND, THIRD, FOURTH = (Identity.from_private_bytes(bytes([number]) * 32) for number in range(1, 6))
KEEPERS = (FIRST, SECOND, THIRD, FOURTH)  # three of four accept
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
SET = CODEC.seal(OWNER, f.KeeperSet(JOB, 0, [keeper.public_key for keeper in KEEPERS], 3))


class Run:
    """What a clean run left: two units, each agreed on by two workers and certified by three keepers."""

    def __init__(self) -> None:
        self.owner = NodeEvidence("owner", OWNER.peer_id)
        self.keepers = [NodeEvidence(f"keeper{number}", keeper.peer_id) for number, keeper in enumerate(KEEPERS)]
        self.worker = self.keepers[0]
        document = {"job": JOB.hex(), "state": "done", "result": 4, "units": {}, "error": None}
        self.job = JobEvidence("owner", document, 4)
        self.owner.results[JOB, hash_result(GOOD)] = GOOD
        self.owner.events.append({"event": "job_published", "job": JOB.hex()})
        for node in (self.owner, *self.keepers[:3]):
            self.store(node, SPEC)
            self.store(node, SET)
        for unit in range(UNITS):
            for worker in (FIRST, SECOND):
                self.store(self.owner, commit(worker, GOOD, unit))
                self.store(self.owner, reveal(worker, unit))
            self.certify(self.owner, verdict(unit))
            self.owner.events.append({"event": "unit_final", "job": JOB.hex(), "unit": unit})

    def store(self, node: NodeEvidence, fact: f.Fact) -> None:
        node.facts.append((fact.id, fact.raw))

    def certify(self, node: NodeEvidence, fact: f.Fact, by: tuple[Identity, ...] = KEEPERS[:3]) -> None:
        self.store(node, fact)
        for keeper in by:
            self.store(node, endorsement(keeper, fact))

    def drop(self, fact: f.Fact) -> None:
        self.owner.facts.remove((fact.id, fact.raw))

    def check(self) -> list[str]:
        return violations(NET, [self.owner, *self.keepers], [self.job])


def endorsement(keeper: Identity, fact: f.Fact) -> f.Fact:
    return CODEC.seal(keeper, f.Endorsements(JOB, [fact.id], 0))


def reveal(worker: Identity, unit: int, result: bytes = GOOD) -> f.Fact:
    return CODEC.seal(worker, f.Reveals(JOB, [f.RevealItem(unit, 0, hash_result(result), bytes(16))]))


def commit(worker: Identity, result: bytes = GOOD, unit: int = 0) -> f.Fact:
    seal = f.commitment(NET, JOB, unit, 0, worker.public_key, hash_result(result), bytes(16))
    return CODEC.seal(worker, f.Commits(JOB, [f.CommitItem(unit, 0, seal)]))


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


def test_a_keeper_may_forget_a_job_that_is_over() -> None:
    run = Run()
    for unit in range(UNITS):
        run.certify(run.keepers[0], verdict(unit))
        run.keepers[0].events.append({"event": "unit_final", "job": JOB.hex(), "unit": unit})
    run.keepers[0].deleted, run.keepers[0].facts = run.keepers[0].facts, []
    assert run.check() == []


def test_votes_that_came_late_have_a_verdict_of_their_own() -> None:
    run = Run()
    run.drop(verdict(0))
    for worker in (FIRST, SECOND):
        run.certify(run.owner, verdict(0, workers=(worker,)))
    assert run.check() == []


def test_what_two_keepers_stand_by_is_not_final_yet() -> None:
    """A single keeper that errs makes nothing final, but it is told who stood by two results."""
    run = Run()
    run.certify(run.worker, verdict(0, BAD, by=FOURTH), by=())
    assert run.check() == []
    run.store(run.worker, endorsement(THIRD, verdict(0, BAD, by=FOURTH)))
    assert [fault for fault in run.check() if "two results" not in fault] == []


def unsigned(run: Run) -> None:
    fact_id, raw = run.owner.facts[0]
    run.worker.facts.append((fact_id, raw[:-1] + bytes([raw[-1] ^ 1])))


def under_a_wrong_id(run: Run) -> None:
    run.worker.facts.append((bytes(32), SPEC.raw))


def two_finals(run: Run) -> None:
    run.certify(run.worker, verdict(0, BAD, by=FOURTH), by=KEEPERS)


def two_faced_keeper(run: Run) -> None:
    run.store(run.worker, verdict(0, BAD, by=SECOND))


def two_commitments(run: Run) -> None:
    run.store(run.worker, commit(FIRST, BAD))


def undecided(run: Run) -> None:
    run.drop(verdict(1))


def lost_result(run: Run) -> None:
    run.owner.results.clear()


def damaged_result(run: Run) -> None:
    run.owner.results[JOB, hash_result(GOOD)] = BAD


def one_vote(run: Run) -> None:
    run.drop(verdict(1))
    run.certify(run.owner, verdict(1, workers=(FIRST,)))


def no_votes(run: Run) -> None:
    run.drop(reveal(FIRST, 1))


def too_few_keepers_decide(run: Run) -> None:
    run.drop(verdict(1))
    run.certify(run.owner, verdict(1, by=FOURTH), by=(FIRST,))


def kept_by_too_few(run: Run) -> None:
    run.worker.facts.clear()


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


def says_what_it_may_not(run: Run) -> None:
    run.store(run.worker, CODEC.seal(FIRST, f.Reset(JOB, 0, 1, "because")))


def taken_back(run: Run) -> None:
    run.job = replace(run.job, document={**run.job.document, "state": "running"})
    run.drop(verdict(1))


def deleted_by_its_owner(run: Run) -> None:
    run.owner.deleted, run.owner.facts = run.owner.facts, [fact for fact in run.owner.facts if fact[0] == SPEC.id]


@pytest.mark.parametrize(
    ("plant", "words"),
    [
        (unsigned, "keeper0 stores what is no signed fact"),
        (under_a_wrong_id, "keeper0 stores a fact under a wrong id: JobSpec"),
        (two_finals, "2 different final results of unit 0"),
        (two_faced_keeper, "stands by two results of unit 0"),
        (two_commitments, "signed 2 different commitments for unit 0"),
        (undecided, "unit 1: not final on disk"),
        (lost_result, "the accepted result is not on disk"),
        (damaged_result, "the accepted result is not on disk"),
        (one_vote, "unit 1: final with 1 workers"),
        (no_votes, "unit 1: final without the signed votes for it"),
        (too_few_keepers_decide, "unit 1: not final on disk"),
        (kept_by_too_few, "its keeper sets were held by too few: 2 of 4"),
        (says_what_it_may_not, "keeper0 stores a fact that says what its author may not"),
        (honest_rejected, "owner signed that keeper1 was wrong in unit 0"),
        (honest_accused, "owner accuses keeper0"),
        (wrong_answer, "has the answer 5, which should be 4"),
        (never_ended, "is running"),
        (no_spec, "has no spec of its own on disk"),
        (taken_back, "showed unit 1"),
        (deleted_by_its_owner, "unit 0: not final on disk"),
    ],
)
def test_each_violation_is_found(plant: Callable[[Run], None], words: str) -> None:
    run = Run()
    plant(run)
    assert words in "\n".join(run.check())
