"""Whether the head that a spender shows is the newest entry of its account: its witnesses say so.

The witnesses of an account are the up to 8 peers nearest to its id, chosen as the keepers of a job are
(``sparkle_protocol.work.placement``): distinct networks first, a cluster of ids gets at most a quarter of the places.
They keep the highest head of the account. A spend above ``fresh_above_micro`` needs the head confirmed by three
quarters of them, those included that do not answer: two such sets of 8 share 4 witnesses, so a spender that shows two
heads to two judges needs all 4 to lie.

=========  =========================================================================================
standing   the head shown
=========  =========================================================================================
open       is still being asked about
fresh      is confirmed by the threshold, and nobody's claim of another entry is open
stale      is not the newest: a later entry is in our own book now
forked     belongs to an account that signed two entries for one place
unproven   cannot be confirmed: too many witnesses do not answer, do not know it or sent nothing valid
=========  =========================================================================================

What a witness says counts only for what it says: *I know this head too*. Any other head it names is a claim, to be
fetched from it and put into our own book, which alone judges signatures, keys in force and links. So a witness that
lies can neither make a good feed look withheld nor hold the decision up for longer than one request takes. One
honest witness that answers is enough to find a withheld entry that it knows.

A witness that knows an earlier entry only is told the head once, and asked again: it then holds what it confirms.

Limits: judges who know different peers choose different witnesses. In networks of fewer than 4 other peers three
quarters tolerate nobody who lies, so a head is fresh there only if one of the confirming peers is on a list of
trusted ones. A spender that is cut off with its witnesses spends in each part until the parts meet, where the fork
shows.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sparkle_ledger.entries import AccountId, Entry, EntryId
from sparkle_protocol.ids import JobId, PeerId
from sparkle_protocol.ledger_messages import Head as Head
from sparkle_protocol.work.placement import FEWEST_DECIDING, Candidate, choose_keepers

MAX_WITNESSES = 8
FRESH_ABOVE_MICRO = 10_000_000  # ten credits: what is worth a request to eight peers


def head_of(entry: Entry) -> Head:
    """An entry as a head."""
    return Head(entry.incarnation, entry.seq, entry.id)


def witness_threshold(n: int) -> int:
    """How many of n witnesses confirm a head: three quarters, rounded up."""
    return -(-3 * n // 4)


def choose_witnesses(
    account: AccountId, candidates: Sequence[Candidate], own: Collection[PeerId]
) -> tuple[PeerId, ...]:
    """Who witnesses an account, nearest first. ``own``: peers that sign for the account, who do not witness it."""
    others = [candidate for candidate in candidates if candidate.peer not in own]
    return choose_keepers(JobId(account), others, MAX_WITNESSES)


class Standing(StrEnum):
    """What is known of the head shown; see the table above."""

    OPEN = "open"
    FRESH = "fresh"
    STALE = "stale"
    FORKED = "forked"
    UNPROVEN = "unproven"


class _Said(StrEnum):
    """What a witness has said."""

    NOTHING = "nothing"  # to be asked, or asked
    BEHIND = "behind"  # to be told the head
    TOLD = "told"  # and to be asked again
    CLAIMS = "claims"  # names an entry that our book lacks or that contradicts it
    CONFIRMS = "confirms"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Claim:
    """A head that a witness names and has not shown yet."""

    witness: PeerId
    head: Head


class Freshness:
    """One judgement of one head. Whoever asks the network decides when a peer has failed to answer.

    Args:
        shown: the head that the spender shows; our book has it and all before it.
        witnesses: of the account.
        entry_at: the id of our book's entry of this account with an incarnation and seq; None if it has none that is
            linked to all before it.
        trusted: peers whose word is needed where there are too few for a threshold.
    """

    __slots__ = ("_claims", "_entry_at", "_forked", "_said", "_shown", "_trusted")

    def __init__(
        self,
        shown: Head,
        witnesses: Sequence[PeerId],
        entry_at: Callable[[int, int], EntryId | None],
        trusted: Collection[PeerId] = (),
    ) -> None:
        self._shown = shown
        self._entry_at = entry_at
        self._trusted = frozenset(trusted)
        self._said = dict.fromkeys(witnesses[:MAX_WITNESSES], _Said.NOTHING)
        self._claims: dict[PeerId, Head] = {}
        self._forked = False

    # --- what to do ---------------------------------------------------------------------------------------

    def to_ask(self) -> tuple[PeerId, ...]:
        """Witnesses whose head is wanted, those included that were asked and have not answered."""
        return self._who(_Said.NOTHING, _Said.TOLD) if self.standing is Standing.OPEN else ()

    def to_tell(self) -> tuple[PeerId, ...]:
        """Witnesses to whom the entries up to the head are to be sent."""
        return self._who(_Said.BEHIND) if self.standing is Standing.OPEN else ()

    def to_fetch(self) -> tuple[Claim, ...]:
        """Heads whose entries are to be fetched from those who claim them and put into the book."""
        if self.standing is not Standing.OPEN:
            return ()
        return tuple(Claim(peer, self._claims[peer]) for peer in self._who(_Said.CLAIMS))

    # --- what happened ------------------------------------------------------------------------------------

    def answered(self, witness: PeerId, head: Head | None) -> None:
        """A witness said which head it knows."""
        said = self._said.get(witness)
        if said not in (_Said.NOTHING, _Said.TOLD):
            return
        if head == self._shown:
            self._said[witness] = _Said.CONFIRMS
        elif head is None or self._entry_at(head.incarnation, head.seq) == head.id:
            self._said[witness] = _Said.BEHIND if said is _Said.NOTHING else _Said.FAILED
        else:
            self._claims[witness] = head
            self._said[witness] = _Said.CLAIMS

    def told(self, witness: PeerId) -> None:
        """A witness has got the entries up to the head."""
        if self._said.get(witness) is _Said.BEHIND:
            self._said[witness] = _Said.TOLD

    def failed(self, witness: PeerId) -> None:
        """A witness did not answer, or what it sent as proof of its claim did not get into the book."""
        if witness in self._said and self._said[witness] is not _Said.CONFIRMS:
            self._said[witness] = _Said.FAILED

    def forked(self) -> None:
        """Our book has a fork of this account."""
        self._forked = True

    # --- what follows -------------------------------------------------------------------------------------

    @property
    def standing(self) -> Standing:
        """What is known now."""
        if self._forked:
            return Standing.FORKED
        if self._has_later():
            return Standing.STALE
        confirming = self._who(_Said.CONFIRMS)
        undecided = len(self._said) - len(confirming) - len(self._who(_Said.FAILED))
        need = witness_threshold(len(self._said))
        few = len(self._said) < FEWEST_DECIDING
        trusted = [peer for peer in self._said if peer in self._trusted and self._said[peer] is not _Said.FAILED]
        if len(confirming) + undecided < need or (few and not trusted):
            return Standing.UNPROVEN
        vouched = not few or any(self._said[peer] is _Said.CONFIRMS for peer in trusted)
        claimed = _Said.CLAIMS in self._said.values()
        return Standing.FRESH if len(confirming) >= need and vouched and not claimed else Standing.OPEN

    def reason(self) -> str:
        """The standing in a sentence."""
        confirming, n = len(self._who(_Said.CONFIRMS)), len(self._said)
        match self.standing:
            case Standing.FRESH:
                return f"{confirming} of {n} witnesses confirm the head"
            case Standing.STALE:
                return f"the account has signed more than it shows: entry {self._shown.seq} is not its last"
            case Standing.FORKED:
                return "the account signed two entries for one place and may not spend any more"
            case Standing.UNPROVEN if n < FEWEST_DECIDING:
                return f"there are only {n} witnesses, and none of them is on the list of trusted peers and answers"
            case Standing.UNPROVEN:
                return (
                    f"{confirming} of {n} witnesses confirm the head and {witness_threshold(n)} must; wait for others"
                )
        return f"{confirming} of {n} witnesses confirm the head so far; {witness_threshold(n)} must"

    def _has_later(self) -> bool:
        """Our book has the next entry, or one of a later incarnation."""
        incarnation, seq = self._shown.incarnation, self._shown.seq
        return self._entry_at(incarnation, seq + 1) is not None or self._entry_at(incarnation + 1, 0) is not None

    def _who(self, *kinds: _Said) -> tuple[PeerId, ...]:
        return tuple(peer for peer, said in self._said.items() if said in kinds)
