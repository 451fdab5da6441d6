"""Feeds with one path are judged by sums at any place; it comes to what a walk along all entries comes to."""

from functools import lru_cache
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkle_ledger import plain
from sparkle_ledger.book import Book
from sparkle_ledger.economy import Economy
from sparkle_ledger.entries import AccountId, Entry, Hold, Release, account_of
from sparkle_ledger.evidence import JobRecord
from sparkle_ledger.plain import Margins, PlainSums
from sparkle_ledger.rulings import Page, Rulings
from tests.property.ledger_worlds import ECONOMY as SMALL_ECONOMY
from tests.property.ledger_worlds import KINDS, Action, World, give, in_order, play, says
from tests.unit.ledger.ledgers import NET, Author, Job, idle, person

PAYERS = [person(700 + n) for n in range(6)]
WORKER = person(2)
UNLIMITED = frozenset(account_of(NET, who.public_key) for who in PAYERS)
JOBS = 36
Act = tuple[int, int, int]  # what, which job, how much

acts = st.tuples(st.integers(0, 9), st.integers(0, JOBS - 1), st.integers(1, 40))
economies = st.builds(
    Economy,
    limit_max_micro=st.sampled_from([20, 100, 1 << 40]),
    lambda_percent=st.sampled_from([0, 50, 100, 300]),
    starter_micro=st.sampled_from([0, 7, 60]),
    payer_share=st.integers(1, 6),
    unlimited=st.just(UNLIMITED),
)


@lru_cache
def payers() -> tuple[list[Job], list[Author]]:
    """Jobs of others, and the feeds of these, who hold for each of them twice."""
    authors = [Author(who) for who in PAYERS]
    jobs = [Job(PAYERS[n % len(PAYERS)], 2, price=1 + n * 7 % 23, nonce=n) for n in range(JOBS)]
    for n, job in enumerate([*jobs, *jobs]):
        authors[n % len(PAYERS)].hold(job)
    return jobs, authors


@lru_cache(None)
def done(job: int, units: tuple[int, ...]) -> JobRecord:
    """Evidence that the worker did some units of a job."""
    one = payers()[0][job]
    return one.record(one.accepted([WORKER], units))


@lru_cache(None)
def own(number: int, worked: int) -> tuple[Job, JobRecord]:
    """A job of the worker's own: called off, with so many units done by somebody else."""
    job = Job(WORKER, 3, price=3, nonce=number)
    return job, job.record(job.cancel(), job.accepted([person(3)], range(worked)) if worked else [])


def live(done_by_it: list[Act]) -> World:
    """What the worker signs when it does these things, and all evidence about it."""
    jobs, authors = payers()
    worker = Author(WORKER)
    world = World([], set())
    for what, which, much in done_by_it:
        mine, about_mine = own(which % 5, much % 3)
        if what <= 3:
            units = ((0,), (1,), (0, 1))[much % 3]
            job = jobs[which]
            held = authors[which % len(PAYERS)].entries
            job.hold = [one for one in held if isinstance(one.payload, Hold) and one.payload.job == job.id][
                much // 3 % 2
            ]
            worker.work(job, *units)
            world.items.append(done(which, units))
        elif what <= 6:
            worker.state(Hold(mine.id, much, 0))
        elif what == 7:
            worker.state(Release(mine.id, much))
            world.items.append(about_mine)
        else:
            worker.state(idle(which))
    world.items += worker.entries
    world.items += [entry for author in authors for entry in author.entries]
    return world


class Walking(Book):
    """A book that walks every feed."""

    __slots__ = ()

    def _page(self, account: AccountId) -> Page:
        page = super()._page(account)
        page.plain = None
        return page


def compare(world: World, seed: int, economy: Economy) -> None:
    quick, slow = Book(NET, economy), Walking(NET, economy)
    entries = [item for item in world.items if isinstance(item, Entry)]
    for item in in_order(world, seed):
        give(quick, item)
        give(slow, item)
        for entry in entries:
            assert quick.outcome(entry.id) is slow.outcome(entry.id)
            assert quick.moved(entry.id) == slow.moved(entry.id)
        assert quick.account(entries[0].account) == slow.account(entries[0].account)
    assert says(quick, world) == says(slow, world)


@settings(max_examples=60)
@given(st.lists(acts, max_size=60), st.integers(0, 1 << 32), economies)
def test_it_is_what_a_walk_comes_to(what: list[Act], seed: int, economy: Economy) -> None:
    compare(live(what), seed, economy)


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(st.integers(0, KINDS - 1), st.integers(0, 3), st.integers(0, 31), st.integers(0, 31)), max_size=50
    ),
    st.integers(0, 1 << 32),
)
def test_also_where_feeds_branch_later(what: list[Action], seed: int) -> None:
    compare(play(what), seed, SMALL_ECONOMY)


@given(st.dictionaries(st.integers(0, 9), st.integers(0, 1000)), st.integers(0, 9), st.integers(0, 1000), economies)
def test_a_limit_moves_no_further_than_said(earned: dict[int, int], who: int, more: int, economy: Economy) -> None:
    after = earned | {who: earned.get(who, 0) + more}
    moved = economy.limit(after.values()) - economy.limit(earned.values())
    assert 0 <= moved <= economy.limit_moves(more)


# --- the properties see what is broken --------------------------------------------------------------------------


def look_at_no_hold(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Margins, "changed", lambda *_: [])


def trust_a_stale_margin(patch: pytest.MonkeyPatch) -> None:
    right = Margins.put
    patch.setattr(Margins, "put", lambda self, node, slack: right(self, node, slack and slack * 2))


def forget_how_limits_move(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Economy, "limit_moves", lambda *_: 0)


def forget_later_claims(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Rulings, "_claimed_after", lambda *_: [])


def forget_releases(patch: pytest.MonkeyPatch) -> None:
    right = PlainSums.changed

    def changed(self: PlainSums, *what: object) -> list[object]:
        found = right(self, *what)  # type: ignore[arg-type]
        return [node for node in found if not isinstance(node.entry.payload, Release)]

    patch.setattr(PlainSums, "changed", changed)


MUTANTS = [look_at_no_hold, trust_a_stale_margin, forget_how_limits_move, forget_later_claims, forget_releases]


def drawn(seed: int) -> tuple[list[Act], Economy]:
    random = Random(seed)
    what = [(random.randrange(10), random.randrange(JOBS), random.randrange(1, 40)) for _ in range(50)]
    economy = Economy(1 << 40, random.choice((100, 300)), random.choice((0, 7, 60)), 1 + seed % 6, UNLIMITED)
    return what, economy


@pytest.fixture
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that there are several of them."""
    monkeypatch.setattr(plain, "_BITS", 2)
    monkeypatch.setattr(plain, "_SIZE", 4)


@pytest.mark.usefixtures("_small_blocks")
@pytest.mark.parametrize("mutant", [None, *MUTANTS], ids=lambda one: one.__name__ if one else "none")
def test_a_shortcut_too_many_is_noticed(mutant: object, monkeypatch: pytest.MonkeyPatch) -> None:
    if callable(mutant):
        mutant(monkeypatch)
    for seed in range(60):
        what, economy = drawn(seed)
        try:
            compare(live(what), seed, economy)
        except AssertionError:
            assert mutant is not None
            return
    assert mutant is None, "60 worlds in which it makes no difference"
