"""An audit of any world finds no fault with the copy, whatever accounts did; and finds every fault of the copy."""

from collections import Counter
from dataclasses import replace
from random import Random

import msgpack
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkle_ledger.audit import Audit, Report, in_time
from sparkle_ledger.book import Book
from sparkle_ledger.closing import Closing
from sparkle_ledger.entries import Entry, Work
from sparkle_ledger.evidence import JobRecord
from sparkle_ledger.export import table
from sparkle_ledger.store import Evidence, Row
from sparkle_protocol.codec import encode
from sparkle_protocol.ids import digest
from tests.property.ledger_worlds import ECONOMY, KINDS, Action, World, adds_up, drawn, give, in_order, is_right, play
from tests.unit.ledger.ledgers import ENTRIES, FACTS, NET
from tests.unit.ledger.projections import project

actions = st.tuples(st.integers(0, KINDS - 1), st.integers(0, 3), st.integers(0, 7), st.integers(0, 7))
worlds = st.lists(actions, max_size=50)


def rows_of(world: World) -> list[Row]:
    entries = {item.id: item for item in world.items if isinstance(item, Entry)}.values()
    ordered = sorted(entries, key=lambda one: (one.account, one.incarnation, one.seq, one.id))
    return [Row(one.account, one.incarnation, one.seq, one.id, one.raw, digest(one.raw)[:8]) for one in ordered]


def evidence_of(world: World) -> list[Evidence]:
    merged: dict[bytes, JobRecord] = {}
    for item in world.items:
        if isinstance(item, JobRecord):
            known = merged.setdefault(item.job, JobRecord(item.spec_fact, NET))
            known.merge(item)
    return [
        Evidence(record.job, [fact.raw for fact in record.counting()], [one.encode() for one in record.sealed()])
        for record in merged.values()
    ]


def audited(world: World, rows: list[Row], *, deep: bool) -> tuple[Report, Book]:
    audit = Audit(ENTRIES, FACTS, ECONOMY, deep=deep)
    for _ in audit.steps(rows, len(rows), evidence_of(world)):
        pass
    return audit.report(), audit.book


@given(worlds, st.booleans())
def test_whatever_accounts_did_is_no_fault_of_the_copy(done: list[Action], deep: bool) -> None:
    world = play(done)
    report, book = audited(world, rows_of(world), deep=deep)
    assert report.ok, report.violations
    is_right(book, world)
    assert report.entries == sum(report.outcomes.values())
    assert report.final_price_micro == report.earned_micro + report.unsettled_micro


@settings(max_examples=50)
@given(worlds, st.integers(0, 1 << 32), st.booleans())
def test_an_audit_of_a_copy_with_closed_jobs_finds_what_it_found_before(
    done: list[Action], seed: int, keep: bool
) -> None:
    world = play(done)
    before, _ = audited(world, rows_of(world), deep=False)
    book = Book(NET, ECONOMY)
    for item in in_order(world, seed):
        give(book, item)
    over = [record.job for record in book.records() if book.is_closable(record.job)]
    closings = [Closing.decode(encode(book.close(job))) for job in over]
    evidence = [one for one in evidence_of(world) if keep or one.job not in over]
    audit = Audit(ENTRIES, FACTS, ECONOMY)
    for _ in audit.steps(rows_of(world), before.entries, evidence, closings):
        pass
    after = audit.report()
    assert after.ok, after.violations
    resting = [text for text in after.unseen if "the proofs are gone" in text]
    assert len(resting) == (not keep and any(one.finals and one.executions for one in closings))
    changed = {"unseen": before.unseen, "unseen_count": before.unseen_count}
    assert replace(after, **changed) == before
    assert sorted(text for text in after.unseen if text not in resting) == sorted(before.unseen)
    assert project(audit.book) == project(book)


@settings(max_examples=50)
@given(worlds, st.integers(0, 1 << 32))
def test_whenever_jobs_are_closed_and_opened_again_a_copy_is_right_and_loads_to_what_it_was(
    done: list[Action], seed: int
) -> None:
    world, rng = play(done), Random(seed)
    book = Book(NET, ECONOMY)
    for item in in_order(world, seed):
        give(book, item)
        if not rng.randrange(4):
            for job in [record.job for record in book.records() if book.is_closable(record.job)]:
                book.close(job)
            adds_up(book)
    known = [
        Evidence(record.job, [fact.raw for fact in record.counting()], [one.encode() for one in record.sealed()])
        for record in book.records()
    ]
    audit = Audit(ENTRIES, FACTS, ECONOMY)
    for _ in audit.steps(rows_of(world), 1, known, book.closings()):
        pass
    report = audit.report()
    assert report.ok, report.violations
    assert report.final_price_micro == report.earned_micro + report.unsettled_micro
    assert project(audit.book) == project(book)


@settings(max_examples=50)
@given(worlds, st.integers(0, 1 << 32))
def test_the_table_and_the_projection_say_what_a_book_says_that_heard_of_it_in_another_order(
    done: list[Action], seed: int
) -> None:
    world = play(done)
    other = Book(NET, ECONOMY)
    for item in in_order(world, seed):
        give(other, item)
    _, book = audited(world, rows_of(world), deep=False)
    assert project(book) == project(other)
    last = {row.account: row.balance_micro for row in table(book, [row.open(ENTRIES) for row in rows_of(world)])}
    assert {name: last[name.hex()] for name in other.accounts()} == {
        name: other.account(name).balance_micro for name in other.accounts()
    }


@settings(max_examples=50)
@given(st.integers(0, 1 << 32))
def test_a_signature_that_was_replaced_is_found(seed: int) -> None:
    rng = Random(seed)
    world = play(drawn(seed))
    rows = rows_of(world)
    place = rng.randrange(len(rows))
    body, _ = msgpack.unpackb(rows[place].raw)
    forged = bytes(msgpack.packb([body, rng.randbytes(64)]))
    rows[place] = rows[place]._replace(raw=forged, checked=digest(forged)[:8])
    report, _ = audited(world, rows, deep=True)
    assert report.violation_count == 1
    assert f"entry {rows[place].seq} of" in report.violations[0]


@settings(max_examples=50)
@given(st.integers(0, 1 << 32))
def test_an_entry_whose_contents_were_changed_is_found(seed: int) -> None:
    """Here somebody raises the pay of a Work, and sets all checks of the file right."""
    world = play([*drawn(seed), (0, 0, 0, 0), (2, 1, 0, 0)])
    rows = rows_of(world)
    works = [n for n, row in enumerate(rows) if isinstance(row.open(ENTRIES).payload, Work)]
    place = Random(seed).choice(works)
    body, signature = msgpack.unpackb(rows[place].raw)
    fields = msgpack.unpackb(body)
    payload = msgpack.unpackb(fields[-1])
    payload[5] += 1
    changed = bytes(msgpack.packb([*fields[:-1], msgpack.packb(payload)]))
    raw = bytes(msgpack.packb([changed, signature]))
    rows[place] = rows[place]._replace(id=digest(changed), raw=raw, checked=digest(raw)[:8])
    report, _ = audited(world, rows, deep=False)
    assert not report.ok or report.misdeeds or report.unseen
    assert any(f"entry {rows[place].seq}" in text for text in report.violations), "its own signature does not fit"


@given(st.integers(0, 1 << 32))
def test_time_sorts_entries_but_never_against_their_feeds(seed: int) -> None:
    rng = Random(seed)
    rows = rows_of(play([*drawn(7), (0, 0, 0, 0)]))
    entries = [replace(row.open(ENTRIES), time_ms=rng.randrange(20)) for row in rows]
    ordered = in_time(entries)
    assert Counter(one.id for one in ordered) == Counter(one.id for one in entries)
    for feed in {(one.account, one.incarnation) for one in entries}:
        seqs = [one.seq for one in ordered if (one.account, one.incarnation) == feed]
        assert seqs == sorted(seqs)
    firsts = [one.time_ms for one in ordered if not one.seq]
    assert firsts == sorted(firsts)
