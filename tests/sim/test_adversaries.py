"""Each adversary in a small world of production cores: honest peers end with the right results, and what it cost.

Costs are printed (``pytest -s``): replicas per unit and makespan, beside those of the same world without adversaries.
"""

from collections import Counter
from dataclasses import dataclass, field
from math import sqrt

import pytest

from sparkle_protocol.effects import Notify, Violation
from sparkle_protocol.facts import Fact, FactCodec, JobSpec, Payload, Reveals, Signer
from sparkle_protocol.ids import FactId, JobId, hash_result
from sparkle_protocol.work.conduct import FIRST_LEASES
from sparkle_protocol.work.kept_job import KeptJob
from sparkle_protocol.work.quota import PER_SUBMITTER
from sparkle_protocol.work.state import JobState
from sparkle_sim.adversaries import KINDS, expected_wrong
from sparkle_sim.computing import true_result
from sparkle_sim.engine import Run
from sparkle_sim.kernel import SECOND
from sparkle_sim.peer import Peer
from sparkle_sim.scenario import Adversaries, Credit, JobPlan, Peers, Scenario
from sparkle_sim.signing import verify_cheap
from sparkle_sim.world import NET

SEEDS = (1, 2)
PEERS, UNITS = 16, 60


class Listening(FactCodec):
    """Remembers every fact that anybody signed or took in."""

    __slots__ = ("said",)

    def __init__(self) -> None:
        super().__init__(NET, verify_cheap)
        self.said: dict[FactId, Fact] = {}

    def seal(self, signer: Signer, payload: Payload) -> Fact:
        fact = super().seal(signer, payload)
        self.said[fact.id] = fact
        return fact

    def open(self, raw: bytes) -> Fact:
        fact = super().open(raw)
        self.said[fact.id] = fact
        return fact


@dataclass
class Played:
    """A run and what was heard in it."""

    run: Run
    codec: Listening
    events: Counter[str] = field(default_factory=Counter)
    violations: Counter[int] = field(default_factory=Counter)  # by offender

    def heard(self, peer: Peer, effect: Notify) -> None:
        self.events[effect.event] += 1

    def violated(self, peer: Peer, effect: Violation) -> None:
        if peer.number not in self.run.world.adversaries:  # what those say of others proves nothing
            self.violations[self.run.world.index[effect.peer]] += 1

    @property
    def bad(self) -> set[int]:
        return set(self.run.world.adversaries)

    @property
    def job(self) -> KeptJob:
        (job,) = self.run.plans
        return self.run.world.peers[0].submitter.jobs[job]

    @property
    def rejected(self) -> set[int]:
        return {self.run.world.index[peer] for peer in self.job.rejected}

    @property
    def keepers(self) -> list[int]:
        view = self.job.state.view
        return [] if view is None else [self.run.world.index[peer] for peer in view.keepers]

    @property
    def replicas(self) -> float:
        return self.job.replicas / self.job.state.spec.units

    @property
    def makespan_s(self) -> float:
        job = self.job.state.id
        return (self.run.ended_ns[job] - self.run.submitted_ns[job]) / SECOND

    @property
    def wrong(self) -> int:
        return sum(is_wrong(job, unit) for job in self.jobs for unit in range(job.state.spec.units))

    @property
    def jobs(self) -> list[KeptJob]:
        return [self.run.world.peers[0].submitter.jobs[job] for job in self.run.plans]


def is_wrong(job: KeptJob, unit: int) -> bool:
    return job.state.final(unit) not in (None, hash_result(true_result(job.state.id, unit)))


def world(seed: int, *entries: Adversaries, **changes: object) -> Played:
    """A scenario with these adversaries, before its first event."""
    plan = {"units": UNITS, "unit_s": 5.0, **{k: v for k, v in changes.items() if k in JobPlan.__struct_fields__}}
    scenario = Scenario(
        "small", seconds=float(str(changes.get("seconds", 900.0))),
        peers=Peers(count=int(str(changes.get("peers", PEERS)))),
        jobs=[JobPlan(**plan)], adversaries=list(entries),  # type: ignore[arg-type]
        credit=Credit(enabled=any(KINDS[entry.kind].of_credit for entry in entries)),
    )  # fmt: skip
    run = Run(scenario, seed)
    codec = run.world.codec = Listening()
    played = Played(run, codec)
    run.world.watchers.append(played)
    return played


def play(seed: int, *entries: Adversaries, **changes: object) -> Played:
    """The same, run to its end."""
    played = world(seed, *entries, **changes)
    played.run.advance(1e9)
    return played


def keepers_of(seed: int, **changes: object) -> list[int]:
    """Who will be asked to keep the job, the nearest first."""
    played = world(seed, **changes)
    played.run.advance(30)
    return played.keepers


HONEST: dict[int, tuple[float, float]] = {}


def show(kind: str, seed: int, played: Played) -> None:
    """What it cost, beside an honest world."""
    if seed not in HONEST:
        honest = play(seed)
        HONEST[seed] = honest.replicas, honest.makespan_s
    replicas, makespan_s = HONEST[seed]
    print(
        f"\n{kind:14} seed {seed}: {played.replicas:.2f} replicas per unit ({replicas:.2f} if honest), "
        f"{played.makespan_s:.0f} s ({makespan_s:.0f} s), {played.wrong} wrong, rejected {sorted(played.rejected)}, "
        f"violations {sum(played.violations.values())}"
    )


def check_honest(played: Played, *, wrong: bool = False) -> None:
    """The job is done, right, final once, and nobody honest is accused."""
    assert list(played.run.outcomes.values()) == ["job_done"]
    assert wrong or played.wrong == 0
    assert wrong or played.rejected <= played.bad
    assert set(played.violations) <= played.bad
    check_one_final(played)


def check_one_final(played: Played) -> None:
    """Of all that was ever signed, nothing makes two results final in one epoch."""
    for job in played.jobs:
        state = merged(job.state.spec_fact, list(played.codec.said.values()))
        for view in state.views.counting():
            for unit in range(job.state.spec.units):
                support = state.support(unit, view.number << 12)
                final = [result for result, peers in support.items() if view.suffices(peers, state.submitter)]
                assert len(final) <= 1, f"unit {unit} in view {view.number}"


def merged(spec: Fact, facts: list[Fact]) -> JobState:
    state = JobState(spec, NET)
    state.merge(fact for fact in facts if not isinstance(fact.payload, JobSpec) and fact.job == JobId(spec.id))
    return state


# --- wrong results --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("kind", "rate"), [("cheat", 1.0), ("sometimes", 0.3)])
def test_a_liar_is_rejected_and_nothing_wrong_is_accepted(kind: str, rate: float, seed: int) -> None:
    played = play(seed, Adversaries(kind, share=0.25, rate=rate))
    show(kind, seed, played)
    check_honest(played)
    assert played.rejected == lied(played) != set()
    assert played.replicas < 2.6


def lied(played: Played) -> set[int]:
    """Who ever showed a wrong result."""
    shown = [(fact, fact.payload) for fact in played.codec.said.values() if isinstance(fact.payload, Reveals)]
    return {
        played.run.world.index[fact.author]
        for fact, stated in shown
        for item in stated.items
        if item.result_hash != hash_result(true_result(fact.job, item.unit))
    }


@pytest.mark.parametrize("seed", SEEDS)
def test_colluders_get_through_where_two_of_them_meet_and_only_there(seed: int) -> None:
    played = play(seed, Adversaries("collude", share=0.3))
    show("collude", seed, played)
    check_honest(played, wrong=True)
    for unit in range(UNITS):
        if is_wrong(played.job, unit):
            givers = {played.run.world.index[peer] for peer in played.job.state.accepted_workers(unit)}
            assert len(givers) >= 2
            assert givers <= played.bad


@pytest.mark.parametrize(("f", "m"), [(0.25, 2), (0.35, 3)])
def test_wrong_results_are_accepted_as_often_as_the_voting_law_says(f: float, m: int) -> None:
    """Jobs of one unit, so that nobody is rejected before it votes; the submitter, who is trusted, does not work."""
    jobs = 120
    entry = Adversaries("collude", share=1.0, rate=f)
    played = world(3, entry, peers=14, units=1, unit_s=2.0, quorum=m, repeat=jobs, every_s=0.5, seconds=1200.0)
    played.run.world.peers[0].works = False
    played.run.advance(1e9)
    assert Counter(played.run.outcomes.values()) == {"job_done": jobs}
    expected, observed = expected_wrong(f, m), played.wrong / jobs
    margin = 3 * sqrt(expected * (1 - expected) / jobs)
    print(f"\nf = {f}, m = {m}: {observed:.3f} wrong, {expected:.3f} +- {margin:.3f} expected")
    assert abs(observed - expected) <= margin


@pytest.mark.parametrize("seed", SEEDS)
def test_a_copied_commit_opens_nothing(seed: int) -> None:
    copiers = [number for number in keepers_of(seed)[:3] if number]
    played = play(seed, Adversaries("copy", peers=copiers))
    show("copy commits", seed, played)
    check_honest(played)
    assert sum(played.violations.values()) > 0
    assert all(not played.job.accepted_by[played.run.world.peers[number].id] for number in copiers)


@pytest.mark.parametrize("seed", SEEDS)
def test_there_is_hardly_a_result_to_copy(seed: int) -> None:
    copiers = [number for number in keepers_of(seed)[:3] if number]
    played = play(seed, Adversaries("copy", peers=copiers, rate=0.0))
    show("copy results", seed, played)
    check_honest(played)
    taken = sum(played.job.accepted_by[played.run.world.peers[number].id] for number in copiers)
    print(f"{taken} of {2 * UNITS} accepted results were copies")
    assert taken <= UNITS // 10


# --- work that is not done ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_who_shows_nothing_gets_little(seed: int) -> None:
    played = play(seed, Adversaries("withhold", share=0.25))
    show("withhold", seed, played)
    check_honest(played)
    for number in played.bad:
        worker = played.run.world.peers[number].id
        assert not played.job.accepted_by[worker]
        assert sum(worker in played.job.state.committed(unit) for unit in range(UNITS)) <= 2 * FIRST_LEASES
    assert played.makespan_s < 4 * HONEST[seed][1]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_job_waits_for_hoarders_only_a_while(seed: int) -> None:
    played = play(seed, Adversaries("hoard", share=0.25))
    show("hoard", seed, played)
    check_honest(played)
    assert played.makespan_s < 6 * HONEST[seed][1]


def test_a_flood_is_survived_and_its_source_is_banned() -> None:
    played = play(1, Adversaries("flood", share=0.15), peers=12, units=30)
    check_honest(played)
    print(f"\nflood: {played.makespan_s:.0f} s, {played.run.world.kernel.events} events")
    assert set(played.violations) == played.bad
    assert played.events["peer_banned"] > 0
    for peer in played.run.world.peers:
        if peer.number not in played.bad:
            assert len(peer.submitter.kept) <= len(played.bad) * PER_SUBMITTER.jobs + 1


# --- keepers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("liars", "rate"), [(2, 0.0), (3, 1.0)])
def test_keepers_that_store_nothing_do_not_stop_a_job(liars: int, rate: float) -> None:
    """Two that say that they hold it, or three that do not answer any more."""
    played = play(1, Adversaries("silent-keeper", peers=keepers_of(1)[:liars], rate=rate))
    show(f"silent-keeper {rate:g}", 1, played)
    check_honest(played)


@pytest.mark.parametrize(("peers", "liars"), [(PEERS, 3), (8, 2)])
def test_keepers_that_say_they_hold_it_and_endorse_nothing_hold_up_a_job_for_a_minute(peers: int, liars: int) -> None:
    """Three of eight, or two of a view of seven, of whom six must endorse: then others take their place."""
    silent = [peer for peer in keepers_of(1, peers=peers) if peer != 0][:liars]
    played = play(1, Adversaries("silent-keeper", peers=silent, rate=0.0), peers=peers)
    show("silent-keeper 0", 1, played)
    check_honest(played)
    assert not set(silent) & set(played.keepers)
    assert played.makespan_s < 180.0


@pytest.mark.parametrize(("seed", "liars"), [(1, 1), (1, 3), (2, 3)])
def test_up_to_three_keepers_of_eight_that_equivocate_never_make_two_finals(seed: int, liars: int) -> None:
    played = play(seed, Adversaries("equivocate", peers=keepers_of(seed)[:liars]))
    show("equivocate", seed, played)
    check_honest(played)
    found = {played.run.world.index[peer] for peer in played.job.state.two_faced}
    assert found
    assert found <= played.bad
    assert set(played.violations) == found
    assert not found & set(played.keepers), "who is proven to lie keeps no job"
    assert played.makespan_s < 1.5 * HONEST[seed][1]


@pytest.mark.parametrize("seed", SEEDS)
def test_sybils_around_a_job_get_a_quarter_of_the_places_at_most(seed: int) -> None:
    played = play(seed, Adversaries("sybil", share=0.5))
    show("sybil", seed, played)
    check_honest(played)
    assert len(set(played.keepers) & played.bad) <= len(played.keepers) // 4


# --- the same again -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_run_with_adversaries_can_be_repeated(kind: str) -> None:
    hashes = []
    for seed in (5, 5, 6):
        played = world(seed, Adversaries(kind, share=0.3), peers=10, units=20)
        played.run.advance(35)
        hashes.append(played.run.world.trace.hash)
    assert hashes[0] == hashes[1] != hashes[2]
