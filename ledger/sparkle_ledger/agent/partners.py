"""Has witnesses, and those who owe us, know all entries of our own account; and learns from them what it forgot.

Each partner is asked for the head that it knows. What it lacks is pushed, page by page; its answer is its new head.
A head that is not in our own feed is fetched: perhaps our store was put back from a copy, or somebody has our key.
A partner that does not answer, or cannot take more, is tried again later and later.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sparkle_ledger.agent.desk import SECOND_NS, Desk
from sparkle_ledger.agent.fetching import Fetching
from sparkle_ledger.entries import EntryId
from sparkle_ledger.witnesses import MAX_WITNESSES, choose_witnesses
from sparkle_protocol import effects as fx
from sparkle_protocol import messages
from sparkle_protocol.ids import PeerId
from sparkle_protocol.ledger_messages import MAX_ENTRIES, PAGE_BYTES, Head, HeadsReply, HeadsRequest, LedgerPush
from sparkle_protocol.work.placement import Candidate

COMPARE_NS = 600 * SECOND_NS  # between two questions to a partner that knows everything
RETRY_NS = 10 * SECOND_NS
MAX_RETRY_NS = 600 * SECOND_NS
MAX_PAYERS = 64  # of whom those are forgotten first that were named longest ago
MAX_KNOWN_PEERS = 1024
ENOUGH = 3  # with one message in four lost, one question in twelve is lost so often
LOOK_UP = 0  # the tag of the only look-up there is


@dataclass(slots=True)
class _Partner:
    """What is known of one of them."""

    due_ns: int
    head: Head | None = None
    asked: bool = False  # its head is known
    busy: bool = False
    failures: int = 0


class Partners:
    """Those who are to know our account."""

    def __init__(self, desk: Desk, fetching: Fetching, learnt: Callable[[], None]) -> None:
        self._desk = desk
        self._fetching = fetching
        self._learnt = learnt
        self._peers: dict[PeerId, tuple[str, ...]] = {}
        self._witnesses: tuple[PeerId, ...] | None = None  # None: to be chosen
        self._payers: dict[PeerId, None] = {}
        self._found: tuple[PeerId, ...] = ()  # nearest to our account, linked or not: asked while we learn
        self._partners: dict[PeerId, _Partner] = {}
        self._answered: set[PeerId] = set()  # since the last ``ask_anew``

    # --- who ----------------------------------------------------------------------------------------------

    def up(self, peer: PeerId, addresses: tuple[str, ...]) -> None:
        """A peer is linked."""
        if peer != self._desk.me and (peer in self._peers or len(self._peers) < MAX_KNOWN_PEERS):
            self._peers[peer] = addresses
            self._witnesses = None
            partner = self._partners.get(peer)
            if partner is not None and partner.failures and not partner.busy:
                partner.due_ns, partner.failures = self._desk.now_ns, 0

    def down(self, peer: PeerId) -> None:
        """A peer's link is gone."""
        if self._peers.pop(peer, None) is not None:
            self._witnesses = None

    def linked(self) -> tuple[PeerId, ...]:
        """Linked peers."""
        return tuple(self._peers)

    def candidates(self) -> list[Candidate]:
        """Linked peers, to choose among."""
        return [Candidate(peer, addresses) for peer, addresses in self._peers.items()]

    def witnesses(self) -> tuple[PeerId, ...]:
        """Of our own account."""
        if self._witnesses is None:
            self._witnesses = choose_witnesses(self._desk.account, self.candidates(), {self._desk.me})
        return self._witnesses

    def look_up(self) -> None:
        """Look for those nearest to our account in the whole network: they may have witnessed it before."""
        self._desk.do(fx.FindPeers(LOOK_UP, self._desk.account))

    def found(self, peers: tuple[PeerId, ...]) -> None:
        """Who they are."""
        self._found = tuple(peer for peer in peers if peer != self._desk.me)[:MAX_WITNESSES]

    def forget_found(self) -> None:
        """They need not be asked any more."""
        self._found = ()

    def add_payer(self, peer: PeerId) -> None:
        """Somebody is to know what we claim from it."""
        if peer == self._desk.me:
            return
        self._payers.pop(peer, None)
        self._payers[peer] = None
        if len(self._payers) > MAX_PAYERS:
            del self._payers[next(iter(self._payers))]

    def sizes(self) -> dict[str, int]:
        """Linked peers, and those who are to know our account."""
        return {"peers": len(self._peers), "partners": len(self._partners)}

    # --- what they know -----------------------------------------------------------------------------------

    @property
    def known(self) -> int:
        """How many witnesses there are."""
        return len(self.witnesses())

    @property
    def full(self) -> bool:
        """There are as many witnesses as there ever are."""
        return self.known >= MAX_WITNESSES

    def have_answered(self) -> bool:
        """What they know of our account is known here by now.

        At least half of the witnesses answered, each of the others failed to ``ENOUGH`` times in a row, those looked
        up once, and nobody's claim is open. One who does not answer may be the only one who knows our last entry.
        """
        witnesses = self.witnesses()
        if 2 * sum(peer in self._answered for peer in witnesses) < len(witnesses):
            return False
        for peer in {*witnesses, *self._found}:
            partner = self._partners.get(peer)
            if partner is None or (partner.busy and peer in self._answered):
                return False
            if peer not in self._answered and partner.failures < (ENOUGH if peer in witnesses else 1):
                return False
        return True

    def ask_anew(self) -> None:
        """What they know has to be asked once more."""
        self._answered.clear()
        for partner in self._partners.values():
            partner.asked = False
            partner.due_ns, partner.failures = self._desk.now_ns, 0

    def news(self) -> None:
        """We signed something, and it is durable."""
        for partner in self._partners.values():
            if partner.asked and not partner.failures:
                partner.due_ns = self._desk.now_ns

    # --- doing --------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Ask and tell those whose turn it is."""
        now_ns, wanted = self._desk.now_ns, self._wanted()
        for peer in [peer for peer, known in self._partners.items() if peer not in wanted and not known.busy]:
            del self._partners[peer]
        for peer in sorted(wanted):
            partner = self._partners.setdefault(peer, _Partner(now_ns))
            if not partner.busy and partner.due_ns <= now_ns:
                self._turn(peer, partner)

    def dues(self) -> Iterable[int]:
        """When the next ones are."""
        fresh = self._wanted() - self._partners.keys()
        if fresh:
            yield self._desk.now_ns
        yield from (partner.due_ns for partner in self._partners.values() if not partner.busy)

    def _wanted(self) -> set[PeerId]:
        return {*self.witnesses(), *self._payers, *self._found}

    def _turn(self, peer: PeerId, partner: _Partner) -> None:
        own = self._desk.kept_head(self._desk.account)
        if not partner.asked or partner.head == own:
            partner.busy = True
            self._desk.ask(
                peer, HeadsRequest([self._desk.account]), lambda reply: self._told(peer, partner, reply, pushed=False)
            )
            return
        first = (partner.head.incarnation, partner.head.seq + 1) if partner.head is not None else (0, 0)
        raws: list[bytes] = []
        size = 0
        for entry in self._desk.kept_entries(self._desk.account, *first):
            size += len(entry.raw)
            if raws and (size > PAGE_BYTES or len(raws) >= MAX_ENTRIES):
                break
            raws.append(entry.raw)
        if not raws:  # it is ahead of what is durable here
            partner.due_ns = self._desk.now_ns + COMPARE_NS
            return
        partner.busy = True
        self._desk.ask(peer, LedgerPush(raws), lambda reply: self._told(peer, partner, reply, pushed=True))

    def _told(self, peer: PeerId, partner: _Partner, reply: messages.Reply | None, *, pushed: bool) -> None:
        """A partner said which head it knows, or failed to."""
        partner.busy = False
        if isinstance(reply, messages.Refusal) and not pushed:
            self._answered.add(peer)  # it has nothing to tell
        if not isinstance(reply, HeadsReply) or len(reply.heads) != 1:
            self._later(partner)
            return
        had, partner.head, partner.asked = partner.head, reply.heads[0], True
        head, own = partner.head, self._desk.kept_head(self._desk.account)
        self._answered.add(peer)
        if head is not None and not self._is_ours(head):
            partner.busy = True
            self._fetching.feed(peer, self._desk.account, lambda _: self._fetched(partner, head), head)
        elif head == own:
            partner.failures = 0
            partner.due_ns = self._desk.now_ns + COMPARE_NS
        elif pushed and head == had:  # it took nothing
            self._later(partner)
        else:
            partner.failures = 0
            partner.due_ns = self._desk.now_ns
        self._learnt()

    def _fetched(self, partner: _Partner, head: Head) -> None:
        """A partner showed what it knows of our account, or did not."""
        partner.busy = False
        if self._is_ours(head):
            partner.due_ns, partner.failures = self._desk.now_ns, 0
        else:
            partner.asked = False
            self._later(partner)
        self._learnt()

    def _is_ours(self, head: Head) -> bool:
        entry = self._desk.book.entry(EntryId(head.id))
        return entry is not None and (entry.account, entry.incarnation, entry.seq) == (
            self._desk.account, head.incarnation, head.seq,
        )  # fmt: skip

    def _later(self, partner: _Partner) -> None:
        partner.failures += 1
        delay_ns = min(RETRY_NS << min(partner.failures - 1, 6), MAX_RETRY_NS)
        partner.due_ns = self._desk.now_ns + delay_ns
