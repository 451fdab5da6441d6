"""Others' oldest entries are folded: what agents keep of them, show of them and still refuse."""

import pytest

from sparkle_ledger.agent.old_entries import TIMES, OldEntries
from sparkle_ledger.agent.old_jobs import KEEP_MS
from sparkle_ledger.agent.own import State
from sparkle_ledger.agent.serving import MAX_ACCOUNT_BYTES, Shelf
from sparkle_ledger.entries import AccountId, Entry, Hold, Restore, account_of
from sparkle_ledger.forks import ForkProof
from sparkle_protocol import effects as fx
from sparkle_protocol import messages
from sparkle_protocol.ledger_messages import EntriesReply, EntriesRequest, LedgerPush
from tests.unit.ledger.agents import SECOND, Member, World
from tests.unit.ledger.ledgers import ENTRIES, NET, Author, idle, person
from tests.unit.ledger.test_agent_closes import DAY, FIRST, JOB_DAYS, KEEP_DAYS, pass_days, settled, settled_world

FOLD_DAYS = KEEP_MS * TIMES // 1000 // DAY


def closed_world(keep: int) -> tuple[World, list[Member]]:
    """A submitter and three workers whose only job is closed; they keep so many of each other's newest entries."""
    world, job, people, keepers = settled_world(1, 0.0, 0.0)
    settled(world, job, people[0], people[1:], keepers)
    for member in people:
        member.keep_entries = keep
        member.agent._own.sign(idle(1))
        member.agent._own.sign(idle(2))
        member.hear(fx.Tick())
    world.run(1200)
    pass_days(world, JOB_DAYS + KEEP_DAYS)
    for member in people:
        world.leave(member)
        world.back(member)
    world.run(1200)
    return world, people


def folded_world(keep: int = 2) -> tuple[World, list[Member]]:
    """And it is shut."""
    world, people = closed_world(keep)
    pass_days(world, FOLD_DAYS)
    world.run(7200)
    return world, people


def account(member: Member) -> AccountId:
    return account_of(NET, member.who.public_key)


def reply_of(world: World, member: Member, asker: Member, message: messages.Request) -> messages.Reply:
    replies: dict[int, messages.Reply] = {}
    before, world.answer = world.answer, replies.__setitem__  # type: ignore[method-assign]
    member.hear(fx.Requested(FIRST, asker.peer, message))
    world.run(1)
    world.answer = before  # type: ignore[method-assign]
    return replies[FIRST]


def test_old_entries_of_others_are_folded_and_of_our_own_none_is() -> None:
    _, people = folded_world()
    before = {member.peer: member.agent.account for member in people}
    for member in people:
        assert account(member) not in member.bases
        assert member.agent.account.folded == 0
        others = {account(other) for other in people if other is not member}
        assert {one: base.seq for one, base in member.bases.items()} == dict.fromkeys(others, 1)
        assert all(closing.is_shut for closing in member.agent.book.closings())
        assert member.agent.book.sum_micro() == 0
        for other in people:
            said = member.agent.book.account(account(other))
            assert said.entries + said.folded == before[other.peer].entries
            assert (said.balance_micro, said.heads) == (before[other.peer].balance_micro, before[other.peer].heads)
        assert member.violations == []


def test_what_is_folded_is_the_same_after_a_restart() -> None:
    world, people = folded_world()
    before = [[member.agent.book.account(account(other)) for other in people] for member in people]
    for member in people:
        world.leave(member)
    for member in people:
        world.back(member)
    world.run(1200)
    assert [[member.agent.book.account(account(other)) for other in people] for member in people] == before
    assert all(member.agent.book.sum_micro() == 0 for member in people)


def test_nothing_is_folded_before_its_time() -> None:
    world, people = closed_world(2)
    pass_days(world, FOLD_DAYS - 1)
    assert not any(member.bases for member in people)
    pass_days(world, 1)
    assert all(member.bases for member in people)


def test_a_stranger_gets_nothing_of_use_from_who_folded_and_all_from_the_accounts_own_node() -> None:
    world, (first, second, *_) = folded_world()
    everything = first.agent.account.entries
    world.leave(first)
    (stranger,) = world.add(person(77))
    shown = reply_of(world, second, stranger, EntriesRequest(account(first), 0, 0))
    assert isinstance(shown, EntriesReply)
    assert ENTRIES.open(shown.entries[0]).seq == second.agent.book.account(account(first)).folded > 0
    done: list[bool] = []
    stranger.agent._fetching.feed(second.peer, account(first), done.append)
    stranger.hear(fx.Tick())
    world.run(60)
    assert done == [False]
    assert stranger.agent.book.account(account(first)).entries == 0
    world.back(first)
    world.run(600)
    assert stranger.agent.book.account(account(first)).entries == everything
    assert stranger.violations == second.violations == []


def test_who_folded_takes_what_follows_and_what_it_knew_does_no_harm() -> None:
    world, (first, second, *_) = folded_world()
    everything = [entry.raw for entry in first.agent.book.entries(account(first))]
    entry = first.agent._own.sign(idle())
    assert entry is not None
    before = second.agent.book.account(account(first))
    reply_of(world, second, first, LedgerPush([*everything, entry.raw]))
    after = second.agent.book.account(account(first))
    assert after.entries == before.entries + 1
    assert after.folded == before.folded
    assert second.violations == []
    assert not second.agent.book.waiting(account(first))


def twice(member: Member, seq: int) -> tuple[Entry, Entry]:
    """Two entries of a member for a place of its."""
    before = list(member.agent.book.entries(account(member)))[:seq]
    found: list[Entry] = []
    for number in (1, 2):
        author = Author(member.who, genesis=False)
        author.entries = list(before)
        found.append(author.state(Hold(bytes(32), number, 0)))
    return found[0], found[1]


def test_a_fork_at_a_folded_place_freezes_the_account_also_after_a_restart() -> None:
    world, (first, second, *rest) = folded_world()
    balance = second.agent.book.account(account(first)).balance_micro
    one, other = twice(first, 1)
    second.hear(fx.Requested(FIRST, rest[0].peer, LedgerPush([one.raw])))
    world.run(60)
    assert not second.agent.book.is_frozen(account(first))  # it may be the one that was folded
    second.hear(fx.Requested(FIRST, rest[0].peer, LedgerPush([one.raw, other.raw])))
    world.run(60)
    for _ in range(2):
        assert second.agent.book.fork_of(account(first)) == ForkProof.make(one, other)
        assert second.agent.book.account(account(first)).spendable_micro == 0
        assert second.agent.book.account(account(first)).balance_micro == balance
        assert second.agent.book.sum_micro() == 0
        world.leave(second)
        world.back(second)
        world.run(60)


def test_a_key_that_was_not_in_force_there_proves_no_fork_at_a_folded_place() -> None:
    world, (first, second, *rest) = folded_world()
    found = []
    for number in (1, 2):
        thief = Author(person(99), account(first), genesis=False)
        thief.entries = list(first.agent.book.entries(account(first)))[:1]
        found.append(thief.state(Hold(bytes(32), number, 0)).raw)
    second.hear(fx.Requested(FIRST, rest[0].peer, LedgerPush(found)))
    world.run(60)
    assert not second.agent.book.is_frozen(account(first))


def test_nothing_is_folded_while_something_waits_for_the_disk() -> None:
    world, people = closed_world(2)
    member = people[0]
    member.disk_fails = True
    assert member.agent._own.sign(idle(3)) is not None
    member.hear(fx.Tick())
    pass_days(world, FOLD_DAYS)
    assert not any(member.agent.book.bases())
    member.disk_fails = False
    world.run(7200)
    assert member.bases


def test_our_own_account_is_passed_over_even_if_everything_of_it_could_be_folded() -> None:
    world, (first, *_) = folded_world()
    assert first.agent.book.foldable(account(first), 1 << 62, 2) == 2
    part: OldEntries = first.agent._old_entries
    part.due_ns = world.now
    for _ in range(100):
        world.now += SECOND
        first.hear(fx.Tick())
    assert first.agent.account.folded == 0


@pytest.mark.parametrize("left", [0, 1])
def test_a_store_from_before_what_others_folded_goes_on_after_that_in_a_new_incarnation(left: int) -> None:
    """Or no store at all: whoever opens an account again opens it with the same entry."""
    world, people = closed_world(2)
    first, *others = people
    backup = {raw: None for raw in first.disk if ENTRIES.open_known(raw).account != account(first)}
    backup |= {entry.raw: None for entry in list(first.agent.book.entries(account(first)))[:left]}
    pass_days(world, FOLD_DAYS)
    world.run(7200)
    signed = list(first.agent.book.entries(account(first)))
    keepers = [member for member in world.members.values() if member not in people]
    for member in keepers:  # witnesses that know everything
        world.leave(member)
        del world.members[member.peer]
    assert all(other.agent.book.account(account(first)).folded == 2 for other in others)
    world.leave(first)
    first.disk, first.closings, first.bases = backup, {}, {}
    world.back(first)
    world.run(7200)
    for life in range(2):
        assert first.agent.account.heads.keys() == {0, 1}
        assert first.agent.state is State.READY
        restore, *later = list(first.agent.book.entries(account(first), 1))
        assert restore.payload == Restore(signed[-1].seq, signed[-1].id)
        assert len(later) == life
        assert first.agent._own.sign(idle(7 + life)) is not None
        first.hear(fx.Tick())
        world.run(1200)
        for other in others:
            said = other.agent.book.account(account(first))
            assert said.heads == first.agent.account.heads
            assert not said.frozen
            assert other.agent.book.sum_micro() == 0
            assert other.violations == []
        world.leave(first)
        world.back(first)
        world.run(1200)
    assert first.violations == []


@pytest.mark.parametrize("dealings", [True, False])
def test_what_is_folded_makes_room_for_more_of_the_account(*, dealings: bool) -> None:
    shelf, other = Shelf(AccountId(b"o" * 32)), AccountId(b"a" * 32)
    if dealings:
        shelf.concern(other)
    shelf.add(other, MAX_ACCOUNT_BYTES)
    assert not shelf.admits(other, 1)
    shelf.remove(other, 1000)
    assert shelf.admits(other, 1000)
    assert not shelf.admits(other, 1001)
    shelf.remove(AccountId(b"n" * 32), 10)  # of which nothing was counted
