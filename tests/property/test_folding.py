"""Folding old entries changes nothing that the book says: not of what is here, and not of what comes later."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from msgspec.structs import replace as replaced

from sparkle_ledger import outcomes as out
from sparkle_ledger.book import Book
from sparkle_ledger.book_folding import BookFolding
from sparkle_ledger.closing import Closing
from sparkle_ledger.entries import AccountId, Entry, EntryId, Work
from sparkle_ledger.evidence import JobRecord
from sparkle_ledger.folding import Base, Fold, shut
from sparkle_ledger.forks import ForkProof
from sparkle_ledger.walk import JobSums
from sparkle_protocol.codec import encode
from sparkle_protocol.errors import LocalProtocolError
from tests.property.ledger_worlds import (
    ECONOMY,
    WORKERS,
    Action,
    Item,
    World,
    adds_up,
    drawn,
    give,
    in_order,
    jobs,
    play,
)  # fmt: skip
from tests.property.test_ledger import orders, worlds
from tests.unit.ledger.ledgers import ENTRIES, NET, idle

TRIES = 100
MUTANT_TRIES = 3000  # some are found out in one world of hundreds
LATER = 5  # how often the items of a world are gone through: what is old by then comes again


class Copy:
    """A book that folds, and what is on its disk."""

    def __init__(self) -> None:
        self.book = Book(NET, ECONOMY)
        self.entries: dict[EntryId, Entry] = {}
        self.records: list[JobRecord] = []
        self.closings: dict[bytes, Closing] = {}
        self.bases: dict[AccountId, Base] = {}

    def give(self, item: Item) -> None:
        give(self.book, item)
        if isinstance(item, Entry):
            if not self.refuses(item):
                self.entries[item.id] = item
        elif not self.is_shut(item.job):
            self.records.append(item)

    def is_shut(self, job: bytes) -> bool:
        closing = self.book.closing(job)
        return closing is not None and closing.is_shut

    def refuses(self, entry: Entry) -> bool:
        """It stands where all is folded, or follows what does."""
        page = self.book._pages.get(entry.account)
        return page is not None and page.feed._is_folded(entry)

    def close(self, job: bytes) -> None:
        self.closings[job] = Closing.decode(encode(self.book.close(job)))
        self.records = [one for one in self.records if one.job != job]

    def fold(self, account: AccountId, count: int) -> None:
        """With the changes to the disk made from what is said of them."""
        for told in self.book.fold(account, count):
            fold = Fold.decode(encode(told))
            base = self.bases.setdefault(account, Base(account))
            assert base.seq == fold.after
            base.add(fold)
            for one in fold.jobs:
                self.closings[one.job] = shut(self.closings[one.job], one)
            self.entries = {
                id_: one
                for id_, one in self.entries.items()
                if one.account != account or one.incarnation or one.seq > fold.seq
            }

    def read_again(self) -> None:
        self.book = Book(NET, ECONOMY)
        for closing in self.closings.values():
            self.book.add_closing(closing)
        for base in self.bases.values():
            copied = {job: one.copy() for job, one in base.held.items()}
            self.book.add_base(replace(base, keys=list(base.keys), paid=dict(base.paid), held=copied))
        for record in self.records:
            self.book.add_record(record)
        self.book.add_all(self.entries.values())


def compare(whole: Book, copy: Copy, world: World) -> None:
    """A book that has everything says the same as one that folded."""
    adds_up(copy.book)
    accounts = sorted(whole.accounts())
    assert accounts == sorted(copy.book.accounts())
    for account in accounts:
        said, kept = whole.account(account), copy.book.account(account)
        assert kept.entries + kept.folded == said.entries
        assert replace(kept, entries=said.entries, folded=0) == said
        assert copy.book.pair_totals(account) == whole.pair_totals(account)
    for job in jobs():
        assert copy.book.escrow(job.id) == whole.escrow(job.id)
    for item in world.items:
        if isinstance(item, Entry) and not copy.refuses(item):
            same_outcome(whole, copy.book, item)


def same_outcome(whole: Book, book: Book, entry: Entry) -> None:
    said, kept = whole.outcome(entry.id), book.outcome(entry.id)
    assert book.moved(entry.id) == whole.moved(entry.id)
    if kept is out.SHUT:
        assert said is not None
        assert not said.counts
    else:
        assert kept is said


def fold_some(copy: Copy, random: Random, seen: Counter[str]) -> None:
    for account in list(copy.book.accounts()):
        most = copy.book.foldable(account, 0, keep=random.randrange(1, 4))
        count = random.choice((0, most, random.randint(0, most)))
        copy.fold(account, count)
        seen["folded"] += count
        seen["folds"] += count > 0


def try_to_break(world: World, seed: int, times: int = 1) -> Counter[str]:
    """Close, fold and read again in between, while everything comes again and again."""
    random = Random(seed)
    whole, copy = Book(NET, ECONOMY), Copy()
    seen: Counter[str] = Counter()
    items = [item for turn in range(times) for item in in_order(world, seed + turn)]
    for number, item in enumerate(items):
        known = whole.entry(item.id) is not None if isinstance(item, Entry) else not copy.is_shut(item.job)
        refused = isinstance(item, Entry) and copy.refuses(item)
        copy.give(item)
        if refused:
            assert isinstance(item, Entry)
            assert copy.book.add(item) is out.OLD
            seen["refused"] += 1
        if known or (isinstance(item, Entry) and not refused):
            give(whole, item)
        if not number % 3:
            for job in jobs():
                if whole.is_closable(job.id, though_some_wait=True) and random.random() < 0.5:
                    whole.close(job.id)
                    copy.close(job.id)
            fold_some(copy, random, seen)
            if not number % 9:
                copy.read_again()
            compare(whole, copy, world)
    copy.read_again()
    compare(whole, copy, world)
    seen["shut"] += sum(one.is_shut for one in copy.book.closings())
    seen["late"] += sum(copy.book.outcome(one.id) is out.SHUT for one in world.items if isinstance(one, Entry))
    seen["keys"] += sum(len(base.keys) > 1 for base in copy.book.bases())
    return seen


@settings(max_examples=100)
@given(worlds, orders)
def test_what_is_folded_changes_nothing(done: list[Action], seed: int) -> None:
    try_to_break(play(done), seed)


def grown(seed: int) -> World:
    """A world of mostly honest people."""
    return play([one for one in drawn(seed, 90) if one[0] < 10 or one[2] < 6])


def test_nothing_comes_of_what_comes_again() -> None:
    for seed in range(TRIES // 5):
        try_to_break(grown(seed), seed, LATER)


def test_the_worlds_are_worth_looking_at() -> None:
    seen: Counter[str] = Counter()
    for seed in range(TRIES):
        seen += try_to_break(grown(seed), seed, 2)
    assert min(seen["folded"], seen["refused"], seen["shut"]) > TRIES
    assert min(seen["late"], seen["keys"]) > TRIES // 20


def forked(base: Base, seq: int) -> ForkProof | None:
    """Two entries for a folded place, by the key that was in force there."""
    signer = next((one for one in WORKERS if one.public_key == base.signer(seq)), None)
    if signer is None:
        return None
    one, other = (
        ENTRIES.seal(signer, idle(number), seq=seq, prev=bytes(31) + b"p", time_ms=0, account=base.account)
        for number in (1, 2)
    )
    return ForkProof.make(one, other)


def test_a_fork_at_a_folded_place_breaks_no_law_and_what_counted_there_stays() -> None:
    """It comes to the same in another life, where it becomes known after all else."""
    seen: Counter[str] = Counter()
    for seed in range(TRIES):
        random = Random(seed)
        world, copy = grown(seed), Copy()
        for item in in_order(world, seed):
            copy.give(item)
        for job in jobs():
            if copy.book.is_closable(job.id, though_some_wait=True):
                copy.close(job.id)
        fold_some(copy, random, Counter())
        for base in list(copy.bases.values()):
            proof = forked(base, random.randint(0, base.seq))
            if proof is not None:
                freeze(copy, base, proof)
                seen["frozen"] += 1
                seen["works"] += any(base.paid.values())
                seen["after"] += any(copy.book.outcome(one) is out.FORKED for one in copy.entries)
    assert min(seen.values()) > TRIES // 20, seen


def freeze(copy: Copy, base: Base, proof: ForkProof) -> None:
    """Have a copy know that an account forked at a folded place."""
    before = copy.book.account(base.account)
    copy.book.add_proof(proof)
    adds_up(copy.book)
    assert copy.book.is_frozen(base.account)
    after = copy.book.account(base.account)
    assert (after.spendable_micro, after.folded, after.earned_micro) == (0, base.seq + 1, before.earned_micro)
    copy.book, known = Book(NET, ECONOMY), copy.book
    copy.read_again()
    for one in known.fork_proofs():
        copy.book.add_proof(one)
    for account in known.accounts():
        assert copy.book.account(account) == known.account(account)


# --- the properties see what is broken --------------------------------------------------------------------------


def forget_a_key(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Base, "all_keys", property(lambda self: frozenset((self.key,))))


def forget_by_whom_it_was_paid(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Base, "earned", lambda _: {})


def forget_what_was_held(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Base, "job", lambda *_: JobSums())


def fold_what_is_open(patch: pytest.MonkeyPatch) -> None:
    right = BookFolding._is_past

    def past(self: BookFolding, node: Any, closed_ms: int) -> bool:
        job = self._jobs.get(getattr(node.entry.payload, "job", b""))
        if job is not None and job.closing is not None and isinstance(node.entry.payload, Work):
            return True
        return right(self, node, closed_ms)

    patch.setattr(BookFolding, "_is_past", past)


def open_a_shut_job(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Closing, "is_shut", property(lambda _: False))


def forget_what_was_paid(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Book, "add_closing", lambda self, one: _RIGHT(self, replaced(one, paid=one.paid and [])))


_RIGHT = Book.add_closing


MUTANTS = [
    forget_a_key, forget_by_whom_it_was_paid, forget_what_was_held, forget_what_was_paid, fold_what_is_open,
    open_a_shut_job,
]  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: one.__name__)
def test_a_broken_rule_is_noticed(
    mutant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant(monkeypatch)
    for seed in range(MUTANT_TRIES):
        try:
            try_to_break(grown(seed), seed, 2)
        except (AssertionError, KeyError, LocalProtocolError):
            return
    pytest.fail(f"{MUTANT_TRIES} worlds in which {mutant.__name__} makes no difference")
