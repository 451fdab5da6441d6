"""The table of entries: what it says adds up to what the book says."""

import csv
import json
from collections.abc import Iterable

from sparkle_ledger.book import Book
from sparkle_ledger.entries import Entry, Penalty, Release
from sparkle_ledger.export import COLUMNS, TableRow, as_csv, as_json_lines, table
from tests.unit.ledger.ledgers import ECONOMY, KEEPERS, NET, PRICE, Author, Job, idle, person

ALICE, BOB, MALLORY = person(1), person(2), person(3)


def story() -> tuple[Book, list[Entry]]:
    """Alice pays Bob for one unit of two, takes the rest back, and accuses Mallory, who forked."""
    alice, bob, mallory = (Author(one) for one in (ALICE, BOB, MALLORY))
    job = Job(ALICE, 2, keepers=KEEPERS)
    alice.hold(job)
    bob.work(job, 0)
    bob.work(job, 1)
    twin = mallory.twin()
    first, second = mallory.state(idle(1)), twin.state(idle(2))
    alice.state(Release(job.id, job.cover))
    alice.state(Penalty(first.raw, second.raw))
    entries = [*alice.entries, *bob.entries, *mallory.entries, second]
    book = Book(NET, ECONOMY)
    book.add_record(job.record(job.accepted([BOB], [0]), job.cancel()))
    book.add_all(entries)
    return book, sorted(entries, key=lambda one: (one.account, one.incarnation, one.seq, one.id))


def of(rows: Iterable[TableRow], author: Author) -> list[TableRow]:
    return [row for row in rows if row.account == author.account.hex()]


def test_rows_say_what_became_of_each_entry_and_what_it_moved() -> None:
    book, entries = story()
    rows = list(table(book, entries))
    alice, bob = Author(ALICE), Author(BOB)
    job = Job(ALICE, 2, keepers=KEEPERS)
    assert [(row.kind, row.amount_micro, row.balance_micro, row.outcome) for row in of(rows, bob)] == [
        ("genesis", 0, 0, "booked"),
        ("work", PRICE, PRICE, "booked"),
        ("work", 0, PRICE, "pending:not_accepted"),
    ]
    assert [(row.kind, row.stated_micro, row.amount_micro) for row in of(rows, alice)] == [
        ("genesis", 0, 0),
        ("hold", job.cover, -job.cover),
        ("release", job.cover, job.cover - PRICE),
        ("penalty", 0, 0),
    ]
    accused = of(rows, alice)[3]
    assert accused.counterparty == Author(MALLORY).account.hex()
    assert of(rows, bob)[1].counterparty == alice.account.hex()
    assert of(rows, bob)[1].job == job.id.hex()
    assert of(rows, bob)[1].executions == 1


def test_the_last_balance_of_an_account_is_that_of_the_book() -> None:
    book, entries = story()
    last = {row.account: row.balance_micro for row in table(book, entries)}
    assert last == {account.hex(): book.account(account).balance_micro for account in book.accounts()}
    assert sum(last.values()) == 0, "nothing is left in escrow"


def test_an_entry_without_a_place_is_a_row_that_moves_nothing() -> None:
    book, _ = story()
    lost = Author(person(9))
    lost.state(idle(3))
    (row,) = table(book, [lost.entries[1]])
    assert (row.outcome, row.amount_micro, row.balance_micro) == ("gap", 0, 0)


def test_a_penalty_that_is_no_proof_has_no_counterparty() -> None:
    author = Author(ALICE)
    author.state(Penalty(b"no", b"proof"))
    book = Book(NET, ECONOMY)
    book.add_all(author.entries)
    assert [row.counterparty for row in table(book, author.entries)] == ["", ""]


def test_both_formats_hold_the_same() -> None:
    book, entries = story()
    rows = list(table(book, entries))
    read = list(csv.DictReader(line for line in as_csv(rows)))
    objects = [json.loads(line) for line in as_json_lines(rows)]
    assert len(read) == len(objects) == len(rows)
    assert tuple(read[0]) == tuple(objects[0]) == COLUMNS
    assert [{name: str(value) for name, value in one.items()} for one in objects] == read
