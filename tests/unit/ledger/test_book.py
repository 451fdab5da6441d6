"""Each rule of the book, and what becomes of entries that break it: the reason is said and no balance changes."""

from collections.abc import Callable

import pytest

from sparkle_ledger.book import Book
from sparkle_ledger.book_reading import PairTotal
from sparkle_ledger.economy import Economy
from sparkle_ledger.entries import (
    MAX_MICRO,
    NO_PREV,
    Entry,
    EntryId,
    Genesis,
    Hold,
    Release,
    Revoke,
    Rotate,
    Settled,
    Work,
    account_of,
)
from tests.unit.ledger.ledgers import ECONOMY, ENTRIES, KEEPERS, NET, PRICE, Author, Job, book, person

PAYER, WORKER, OTHER, THIRD = (person(n) for n in range(1, 5))


class Scene:
    """A payer with a funded job of two units, and a worker whose results of both are accepted."""

    def __init__(self, *, funded: bool = True, evidence: bool = True, **job: object) -> None:
        self.payer, self.worker = Author(PAYER), Author(WORKER)
        self.job = Job(PAYER, **job)  # type: ignore[arg-type]
        if funded:
            self.payer.hold(self.job)
        self.book = book(self.payer, self.worker)
        if evidence:
            self.book.add_record(self.job.record(self.job.accepted([WORKER])))

    def add(self, entry: Entry) -> str:
        before = self.balances()
        code = self.book.add(entry).code
        assert self.book.sum_micro() == 0
        if code != "booked":
            assert self.balances() == before
        return code

    def balances(self) -> dict[bytes, int]:
        return {one: self.balance(one) for one in self.book.accounts()}

    def balance(self, one: bytes) -> int:
        return self.book.account(one).balance_micro  # type: ignore[arg-type]

    @property
    def sums(self) -> tuple[int, int, int]:
        """Balances of payer and worker, and what is in the escrow."""
        escrow = self.book.escrow(self.job.id)
        return self.balance(self.payer.account), self.balance(self.worker.account), escrow.balance_micro


def test_an_accepted_execution_is_paid_from_the_escrow() -> None:
    scene = Scene()
    assert scene.sums == (-40, 0, 40)
    assert scene.add(scene.worker.work(scene.job, 0, 1)) == "booked"
    assert scene.sums == (-40, 20, 20)
    payer, worker = scene.book.account(scene.payer.account), scene.book.account(scene.worker.account)
    assert (payer.spent_micro, payer.held_micro, worker.earned_micro, worker.held_micro) == (20, 20, 20, 0)
    assert scene.book.pair_totals(scene.payer.account) == [PairTotal(scene.worker.account, 0, 20)]
    assert scene.book.pair_totals(scene.worker.account) == [PairTotal(scene.payer.account, 20, 0)]
    assert scene.book.unsettled(scene.job.id) == []


def test_the_rest_comes_back_when_the_job_is_over() -> None:
    scene = Scene()
    assert scene.add(scene.payer.state(Release(scene.job.id, 20))) == "booked"
    assert scene.sums == (-20, 0, 20)
    assert scene.add(scene.worker.work(scene.job, 0, 1)) == "booked"
    assert scene.sums == (-20, 20, 0)
    assert scene.add(scene.payer.state(Release(scene.job.id, 1))) == "void:nothing_spare"


def test_a_release_takes_no_more_than_is_spare() -> None:
    scene = Scene()
    assert scene.add(scene.payer.state(Release(scene.job.id, MAX_MICRO))) == "booked"
    assert scene.sums == (-20, 0, 20)


def test_a_release_waits_until_the_job_is_over() -> None:
    scene = Scene(evidence=False)
    entry = scene.payer.state(Release(scene.job.id, 40))
    assert scene.add(entry) == "pending:evidence"
    scene.book.add_record(scene.job.record(scene.job.accepted([WORKER], [0])))
    assert scene.book.outcome(entry.id) == scene.book.outcome(entry.id)
    assert code(scene.book, entry) == "pending:not_over"
    assert scene.book.add_record(scene.job.record(scene.job.cancel())) == (entry.id,)
    assert scene.sums == (-10, 0, 30 - 20)


def test_who_is_accepted_late_is_paid_all_the_same() -> None:
    """The release shrinks; no escrow is overdrawn, and the worker loses nothing."""
    scene = Scene()
    scene.add(scene.payer.state(Release(scene.job.id, 20)))
    late = Author(OTHER)
    for entry in [*late.entries, claim := late.work(scene.job, 0)]:
        scene.book.add(entry)
    assert code(scene.book, claim) == "pending:not_accepted"
    scene.book.add_record(scene.job.record(scene.job.accepted([OTHER], [0])))
    assert code(scene.book, claim) == "booked"
    assert scene.book.escrow(scene.job.id).released_micro == 10
    assert scene.book.sum_micro() == 0


def code(found: Book, entry: Entry) -> str | None:
    outcome = found.outcome(entry.id)
    return outcome.code if outcome is not None else None


def bad_works() -> dict[str, Callable[[Scene], Entry]]:
    def work(**change: object) -> Callable[[Scene], Entry]:
        def state(scene: Scene) -> Entry:
            made = scene.worker.claim(scene.job, 0)
            fields = {name: getattr(made, name) for name in made.__struct_fields__} | change
            return scene.worker.state(Work(**fields))  # type: ignore[arg-type]

        return state

    return {
        "pending:not_accepted": work(units=[Settled(0, 1)]),
        "pending:hold": work(hold=b"h" * 32),
        "void:wrong_amount": work(amount_micro=PRICE + 1),
        "void:wrong_payer": work(payer=account_of(NET, OTHER.public_key)),
        "void:wrong_key": work(worker=OTHER.public_key),
        "void:no_such_unit": work(units=[Settled(2, 0)]),
        "void:settled": work(units=[Settled(0, 0), Settled(0, 0)], amount_micro=2 * PRICE),
    }


@pytest.mark.parametrize("reason", bad_works())
def test_a_work_that_is_not_right_moves_nothing(reason: str) -> None:
    scene = Scene()
    assert scene.add(bad_works()[reason](scene)) == reason
    assert scene.add(scene.worker.work(scene.job, 0, 1)) == "booked"  # the chain goes on


@pytest.mark.parametrize("amount", [0, 1, MAX_MICRO])
def test_amounts_are_those_of_the_job_whatever_is_claimed(amount: int) -> None:
    scene = Scene()
    assert scene.add(scene.worker.work(scene.job, 0, 1, amount=amount)) == "void:wrong_amount"


def test_an_execution_is_settled_once() -> None:
    scene = Scene()
    assert scene.add(scene.worker.work(scene.job, 0)) == "booked"
    assert scene.add(scene.worker.work(scene.job, 0)) == "void:settled"
    assert scene.add(scene.worker.work(scene.job, 0, 1)) == "void:settled"
    assert scene.add(scene.worker.work(scene.job, 1)) == "booked"


def test_a_claim_that_does_not_count_does_not_keep_a_later_one_from_counting() -> None:
    scene = Scene(evidence=False)
    poor = scene.payer.state(Hold(scene.job.id, 1, 0))
    scene.book.add(poor)
    claim = scene.worker.claim(scene.job, 0)
    wrong = scene.worker.state(Work(claim.job, claim.payer, poor.id, claim.worker, claim.amount_micro, claim.units))
    scene.book.add(wrong)
    scene.book.add_record(scene.job.record(scene.job.accepted([WORKER])))
    assert code(scene.book, wrong) == "void:unfunded"
    assert scene.add(scene.worker.work(scene.job, 0)) == "booked"


def test_a_key_in_two_accounts_is_paid_once() -> None:
    """Its own account and the one that it was rotated into: the lower one's claim stands, whichever came first."""
    old = Author(OTHER)
    old.rotate(WORKER)
    codes = set()
    for swap in (False, True):
        scene = Scene()
        claims = [scene.worker.work(scene.job, 0), old.twin()]
        moved = claims[1]
        assert isinstance(moved, Author)
        entry = moved.work(scene.job, 0)
        feeds = [[claims[0]], moved.entries]
        for feed in reversed(feeds) if swap else feeds:
            for one in feed:
                scene.book.add(one)  # type: ignore[arg-type]
        codes.add((code(scene.book, claims[0]), code(scene.book, entry)))  # type: ignore[arg-type]
        assert scene.book.escrow(scene.job.id).paid_micro == PRICE
    assert len(codes) == 1
    assert sorted(codes.pop()) == ["booked", "void:settled"]  # type: ignore[type-var]


def test_nobody_is_paid_for_its_own_job() -> None:
    scene = Scene(evidence=False)
    scene.book.add_record(scene.job.record(scene.job.accepted([PAYER, WORKER])))
    scene.payer.key = PAYER.public_key
    assert scene.add(scene.payer.work(scene.job, 0)) == "void:own_job"
    assert scene.book.record(scene.job.id).executions == 2  # type: ignore[union-attr]


def test_a_hold_beyond_the_limit_moves_nothing() -> None:
    scene = Scene(funded=False, evidence=False)
    assert scene.add(scene.payer.hold(Job(PAYER), ECONOMY.starter_micro + 1)) == "void:overdrawn"
    big = scene.payer.entries[-1]
    assert code(scene.book, big) == "void:overdrawn"
    assert scene.sums == (0, 0, 0)


def test_an_overdrawn_hold_pays_nobody_even_for_accepted_work() -> None:
    scene = Scene(funded=False)
    scene.payer.hold(scene.job, ECONOMY.starter_micro + 1)
    assert scene.add(scene.payer.entries[-1]) == "void:overdrawn"
    assert scene.add(scene.worker.work(scene.job, 0)) == "void:unfunded"


def test_holds_add_up_against_the_limit() -> None:
    scene = Scene(funded=False, evidence=False)
    half = ECONOMY.starter_micro // 2
    assert scene.add(scene.payer.hold(Job(PAYER, nonce=1), half)) == "booked"
    assert scene.book.account(scene.payer.account).spendable_micro == half
    assert scene.add(scene.payer.hold(Job(PAYER, nonce=2), half)) == "booked"
    assert scene.add(scene.payer.hold(Job(PAYER, nonce=3), 1)) == "void:overdrawn"


def test_what_one_earned_one_can_spend_and_owe() -> None:
    """1000 earned from one payer: a quarter of it counts for the limit."""
    scene = Scene(price=500, evidence=True, funded=False)
    scene.book = book(scene.payer, scene.worker, economy=Economy(starter_micro=2000, limit_max_micro=100_000))
    scene.book.add(scene.payer.hold(scene.job))
    scene.book.add_record(scene.job.record(scene.job.accepted([WORKER])))
    assert scene.add(scene.worker.work(scene.job, 0, 1)) == "booked"
    account = scene.book.account(scene.worker.account)
    assert (account.balance_micro, account.limit_micro, account.spendable_micro) == (1000, 2250, 3250)
    assert scene.add(scene.worker.hold(Job(WORKER), 3250)) == "booked"
    assert scene.add(scene.worker.hold(Job(WORKER, nonce=1), 1)) == "void:overdrawn"


def test_a_founder_may_go_down_without_end() -> None:
    scene = Scene(funded=False, evidence=False)
    scene.book = book(scene.payer, economy=Economy(starter_micro=0, unlimited=frozenset({scene.payer.account})))
    assert scene.add(scene.payer.hold(scene.job, MAX_MICRO)) == "booked"
    assert scene.add(scene.payer.hold(Job(PAYER, nonce=1), MAX_MICRO)) == "booked"


def test_a_hold_for_anothers_job_is_void_once_that_is_known() -> None:
    scene = Scene(funded=False, evidence=False)
    stranger = Author(OTHER)
    entry = stranger.hold(scene.job)
    for one in stranger.entries:
        scene.book.add(one)
    assert code(scene.book, entry) == "booked"
    scene.book.add_record(scene.job.record())
    assert code(scene.book, entry) == "void:not_own_job"
    assert scene.add(stranger.state(Release(scene.job.id, 1))) == "void:not_own_job"


def test_a_hold_that_does_not_cover_the_job_pays_nobody() -> None:
    scene = Scene(funded=False)
    scene.book.add(scene.payer.hold(scene.job, scene.job.cover - 1))
    assert scene.add(scene.worker.work(scene.job, 0)) == "void:unfunded"


def test_no_more_executions_of_a_unit_are_paid_than_the_spec_agrees_to() -> None:
    workers = [person(20 + n) for n in range(5)]
    scene = Scene(evidence=False, keepers=KEEPERS)
    scene.book.add_record(scene.job.record(scene.job.accepted(workers)))
    codes = []
    for one in workers:
        author = Author(one)
        author.work(scene.job, 0)
        codes += [scene.book.add(entry).code for entry in author.entries][1:]
    assert sorted(codes) == ["booked", "booked", *["pending:not_accepted"] * 3]
    assert scene.book.sum_micro() == 0


def test_work_of_a_key_counts_for_the_account_that_it_was_rotated_into() -> None:
    scene = Scene(evidence=False)
    scene.worker.rotate(OTHER)
    scene.book.add(scene.worker.entries[-1])
    scene.book.add_record(scene.job.record(scene.job.accepted([OTHER], [1]), scene.job.accepted([WORKER], [0])))
    assert scene.add(scene.worker.work(scene.job, 1)) == "booked"
    scene.worker.key = WORKER.public_key  # what the old key did is still the account's
    assert scene.add(scene.worker.work(scene.job, 0)) == "booked"
    assert scene.book.account(scene.worker.account).key == OTHER.public_key


def test_a_new_key_has_to_agree() -> None:
    scene = Scene()
    scene.worker.rotate(OTHER, consents=THIRD)
    assert scene.add(scene.worker.entries[-1]) == "void:no_consent"
    assert scene.add(scene.worker.work(scene.job, 0)) == "refused:wrong_key"  # signed by the key that did not agree


def test_a_consent_is_for_one_place_of_one_account() -> None:
    scene = Scene()
    scene.worker.rotate(OTHER)
    taken = scene.worker.entries[-1].payload
    thief = Author(THIRD)
    assert isinstance(taken, Rotate)
    for one in [*thief.entries, stolen := thief.state(taken)]:
        scene.book.add(one)
    assert code(scene.book, stolen) == "void:no_consent"


def test_a_key_that_was_rotated_away_signs_nothing_more() -> None:
    scene = Scene()
    old = scene.worker.twin()
    scene.book.add(scene.worker.rotate(OTHER))
    old.entries = list(scene.worker.entries)
    assert scene.add(old.work(scene.job, 0)) == "refused:wrong_key"


def test_nothing_follows_a_revoke() -> None:
    scene = Scene()
    assert scene.add(scene.worker.state(Revoke())) == "booked"
    assert scene.add(scene.worker.work(scene.job, 0)) == "refused:revoked"
    assert scene.book.next_place(scene.worker.account) is None
    assert scene.book.account(scene.worker.account).key is None


def test_an_author_is_told_what_to_sign() -> None:
    scene = Scene()
    place = scene.book.next_place(scene.worker.account)
    assert place is not None
    assert (place.incarnation, place.seq, place.prev) == (0, 1, scene.worker.entries[0].id)
    fresh = scene.book.next_place(account_of(NET, OTHER.public_key))
    assert fresh is not None
    assert (fresh.incarnation, fresh.seq, fresh.prev) == (0, 0, NO_PREV)
    [due] = scene.book.claims_due(WORKER.public_key, scene.job.id)
    assert due == scene.worker.claim(scene.job, 0, 1)
    assert scene.add(scene.worker.state(due)) == "booked"
    assert scene.book.claims_due(WORKER.public_key, scene.job.id) == []


def test_evidence_says_which_entries_it_changed() -> None:
    scene = Scene(evidence=False)
    first, second = scene.worker.work(scene.job, 0), scene.worker.work(scene.job, 1)
    scene.book.add_all([second, first])
    assert scene.book.add_record(scene.job.record(scene.job.accepted([WORKER], [0]))) == (first.id, second.id)
    assert (code(scene.book, first), code(scene.book, second)) == ("booked", "pending:not_accepted")
    assert scene.book.add_record(scene.job.record(scene.job.accepted([WORKER], [0]))) == ()
    assert scene.book.add_record(scene.job.record(scene.job.accepted([WORKER], [1]))) == (second.id,)


def test_money_earned_late_lets_a_later_hold_count() -> None:
    scene = Scene(price=600, replicas=1, funded=False, evidence=False)
    scene.book = book(scene.payer, scene.worker, economy=Economy(starter_micro=1200))
    scene.book.add(scene.payer.hold(scene.job))
    work = scene.worker.work(scene.job, 0, 1)
    scene.book.add(work)
    third, spent = Author(THIRD), Job(WORKER, price=1000, replicas=1)
    hold = scene.worker.hold(spent)
    assert scene.add(hold) == "void:overdrawn"
    paid = third.work(spent, 0)
    for entry in third.entries:
        scene.book.add(entry)
    scene.book.add_record(spent.record(spent.accepted([THIRD])))
    assert code(scene.book, paid) == "void:unfunded"
    changed = scene.book.add_record(scene.job.record(scene.job.accepted([WORKER])))
    assert {work.id, hold.id, paid.id} <= set(changed)
    assert code(scene.book, paid) == "booked"
    assert scene.book.sum_micro() == 0


def test_an_unknown_account_has_nothing() -> None:
    empty = Book(NET).account(account_of(NET, OTHER.public_key))
    assert (empty.balance_micro, empty.spendable_micro, empty.heads, empty.key) == (0, 0, {}, None)
    assert Book(NET).outcome(EntryId(b"x" * 32)) is None


def test_genesis_alone_opens_an_account() -> None:
    found = Book(NET, ECONOMY)
    entry = ENTRIES.seal(OTHER, Genesis(), seq=0, time_ms=0)
    assert found.add(entry).code == "booked"
    assert found.account(entry.account).spendable_micro == ECONOMY.starter_micro
