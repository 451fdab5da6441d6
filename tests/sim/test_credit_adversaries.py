"""Those who attack credit, in a small world of production cores: what they gain, what it costs, and what must hold.

Figures are printed (``pytest -s``). In all of these worlds every checker of credit passes: sums are 0, whoever worked
is paid once unless the pay is said not to be had, copies agree, and no honest account is punished. The bounds are the
rules of ``ledger/README.md``:

- an account that keeps to the rules goes down by its limit at most: the starter's credit, and what it contributed;
- a fork is known to everybody soon after anybody sees both sides, and the account spends nothing from then on. It
  gains at most what its holds beyond the first come to;
- a ring that pays itself has a sum of 0, and nothing flows to it from those it did not work for;
- colluding keepers of a job take at most what was set aside for that job.
"""

from dataclasses import dataclass

import pytest

from sparkle_ledger.book import Book
from sparkle_ledger.flow import CreditGraph
from sparkle_sim import checkers
from sparkle_sim.adversaries.minter import Minter
from sparkle_sim.checkers.credit import PAID_S
from sparkle_sim.credit_metrics import CreditMetrics
from sparkle_sim.engine import Run
from sparkle_sim.scenario import Adversaries, Checks, Credit, Fault, JobPlan, Peers, Scenario
from sparkle_sim.seeds import SETTLE_S

PRICE, UNITS, REPLICAS = 1000, 16, 8
COVER = PRICE * UNITS * REPLICAS
PEERS = 14
NEVER_S, SOON_S = 604_800, 60  # after which jobs are closed
NAMES = ["zero_sum", "settled", "copies", "unpunished", "credit_bounds"]


@dataclass
class Played:
    """A run that is over."""

    run: Run
    metrics: CreditMetrics
    watch: checkers.Watch

    @property
    def books(self) -> dict[int, Book]:
        """Of honest peers that are up."""
        peers = self.run.world.peers
        return {p.number: p.ledger.book for p in peers if p.has_credit and p.number not in self.run.world.adversaries}

    @property
    def whole(self) -> Book:
        """What all honest disks hold together."""
        credit = self.run.world.credit
        files = [p.disk.ledger for p in self.run.world.peers if p.number not in self.run.world.adversaries]
        assert credit is not None
        return credit.book(*(file for file in files if file is not None))

    def account(self, peer: int) -> bytes:
        credit = self.run.world.credit
        assert credit is not None
        return credit.account(peer)

    def spent(self, *peers: int) -> int:
        """What these accounts paid others, by what all know together."""
        whole = self.whole
        return sum(whole.account(self.account(peer)).spent_micro for peer in peers)  # type: ignore[arg-type]

    def earned(self, *peers: int) -> int:
        whole = self.whole
        return sum(whole.account(self.account(peer)).earned_micro for peer in peers)  # type: ignore[arg-type]

    def outcomes(self) -> list[str]:
        return [self.run.outcomes.get(job, "running") for job in self.run.plans]


def play(
    seed: int,
    *liars: Adversaries,
    submitters: tuple[int, ...] = (0,),
    faults: tuple[Fault, ...] = (),
    settle_s: float = 200.0,
    repeat: int = 1,
    every_s: float = 0.0,
    quorum: int = 2,
    seconds: float = 3600.0,
    units: int = UNITS,
    **credit: int,
) -> Played:
    jobs = [
        JobPlan(
            at_s=15.0,
            submitter=one,
            units=units,
            unit_s=3.0,
            unit_price_micro=PRICE,
            repeat=repeat,
            every_s=every_s,
            quorum=quorum,
        )
        for one in submitters
    ]
    scenario = Scenario(
        "paid", seconds=seconds, peers=Peers(count=PEERS, arrive_s=3.0), jobs=jobs, adversaries=list(liars),
        faults=list(faults), credit=Credit(enabled=True, settle_s=settle_s, **credit),
        checks=Checks(names=NAMES, scan_every_s=10.0),
    )  # fmt: skip
    run = Run(scenario, seed)
    for one in submitters:
        run.world.peers[one].works = False  # its own results would need no second one, and cost nothing
    metrics = CreditMetrics(run.world, range(PEERS))
    watch = checkers.watch(run.world, scenario)
    run.advance(1e9)
    assert [str(one) for one in watch.finish()] == []
    return Played(run, metrics, watch)


def show(kind: str, text: str) -> None:
    print(f"\n{kind:12} {text}")


@pytest.mark.parametrize("seed", [1, 2])
def test_double_spending_ends_the_account_and_costs_no_worker_its_pay(seed: int) -> None:
    """Two jobs are paid from credit for one."""
    liar, jobs = 3, 2
    played = play(
        seed, Adversaries("forker", peers=[liar]), submitters=(liar,), repeat=jobs, quorum=6, starter_micro=COVER,
        settle_s=SETTLE_S,
    )  # fmt: skip
    spread = [played.metrics.spread(name) for name in played.metrics.forks]
    spent = played.spent(liar)
    show("forker", f"spent {spent} with a limit of {COVER}; {spread}")
    assert [one["account"] for one in spread] == [played.account(liar).hex()[:12]]
    assert spread[0]["known"] == PEERS - 1
    assert float(str(spread[0]["all_s"])) <= 10.0
    assert COVER < spent <= jobs * COVER
    assert spent == played.earned(*(number for number in range(PEERS) if number != liar))
    for book in played.books.values():
        account = book.account(played.account(liar))  # type: ignore[arg-type]
        assert account.spendable_micro == 0


def test_a_fork_on_two_sides_of_a_partition_shows_once_it_is_over() -> None:
    liar, cut = 3, [4, 5, 6, 7, 8, 9]
    apart = Fault("partition", 20.0, 100.0, peers=cut)
    played = play(
        1, Adversaries("forker", peers=[liar]), submitters=(liar,), repeat=2, faults=(apart,), starter_micro=COVER,
        settle_s=SETTLE_S,
    )  # fmt: skip
    spread = [played.metrics.spread(name) for name in played.metrics.forks]
    show("partition", f"spent {played.spent(liar)} with a limit of {COVER}; {spread}")
    assert [one["known"] for one in spread] == [PEERS - 1]


def test_a_fork_spreads_to_all_within_seconds() -> None:
    """The bar is ten seconds for 99 of 100; ``sparkle-sim run simulations/scenarios/forkers.toml`` has a thousand."""
    scenario = Scenario(
        "forkers", seconds=80.0, peers=Peers(count=100, arrive_s=20.0), jobs=[], until_done=False,
        adversaries=[Adversaries("forker", peers=[50])], credit=Credit(enabled=True),
    )  # fmt: skip
    run = Run(scenario, 1)
    metrics = CreditMetrics(run.world, ())
    run.advance(1e9)
    (account,) = metrics.forks
    spread = metrics.spread(account)
    show("forker", f"a proof among 100 peers: {spread}")
    assert spread["known"] == 99
    assert float(str(spread["p99_s"])) <= 10.0


def test_who_takes_back_what_work_relies_on_spends_it_again() -> None:
    """What is not defended: an account goes down by its limit once for each job that it says is cancelled."""
    liar, jobs = 3, 3
    played = play(
        1, Adversaries("canceller", peers=[liar]), submitters=(liar,), repeat=jobs, starter_micro=COVER // 2,
        units=UNITS // 2, every_s=1.0, quorum=6,
    )  # fmt: skip
    spent = played.spent(liar)
    show("canceller", f"spent {spent} with a limit of {COVER // 2}; {played.outcomes()}")
    assert played.outcomes() == ["job_done"] * jobs
    assert COVER // 2 < spent <= jobs * COVER // 2
    assert not played.metrics.forks
    assert played.whole.sum_micro() == 0


def test_a_submitter_that_vanishes_has_paid() -> None:
    liar = 3
    played = play(1, Adversaries("vanisher", peers=[liar]), submitters=(liar,), settle_s=0.0, seconds=PAID_S + 300)
    job = next(iter(played.run.plans))
    owed, paid = len(played.whole.unsettled(job)), len(list(played.whole.settled(job)))
    show("vanisher", f"{paid} results are paid, {owed} are not, {played.spent(liar)} was spent")
    assert owed == 0
    assert paid >= 2 * (UNITS - 1)
    assert played.spent(liar) == paid * PRICE


def test_who_withholds_its_feed_gets_no_more_than_a_minute_of_work() -> None:
    """Nobody shows its holds, so workers take nothing more of its job; others' jobs get on."""
    liar, units = 3, 300
    played = play(1, Adversaries("hider", peers=[liar]), submitters=(liar, 0), units=units, seconds=900.0)
    submitters = {
        plan.submitter: (job, played.run.world.peers[plan.submitter].submitter.jobs[job])
        for job, plan in played.run.plans.items()
    }
    honest, hidden = submitters[0][1], submitters[liar][1]
    show("hider", f"{hidden.replicas} results for nothing; {honest.replicas} of an honest submitter, who pays")
    assert played.run.outcomes[submitters[0][0]] == "job_done"
    assert hidden.replicas <= PEERS * 90 / 3.0 < 2 * units
    assert submitters[liar][0] not in played.run.outcomes


@pytest.mark.parametrize(("keys", "close_after_s"), [(1, NEVER_S), (4, NEVER_S), (4, SOON_S)])
def test_keys_that_never_work_spend_the_starter_credit_once_each(keys: int, close_after_s: int) -> None:
    liars = tuple(range(3, 3 + keys))
    played = play(
        1, Adversaries("freeloader", peers=list(liars)), submitters=liars, repeat=3, starter_micro=COVER,
        close_after_s=close_after_s,
    )  # fmt: skip
    assert (close_after_s == SOON_S) is any(list(book.closings()) for book in played.books.values())
    spent = played.spent(*liars)
    show("freeloader", f"{keys} keys spent {spent}, and {keys * COVER} are the starters' credit; {played.outcomes()}")
    assert 0 < spent <= keys * COVER
    assert "job_refused" in played.outcomes() or spent < keys * COVER


@pytest.mark.parametrize("close_after_s", [NEVER_S, SOON_S])
def test_a_ring_that_pays_itself_is_worth_nothing_to_others(close_after_s: int) -> None:
    ring = [6, 7, 8, 9, 10]
    minters = Adversaries("minter", peers=ring)
    played = play(1, minters, settle_s=400.0, starter_micro=COVER, close_after_s=close_after_s)
    members = [one for one in played.run.world.adversaries.values() if isinstance(one, Minter)]
    minted = sum(one.minted_micro for one in members)
    balances = [one.agent.account.balance_micro for one in members]
    limits = [one.agent.account.limit_micro for one in members]
    show("minter", f"{minted} minted by five, balances {balances}, limits {limits}")
    assert minted > 2 * COVER
    assert played.whole.sum_micro() == 0
    assert all(one <= played.run.scenario.credit.limit_max_micro + COVER for one in limits)
    ring_book, submitter = members[0].agent.book, played.account(0)
    graph = CreditGraph(submitter)  # type: ignore[arg-type]
    for book in (played.whole, ring_book):
        for account in book.accounts():
            for pair in book.pair_totals(account):
                graph.set(account, pair.account, pair.spent_micro)  # type: ignore[arg-type]
    worth = sum(graph.flows([one.account for one in members], [10**12]).values())
    real = played.earned(*ring) - sum(
        pair.spent_micro
        for one in members
        for pair in played.whole.pair_totals(one.account)
        if pair.account in {other.account for other in members}
    )
    show("minter", f"worth {worth} to the submitter, for whom they worked for {real}")
    assert worth <= real


@pytest.mark.parametrize("count", [3, 8])
def test_keepers_that_lie_for_each_other_take_at_most_what_was_set_aside(count: int) -> None:
    honest = play(1)
    job = next(iter(honest.run.plans))
    view = honest.run.world.peers[0].submitter.jobs[job].state.view
    assert view is not None
    liars = [honest.run.world.index[one] for one in view.keepers if one != honest.run.world.peers[0].id][:count]
    played = play(1, Adversaries("certifier", peers=liars))
    got = played.earned(*liars)
    show(
        "certifier",
        f"{len(liars)} of {len(view.keepers)} keepers: they took {got} of {COVER}, honest {played.spent(0)}",
    )
    assert got <= COVER
    assert played.whole.sum_micro() == 0


def test_backups_that_are_put_back_cost_nobody_the_account() -> None:
    backups = (Fault("restore-ledger", 20.0, 30.0, peers=[0, 4, 5]), Fault("restore-ledger", 25.0, 60.0, peers=[6]))
    played = play(2, faults=backups, repeat=3, settle_s=SETTLE_S)
    states = {number: played.run.world.peers[number].ledger.state.value for number in (0, 4, 5, 6)}
    show("backups", f"{states}, {played.watch.report()['settled']}")
    assert set(states.values()) == {"ready"}


def test_who_accuses_others_harms_nobody() -> None:
    played = play(1, Adversaries("accuser", peers=[9]))
    show("accuser", f"{len(played.metrics.forks)} throw-away accounts are known to have forked")
    honest = {played.account(number).hex() for number in range(PEERS) if number != 9}
    assert not honest & played.metrics.forks.keys()
