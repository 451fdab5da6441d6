"""Small worlds of accounts that work, pay, cheat and forget, and what must hold of every book about them."""

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from sparkle_ledger.book import Book
from sparkle_ledger.economy import Economy
from sparkle_ledger.entries import (
    NO_PREV,
    Entry,
    EntryId,
    Hold,
    Release,
    Restore,
    Revoke,
    Rotate,
    Settled,
    Work,
    account_of,
)
from sparkle_ledger.evidence import JobRecord
from sparkle_protocol.ids import key_from_peer_id
from tests.unit.ledger.ledgers import ENTRIES, KEEPERS, NET, Author, Job, idle, person

PEOPLE = [person(n) for n in range(1, 5)]
SPARES = [person(n) for n in range(51, 55)]  # the keys that they rotate to
WORKERS = [*PEOPLE, *SPARES]
UNITS = 2
ECONOMY = Economy(limit_max_micro=300, starter_micro=400)
Action = tuple[int, int, int, int]  # kind, who, and two that say which
Executed = tuple[bytes, int, int, bytes]  # job, unit, epoch, worker's key


@lru_cache
def jobs() -> list[Job]:
    """Two of everybody's, one of them kept by four keepers. One worker more than anybody names would be paid."""
    return [
        Job(who, UNITS, price=10, replicas=len(WORKERS), keepers=KEEPERS if second else (), nonce=second)
        for who in PEOPLE
        for second in (0, 1)
    ]


@lru_cache(None)
def said(job: int, worker: int, units: tuple[int, ...], enough: bool) -> JobRecord:
    """What proves that a worker's results were accepted; or one keeper's word for it only."""
    found = jobs()[job]
    facts = found.accepted([WORKERS[worker]], units)
    if not enough:
        wrong = found.verdict([WORKERS[worker]], units, by=KEEPERS[0])
        facts = [found.view, wrong, *found.words(wrong, KEEPERS[1:2])]
    return found.record(*facts)


@lru_cache
def called_off(job: int) -> JobRecord:
    found = jobs()[job]
    return found.record(found.cancel())


Item = Entry | JobRecord


@dataclass
class World:
    """Everything that was ever signed."""

    items: list[Item]
    true: set[Executed]  # what the keepers accepted


KINDS = 14


def play(actions: list[Action]) -> World:
    """What the people sign when they do these things."""
    world = World([], set())
    authors = [[Author(who)] for who in PEOPLE]
    holds: dict[bytes, list[Entry]] = {}
    works: list[Entry] = []
    for kind, who, a, b in actions:
        author = authors[who % 4][a % len(authors[who % 4])]
        job = jobs()[b % 8]
        if kind <= 1:
            own = jobs()[(who % 4) * 2 + a % 2] if b < 30 else job
            amount = (own.cover, own.cover, own.cover + 5, own.price, 3 * own.cover)[b % 5]
            holds.setdefault(own.id, []).append(author.state(Hold(own.id, amount, 0)))
        elif kind <= 4 and holds.get(job.id):
            hold = holds[job.id][a % len(holds[job.id])]
            units = [Settled(unit, 0) for unit in ((0,), (1,), (0, 1))[a % 3]]
            price = job.price * len(units) + (b >= 28)
            key = author.key if a < 28 else WORKERS[b % 8].public_key
            works.append(author.state(Work(job.id, hold.account, hold.id, key, price, units)))
        elif kind == 5:
            author.state(Release(jobs()[(who % 4) * 2 + a % 2].id, (40, 160, 1000)[b % 3]))
        elif kind == 6:
            author.state(idle(a))
        elif kind <= 8:
            _accept(world, works[a % len(works)] if works else None, b, who)
        elif kind == 9:
            world.items.append(called_off(b % 8))
        elif b % 2 and kind >= 10:
            _cheat(kind, authors[who % 4], author, who % 4, a)
    for branches in authors:
        world.items += {entry.id: entry for one in branches for entry in one.entries}.values()
    return world


def _accept(world: World, claim: Entry | None, which: int, how: int) -> None:
    """Somebody's work on a job, as a rule what it claims, is accepted; or one keeper says so."""
    job, worker = which % 8, which % 5
    if claim is not None and isinstance(claim.payload, Work) and which < 24:
        job = [one.id for one in jobs()].index(claim.payload.job)
        worker = [one.public_key for one in WORKERS].index(claim.payload.worker)
    units = ((0,), (1,), (0, 1), (0, 1))[how % 4]
    kept = jobs()[job].keepers == KEEPERS
    enough = not kept or how != 3
    world.items.append(said(job, worker, units, enough))
    key = WORKERS[worker].public_key
    if enough and WORKERS[worker] is not jobs()[job].by:
        world.true |= {(jobs()[job].id, unit, 0, key) for unit in units}


def _cheat(kind: int, branches: list[Author], author: Author, who: int, a: int) -> None:
    if kind == 10 and len(branches) < 4:
        twin = author.twin()
        del twin.entries[1 + a % len(twin.entries) :]
        twin.incarnation = twin.entries[-1].incarnation
        branches.append(twin)
    elif kind == 11 and author.incarnation < 3:
        latest = [entry for entry in author.entries if entry.incarnation == author.incarnation]
        author.restore(latest[a % len(latest)])
    elif kind == 12 and author.who is not SPARES[who]:
        old = author.who
        author.rotate(SPARES[who], consents=None if a % 3 else old)
        if a % 3 == 1:  # the old key goes on signing
            thief = author.twin()
            thief.who, thief.key = old, old.public_key
            branches.append(thief)
    elif kind == 13:
        if a == 3:
            author.state(Revoke())
        else:
            _skip(author)


def _skip(author: Author) -> None:
    """Sign the entry after the next one as if that were there."""
    last = author.entries[-1]
    ahead = ENTRIES.seal(
        author.who, Hold(jobs()[0].id, 1, 0), seq=last.seq + 2, prev=last.id, time_ms=0,
        incarnation=author.incarnation, account=author.account,
    )  # fmt: skip
    author.entries.insert(-1, ahead)


def drawn(seed: int, length: int = 60) -> list[Action]:
    """The actions of a seed."""
    random = Random(seed)
    return [
        (random.randrange(KINDS), random.randrange(4), random.randrange(32), random.randrange(32))
        for _ in range(length)
    ]


# --- what must hold ---------------------------------------------------------------------------------------------


def give(book: Book, item: Item) -> None:
    if isinstance(item, Entry):
        book.add(item)
    else:
        book.add_record(item)


def in_order(world: World, seed: int) -> list[Item]:
    """In an order of its own, some of it twice."""
    random = Random(seed)
    items = [*world.items, *random.choices(world.items, k=len(world.items) // 4)]
    random.shuffle(items)
    return items


def says(book: Book, world: World) -> object:
    """Everything that one can ask a book."""
    accounts = {account: book.account(account) for account in sorted(book.accounts())}
    entries = [item for item in world.items if isinstance(item, Entry)]
    return (
        accounts,
        {account: book.pair_totals(account) for account in accounts},
        {entry.id: book.outcome(entry.id) for entry in entries},
        [(job.id, book.escrow(job.id), book.unsettled(job.id), sorted(book.settled(job.id))) for job in jobs()],
        sorted((proof.first.id, proof.second.id) for proof in book.fork_proofs()),
        {account: book.next_place(account) for account in accounts},
    )


def adds_up(book: Book) -> None:
    """At every moment."""
    assert book.sum_micro() == 0
    for _, _, escrow in book.money.all_escrows():
        assert escrow.balance_micro >= 0
        assert min(escrow.held_micro, escrow.paid_micro, escrow.released_micro) >= 0


def is_right(book: Book, world: World) -> None:
    """By what was signed and accepted, worked out here without the book's rules."""
    adds_up(book)
    entries = {item.id: item for item in world.items if isinstance(item, Entry)}
    booked = {one for one in entries if (outcome := book.outcome(one)) is not None and outcome.counts}
    prices = {job.id: job.price for job in jobs()}
    settled: Counter[Executed] = Counter()
    for one in booked:
        work = entries[one].payload
        if isinstance(work, Work):
            settled.update((work.job, unit.unit, unit.epoch, work.worker) for unit in work.units)
    assert all(count == 1 for count in settled.values()), "settled twice"
    assert settled.keys() <= world.true, "paid for what nobody accepted"
    earned = sum(book.account(account).earned_micro for account in book.accounts())
    assert earned == sum(prices[execution[0]] for execution in settled), "not the price of what was accepted"
    for one in booked:
        _stands(entries[one], entries)
    _within_limits(book, entries, booked)
    _nothing_after_forks(entries, booked, world)


def _stands(entry: Entry, entries: dict[EntryId, Entry]) -> None:
    """Every entry before it is there, and its key was the account's."""
    path = [entry]
    while path[-1].seq or path[-1].incarnation:
        last = path[-1]
        before = entries.get(EntryId(last.payload.last) if isinstance(last.payload, Restore) else last.prev)
        assert before is not None, "booked beyond a gap"
        if not isinstance(last.payload, Restore):
            assert (before.incarnation, before.seq) == (last.incarnation, last.seq - 1), "booked beyond a gap"
        path.append(before)
    assert path[-1].prev == NO_PREV
    key = path[-1].key
    assert account_of(NET, key) == entry.account
    for one in reversed(path):
        assert one.key == key, "signed by a key out of force"
        if isinstance(one.payload, Rotate) and one.payload.key in consenting(one):
            key = one.payload.key


def consenting(entry: Entry) -> set[bytes]:
    """The spare key of an account is the only one that ever agrees to sign for it."""
    mine = [n for n, who in enumerate(PEOPLE) if account_of(NET, who.public_key) == entry.account]
    assert isinstance(entry.payload, Rotate)
    agreed = SPARES[mine[0]].sign(agreement(entry)) == entry.payload.consent
    return {SPARES[mine[0]].public_key} if agreed else set()


def agreement(entry: Entry) -> bytes:
    place = entry.incarnation.to_bytes(8, "big") + entry.seq.to_bytes(8, "big")
    return b"sparkle/rotate/1\x00" + NET.encode() + b"\x00" + entry.account + place


def _within_limits(book: Book, entries: dict[EntryId, Entry], booked: set[EntryId]) -> None:
    """An account with one path held no more than it got and might owe, and only for jobs of its own."""
    owners = {job.id: key_from_peer_id(job.spec.author) for job in jobs()}
    for account in book.accounts():
        own = [one for one in entries.values() if one.account == account]
        held = sum(one.payload.amount_micro for one in own if one.id in booked and isinstance(one.payload, Hold))
        back = sum(one.payload.amount_micro for one in own if isinstance(one.payload, Release))
        paths = 1 + sum(isinstance(one.payload, Restore) for one in own)
        places = Counter((one.incarnation, one.seq) for one in own if book.outcome(one.id) is not None)
        if paths == 1 and max(places.values(), default=0) == 1:
            earned = book.account(account).earned_micro
            limit = min(ECONOMY.limit_max_micro, earned) + ECONOMY.starter_micro
            assert held <= earned + back + limit, "held beyond the limit"
        for one in own:
            if one.id in booked and isinstance(one.payload, Hold) and book.record(one.payload.job) is not None:
                assert account_of(NET, owners[one.payload.job]) == account, "held for another's job"


def _nothing_after_forks(entries: dict[EntryId, Entry], booked: set[EntryId], world: World) -> None:
    """A Hold beside or after a fork counts for nothing but work that was accepted."""
    relied = {execution[0] for execution in world.true}
    for one in booked:
        hold = entries[one]
        own = [other for other in entries.values() if other.account == hold.account]
        if any(isinstance(other.payload, Restore | Rotate | Revoke) for other in own):
            continue
        if isinstance(hold.payload, Hold) and hold.payload.job not in relied:
            twice = [seq for seq, count in Counter(other.seq for other in own).items() if count > 1]
            assert hold.seq < min(twice, default=hold.seq + 1), "held after a fork"
