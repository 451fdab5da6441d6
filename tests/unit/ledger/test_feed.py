"""What has a place in an account's feed, what waits, and what forks and restores do to what is already booked."""

import dataclasses
from itertools import permutations

import msgspec
import pytest

from sparkle_ledger.book import Book
from sparkle_ledger.entries import (
    MAX_MICRO,
    Entry,
    EntryCodec,
    EntryId,
    Genesis,
    Hold,
    Penalty,
    Release,
    Restore,
    Revoke,
)
from sparkle_ledger.feed import MAX_LOOSE, MAX_STRANGE
from sparkle_ledger.forks import ForkProof
from sparkle_protocol.codec import encode
from sparkle_protocol.errors import LocalProtocolError, RemoteProtocolError
from tests.unit.ledger.ledgers import ECONOMY, ENTRIES, KEEPERS, NET, Author, Job, book, person

PAYER, WORKER, OTHER, THIRD = (person(n) for n in range(1, 5))
ALL = ECONOMY.starter_micro  # what a new account can hold at most


def codes(found: Book, *entries: Entry) -> list[str]:
    given = [found.outcome(entry.id) for entry in entries]
    return [one.code if one is not None else "none" for one in given]


# --- what never gets as far ---------------------------------------------------------------------------------


def test_an_entry_of_another_network_is_not_read() -> None:
    foreign = EntryCodec("other").seal(PAYER, Genesis(), seq=0, time_ms=0)
    with pytest.raises(RemoteProtocolError, match="network"):
        ENTRIES.open(foreign.raw)


def test_a_forged_entry_is_not_read() -> None:
    genuine = ENTRIES.seal(PAYER, Genesis(), seq=0, time_ms=0).raw
    for at in range(len(genuine)):
        with pytest.raises(RemoteProtocolError):
            ENTRIES.open(genuine[:at] + bytes([genuine[at] ^ 1]) + genuine[at + 1 :])


def test_a_truncated_entry_is_not_read() -> None:
    genuine = ENTRIES.seal(PAYER, Genesis(), seq=0, time_ms=0).raw
    for length in range(len(genuine)):
        with pytest.raises(RemoteProtocolError):
            ENTRIES.open(genuine[:length])
    with pytest.raises(RemoteProtocolError):
        ENTRIES.open(genuine + b"\0")


@pytest.mark.parametrize("amount", [-1, 0, MAX_MICRO + 1, 1 << 63, (1 << 64) - 1, -(1 << 63)])
def test_amounts_beyond_their_range_are_not_read(amount: int) -> None:
    entry = ENTRIES.seal(PAYER, Hold(b"j" * 32, amount, 0), seq=1, time_ms=0)
    with pytest.raises(RemoteProtocolError):
        ENTRIES.open(entry.raw)


def test_an_amount_that_no_integer_holds_cannot_even_be_signed() -> None:
    with pytest.raises((OverflowError, msgspec.MsgspecError)):
        encode(Hold(b"j" * 32, 1 << 70, 0))


def test_the_largest_amounts_add_up_exactly() -> None:
    payer = Author(PAYER)
    found = book(payer)
    for n in range(40):
        assert found.add(payer.hold(Job(PAYER, nonce=n), MAX_MICRO)).code == "void:overdrawn"
    assert found.sum_micro() == 0
    assert found.account(payer.account).balance_micro == 0


# --- places -------------------------------------------------------------------------------------------------


def test_a_feed_with_a_gap_waits_and_says_so() -> None:
    payer = Author(PAYER)
    payer.hold(Job(PAYER, nonce=1))
    payer.hold(Job(PAYER, nonce=2))
    first, second, third = payer.entries
    found = Book(NET, ECONOMY)
    assert found.add(first).code == "booked"
    assert found.add(third).code == "gap"
    assert found.account(payer.account).balance_micro == 0
    assert found.waiting(payer.account) == [third]
    assert found.add(second).code == "booked"
    assert codes(found, third) == ["booked"]
    assert found.waiting(payer.account) == []


def test_an_author_that_forgot_entries_is_not_told_to_sign_over_them() -> None:
    payer = Author(PAYER)
    payer.hold(Job(PAYER, nonce=1))
    payer.hold(Job(PAYER, nonce=2))
    found = Book(NET, ECONOMY)
    found.add(payer.entries[0])
    assert found.next_place(payer.account) is not None
    found.add(payer.entries[2])
    assert found.next_place(payer.account) is None
    found.add(payer.entries[1])
    place = found.next_place(payer.account)
    assert place is not None
    assert place.prev == payer.entries[2].id


def test_any_order_and_repetition_comes_to_the_same() -> None:
    payer = Author(PAYER)
    for n in range(3):
        payer.hold(Job(PAYER, nonce=n), 10 + n)
    for order in permutations(payer.entries):
        found = Book(NET, ECONOMY)
        for entry in (*order, *order[:2]):
            found.add(entry)
        assert codes(found, *payer.entries) == ["booked"] * 4
        assert found.account(payer.account).balance_micro == -33


def test_the_room_for_what_waits_is_bounded_and_strangers_have_their_own() -> None:
    payer = Author(PAYER)
    found = book(payer)
    last = payer.entries[-1]

    def ahead(signer: Author, seq: int) -> Entry:
        payload = Hold(b"j" * 32, 1, 0)
        return ENTRIES.seal(
            signer.who, payload, seq=seq, prev=seq.to_bytes(32, "big"), time_ms=0, account=payer.account
        )

    stranger = Author(OTHER)
    given = [found.add(ahead(stranger, 2 + n)).code for n in range(MAX_STRANGE + 2)]
    assert given == ["gap"] * MAX_STRANGE + ["refused:too_far"] * 2
    given = [found.add(ahead(payer, 2 + n)).code for n in range(MAX_LOOSE + 1)]
    assert given == ["gap"] * MAX_LOOSE + ["refused:too_far"]
    assert found.add(payer.hold(Job(PAYER))).code == "booked"
    assert payer.entries[-1].prev == last.id


def sealed(who: Author, payload: object, **place: object) -> Entry:
    fields = {"seq": 1, "prev": who.entries[-1].id, "time_ms": 0, "account": who.account} | place
    return ENTRIES.seal(who.who, payload, **fields)  # type: ignore[arg-type]


def test_what_is_out_of_place_is_refused() -> None:
    payer, other, third = Author(PAYER), Author(OTHER), Author(THIRD)
    found = book(payer, other)
    hold = Hold(b"j" * 32, 1, 0)
    last = payer.entries[-1].id
    wrong = {
        "refused:bad_start": [
            sealed(third, Genesis(), seq=0),  # follows something
            sealed(third, hold, seq=0, prev=b"\0" * 32),
            sealed(third, Genesis(), seq=0, prev=b"\0" * 32, incarnation=1),
            sealed(third, Restore(0, last), seq=0, prev=b"\0" * 32),
        ],
        "refused:misplaced": [sealed(payer, Genesis()), sealed(payer, Restore(0, last))],
        "refused:bad_link": [
            sealed(payer, hold, seq=2),
            sealed(payer, hold, incarnation=1),
            sealed(payer, hold, prev=other.entries[-1].id),
            sealed(payer, Restore(1, last), seq=0, prev=b"\0" * 32, incarnation=1),
            sealed(payer, Restore(0, other.entries[-1].id), seq=0, prev=b"\0" * 32, incarnation=1),
        ],
        "refused:wrong_key": [
            sealed(other, hold, account=payer.account, prev=last),
            sealed(other, Genesis(), account=payer.account, seq=0, prev=b"\0" * 32),
            sealed(other, Restore(0, last), account=payer.account, seq=0, prev=b"\0" * 32, incarnation=1),
        ],
    }
    for reason, entries in wrong.items():
        assert [found.add(entry).code for entry in entries] == [reason] * len(entries), reason
    assert found.fork_proofs() == []
    assert [found.account(one.account).entries for one in (payer, other)] == [1, 1]
    assert found.add(other.hold(Job(OTHER))).code == "booked"


def test_an_entry_from_the_future_waits_for_those_before_it() -> None:
    """The clock of its author decides nothing; its place does."""
    payer = Author(PAYER)
    found = book(payer)
    late = payer.state(Hold(Job(PAYER).id, 1, 0), time_ms=(1 << 53) - 1)
    assert found.add(late).code == "booked"
    beyond = sealed(payer, Hold(b"j" * 32, 1, 0), seq=(1 << 40) - 1, prev=b"p" * 32)
    assert found.add(beyond).code == "gap"
    assert found.account(payer.account).balance_micro == -1


# --- forks --------------------------------------------------------------------------------------------------


class Forked:
    """A payer that signs two Holds for one place, each of all that it has."""

    def __init__(self) -> None:
        self.payer, self.worker = Author(PAYER), Author(WORKER)
        self.branch = self.payer.twin()
        self.job = Job(PAYER, price=ALL // 2, replicas=1, keepers=KEEPERS)
        self.other_job = Job(PAYER, price=ALL // 2, replicas=1, nonce=1)
        self.hold = self.payer.hold(self.job)
        self.other_hold = self.branch.hold(self.other_job)


def test_two_entries_in_one_place_freeze_the_account() -> None:
    scene = Forked()
    for entries in permutations([scene.hold, scene.other_hold]):
        found = book(scene.payer)
        for entry in entries:
            found.add(entry)
        assert codes(found, scene.hold, scene.other_hold) == ["void:forked"] * 2
        account = found.account(scene.payer.account)
        assert (account.frozen, account.balance_micro, account.spendable_micro) == (True, 0, 0)
        assert found.next_place(scene.payer.account) is None
        assert found.fork_proofs() == [ForkProof.make(scene.hold, scene.other_hold)]
        assert found.add(scene.payer.twin().hold(Job(PAYER, nonce=9))).code == "void:forked"
        assert found.sum_micro() == 0


def test_a_fork_takes_nothing_from_workers_whose_results_were_accepted() -> None:
    """Nobody is made to lose pay by a second entry that its payer signs later."""
    scene = Forked()
    work = scene.worker.work(scene.job, 0, 1)
    found = book(scene.payer, scene.worker)
    found.add_record(scene.job.record(scene.job.accepted([WORKER])))
    assert codes(found, work) == ["booked"]
    found.add(scene.other_hold)
    assert codes(found, scene.hold, scene.other_hold, work) == ["booked", "void:forked", "booked"]
    assert found.account(scene.worker.account).balance_micro == ALL
    assert found.sum_micro() == 0


def test_each_branch_of_a_fork_spends_no_more_than_the_account_had() -> None:
    scene = Forked()
    found = book(scene.payer, scene.branch)
    more = Job(PAYER, price=1, replicas=1, nonce=2)
    over = scene.branch.hold(more)
    found.add(over)
    for job in (scene.job, scene.other_job, more):
        found.add_record(job.record(job.accepted([WORKER])))
    assert codes(found, scene.hold, scene.other_hold, over) == ["booked", "booked", "void:forked"]


def test_work_of_an_account_that_forked_still_counts() -> None:
    payer, worker, job = Author(PAYER), Author(WORKER), Job(PAYER)
    payer.hold(job)
    branch = worker.twin()
    one, other = worker.work(job, 0), branch.work(job, 1)
    twice = branch.work(job, 0)
    found = book(payer, worker, branch)
    found.add_record(job.record(job.accepted([WORKER])))
    assert codes(found, one, other, twice) == ["booked", "booked", "void:settled"]
    assert found.account(worker.account).balance_micro == 20
    assert found.account(worker.account).frozen


def test_an_entry_that_waits_proves_a_fork_by_its_place() -> None:
    """Whoever hides what came before its second entry is found out all the same."""
    payer = Author(PAYER)
    payer.hold(Job(PAYER, nonce=1), 1)
    payer.hold(Job(PAYER, nonce=2), 1)
    hidden = sealed(payer, Hold(b"j" * 32, 1, 0), seq=2, prev=b"?" * 32)
    for late in (False, True):
        found = Book(NET, ECONOMY)
        for entry in [*payer.entries, hidden] if late else [hidden, *payer.entries]:
            found.add(entry)
        assert found.account(payer.account).frozen
        assert codes(found, *payer.entries) == ["booked", "booked", "void:forked"]


def test_nobody_can_accuse_an_account_with_another_key() -> None:
    payer, liar = Author(PAYER), Author(OTHER)
    payer.hold(Job(PAYER), 1)
    found = book(payer, liar)
    pair = [sealed(liar, Hold(b"j" * 32, n, 0), account=payer.account, prev=payer.entries[0].id) for n in (1, 2)]
    assert found.add(liar.state(ForkProof.make(*pair).encode())).code == "booked"
    assert found.fork_proofs() == []
    assert not found.account(payer.account).frozen


def test_a_key_that_was_rotated_away_cannot_fork_what_came_after() -> None:
    payer = Author(PAYER)
    old = payer.twin()
    payer.rotate(OTHER)
    payer.hold(Job(OTHER), 1)
    found = book(payer)
    for n in (1, 2):
        found.add(sealed(old, Hold(b"j" * 32, n, 0), seq=2, prev=payer.entries[1].id))
    assert not found.account(payer.account).frozen


def test_a_penalty_brings_the_fork_to_whoever_did_not_know_it() -> None:
    scene, witness = Forked(), Author(OTHER)
    proof = ForkProof.make(scene.hold, scene.other_hold)
    penalty = witness.state(proof.encode())
    found = book(witness)
    assert codes(found, penalty) == ["booked"]
    found.add(scene.payer.entries[0])  # now the feed shows that it was the account's own key
    assert found.account(scene.payer.account).frozen
    assert found.fork_proofs() == [proof]


@pytest.mark.parametrize("wrong", ["one", "places", "keys", "forged", "network"])
def test_a_penalty_that_proves_nothing_is_void(wrong: str) -> None:
    scene, witness = Forked(), Author(OTHER)
    good = ForkProof.make(scene.hold, scene.other_hold).encode()
    other_net = EntryCodec("other").seal(PAYER, Genesis(), seq=0, time_ms=0).raw
    proof = {
        "one": Penalty(good.first, good.first),
        "places": Penalty(scene.payer.entries[0].raw, good.first),
        "keys": Penalty(sealed(witness, Genesis(), account=scene.payer.account).raw, good.first),
        "forged": Penalty(good.first, good.second[:-1] + bytes([good.second[-1] ^ 1])),
        "network": Penalty(good.first, other_net),
    }[wrong]
    found = book(scene.payer, witness)
    assert found.add(witness.state(proof)).code == "void:bad_proof"
    assert not found.account(scene.payer.account).frozen


def test_a_proof_survives_the_wire_and_only_real_ones_are_made() -> None:
    scene = Forked()
    proof = ForkProof.make(scene.other_hold, scene.hold)
    assert proof == ForkProof.make(scene.hold, scene.other_hold)
    assert ForkProof.decode(proof.encode(), ENTRIES) == proof
    assert proof.place == scene.hold.place
    for one, other in [(scene.hold, scene.hold), (scene.hold, scene.payer.entries[0])]:
        with pytest.raises(LocalProtocolError):
            ForkProof.make(one, other)
    unsigned = dataclasses.replace(scene.hold, key=OTHER.public_key)
    with pytest.raises(LocalProtocolError):
        ForkProof.make(unsigned, scene.other_hold)


# --- restores -----------------------------------------------------------------------------------------------


def test_an_account_goes_on_in_a_new_incarnation() -> None:
    payer = Author(PAYER)
    payer.hold(Job(PAYER, nonce=1), 600)
    payer.restore()
    payer.hold(Job(PAYER, nonce=2), 400)
    over = payer.hold(Job(PAYER, nonce=3), 1)
    found = Book(NET, ECONOMY)
    found.add_all(reversed(payer.entries))
    assert codes(found, *payer.entries) == ["booked"] * 4 + ["void:overdrawn"]
    account = found.account(payer.account)
    assert (account.balance_micro, account.frozen) == (-1000, False)
    assert account.heads == {0: (1, payer.entries[1].id), 1: (2, over.id)}
    place = found.next_place(payer.account)
    assert place is not None
    assert (place.incarnation, place.seq, place.prev) == (1, 3, over.id)


def test_what_a_restore_forgot_is_void_unless_workers_relied_on_it() -> None:
    payer = Author(PAYER)
    forgotten, job = payer.twin(), Job(PAYER, nonce=1, price=ALL // 2, replicas=1)
    lost = forgotten.hold(job)
    payer.restore()
    spent = payer.hold(Job(PAYER, nonce=2), ALL)
    found = book(forgotten)
    assert codes(found, lost) == ["booked"]
    found.add_all(payer.entries)
    assert not found.account(payer.account).frozen
    assert codes(found, lost, spent) == ["void:cut", "booked"]
    found.add_record(job.record(job.accepted([WORKER])))
    assert codes(found, lost, spent) == ["booked", "void:overdrawn"]
    assert found.account(payer.account).balance_micro == -ALL
    assert found.account(payer.account).spendable_micro == 0


def test_work_that_a_restore_forgot_counts_once() -> None:
    payer, worker, job = Author(PAYER), Author(WORKER), Job(PAYER)
    payer.hold(job)
    forgotten = worker.twin()
    lost = forgotten.work(job, 0)
    worker.restore()
    again, more = worker.work(job, 0), worker.work(job, 1)
    for entries in (worker.entries + forgotten.entries, forgotten.entries + worker.entries):
        found = book(payer)
        found.add_record(job.record(job.accepted([WORKER])))
        for entry in entries:
            found.add(entry)
        assert codes(found, lost, again, more) == ["booked", "void:settled", "booked"]
        assert found.account(worker.account).balance_micro == 20


def test_a_key_out_of_force_cannot_begin_anew_from_before() -> None:
    payer, thief = Author(PAYER), None
    thief = payer.twin()
    payer.rotate(OTHER)
    own = payer.hold(Job(OTHER), 5)
    thief.restore(payer.entries[0])
    stolen = thief.hold(Job(PAYER, nonce=7), 500)
    for entries in (payer.entries + thief.entries, thief.entries + payer.entries):
        found = Book(NET, ECONOMY)
        for entry in entries:
            found.add(entry)
        assert codes(found, own, stolen, thief.entries[-2]) == ["booked", "void:revoked", "void:revoked"]
        account = found.account(payer.account)
        assert (account.balance_micro, account.key, account.frozen) == (-5, OTHER.public_key, False)
        place = found.next_place(payer.account)
        assert place is not None
        assert place.prev == own.id


def test_a_revoked_account_cannot_begin_anew() -> None:
    payer = Author(PAYER)
    thief = payer.twin()
    payer.state(Revoke())
    thief.restore(payer.entries[0])
    stolen = thief.hold(Job(PAYER, nonce=7), 500)
    found = book(payer, thief)
    assert codes(found, stolen) == ["void:revoked"]
    assert found.account(payer.account).key is None


def test_two_restores_in_one_place_are_a_fork() -> None:
    payer = Author(PAYER)
    payer.hold(Job(PAYER), 1)
    twin = payer.twin()
    payer.restore()
    twin.restore(twin.entries[0])
    found = book(payer, twin)
    assert found.account(payer.account).frozen
    assert codes(found, payer.entries[1], payer.entries[-1], twin.entries[-1]) in (
        ["booked", "void:forked", "void:forked"],
        ["void:cut", "void:forked", "void:forked"],
    )


def test_what_two_incarnations_release_is_released_once() -> None:
    payer, job = Author(PAYER), Job(PAYER)
    payer.hold(job)
    forgotten = payer.twin()
    back = forgotten.state(Release(job.id, 40))
    payer.restore()
    again = payer.state(Release(job.id, 40))
    found = book(payer, forgotten)
    found.add_record(job.record(job.accepted([WORKER])))
    assert codes(found, back, again) == ["void:cut", "booked"]
    assert found.escrow(job.id).balance_micro == 20
    assert found.sum_micro() == 0


def test_an_entry_is_known_by_its_id() -> None:
    payer = Author(PAYER)
    found = book(payer)
    assert found.entry(payer.entries[0].id) is payer.entries[0]
    assert found.entry(EntryId(b"?" * 32)) is None
