"""What a book folds, and when: the rules one by one. That nothing changes by it is a property of all worlds."""

import pytest

from sparkle_ledger import outcomes as out
from sparkle_ledger.book import Book
from sparkle_ledger.entries import Payload, Revoke
from sparkle_ledger.folding import MAX_KEYS, Base
from sparkle_protocol.errors import LocalProtocolError
from tests.unit.ledger.ledgers import ECONOMY, NET, PRICE, Author, Job, idle, person

ALICE, BOB, CAROL = (person(n) for n in range(1, 4))
CLOSED_MS = 1000


class Scene:
    """Alice paid Bob for two jobs, both of which are closed; each has signed something else since."""

    def __init__(self, last: Payload | None = None) -> None:
        self.alice, self.bob = Author(ALICE), Author(BOB)
        self.jobs = [Job(ALICE, 2, nonce=n) for n in range(2)]
        self.book = Book(NET, ECONOMY)
        for job in self.jobs:
            self.alice.hold(job)
            self.bob.work(job, 0, 1)
            self.book.add_record(job.record(job.accepted([BOB]), job.cancel()))
        for author in (self.alice, self.bob):
            author.state(last or idle())
            self.book.add_all(author.entries)
        for job in self.jobs:
            self.book.close(job.id, CLOSED_MS)

    def foldable(self, author: Author, closed_ms: int = CLOSED_MS, keep: int = 0) -> int:
        return self.book.foldable(author.account, closed_ms, keep)


def test_it_folds_from_the_beginning_what_was_closed_long_enough_ago() -> None:
    scene = Scene()
    assert scene.foldable(scene.bob) == 3
    assert scene.foldable(scene.bob, keep=2) == 2
    assert scene.foldable(scene.bob, keep=10) == 0
    assert scene.foldable(scene.bob, CLOSED_MS - 1) == 1, "Genesis waits for nothing"
    assert scene.foldable(Author(CAROL)) == 0
    assert scene.book.fold(scene.bob.account, 0) == []
    (step,) = scene.book.fold(scene.bob.account, 3)
    assert (step.after, step.seq, step.strict) == (-1, 2, 4 * PRICE)
    assert scene.book.account(scene.bob.account).balance_micro == 4 * PRICE
    assert scene.book.sum_micro() == 0
    assert scene.foldable(scene.alice) == 3, "its jobs are shut"


def test_a_job_that_is_opened_and_closed_again_is_as_old_as_before() -> None:
    """Else anybody who shows something now and then could keep it from being folded for ever."""
    scene = Scene()
    job = scene.jobs[0]
    scene.book.add_record(job.record(job.accepted([CAROL], [0])))
    assert scene.foldable(scene.bob) == 1
    assert scene.book.close(job.id, 10 * CLOSED_MS).at_ms == CLOSED_MS
    assert scene.foldable(scene.bob) == 3


def test_nothing_opens_a_shut_job() -> None:
    scene = Scene()
    scene.book.fold(scene.bob.account, 3)
    job, carol = scene.jobs[0], Author(CAROL)
    scene.book.add_record(job.record(job.accepted([CAROL], [0])))
    carol.work(job, 0)
    scene.book.add_all(carol.entries)
    assert scene.book.record(job.id) is None
    assert scene.book.outcome(carol.entries[1].id) is out.SHUT
    assert not scene.book.is_closable(job.id, though_some_wait=True)


def test_what_waits_in_a_job_waits_for_ever_and_keeps_nobody_from_folding() -> None:
    scene = Scene()
    carol = Author(CAROL)
    late = carol.work(scene.jobs[0], 0)
    carol.state(idle())
    scene.book.add_all(carol.entries)
    assert scene.book.outcome(late.id) is out.NO_EVIDENCE
    scene.book.fold(scene.alice.account, scene.foldable(scene.alice))
    assert scene.book.outcome(late.id) is out.SHUT
    assert scene.foldable(carol) == 2
    scene.book.fold(carol.account, 2)
    assert scene.book.account(carol.account).balance_micro == 0


@pytest.mark.parametrize("last", [idle(), Revoke()])
def test_the_first_entry_that_may_change_ends_it(last: Payload) -> None:
    scene = Scene(last)
    scene.book.add(scene.bob.state(idle(1)))
    assert scene.foldable(scene.bob) == 3


def test_feeds_that_forked_or_began_anew_are_left_as_they_are() -> None:
    scene = Scene()
    twin = scene.bob.twin()
    twin.entries.pop()
    scene.book.add(twin.state(idle(7)))
    assert scene.foldable(scene.bob) == 0
    scene.book.add(scene.alice.restore())
    assert scene.foldable(scene.alice) == 0


def test_an_account_that_rotates_often_is_folded_no_further() -> None:
    author, book = Author(CAROL), Book(NET, ECONOMY)
    for number in range(MAX_KEYS + 10):
        author.rotate(person(2000 + number % 2))
    book.add_all(author.entries)
    most = book.foldable(author.account, 0, keep=1)
    book.fold(author.account, most)
    base = book.base(author.account)
    assert base is not None
    assert (most, len(base.keys)) == (MAX_KEYS, MAX_KEYS)
    assert book.foldable(author.account, 0, keep=1) == 0
    assert [base.signer(seq) for seq in (0, 1, 2, 3)] == [author.entries[seq].key for seq in (0, 1, 2, 3)]


def test_a_base_is_added_before_anything_else_of_its_account() -> None:
    scene = Scene()
    with pytest.raises(LocalProtocolError):
        scene.book.add_base(Base(scene.bob.account, keys=[(0, BOB.public_key)]))


def test_who_begins_anew_from_before_a_base_is_refused_and_from_after_it_is_not() -> None:
    scene = Scene()
    early, late = scene.alice.twin(), scene.alice.twin()
    scene.book.fold(scene.alice.account, 3)
    assert scene.book.add(early.restore(early.entries[1])) is out.OLD
    assert scene.book.add(scene.alice.entries[1]) is out.OLD
    assert scene.book.waiting(scene.alice.account) == []
    assert scene.book.add(late.restore()).counts
    assert scene.book.add(late.state(idle(3))).pending
    assert scene.book.sum_micro() == 0


def test_of_one_place_after_a_base_two_entries_are_a_fork() -> None:
    scene = Scene()
    twin = scene.alice.twin()
    twin.entries.pop()
    scene.book.fold(scene.alice.account, 3)
    before = scene.book.account(scene.alice.account)
    scene.book.add(twin.hold(Job(ALICE, 1, nonce=9)))
    after = scene.book.account(scene.alice.account)
    assert after.frozen
    assert (after.balance_micro, after.limit_micro, after.key) == (
        before.balance_micro,
        before.limit_micro,
        before.key,
    )
