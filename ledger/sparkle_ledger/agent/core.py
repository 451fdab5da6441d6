"""One node's part in the ledger: ``handle(event, now_ns) -> effects`` and ``next_deadline()``.

The agent opens and keeps its node's account (``own.py``), has witnesses know it (``partners.py``), claims pay for
accepted work (``claims.py``), answers others (``serving.py``), spreads proofs of forks (``forks.py``), forgets what
proved that old jobs are settled (``old_jobs.py``), and much later others' entries about them (``old_entries.py``). It
signs nothing before it knows that it remembers everything
it signed, and tells nobody of anything that is not durable.
"""

from collections.abc import Iterable

from sparkle_ledger.agent.claims import Claims
from sparkle_ledger.agent.desk import Desk
from sparkle_ledger.agent.events import Accepted, Cloned, Fund, Over, WorkEnded
from sparkle_ledger.agent.fetching import Fetching
from sparkle_ledger.agent.forks import Forks
from sparkle_ledger.agent.old_entries import OldEntries
from sparkle_ledger.agent.old_jobs import KEEP_MS, OldJobs
from sparkle_ledger.agent.own import OwnAccount, State, WallMs
from sparkle_ledger.agent.partners import Partners
from sparkle_ledger.agent.proving import Proving
from sparkle_ledger.agent.serving import KeptRecord, Serving, Shelf
from sparkle_ledger.agent.stored import Stored
from sparkle_ledger.book import Book
from sparkle_ledger.book_reading import Account
from sparkle_ledger.entries import AccountId, EntryCodec, Work
from sparkle_ledger.folding import KEEP_ENTRIES
from sparkle_ledger.forks import ForkProof
from sparkle_protocol import effects as fx
from sparkle_protocol.facts import FactCodec, Signer
from sparkle_protocol.ids import PeerId


class LedgerAgent:
    """The agent of one node.

    Args:
        signer: the node's identity; its account is the one that this key opens.
        book: what the store has; the agent alone adds to it from now on.
        facts: opens facts of the network.
        wall_ms: the wall clock, for people who read entries.
        kept_record: the evidence about a job that this node keeps, None if it keeps no such job.
        forks: proofs that the store has.
        entries: opens and seals entries of the network; another one than usual has other signatures.
        met: this node has met others before, or was told of some.
        new: the identity was made in this life, so nobody can know anything that it signed.
        keep_ms: for so long after the end of a job's time evidence is kept about a job that is settled.
        keep_entries: so many of each account's newest entries are never folded.
    """

    def __init__(
        self,
        signer: Signer,
        book: Book,
        facts: FactCodec,
        wall_ms: WallMs,
        kept_record: KeptRecord = lambda job: None,
        forks: Iterable[ForkProof] = (),
        entries: EntryCodec | None = None,
        *,
        new: bool = False,
        met: bool = True,
        keep_ms: int = KEEP_MS,
        keep_entries: int = KEEP_ENTRIES,
    ) -> None:
        self.book = book
        self._desk = Desk(signer, book, facts, entries)
        self._shelf = Shelf(self._desk.account)
        self._fetching = Fetching(self._desk, self._shelf)
        self._partners = Partners(self._desk, self._fetching, self._learnt)
        self._own = OwnAccount(self._desk, self._partners, wall_ms, new=new, met=met)
        self._claims = Claims(self._desk, self._shelf, self._fetching, self._own, self._partners, wall_ms)
        self._forks = Forks(self._desk, self._shelf, self._partners.linked)
        self._stored = Stored(self._desk)
        self._proving = Proving(
            self._desk, self._shelf, self._fetching, self._stored, kept_record, self._partners.witnesses
        )
        self._serving = Serving(self._desk, self._shelf, self._stored, kept_record, self._forks.pushed)
        self._old_jobs = OldJobs(self._desk, self._fetching, self._claims, wall_ms, keep_ms)
        self._old_entries = OldEntries(self._desk, self._shelf, wall_ms, keep_ms, keep_entries)
        self._forks.restore(forks)
        self._begun = False

    # --- what it is ---------------------------------------------------------------------------------------

    @property
    def account(self) -> Account:
        """Our own account as the book has it."""
        return self.book.account(self._desk.account)

    @property
    def state(self) -> State:
        """Whether it may sign."""
        return self._own.state

    def forked(self, account: AccountId) -> ForkProof | None:
        """The proof that an account forked, if one is known."""
        return self._forks.proof_of(account)

    def forks(self) -> list[ForkProof]:
        """All proofs of forks that are known, also of accounts of which nothing else is."""
        return self._forks.proofs()

    def witnesses(self) -> tuple[PeerId, ...]:
        """Who is to know our account."""
        return self._partners.witnesses()

    def sizes(self) -> dict[str, int]:
        """How much is kept in memory of what grows with what others do."""
        return {
            **self._desk.sizes(), **self._partners.sizes(),
            "claims": len(self._claims), "unproven": len(self._proving), "forks": len(self._forks),
            "waiting": self._own.waiting, "reading": len(self._stored),
        }  # fmt: skip

    # --- events -------------------------------------------------------------------------------------------

    def handle(self, event: object, now_ns: int) -> fx.Effects:
        """React to an event."""
        self._desk.now_ns = max(now_ns, self._desk.now_ns)
        if not self._begun:
            self._begin()
        self._hear(event)
        self._desk.tick()
        self._fetching.tick()
        self._own.look()
        self._own.tick()
        self._claims.tick()
        self._proving.tick()
        self._forks.look()
        self._stored.tick()
        self._old_jobs.tick()
        self._old_entries.tick()
        self._desk.flush()  # what is durable may have partners told
        self._partners.tick()
        return self._desk.take_out()

    def next_deadline(self) -> int | None:
        """When a ``Tick`` is due."""
        parts = (self._desk, self._fetching, self._own, self._old_jobs, self._old_entries)
        dues = [due for due in (part.due_ns for part in parts) if due is not None]
        for part in (self._partners, self._claims, self._proving, self._stored):
            dues += part.dues()
        return min(dues, default=None)

    def _hear(self, event: object) -> None:
        if isinstance(event, fx.Requested):
            self._serving.requested(event)
        elif isinstance(event, fx.Replied):
            self._desk.replied(event.tag, event.peer, event.message)
        elif isinstance(event, fx.SendFailed):
            self._desk.replied(event.tag, event.peer, None)
        elif isinstance(event, fx.LedgerKept):
            self._desk.kept(event)
        elif isinstance(event, fx.EvidenceRead):
            self._stored.read(event)
        elif isinstance(event, fx.Gossiped):
            self._forks.gossiped(event)
        else:
            self._hear_of_peers(event)
            self._hear_of_work(event)

    def _hear_of_peers(self, event: object) -> None:
        if isinstance(event, fx.PeerUp):
            self._partners.up(event.peer, event.addresses)
            self._forks.up(event.peer)
        elif isinstance(event, fx.PeerDown):
            self._partners.down(event.peer)
        elif isinstance(event, fx.FoundPeers):
            self._partners.found(event.peers)

    def _hear_of_work(self, event: object) -> None:
        if isinstance(event, Fund):
            self._own.fund(event.spec)
        elif isinstance(event, Over):
            self._own.over(event.record)
        elif isinstance(event, Accepted):
            self._claims.accepted(event)
        elif isinstance(event, Cloned):
            self._own.cloned()
        elif isinstance(event, WorkEnded):
            self._claims.ended(event)

    def _begin(self) -> None:
        """Go on from what the store had."""
        self._begun = True
        own = self._desk.account
        for entry in self.book.entries(own):
            if isinstance(entry.payload, Work):
                self._shelf.concern(AccountId(entry.payload.payer))
        for account in self.book.accounts():
            self._shelf.add(account, sum(len(entry.raw) for entry in self.book.entries(account)))
            self._proving.look(self.book.entries(account))
        self._claims.restore(list(self.book.records()))

    def _learnt(self) -> None:
        """Something about our own account became known."""
        self._own.look()
