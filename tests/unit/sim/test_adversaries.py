"""Who is an adversary, and what single kinds do to results, reports and answers."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from sparkle_protocol.errors import ConfigError
from sparkle_protocol.ids import JobId, digest
from sparkle_protocol.work.placement import distance, network_prefix
from sparkle_sim.adversaries import KINDS, assign, expected_wrong, expected_wrong_among
from sparkle_sim.adversaries.base import Adversary, Lies
from sparkle_sim.computing import true_result
from sparkle_sim.engine import Run, build_world
from sparkle_sim.peer import Peer
from sparkle_sim.planned import planned_job, planned_spec
from sparkle_sim.scenario import Adversaries, JobPlan, Peers, Scenario

JOB = JobId(digest(b"a job"))
SPEC = planned_spec(Scenario("a"), 1, JobPlan(), 0)


def scenario(*entries: Adversaries, peers: int = 100, submitters: Sequence[int] = (0,)) -> Scenario:
    return Scenario(
        "who",
        peers=Peers(count=peers),
        jobs=[JobPlan(submitter=one) for one in submitters],
        adversaries=list(entries),
    )


def drawn(seed: int, kind: str, *entries: Adversaries) -> list[int]:
    return [number for number, one in assign(seed, scenario(*entries)).items() if one.kind == kind]


def test_nobody_is_one_unless_the_scenario_says_so() -> None:
    assert assign(1, scenario()) == {}
    assert all(type(peer) is Peer for peer in build_world(scenario(), 1).peers)


def test_a_share_is_drawn_of_those_who_submit_nothing() -> None:
    found = assign(1, scenario(Adversaries("cheat", share=1.0), submitters=(0, 7)))
    assert sorted({*range(100)} - set(found)) == [0, 7]
    assert len(drawn(1, "cheat", Adversaries("cheat", share=0.2))) == 20
    assert drawn(1, "cheat", Adversaries("cheat", share=0.2)) != drawn(2, "cheat", Adversaries("cheat", share=0.2))


def test_who_is_named_is_one_even_if_it_submits() -> None:
    assert list(assign(1, scenario(Adversaries("cheat", peers=[5, 0])))) == [0, 5]


def test_an_entry_draws_the_same_peers_whatever_the_others_say() -> None:
    hoard, copy = Adversaries("hoard", share=0.2), Adversaries("copy", share=0.2)
    assert drawn(3, "hoard", hoard) == drawn(3, "hoard", hoard, copy)
    alone, together = drawn(3, "copy", copy), drawn(3, "copy", hoard, copy)
    assert set(together) == set(alone) - set(drawn(3, "hoard", hoard))


def test_a_larger_share_draws_the_same_peers_and_more() -> None:
    assert set(drawn(1, "cheat", Adversaries("cheat", share=0.1))) < set(
        drawn(1, "cheat", Adversaries("cheat", share=0.3))
    )


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (Adversaries("chaet", share=0.1), r"adversaries\[0\]\.kind is 'chaet'; it must be one of acc.*withhold"),
        (Adversaries("cheat", peers=[100]), r"adversaries\[0\]\.peers names peer 100; the 100 peers begin with 0"),
        (Adversaries("forker", peers=[3]), r"adversaries\[0\]\.kind is 'forker', which needs credit.enabled = true"),
        (Adversaries("cheat", share=0.1, rate=0.5), r"adversaries\[0\]\.rate is 0.5, but 'cheat' always does it"),
    ],
)
def test_what_cannot_be_had_is_refused_in_a_sentence(entry: Adversaries, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        assign(1, scenario(entry))


def test_every_kind_has_a_file_of_its_name_and_says_what_stops_it() -> None:
    for kind, made in KINDS.items():
        assert made.__module__ == f"sparkle_sim.adversaries.{kind.replace('-', '_')}"
        words = __import__(made.__module__, fromlist=["x"]).__doc__ or ""
        assert words.startswith(f"``{kind}``:")
        assert "What stops it" in words


def test_lies_are_told_at_their_rate_and_always_alike() -> None:
    lies = Lies(b"me", b"what", 0.3)
    results = [lies.result(SPEC, JOB, unit) for unit in range(2000)]
    wrong = sum(result != true_result(JOB, unit) for unit, result in enumerate(results))
    assert 520 < wrong < 680
    assert results == [lies.result(SPEC, JOB, unit) for unit in range(2000)]


def test_colluders_agree_and_cheats_do_not() -> None:
    def answers(kind: str) -> set[bytes | None]:
        found = assign(1, scenario(Adversaries(kind, share=0.1))).values()
        return {one.behaviour().result(SPEC, JOB, 4) for one in found}

    assert len(answers("collude")) == 1
    assert len(answers("cheat")) == 10
    assert true_result(JOB, 4) not in answers("collude") | answers("cheat")


def test_sybils_are_nearer_than_others_and_share_a_network() -> None:
    one = scenario(Adversaries("sybil", share=0.1))
    made = build_world(one, 1)
    job = planned_job(one, 1, 0)
    nearest = sorted(range(100), key=lambda number: distance(job, made.identities[number].peer_id))
    assert len(set(nearest[:10]) & set(made.adversaries)) >= 9
    prefixes = {network_prefix(made.addresses[number]) for number in made.adversaries}
    others = {network_prefix(made.addresses[number]) for number in range(100) if number not in made.adversaries}
    assert len(prefixes) == 1
    assert len(others) == 90


def test_the_voting_law() -> None:
    assert expected_wrong(0.05, 2) == pytest.approx(7.3e-3, rel=0.01)  # TRUST.md
    assert expected_wrong(0.05, 3) == pytest.approx(1.2e-3, rel=0.04)
    assert expected_wrong(0.3, 1) == pytest.approx(0.3)
    assert expected_wrong_among(10_000, 500, 2) == pytest.approx(expected_wrong(0.05, 2), rel=0.02)
    assert expected_wrong_among(3, 1, 2) == 0.0


def test_the_adversary_of_the_documentation_works(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[3] / "docs" / "how-to" / "write-an-adversary.md").read_text()
    names: dict[str, type[Adversary]] = {}
    exec(page.split("```python\n")[1].split("```")[0], names)
    monkeypatch.setitem(KINDS, "mute", names["Mute"])
    kept = []
    for entries in ((), (Adversaries("mute", peers=[1, 2, 3]),)):
        run = Run(Scenario("mute", peers=Peers(count=4), jobs=[JobPlan(units=8)], adversaries=list(entries)), 1)
        run.advance(70)
        kept.append(run.world.trace.hash)
    assert kept[0] != kept[1]
