"""Credit where much goes wrong: honest worlds pass every checker; an error planted into the ledger is found."""

import pytest

from sparkle_sim.checkers import credit as credit_checkers
from sparkle_sim.scenario import Adversaries, Checks, Credit, Fault, JobPlan, Machines, Peers, Scenario
from sparkle_sim.seeds import SETTLE_S, first_finding, paid_scenario_of
from tests.sim import planted_credit as planted

PRICE = 1000
NAMES = ["zero_sum", "settled", "copies", "unpunished", "credit_bounds"]
KILLS = tuple(Fault("kill", 16.0 + 2.0 * turn, 1.0, peers=[1 + turn % 9]) for turn in range(40))
BACKUPS = (Fault("restore-ledger", 25.0, 20.0, peers=[2, 3, 4]), Fault("restore-ledger", 30.0, 50.0, peers=[0, 5]))
ACCUSER = (Adversaries("accuser", peers=[9]),)


def scene(*wrong: Fault, settle_s: float = 30.0, liars: tuple[Adversaries, ...] = (), **credit: int) -> Scenario:
    """A few peers, two submitters, and what goes wrong."""
    jobs = [JobPlan(at_s=14.0 + 5 * n, submitter=n, units=20, unit_s=4.0, unit_price_micro=PRICE) for n in (0, 1)]
    return Scenario(
        "paid", seconds=4000.0, peers=Peers(count=10, arrive_s=2.0, machines=Machines(spread=0.2)), jobs=jobs,
        faults=list(wrong), adversaries=list(liars), credit=Credit(enabled=True, settle_s=settle_s, **credit),
        checks=Checks(names=NAMES, scan_every_s=1.0),
    )  # fmt: skip


PLANTED = [
    (planted.pays_out_of_nothing, "zero_sum", scene()),
    (planted.releases_what_is_owed, "zero_sum", scene()),
    (planted.bears_anything, "zero_sum", scene(starter_micro=20 * 8 * PRICE - 1)),
    (planted.skips_the_hold, "settled", scene()),
    (planted.claims_twice, "settled", scene()),
    (planted.claims_what_was_refused, "settled", scene()),
    (planted.claims_nothing, "settled", scene(settle_s=SETTLE_S)),
    (planted.forgets_claims_on_restart, "settled", scene(*KILLS, settle_s=SETTLE_S)),
    (planted.tells_no_witness, "copies", scene(settle_s=SETTLE_S)),
    (planted.keeps_no_evidence, "copies", scene(settle_s=SETTLE_S)),
    (planted.forgets_what_was_final, "copies", scene(settle_s=SETTLE_S, close_after_s=15)),
    (planted.signs_without_asking, "unpunished", scene(*BACKUPS)),
    (planted.believes_accusers, "unpunished", scene(liars=ACCUSER)),
    (planted.remembers_all_forks, "credit_bounds", scene(liars=ACCUSER)),
]


@pytest.fixture
def few_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few forks are remembered that one liar can show whether there is a bound."""
    monkeypatch.setattr(planted.agent_forks, "MAX_KNOWN", 3)
    monkeypatch.setattr(credit_checkers, "MAX_KNOWN", 3)


@pytest.mark.usefixtures("few_forks")
@pytest.mark.parametrize(("plant", "checker", "scenario"), PLANTED, ids=lambda one: getattr(one, "__name__", None))
def test_a_planted_error_is_found_by_its_checker(
    plant: planted.Plant, checker: str, scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert first_finding(scenario, 1) is None
    plant(monkeypatch)
    finding = first_finding(scenario, 1)
    assert finding is not None
    assert finding.checker == checker, finding


@pytest.mark.parametrize("seed", range(1000, 1008))
def test_honest_work_is_paid_whatever_goes_wrong(seed: int) -> None:
    finding = first_finding(paid_scenario_of(seed), seed)
    assert finding is None, (
        f"{finding}\nsee it again: sparkle_sim.seeds.first_finding(paid_scenario_of({seed}), {seed})"
    )
