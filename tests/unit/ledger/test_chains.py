"""Feeds are read once; what a signature vouches for is known by the links."""

from dataclasses import replace

import msgpack
import pytest

from sparkle_ledger.chains import MAX_TOLD, ChainCheck, Findings
from sparkle_ledger.entries import Entry, EntryId, Hold, Rotate, consent_to_rotate
from sparkle_protocol.ids import digest
from tests.unit.ledger.feeds import CODEC, NET, PEOPLE, feed, holds, job

ME, NEXT = PEOPLE[:2]


def checked(entries: list[Entry], *, deep: bool = False) -> ChainCheck:
    check = ChainCheck(CODEC, deep=deep)
    for entry in sorted(entries, key=lambda one: (one.account, one.incarnation, one.seq, one.id)):
        check.take(entry)
    check.end()
    return check


def unsigned(entry: Entry) -> Entry:
    """The entry with a signature that is none."""
    body, _ = msgpack.unpackb(entry.raw)
    return replace(entry, raw=bytes(msgpack.packb([body, bytes(64)])))


def rotated() -> list[Entry]:
    first = holds(ME, 3)
    account = first[0].account
    consent = NEXT.sign(consent_to_rotate(NET, account, 0, 4))
    entries = [*first, *feed(ME, [Rotate(NEXT.public_key, consent)], before=first[-1])]
    for seq in (5, 6):
        hold = Hold(job(seq), 1, 1)
        entries.append(CODEC.seal(NEXT, hold, seq=seq, prev=entries[-1].id, time_ms=1, account=account))
    return entries


def test_one_signature_vouches_for_a_whole_feed_of_one_key() -> None:
    check = checked([*holds(ME, 20), *holds(NEXT, 30)])
    assert (check.feeds, check.verified) == (2, 2)
    assert not check.violations.count + check.gaps.count + check.misdeeds.count
    assert checked(holds(ME, 20), deep=True).verified == 21


def test_damage_to_a_signature_that_nothing_rests_on_is_found_by_a_deep_check_only() -> None:
    entries = holds(ME, 5)
    entries[2] = unsigned(entries[2])
    assert checked(entries).violations.texts == []
    (found,) = checked(entries, deep=True).violations.texts
    assert found.startswith(f"entry 2 of account {entries[0].account.hex()[:12]} is not valid")


def test_a_head_that_is_not_signed_vouches_for_nothing() -> None:
    entries = holds(ME, 5)
    entries[-1] = unsigned(entries[-1])
    (found,) = checked(entries).violations.texts
    assert "entry 5" in found


def test_a_later_key_does_not_vouch_for_what_the_earlier_one_signed() -> None:
    entries = rotated()
    assert checked(entries).verified == 2
    assert checked(entries).violations.texts == []
    entries[4] = unsigned(entries[4])  # the new key could have made up that it was appointed
    (found,) = checked(entries).violations.texts
    assert "entry 4" in found


@pytest.mark.parametrize(
    ("gone", "told"), [([0], "entry 0 of"), ([3], "entry 3 of"), ([2, 3, 4], "entries 2 to 4 of")]
)
def test_missing_entries_are_told_and_what_stands_before_and_behind_is_verified(gone: list[int], told: str) -> None:
    entries = holds(ME, 9)
    check = checked([entry for entry in entries if entry.seq not in gone])
    (found,) = check.gaps.texts
    assert found.startswith(told)
    assert check.verified == (1 if gone == [0] else 2)
    assert not check.violations.count


def test_each_branch_of_a_fork_is_verified_by_its_own_end() -> None:
    entries = holds(ME, 6)
    branch = feed(ME, [Hold(job(50), 1, 1), Hold(job(51), 1, 1)], before=entries[3])
    check = checked([*entries, *branch])
    assert check.misdeeds.count == 2
    assert check.verified == 2
    assert not check.violations.count
    branch[-1] = unsigned(branch[-1])
    assert checked([*entries, *branch]).violations.count == 1


def test_a_link_to_an_entry_that_is_not_the_one_held_is_its_authors_misdeed() -> None:
    entries = holds(ME, 6)
    other = feed(ME, [Hold(job(60), 1, 1), Hold(job(61), 1, 1)], before=entries[2])[1]
    check = checked([*entries[:4], other])
    assert not check.violations.count
    (found,) = check.misdeeds.texts
    assert found.startswith("entry 4")
    assert "another entry 3" in found


def test_a_feed_that_does_not_begin_with_nothing_is_its_authors_misdeed() -> None:
    first = CODEC.seal(ME, Hold(job(1), 1, 1), seq=0, prev=EntryId(digest(b"x")), time_ms=0)
    assert checked([first]).misdeeds.count == 1


def test_findings_are_counted_beyond_what_is_kept() -> None:
    findings = Findings()
    for number in range(MAX_TOLD + 5):
        findings.add(str(number))
    assert (findings.count, len(findings.texts)) == (MAX_TOLD + 5, MAX_TOLD)
