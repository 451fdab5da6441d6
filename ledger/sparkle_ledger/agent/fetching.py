"""Fetches entries of accounts, and proofs about jobs, from whoever says that it has them.

A proof may have thousands of signatures. ``tick`` verifies a few of them at a time, so that a node can do other
things in between.
"""

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass

from sparkle_ledger.agent.desk import Desk
from sparkle_ledger.agent.serving import Shelf, open_entries, take_onto_shelf
from sparkle_ledger.entries import AccountId
from sparkle_ledger.proofs import ProofReading, prefixes
from sparkle_protocol import messages
from sparkle_protocol.errors import RemoteProtocolError
from sparkle_protocol.facts import MAX_RANGES
from sparkle_protocol.ids import JobId, PeerId
from sparkle_protocol.ledger_messages import (
    MAX_ASKED_RANGES,
    MAX_SEQ,
    EntriesReply,
    EntriesRequest,
    Head,
    ProofReply,
    ProofRequest,
)

NO_UNITS = MAX_RANGES - 1  # a range of hardly any job: what is shown of it is what concerns the job as a whole
MAX_PAGES = 64  # of one account from one peer at a time: 32 MB
SIGNATURES = 64  # verified at a time: less than ten milliseconds

Done = Callable[[bool], None]  # whether the peer showed something


@dataclass(frozen=True, slots=True)
class _Shown:
    """A proof that is being judged."""

    peer: PeerId
    job: JobId
    ranges: list[int]
    reading: ProofReading
    done: Callable[[list[int]], None]


class Fetching:
    """Requests that bring something into the book."""

    def __init__(self, desk: Desk, shelf: Shelf) -> None:
        self._desk = desk
        self._shelf = shelf
        self._shown: deque[_Shown] = deque()  # one of each request that was under way

    def feed(self, peer: PeerId, account: AccountId, done: Done, head: Head | None = None, back: int = 1) -> None:
        """Fetch the entries of an account after those known here; ``head``: one of them, if it is known.

        The last ``back`` of those known are asked for as well: an account that forked shows others another one there.
        ``done`` is called once there are no more of them, or the peer shows none.
        """
        known = self._desk.book.account(account)
        heads = known.heads
        incarnation = max(heads, default=0)
        first = heads[incarnation][0] + 1 - back if heads else 0
        if first < 0:
            incarnation, first = 0, 0
        if not incarnation:
            first = max(first, known.folded)
        if head is not None and (head.incarnation, head.seq) < (incarnation, first):
            incarnation, first = head.incarnation, head.seq  # another entry in a place that is known: a fork
        self._page(peer, account, incarnation, first, MAX_PAGES, done)

    def _page(self, peer: PeerId, account: AccountId, incarnation: int, first: int, left: int, done: Done) -> None:
        def answer(reply: messages.Reply | None) -> None:
            if not isinstance(reply, EntriesReply) or not reply.entries:
                done(left < MAX_PAGES)
                return
            try:
                last = self._take(account, reply, (incarnation, first))
            except RemoteProtocolError as error:
                self._desk.violation(peer, str(error))
                done(False)
                return
            if reply.more and last is not None and left > 1 and last[1] + 1 < MAX_SEQ:
                self._page(peer, account, last[0], last[1] + 1, left - 1, done)
            else:
                done(last is not None)

        self._desk.ask(peer, EntriesRequest(account, incarnation, first), answer)

    def _take(self, account: AccountId, reply: EntriesReply, start: tuple[int, int]) -> tuple[int, int] | None:
        """Take a page in; returns the last place, None if there is no room, or none of it goes with what is here.

        Whoever folded the account's older entries has only such as follow those.
        """
        of, entries = open_entries(self._desk.entries, reply.entries)
        places = [(entry.incarnation, entry.seq) for entry in entries]
        if of != account or places[0] < start or places != sorted(places):
            raise RemoteProtocolError("these are not the entries that were asked for")
        if not take_onto_shelf(self._desk, self._shelf, account, entries):
            return None
        known = account == self._desk.account or any(self._desk.book.entry(entry.id) for entry in entries)
        return places[-1] if known else None

    def proof(self, peer: PeerId, job: JobId, ranges: Collection[int], done: Callable[[list[int]], None]) -> None:
        """Fetch the proof of who is to be paid for units of some ranges of a job; ``done`` gets those shown."""
        asked = sorted(ranges)[:MAX_ASKED_RANGES]

        def answer(reply: messages.Reply | None) -> None:
            if not isinstance(reply, ProofReply):
                done([])
                return
            try:
                if reply.job != job or reply.ranges != asked[: len(reply.ranges)]:
                    raise RemoteProtocolError("this is not the proof that was asked for")
                known = self._desk.book.record(job)  # without it, what is shown may not be whole
                facts = known.counting(reply.ranges) if known is not None else ()
                reading = ProofReading(reply.proof, self._desk.facts, list(facts))
            except RemoteProtocolError as error:
                self._desk.violation(peer, str(error))
                done([])
                return
            self._shown.append(_Shown(peer, job, reply.ranges, reading, done))

        known = self._desk.book.record(job)
        have = prefixes(known, asked) if known is not None else b""
        self._desk.ask(peer, ProofRequest(job, asked, have), answer)

    def tick(self) -> None:
        """Judge a little of the proof that came first."""
        if not self._shown:
            return
        shown = self._shown[0]
        try:
            record = shown.reading.step(SIGNATURES)
            if record is not None and record.job != shown.job:
                raise RemoteProtocolError("this is the proof of another job")
        except RemoteProtocolError as error:
            self._shown.popleft()
            self._desk.violation(shown.peer, str(error))
            shown.done([])
            return
        if record is not None:
            self._shown.popleft()
            self._desk.take_record(record, shown.ranges)
            shown.done(shown.ranges)

    @property
    def due_ns(self) -> int | None:
        """When ``tick`` has something to do."""
        return self._desk.now_ns if self._shown else None
