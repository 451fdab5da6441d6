"""What the checkers of final results make of facts that no honest world has."""

from dataclasses import replace

import pytest
from msgspec.structs import replace as with_fields

from sparkle_protocol.effects import StoreFact
from sparkle_protocol.errors import ConfigError
from sparkle_protocol.facts import (
    CommitItem,
    Commits,
    Endorsements,
    Fact,
    KeeperSet,
    Payload,
    RevealItem,
    Reveals,
    VerdictItem,
    Verdicts,
    commitment,
)
from sparkle_protocol.ids import JobId
from sparkle_sim import checkers
from sparkle_sim.checkers.evidence import Evidence
from sparkle_sim.checkers.finals import SingleFinal, Unsigned, binomial_limit, voting_law
from sparkle_sim.checkers.keeping import more_than
from sparkle_sim.checkers.trust_law import lives_limit
from sparkle_sim.engine import build_world
from sparkle_sim.planned import planned_spec
from sparkle_sim.scenario import Checks, Credit, JobPlan, Peers, Scenario
from sparkle_sim.world import World

SCENARIO = Scenario("finals", peers=Peers(10), jobs=[JobPlan(units=4)])
RIGHT, WRONG = b"\1" * 32, b"\2" * 32


class Signed:
    """A job of peer 0, kept by peers 1 to 8, and what its peers state."""

    def __init__(self) -> None:
        self.world: World = build_world(SCENARIO, 1)
        self.evidence = Evidence(self.world)
        self.job = JobId(self.state(0, planned_spec(SCENARIO, 1, SCENARIO.jobs[0], 0)).job)
        keys = [peer.identity.public_key for peer in self.world.peers[1:9]]
        self.state(0, KeeperSet(self.job, 0, keys, 6))

    def state(self, author: int, payload: Payload) -> Fact:
        fact = self.world.codec.seal(self.world.peers[author].identity, payload)
        self.evidence.wrote(self.world.peers[author], StoreFact(fact))
        return fact

    def accept(self, result: bytes, *by: int) -> None:
        key = self.world.peers[9].identity.public_key
        verdict = self.state(by[0], Verdicts(self.job, [VerdictItem(2, 0, result, [key], [])]))
        for keeper in by[1:]:
            self.state(keeper, Endorsements(self.job, [bytes(verdict.id)], 0))

    def vote(self, worker: int, result: bytes, shown: bytes | None = None) -> None:
        key, nonce = self.world.peers[worker].identity.public_key, b"n" * 16
        commit = commitment(self.world.codec.network, self.job, 2, 0, key, result, nonce)  # type: ignore[arg-type]
        self.state(worker, Commits(self.job, [CommitItem(2, 0, commit)]))
        self.state(worker, Reveals(self.job, [RevealItem(2, 0, shown or result, nonce)]))

    def conflicts(self) -> list[str]:
        checker = SingleFinal(self.world, SCENARIO, self.evidence)
        checker.scan()
        return [finding.text for finding in checker.findings]


def test_two_results_that_enough_keepers_signed_for_are_found_with_the_signers() -> None:
    signed = Signed()
    signed.accept(RIGHT, 1, 2, 3, 4, 5, 6)
    signed.accept(WRONG, 8, 7, 6, 5, 4)
    assert not signed.conflicts()
    signed.accept(WRONG, 3)
    (text,) = signed.conflicts()
    assert "01010101 (signed for by [1, 2, 3, 4, 5, 6])" in text
    assert "02020202 (signed for by [3, 4, 5, 6, 7, 8])" in text


def test_words_of_strangers_and_words_on_another_range_do_not_count() -> None:
    signed = Signed()
    signed.accept(RIGHT, 0, 9, 1, 2, 3, 4, 5)
    job = signed.evidence.jobs[signed.job]
    assert not job.certified(2, 0, RIGHT)
    verdict = signed.state(6, Verdicts(signed.job, [VerdictItem(2, 0, WRONG, [b"k" * 32], [])]))
    for keeper in range(1, 9):
        signed.state(keeper, Endorsements(signed.job, [bytes(verdict.id)], 1))
    assert job.supporters(2, 0, WRONG) == {signed.world.peers[6].id}


def test_a_vote_is_one_commit_that_its_worker_opened() -> None:
    signed = Signed()
    signed.vote(1, RIGHT)
    signed.vote(2, RIGHT, shown=WRONG)
    signed.vote(3, RIGHT)
    signed.vote(3, WRONG)
    job = signed.evidence.jobs[signed.job]
    assert job.voters(2, 0, RIGHT) == {signed.world.peers[1].id}
    assert not job.voters(2, 0, WRONG)


def test_a_stored_fact_that_others_would_refuse_is_found() -> None:
    signed = Signed()
    fact = signed.world.codec.seal(signed.world.peers[3].identity, Verdicts(signed.job, [_item(RIGHT)]))
    other = signed.world.codec.seal(signed.world.peers[3].identity, Verdicts(signed.job, [_item(WRONG)]))
    spoilt = fact.raw[:-1] + bytes([fact.raw[-1] ^ 1])
    for forged in (replace(fact, raw=spoilt), replace(fact, payload=other.payload)):
        signed.evidence.wrote(signed.world.peers[4], StoreFact(forged))
    checker = Unsigned(signed.world, SCENARIO, signed.evidence)
    checker.scan()
    assert [(one.peer, one.text.split(" ", 3)[2]) for one in checker.findings] == [(4, "Verdicts"), (4, "Verdicts")]
    assert not signed.evidence.jobs[signed.job].given


def _item(result: bytes) -> VerdictItem:
    return VerdictItem(2, 0, result, [b"k" * 32], [])


def test_the_voting_law_is_that_of_the_literature() -> None:
    assert voting_law(0.05, 2) == pytest.approx(7.25e-3)
    assert voting_law(0.05, 3) == pytest.approx(1.158e-3, rel=1e-3)
    assert voting_law(0.3, 1) == pytest.approx(0.3)
    assert voting_law(0.0, 2) == 0.0


def test_the_limit_is_what_a_binomial_number_hardly_exceeds() -> None:
    assert binomial_limit(1000, 0.0, 1e-6) == 0
    assert binomial_limit(10, 0.5, 1e-9) == 10
    assert binomial_limit(1000, 0.01, 1e-6) == pytest.approx(28, abs=2)
    assert 5_000 < binomial_limit(1_000_000, 0.005, 1e-6) < 5_500
    assert binomial_limit(5, 1.0, 1e-6) == 5


def test_cheaters_gain_what_a_negative_binomial_number_hardly_exceeds() -> None:
    assert lives_limit(0, 0.1, 1e-6) == 0
    assert lives_limit(3, 1.0, 1e-6) == 0
    assert lives_limit(1, 0.5, 1e-6) == 19  # 2^-20 is the first below
    assert lives_limit(1, 0.0, 1e-6) > 10**9  # nobody is there to find it out
    assert 0.25 ** (lives_limit(1, 0.75, 1e-6) + 1) <= 1e-6
    few, many = lives_limit(100, 0.2, 1e-6), lives_limit(10_000, 0.2, 1e-6)
    assert 500 < few < 800
    assert 40_000 + 5 * 447 < many < 40_000 + 7 * 447


def test_how_many_keepers_of_a_view_are_lost_by_chance() -> None:
    """TRUST: of 1000 peers 30 % killed take at least four of eight keepers of 19 % of jobs."""
    assert more_than(3, 8, 300, 1000) == pytest.approx(0.19, abs=0.01)
    assert more_than(3, 8, 3, 1000) == 0.0


def test_a_scenario_chooses_its_checkers() -> None:
    world = build_world(SCENARIO, 1)
    made = [type(one) for one in checkers.make(world, SCENARIO)]
    assert made == [kind for kind in checkers.KINDS if kind.applies(SCENARIO)]
    paid = with_fields(SCENARIO, credit=Credit(enabled=True))
    assert len(checkers.make(build_world(paid, 1), paid)) == len(checkers.KINDS) > len(made)
    some = Scenario("some", checks=Checks(names=["bounds", "promises"]))
    assert [one.name for one in checkers.make(world, some)] == ["bounds", "promises"]
    with pytest.raises(ConfigError, match="the checkers are acknowledged, single_final"):
        checkers.make(world, Scenario("wrong", checks=Checks(names=["luck"])))
