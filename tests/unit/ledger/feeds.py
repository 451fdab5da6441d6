"""Real signed feeds for tests of what keeps and reads them."""

from collections.abc import Iterable

from sparkle_ledger.entries import NO_PREV, Entry, EntryCodec, Genesis, Hold, Payload
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import digest

NET = "test"
CODEC = EntryCodec(NET)
PEOPLE = [Identity.from_private_bytes(bytes([n]) * 32) for n in range(1, 9)]


def job(number: int) -> bytes:
    return digest(b"job", number.to_bytes(4, "big"))


def feed(person: Identity, payloads: Iterable[Payload], before: Entry | None = None) -> list[Entry]:
    """Entries of a person, linked; the first after ``before``, or the opening of its account."""
    entries: list[Entry] = []
    for payload in payloads:
        prev, seq = (before.id, before.seq + 1) if before else (NO_PREV, 0)
        before = CODEC.seal(person, payload, seq=seq, prev=prev, time_ms=seq)
        entries.append(before)
    return entries


def holds(person: Identity, count: int) -> list[Entry]:
    """An account that was opened and that put something into escrow so many times."""
    return feed(person, [Genesis(), *(Hold(job(n), 1000 + n, 1 << 40) for n in range(count))])
