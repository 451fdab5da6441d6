"""What a book costs grows with what it takes in, and not with the square of it. Counted in steps."""

from collections.abc import Callable
from functools import partial

import pytest

from sparkle_ledger.book import Book
from tests.unit.ledger.growing import WORLDS, Item, forked_everywhere, give, shuffled, steps
from tests.unit.ledger.ledgers import NET

SMALL, LARGE = 64, 320
MORE = 2  # than in proportion: some of it is sorted. In proportion to the square would be 5
Orders = Callable[[list[Item], list[Item]], list[Item]]


def entries_first(early: list[Item], late: list[Item]) -> list[Item]:
    return [*early, *late]


def latest_first(early: list[Item], late: list[Item]) -> list[Item]:
    return [*early, *reversed(late)]


def backwards(early: list[Item], late: list[Item]) -> list[Item]:
    return [*reversed(late), *reversed(early)]


def all_shuffled(early: list[Item], late: list[Item]) -> list[Item]:
    return shuffled([*early, *late])


ORDERS: list[Orders] = [entries_first, latest_first, backwards, all_shuffled]


@pytest.mark.parametrize("order", ORDERS, ids=lambda one: one.__name__)
@pytest.mark.parametrize("world", WORLDS, ids=lambda one: one.__name__)
def test_one_by_one_costs_as_much_as_there_is(
    world: Callable[[int], tuple[Book, list[Item], list[Item]]], order: Orders
) -> None:
    taken = []
    for n in (SMALL, LARGE):
        book, early, late = world(n)
        taken.append(steps(partial(give, book, order(early, late))))
    assert taken[1] < MORE * (LARGE // SMALL) * taken[0], taken


def test_forks_that_come_together_are_judged_together() -> None:
    """Each fork before all others has the whole feed judged again; a message full of them has it once."""
    feed, forks = forked_everywhere(LARGE)
    slow, quick = Book(NET), Book(NET)
    give(slow, feed)
    give(quick, feed)

    def at_once() -> None:
        with quick.together():
            give(quick, forks)

    assert steps(at_once) * 20 < steps(partial(give, slow, forks))
    for entry in [*feed, *forks]:
        assert quick.outcome(entry.id) is slow.outcome(entry.id)  # type: ignore[union-attr]
    assert quick.sum_micro() == 0
