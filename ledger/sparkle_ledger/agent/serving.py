"""Answers others' requests about the ledger, and takes what they push: of accounts that concern this node.

Rules
-----
- An account *concerns* a node that had dealings with it: its own, those that it paid or that paid it, and what these
  rest on. Of any other the node takes what the account's own peer brings, as long as there is room: it may be one of
  its witnesses.
- One account gets at most ``MAX_ACCOUNT_BYTES``, strangers together ``MAX_STRANGERS`` accounts and ``MAX_BYTES``. So
  strangers with any number of keys cannot keep a node from taking what concerns it.
- Two entries that prove a fork are taken from anybody where they show by themselves whose key it was.
- Nothing is said to be known here before it is durable here.
"""

from collections.abc import Callable

from sparkle_ledger.agent.desk import SECOND_NS, Desk
from sparkle_ledger.agent.stored import Stored
from sparkle_ledger.entries import AccountId, Entry, EntryCodec, EntryId, Genesis, Restore, account_of
from sparkle_ledger.evidence import JobRecord
from sparkle_ledger.proofs import encode_proof
from sparkle_protocol import effects as fx
from sparkle_protocol import messages
from sparkle_protocol.errors import LocalProtocolError, RemoteProtocolError
from sparkle_protocol.ids import JobId, key_from_peer_id
from sparkle_protocol.ledger_messages import (
    MAX_ENTRIES,
    MAX_PROOF_BYTES,
    PAGE_BYTES,
    PREFIX_BYTES,
    EntriesReply,
    EntriesRequest,
    HeadsReply,
    HeadsRequest,
    LedgerPush,
    ProofReply,
    ProofRequest,
)

MAX_ACCOUNT_BYTES = 32 << 20  # of one account but our own: a hundred thousand entries
MAX_BYTES = 256 << 20  # of all accounts that do not concern this node
MAX_STRANGERS = 4096
MAX_CONCERNS = 1 << 16
RECORDS = 4  # jobs whose evidence is kept ready for the next request
FRESH_NS = SECOND_NS  # for so long
FROZEN_NS = 10 * SECOND_NS  # between two messages with entries of a forked account: its whole feed is judged anew
MAX_FROZEN = 1024  # accounts of which it is known when the last one came

KeptRecord = Callable[[JobId], JobRecord | None]
TakeFork = Callable[[Entry, Entry], None]


class Shelf:
    """Whose entries are kept here, and how much of each."""

    def __init__(self, own: AccountId) -> None:
        self._own = own
        self._concerns: dict[AccountId, None] = {own: None}
        self._bytes: dict[AccountId, int] = {}
        self._strange_bytes = 0
        self._strangers = 0

    def concern(self, account: AccountId) -> None:
        """There are dealings with an account."""
        if account in self._concerns or len(self._concerns) >= MAX_CONCERNS:
            return
        self._concerns[account] = None
        if account in self._bytes:
            self._strangers -= 1
            self._strange_bytes -= self._bytes[account]

    def concerns(self, account: AccountId) -> bool:
        """Whether there are."""
        return account in self._concerns

    def admits(self, account: AccountId, size: int) -> bool:
        """There is room for so many bytes more of an account."""
        if account == self._own:
            return True
        if self._bytes.get(account, 0) + size > MAX_ACCOUNT_BYTES:
            return False
        if account in self._concerns:
            return True
        known = account in self._bytes
        return (known or self._strangers < MAX_STRANGERS) and self._strange_bytes + size <= MAX_BYTES

    def remove(self, account: AccountId, size: int) -> None:
        """So much of it is folded."""
        if account in self._bytes:
            self._bytes[account] -= size
            if account not in self._concerns:
                self._strange_bytes -= size

    def add(self, account: AccountId, size: int) -> None:
        """So much more is kept of it."""
        if account not in self._concerns:
            self._strangers += account not in self._bytes
            self._strange_bytes += size
        self._bytes[account] = self._bytes.get(account, 0) + size


def take_onto_shelf(desk: Desk, shelf: Shelf, account: AccountId, entries: list[Entry]) -> bool:
    """Take entries of one account in as far as there is room; False: not all were.

    Those of others are taken only where they have a place at once: what waits would be room that nobody accounts for.
    """
    with desk.book.together():  # a feed that forked is judged again once for all of them
        for entry in entries:
            if desk.book.entry(entry.id) is None and (account == desk.account or _attaches(desk, entry)):
                if not shelf.admits(account, len(entry.raw)):
                    return False
                desk.take_in((entry,))
                if desk.book.entry(entry.id) is not None:
                    shelf.add(account, len(entry.raw))
    return True


def _attaches(desk: Desk, entry: Entry) -> bool:
    """The entry that it follows is known, or it opens an account."""
    payload = entry.payload
    before = EntryId(payload.last) if isinstance(payload, Restore) else entry.prev
    return isinstance(payload, Genesis) or desk.book.entry(before) is not None


def open_entries(codec: EntryCodec, raws: list[bytes]) -> tuple[AccountId, list[Entry]]:
    """Verified entries of a message, all of one account.

    Raises:
        RemoteProtocolError: they are not.
    """
    entries = [codec.open(raw) for raw in raws]
    account = entries[0].account
    if any(entry.account != account for entry in entries):
        raise RemoteProtocolError("entries of two accounts in one message")
    return account, entries


class Serving:
    """Answers."""

    def __init__(
        self, desk: Desk, shelf: Shelf, stored: Stored, kept_record: KeptRecord, take_fork: TakeFork
    ) -> None:
        self._desk = desk
        self._shelf = shelf
        self._stored = stored
        self._kept_record = kept_record
        self._take_fork = take_fork
        self._records: dict[JobId, tuple[int, JobRecord]] = {}
        self._frozen: dict[AccountId, int] = {}  # when entries of a forked account came last

    def requested(self, event: fx.Requested) -> None:
        """Answer a request, now or once that is durable which the answer rests on."""
        message = event.message
        try:
            if isinstance(message, HeadsRequest):
                heads = [self._desk.kept_head(AccountId(account)) for account in message.accounts]
                self._reply(event, HeadsReply(heads))
            elif isinstance(message, EntriesRequest):
                self._reply(event, self._entries(message))
            elif isinstance(message, LedgerPush):
                self._pushed(event, message)
            elif isinstance(message, ProofRequest):
                self._proof(event, message)
            else:
                self._reply(event, messages.Refusal("unserved", "this is no request about the ledger"))
        except RemoteProtocolError as error:
            self._desk.violation(event.peer, str(error))
            self._reply(event, messages.Refusal("protocol", str(error)[:400]))

    def _reply(self, event: fx.Requested, message: messages.Reply) -> None:
        self._desk.do(fx.Reply(event.token, message))

    def _entries(self, message: EntriesRequest) -> EntriesReply:
        raws: list[bytes] = []
        size, count, last = 0, 0, None
        for entry in self._desk.kept_entries(AccountId(message.account), message.incarnation, message.first):
            count = count + 1 if entry.place == last else 1
            full = len(raws) >= MAX_ENTRIES - 1 or size + len(entry.raw) > PAGE_BYTES
            if full and raws and count == 1:  # both of a place go together
                return EntriesReply(raws, more=True)
            last = entry.place
            if count <= 2:  # they prove the fork
                raws.append(entry.raw)
                size += len(entry.raw)
        return EntriesReply(raws)

    def _pushed(self, event: fx.Requested, message: LedgerPush) -> None:
        desk = self._desk
        if desk.behind:
            self._reply(event, messages.Refusal("storage", "the disk of this node does not keep up"))
            return
        account, entries = open_entries(desk.entries, message.entries)
        own = account_of(desk.book.network, key_from_peer_id(event.peer)) == account
        if not own and len(entries) == 2 and entries[0].place == entries[1].place:
            self._take_fork(entries[0], entries[1])
            desk.when_kept(lambda: self._reply(event, HeadsReply([desk.kept_head(account)])))
            return
        if not own and not self._shelf.concerns(account):
            self._reply(event, messages.Refusal("stranger", "this node keeps no entries of that account"))
            return
        if self._too_soon(account):
            self._reply(event, messages.Refusal("busy", "entries of this account, which forked, came just now"))
            return
        if not take_onto_shelf(desk, self._shelf, account, entries):
            self._reply(event, messages.Refusal("quota", "there is no room here for more entries of that account"))
            return
        desk.when_kept(lambda: self._reply(event, HeadsReply([desk.kept_head(account)])))

    def _too_soon(self, account: AccountId) -> bool:
        """A forked account has brought entries just now."""
        if not self._desk.book.is_frozen(account):
            return False
        now_ns = self._desk.now_ns
        last_ns = self._frozen.pop(account, None)
        self._frozen[account] = now_ns
        if len(self._frozen) > MAX_FROZEN:
            del self._frozen[next(iter(self._frozen))]
        if last_ns is None or now_ns - last_ns >= FROZEN_NS:
            return False
        self._frozen[account] = last_ns
        return True

    def _proof(self, event: fx.Requested, message: ProofRequest) -> None:
        if len(message.have) % PREFIX_BYTES:
            raise RemoteProtocolError("what is known is not told in whole prefixes")
        job = JobId(message.job)
        record = self._record(job)
        if record is not None or self._desk.book.closing(job) is None:
            self._reply(event, _proof_of(record, message))
        elif not self._stored.find(job, lambda found: self._reply(event, _proof_of(found, message))):
            self._reply(event, messages.Refusal("busy", "others wait for what the disk of this node has about jobs"))

    def _record(self, job: JobId) -> JobRecord | None:
        made_ns, record = self._records.get(job, (0, None))
        if record is not None and self._desk.now_ns - made_ns < FRESH_NS:
            return record
        record = self._kept_record(job)
        if record is None:
            return self._desk.book.record(job)
        self._records.pop(job, None)
        while len(self._records) >= RECORDS:
            del self._records[next(iter(self._records))]
        self._records[job] = (self._desk.now_ns, record)
        return record


def _proof_of(record: JobRecord | None, message: ProofRequest) -> messages.Reply:
    """What is asked for, or as much of it as fits into a message."""
    if record is None:
        return messages.Refusal("unknown_job", "nothing is known here about that job")
    have = {message.have[at : at + PREFIX_BYTES] for at in range(0, len(message.have), PREFIX_BYTES)}
    wanted = list(dict.fromkeys(message.ranges))
    while True:
        try:
            proof = encode_proof(record, wanted, have)
        except LocalProtocolError:
            proof = b""
        if proof and len(proof) <= (MAX_PROOF_BYTES if len(wanted) == 1 else PAGE_BYTES):
            return ProofReply(message.job, wanted, proof)
        if len(wanted) == 1:
            return messages.Refusal("too_large", "the proof about one range does not fit into a message")
        wanted = wanted[: len(wanted) // 2]
