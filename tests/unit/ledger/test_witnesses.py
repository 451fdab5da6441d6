"""A judge asks an account's witnesses about the head that its owner shows."""

from random import Random

import pytest

from sparkle_ledger.entries import AccountId, EntryId
from sparkle_ledger.witnesses import (
    Claim,
    Freshness,
    Head,
    Standing,
    choose_witnesses,
    witness_threshold,
)
from sparkle_protocol.ids import JobId, PeerId, peer_id_from_key
from sparkle_protocol.work.placement import Candidate, distance

ACCOUNT = AccountId(b"\5" * 32)
EIGHT = [PeerId(f"witness {n}") for n in range(8)]


def entry_id(seq: int, branch: int = 0) -> EntryId:
    return EntryId(bytes([branch, seq]).ljust(32, b"\0"))


def head(seq: int, branch: int = 0, incarnation: int = 0) -> Head:
    return Head(incarnation, seq, entry_id(seq, branch))


class Book:
    """What our own book has of the account."""

    def __init__(self, seq: int) -> None:
        self.entries = {(0, n): entry_id(n) for n in range(seq + 1)}

    def __call__(self, incarnation: int, seq: int) -> EntryId | None:
        return self.entries.get((incarnation, seq))


def judge(witnesses: list[PeerId] = EIGHT, trusted: tuple[PeerId, ...] = ()) -> tuple[Freshness, Book]:
    book = Book(10)
    return Freshness(head(10), witnesses, book, trusted), book


def candidates(count: int) -> list[Candidate]:
    keys = Random(1)
    return [Candidate(peer_id_from_key(keys.randbytes(32)), (f"/ip4/8.8.{n}.1/tcp/1",)) for n in range(count)]


def test_witnesses_are_the_nearest_peers_and_never_the_account_itself() -> None:
    known = candidates(50)
    nearest = sorted((one.peer for one in known), key=lambda peer: distance(JobId(ACCOUNT), peer))
    assert choose_witnesses(ACCOUNT, known, ()) == tuple(nearest[:8])
    assert choose_witnesses(ACCOUNT, known, {nearest[0]}) == tuple(nearest[1:9])


def test_one_network_has_one_witness_while_there_are_others() -> None:
    known = candidates(30)
    nearest = sorted(known, key=lambda one: distance(JobId(ACCOUNT), one.peer))
    owned = {one.peer for one in nearest[:6]}
    moved = [Candidate(one.peer, ("/ip4/9.9.9.9/tcp/1",)) if one.peer in owned else one for one in known]
    assert len(owned & set(choose_witnesses(ACCOUNT, moved, ()))) == 1


@pytest.mark.parametrize(("n", "need"), [(1, 1), (2, 2), (3, 3), (4, 3), (5, 4), (6, 5), (7, 6), (8, 6)])
def test_three_quarters_confirm(n: int, need: int) -> None:
    assert witness_threshold(n) == need


def test_a_head_is_fresh_with_the_sixth_of_eight() -> None:
    asked, _ = judge()
    assert asked.to_ask() == tuple(EIGHT)
    for number, witness in enumerate(EIGHT[:6]):
        assert asked.standing is Standing.OPEN, number
        asked.answered(witness, head(10))
    assert asked.standing is Standing.FRESH
    assert asked.to_ask() == ()
    assert asked.reason() == "6 of 8 witnesses confirm the head"


def test_one_witness_confirms_once_and_strangers_not_at_all() -> None:
    asked, _ = judge()
    for _ in range(6):
        asked.answered(EIGHT[0], head(10))
    for n in range(6):
        asked.answered(PeerId(f"stranger {n}"), head(10))
    assert asked.standing is Standing.OPEN


def test_a_withheld_feed_is_found_by_one_honest_witness_among_liars() -> None:
    asked, book = judge()
    for witness in EIGHT[:5]:
        asked.answered(witness, head(10))
    asked.answered(EIGHT[7], head(12))
    asked.answered(EIGHT[5], head(10))
    assert asked.standing is Standing.OPEN, "six confirm, but the claim is open"
    assert asked.to_fetch() == (Claim(EIGHT[7], head(12)),)
    book.entries |= {(0, 11): entry_id(11), (0, 12): entry_id(12)}
    assert asked.standing is Standing.STALE
    assert "entry 10 is not its last" in asked.reason()


def test_an_account_that_began_again_is_stale_in_its_older_incarnation() -> None:
    asked, book = judge()
    asked.answered(EIGHT[0], Head(1, 0, entry_id(0, 3)))
    book.entries[1, 0] = entry_id(0, 3)
    assert asked.standing is Standing.STALE


def test_a_claim_that_is_not_proven_does_not_hold_up_the_others() -> None:
    asked, _ = judge()
    asked.answered(EIGHT[0], head(99))
    for witness in EIGHT[1:7]:
        asked.answered(witness, head(10))
    assert asked.standing is Standing.OPEN
    asked.failed(EIGHT[0])
    assert asked.standing is Standing.FRESH


def test_three_that_lie_make_it_unproven_but_neither_stale_nor_fresh() -> None:
    asked, _ = judge()
    for witness in EIGHT[:3]:
        asked.answered(witness, head(99))
        asked.failed(witness)
    assert asked.standing is Standing.UNPROVEN
    for witness in EIGHT[3:]:
        asked.answered(witness, head(10))
    assert asked.standing is Standing.UNPROVEN


def test_a_witness_that_lags_is_told_once_and_asked_again() -> None:
    asked, _ = judge()
    asked.answered(EIGHT[0], head(7))
    asked.answered(EIGHT[1], None)
    assert asked.to_tell() == (EIGHT[0], EIGHT[1])
    assert EIGHT[0] not in asked.to_ask()
    asked.told(EIGHT[0])
    asked.told(EIGHT[1])
    assert {EIGHT[0], EIGHT[1]} <= set(asked.to_ask())
    asked.answered(EIGHT[0], head(10))
    asked.answered(EIGHT[1], head(7))
    assert asked.to_tell() == ()
    for witness in EIGHT[2:7]:
        asked.answered(witness, head(10))
    assert asked.standing is Standing.FRESH


@pytest.mark.parametrize("seq", [3, 10])
def test_another_entry_at_a_place_of_ours_is_fetched_and_the_fork_ends_it(seq: int) -> None:
    asked, _ = judge()
    for witness in EIGHT[:6]:
        asked.answered(witness, head(10))
    assert asked.standing is Standing.FRESH
    asked, _ = judge()
    asked.answered(EIGHT[0], head(seq, branch=1))
    assert asked.to_fetch() == (Claim(EIGHT[0], head(seq, branch=1)),)
    asked.forked()
    assert asked.standing is Standing.FORKED
    assert asked.to_fetch() == asked.to_ask() == asked.to_tell() == ()


def test_no_answer_counts_against_the_threshold() -> None:
    asked, _ = judge()
    for witness in EIGHT[:3]:
        asked.failed(witness)
    assert asked.standing is Standing.UNPROVEN
    assert "0 of 8 witnesses" in asked.reason()


def test_few_witnesses_decide_nothing_without_a_trusted_one() -> None:
    three = EIGHT[:3]
    asked, _ = judge(three)
    for witness in three:
        asked.answered(witness, head(10))
    assert asked.standing is Standing.UNPROVEN
    asked, _ = judge(three, trusted=(three[1],))
    for witness in three[1:]:
        asked.answered(witness, head(10))
    assert asked.standing is Standing.OPEN
    asked.answered(three[0], head(10))
    assert asked.standing is Standing.FRESH
    asked, _ = judge(three, trusted=(three[1],))
    asked.failed(three[1])
    assert asked.standing is Standing.UNPROVEN


def test_an_account_without_witnesses_is_unproven() -> None:
    asked, _ = judge([])
    assert asked.standing is Standing.UNPROVEN


def test_a_head_that_our_own_book_knows_to_be_old_is_stale_without_asking() -> None:
    asked = Freshness(head(10), EIGHT, Book(11))
    assert asked.standing is Standing.STALE
    assert asked.to_ask() == ()
