"""The book is a function of the set: whatever came in whichever order, and whoever cheats, it comes to the same."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkle_ledger import outcomes as out
from sparkle_ledger.book import Book
from sparkle_ledger.entries import Entry, EntryId, Hold, Work
from sparkle_ledger.evidence import JobRecord
from sparkle_ledger.feed import Feed
from sparkle_ledger.money import Money
from sparkle_ledger.rulings import JobPage, Page, Ruling, Rulings
from sparkle_protocol.work.views import View
from tests.property.ledger_worlds import (
    ECONOMY,
    KINDS,
    WORKERS,
    Action,
    World,
    adds_up,
    drawn,
    give,
    in_order,
    is_right,
    play,
    said,
    says,
)
from tests.unit.ledger.ledgers import ENTRIES, NET

actions = st.tuples(st.integers(0, KINDS - 1), st.integers(0, 3), st.integers(0, 31), st.integers(0, 31))
worlds = st.lists(actions, max_size=50)
orders = st.integers(0, 1 << 32)


def check(world: World, one: int, other: int) -> None:
    """All that must hold, of two copies that heard of it in two orders."""
    first, second = Book(NET, ECONOMY), Book(NET, ECONOMY)
    for item in in_order(world, one):
        give(first, item)
        adds_up(first)
    for item in in_order(world, other):
        give(second, item)
    is_right(first, world)
    assert says(first, world) == says(second, world)


@given(worlds, orders, orders)
def test_two_copies_agree_and_add_up(done: list[Action], one: int, other: int) -> None:
    check(play(done), one, other)


@settings(max_examples=40)
@given(worlds, orders)
def test_in_one_go_or_one_by_one(done: list[Action], seed: int) -> None:
    world = play(done)
    slow, fast = Book(NET, ECONOMY), Book(NET, ECONOMY)
    for item in in_order(world, seed):
        give(slow, item)
    for record in world.items:
        if isinstance(record, JobRecord):
            fast.add_record(record)
    fast.add_all(item for item in world.items if isinstance(item, Entry))
    assert says(slow, world) == says(fast, world)


@settings(max_examples=60)
@given(worlds, orders)
def test_pay_that_counts_keeps_counting(done: list[Action], seed: int) -> None:
    """Whatever payers sign or prove later. Of executions that are claimed twice one claim may give way to another."""
    world = play(done)
    claims: dict[tuple[bytes, int, int, bytes], set[EntryId]] = {}
    for item in world.items:
        if isinstance(item, Entry) and isinstance(item.payload, Work):
            for unit in item.payload.units:
                key = (item.payload.job, unit.unit, unit.epoch, item.payload.worker)
                claims.setdefault(key, set()).add(item.id)
    rivals = {one for same in claims.values() if len(same) > 1 for one in same}
    book = Book(NET, ECONOMY)
    counted: set[EntryId] = set()
    for item in in_order(world, seed):
        give(book, item)
        assert all(book.outcome(one) is out.BOOKED for one in counted)
        for other in world.items:
            if isinstance(other, Entry) and isinstance(other.payload, Work) and book.outcome(other.id) is out.BOOKED:
                counted |= {other.id} - rivals


@settings(max_examples=60)
@given(st.lists(actions.filter(lambda one: one[0] < 10), max_size=50))
def test_pair_totals_of_honest_feeds_only_grow(done: list[Action]) -> None:
    world = play(done)
    book = Book(NET, ECONOMY)
    before: dict[tuple[bytes, bytes], tuple[int, int]] = {}
    for item in world.items:
        give(book, item)
        now = {
            (account, pair.account): (pair.earned_micro, pair.spent_micro)
            for account in book.accounts()
            for pair in book.pair_totals(account)
        }
        for pair, (earned, spent) in before.items():
            assert now[pair][0] >= earned
            assert now[pair][1] >= spent
        before = now
    for (account, other), (earned, spent) in before.items():
        assert before.get((other, account)) == (spent, earned) or account == other


@settings(max_examples=60)
@given(worlds, orders)
def test_what_an_account_can_spend_is_what_it_is_told(done: list[Action], seed: int) -> None:
    """A Hold of so much counts, and not one of a millionth more."""
    world = play(done)
    for more in (0, 1):
        book = Book(NET, ECONOMY)
        for item in in_order(world, seed):
            give(book, item)
        for account in list(book.accounts()):
            now, place = book.account(account), book.next_place(account)
            who = next((one for one in WORKERS if one.public_key == now.key), None)
            if place is None or who is None or now.spendable_micro + more == 0:
                continue
            hold = Hold(b"new" + bytes(29), now.spendable_micro + more, 0)
            entry = ENTRIES.seal(
                who, hold, seq=place.seq, prev=place.prev, incarnation=place.incarnation, time_ms=1, account=account
            )
            assert book.add(entry).code == ("void:overdrawn" if more else "booked")


@settings(max_examples=60)
@given(worlds, orders)
def test_what_it_says_changed_is_what_changed(done: list[Action], seed: int) -> None:
    world = play(done)
    entries = [item for item in world.items if isinstance(item, Entry)]
    book = Book(NET, ECONOMY)
    for item in in_order(world, seed):
        before = {one.id: book.outcome(one.id) for one in entries}
        if isinstance(item, Entry):
            assert book.add(item).code in {book.outcome(item.id).code if book.outcome(item.id) else "gap"} | REFUSED
        else:
            changed = set(book.add_record(item))
            assert changed == {one for one, was in before.items() if book.outcome(one) is not was}


REFUSED = {value.code for value in vars(out).values() if isinstance(value, out.Outcome) and not value.placed}

# --- the properties see what is broken --------------------------------------------------------------------------

Patch = Callable[[pytest.MonkeyPatch], None]


def settle_twice(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Rulings, "_is_claimed", lambda *_: False)


def forget_the_escrow(patch: pytest.MonkeyPatch) -> None:
    def pay(self: Money, payer: Any, job: bytes, worker: Any, amount: int) -> None:
        self.purse(worker).balance += amount
        self.purse(worker).earned += amount

    patch.setattr(Money, "pay", pay)


def ignore_the_limit(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Rulings, "_bears", lambda *_: True)


def count_a_void_hold(patch: pytest.MonkeyPatch) -> None:
    right = Rulings._rule_hold

    def rule(self: Rulings, page: Page, node: Any, hold: Hold) -> Ruling:
        ruling = right(self, page, node, hold)
        amount = hold.amount_micro
        counts = ruling.outcome is out.NOT_OWN_JOB
        return Ruling(out.BOOKED, -amount, -amount, -amount) if counts else ruling

    patch.setattr(Rulings, "_rule_hold", rule)


def take_any_amount(patch: pytest.MonkeyPatch) -> None:
    right = Rulings._check_claim

    def check_claim(record: JobRecord, work: Work) -> Any:
        fault = right(record, work)
        return None if fault is out.WRONG_AMOUNT else fault

    patch.setattr(Rulings, "_check_claim", staticmethod(check_claim))


def trust_too_few(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(View, "suffices", lambda _, supporters, __: bool(supporters))
    said.cache_clear()


def accept_old_keys(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Feed, "_may_sign", staticmethod(lambda key, after: key in after.keys))


def skip_gaps(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Feed, "_links", staticmethod(lambda *_: True))


def release_what_is_owed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(JobPage, "owed_micro", property(lambda _: 0))


def cover_too_little(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(JobRecord, "cover_micro", property(lambda self: self.price_micro))


def rotate_without_consent(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Feed, "_consents", lambda *_: True)


def judge_once(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Feed, "take_moved", lambda _: [])


def overlook_forks(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Feed, "why_off", lambda *_: None)


MUTANTS: list[Patch] = [
    settle_twice, forget_the_escrow, ignore_the_limit, count_a_void_hold, take_any_amount, trust_too_few,
    accept_old_keys, skip_gaps, release_what_is_owed, cover_too_little, rotate_without_consent, judge_once,
    overlook_forks,
]  # fmt: skip
TRIES = 150


@pytest.fixture
def _clean() -> Iterator[None]:
    yield
    said.cache_clear()


@pytest.mark.usefixtures("_clean")
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: one.__name__)
def test_a_broken_rule_is_noticed(mutant: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant(monkeypatch)
    for seed in range(TRIES):
        try:
            check(play(drawn(seed)), seed, seed + 1)
        except AssertionError:
            return
    pytest.fail(f"{TRIES} worlds in which {mutant.__name__} makes no difference")


def test_the_worlds_are_worth_looking_at() -> None:
    """Most of what can become of an entry does."""
    seen: set[str] = set()
    for seed in range(TRIES):
        world = play(drawn(seed))
        check(world, seed, seed + 1)  # without a broken rule
        book = Book(NET, ECONOMY)
        for item in world.items:
            give(book, item)
        seen |= {o.code for item in world.items if isinstance(item, Entry) and (o := book.outcome(item.id))}
    assert seen >= {
        "booked", "void:overdrawn", "void:forked", "void:cut", "void:settled", "void:unfunded", "void:wrong_amount",
        "void:wrong_key", "void:not_own_job", "void:no_consent", "void:nothing_spare", "void:revoked",
        "pending:evidence", "pending:not_accepted", "pending:not_over",
    }  # fmt: skip
