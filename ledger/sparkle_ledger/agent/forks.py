"""Spreads proofs that an account signed two entries for one place, each account's once, and takes in others'.

A proof names an account and a key. Anybody can sign two entries with any account's name on them, so a proof is kept
and passed on only where it shows by itself that the key is the account's (the account is named after it), or where
the account's entries here show it. A proof too large for gossip is pushed to linked peers, who do the same.
Gossip reaches whoever is there at the time; who is linked later is pushed the latest proofs: it may have been cut
off.
"""

from collections import deque
from collections.abc import Callable, Iterable

from sparkle_ledger.agent.desk import SECOND_NS, Desk
from sparkle_ledger.agent.serving import Shelf
from sparkle_ledger.entries import AccountId, Entry, Penalty, account_of
from sparkle_ledger.forks import ForkProof
from sparkle_protocol import effects as fx
from sparkle_protocol.codec import decode, encode
from sparkle_protocol.errors import LocalProtocolError, RemoteProtocolError
from sparkle_protocol.ids import PeerId
from sparkle_protocol.ledger_messages import LedgerPush, forks_topic

MAX_GOSSIP_BYTES = 15 << 10  # of the 16 kB that a gossip message may have
MAX_KNOWN = 4096  # accounts that forked, of which nothing else need be known here
PUSHED_TO = 16
RECENT = 16  # proofs that whoever is linked later is told of
RECENT_NS = 3600 * SECOND_NS  # for so long


class Forks:
    """What is known of accounts that forked."""

    def __init__(self, desk: Desk, shelf: Shelf, linked: Callable[[], Iterable[PeerId]]) -> None:
        self._desk = desk
        self._shelf = shelf
        self._linked = linked
        self._known: dict[AccountId, ForkProof] = {}
        self._recent: deque[tuple[int, ForkProof]] = deque(maxlen=RECENT)
        self._topic = forks_topic(desk.book.network)

    def __len__(self) -> int:
        return len(self._known)

    def restore(self, proofs: Iterable[ForkProof]) -> None:
        """Know again what an earlier life knew. It was told then."""
        for proof in proofs:
            self._known.setdefault(proof.first.account, proof)
            self._desk.book.add_proof(proof)

    def proof_of(self, account: AccountId) -> ForkProof | None:
        """The proof that an account forked, if one is known."""
        return self._known.get(account)

    def proofs(self) -> list[ForkProof]:
        """All that are known."""
        return list(self._known.values())

    def up(self, peer: PeerId) -> None:
        """Somebody is linked who may not have heard what the others have."""
        for known_ns, proof in self._recent:
            if self._desk.now_ns - known_ns < RECENT_NS:
                self._push(peer, proof)

    def gossiped(self, event: fx.Gossiped) -> None:
        """Take in a proof that is passed on. The gossip itself passes it on further."""
        if event.topic != self._topic:
            return
        try:
            raw = decode(event.payload, Penalty, max_bytes=MAX_GOSSIP_BYTES + 1024)
            proof = ForkProof.decode(raw, self._desk.entries)
        except RemoteProtocolError as error:
            self._desk.violation(event.author, str(error))
            return
        self._take(proof, tell=False)

    def pushed(self, one: Entry, other: Entry) -> None:
        """Take in two verified entries that somebody says are a proof."""
        try:
            proof = ForkProof.make(one, other)
        except LocalProtocolError:
            return
        self._take(proof, tell=True)

    def look(self) -> None:
        """Tell of accounts that forked by what was taken in since."""
        touched, self._desk.touched = self._desk.touched, set()
        for account in sorted(touched):
            heard = self._known.get(account)
            proof = self._desk.book.fork_of(account)
            if proof is not None and heard is None:
                self._keep(proof, tell=True)
            elif proof is None and heard is not None:  # its entries came after the proof
                aside = {entry.id for entry in self._desk.book.waiting(account)}
                self._desk.take_in(entry for entry in (heard.first, heard.second) if entry.id not in aside)

    def _take(self, proof: ForkProof, *, tell: bool) -> None:
        account, key = proof.first.account, proof.first.key
        if account in self._known:
            return
        if self._shelf.concerns(account) or self._desk.book.account(account).entries:
            self._desk.take_in((proof.first, proof.second))
            self._desk.book.add_proof(proof)  # its place may be folded here
            proven = self._desk.book.fork_of(account) is not None
        else:
            proven = False
        if proven or account_of(self._desk.book.network, key) == account:
            self._keep(proof, tell=tell)

    def _keep(self, proof: ForkProof, *, tell: bool) -> None:
        account = proof.first.account
        known_here = self._shelf.concerns(account) or self._desk.book.account(account).entries > 0
        if len(self._known) >= MAX_KNOWN and not known_here:
            return
        self._known[account] = proof
        self._desk.keep_fork(proof)
        self._desk.when_kept(lambda: self._spread(proof, tell=tell))

    def _spread(self, proof: ForkProof, *, tell: bool) -> None:
        account = proof.first.account
        self._recent.append((self._desk.now_ns, proof))
        self._desk.do(fx.Notify("account_forked", {"account": account.hex(), "own": account == self._desk.account}))
        if not tell:
            return
        payload = encode(proof.encode())
        if len(payload) <= MAX_GOSSIP_BYTES:
            self._desk.do(fx.Publish(self._topic, payload))
            return
        for peer in sorted(self._linked())[:PUSHED_TO]:
            self._push(peer, proof)

    def _push(self, peer: PeerId, proof: ForkProof) -> None:
        self._desk.ask(peer, LedgerPush([proof.first.raw, proof.second.raw]), lambda _: None)
