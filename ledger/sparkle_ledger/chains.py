"""Signatures and links of all feeds, read once in order, with one feed's last places in memory at a time.

An entry names the one before it by hash, so a valid signature vouches for everything below it that is signed by the
same key. Of each run of entries by one key the last is verified: where the key changes, where an entry is missing,
where a feed ends, and at the end of each branch of a fork. A later key vouches for nothing that an earlier one
signed, since it could make that up. ``deep`` verifies every signature: it finds damage to those that nothing rests
on.

Whether a key was in force, and what an entry is worth, is for the book to say.
"""

from dataclasses import dataclass, field

from sparkle_ledger.entries import NO_PREV, Entry, EntryCodec
from sparkle_ledger.folding import Base
from sparkle_protocol.errors import RemoteProtocolError

MAX_TOLD = 1000  # findings of a kind; the rest is counted


@dataclass(slots=True)
class Findings:
    """Sentences, as many as anybody reads, and how many there are; each with a code, where the kind has codes."""

    texts: list[str] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, text: str, code: str = "") -> None:
        """One more."""
        self.count += 1
        if len(self.texts) < MAX_TOLD:
            self.texts.append(text)
            self.codes.append(code)


class ChainCheck:
    """Give it entries by account, incarnation and seq with ``take``, and call ``end``.

    Attributes:
        feeds: account and incarnation pairs.
        verified: signatures.
        violations: signatures that do not fit: no honest copy keeps such entries.
        misdeeds: forks and wrong links: their author's fault, not this copy's.
        gaps: entries that are missing here.
    """

    __slots__ = (
        "_bases", "_before", "_codec", "_deep", "_feed", "_here", "_seq", "feeds", "gaps", "misdeeds", "verified",
        "violations",
    )  # fmt: skip

    def __init__(self, codec: EntryCodec, *, deep: bool = False) -> None:
        self._codec = codec
        self._deep = deep
        self._feed: tuple[bytes, int] | None = None
        self._seq = -1  # of the entries in ``_here``
        self._bases: dict[bytes, Base] = {}
        self._before: dict[bytes, tuple[Entry, bool]] = {}  # those with seq - 1; is each vouched for by its follower
        self._here: dict[bytes, tuple[Entry, bool]] = {}
        self.feeds = 0
        self.verified = 0
        self.violations = Findings()
        self.misdeeds = Findings()
        self.gaps = Findings()

    def begin_after(self, base: Base) -> None:
        """The oldest entries of an account are folded; to be said before its first one."""
        self._bases[base.account] = base

    def take(self, entry: Entry) -> None:
        """The next entry."""
        base = self._bases.get(entry.account) if not entry.incarnation else None
        if self._feed != (entry.account, entry.incarnation):
            self.end()
            self._feed = (entry.account, entry.incarnation)
            self.feeds += 1
            self._seq = base.seq if base is not None else -1
        if base is not None and entry.seq <= base.seq:
            self.violations.add(f"{place_of(entry)} is here and among those that are folded", "base_wrong")
            return
        if entry.seq != self._seq:
            self._advance(entry)
        elif any(other.key == entry.key for other, _ in self._here.values()):
            self.misdeeds.add(f"{place_of(entry)} was signed several times: a fork of the account")
        self._link(entry)
        self._here[entry.id] = (entry, False)
        if self._deep:
            self._verify(entry)

    def end(self) -> None:
        """No more entries of this feed."""
        self._settle(self._before)
        self._settle(self._here)
        self._before, self._here, self._seq, self._feed = {}, {}, -1, None

    def _advance(self, entry: Entry) -> None:
        """To the next place for which there is an entry."""
        self._settle(self._before)
        if entry.seq == self._seq + 1:
            self._before, self._here = self._here, {}
        else:
            missing = range(self._seq + 1, entry.seq)
            self._settle(self._here)
            self._before, self._here = {}, {}
            which = f"entry {missing[0]}" if len(missing) == 1 else f"entries {missing[0]} to {missing[-1]}"
            self.gaps.add(f"{which} of {feed_of(entry)} {'is' if len(missing) == 1 else 'are'} not here")
        self._seq = entry.seq

    def _link(self, entry: Entry) -> None:
        if not entry.seq:
            if entry.prev != NO_PREV:
                self.misdeeds.add(f"{place_of(entry)} is the first and names one before it")
            return
        before = self._before.get(entry.prev)
        if before is not None:
            if before[0].key == entry.key:
                self._before[entry.prev] = (before[0], True)
        elif self._before or self._is_wrong_after_base(entry):
            self.misdeeds.add(f"{place_of(entry)} follows another entry {entry.seq - 1} than the one that is here")

    def _is_wrong_after_base(self, entry: Entry) -> bool:
        base = self._bases.get(entry.account) if not entry.incarnation else None
        return base is not None and entry.seq == base.seq + 1 and entry.prev != base.id

    def _settle(self, entries: dict[bytes, tuple[Entry, bool]]) -> None:
        """Verify what no follower vouches for."""
        if not self._deep:
            for entry, vouched in entries.values():
                if not vouched:
                    self._verify(entry)

    def _verify(self, entry: Entry) -> None:
        self.verified += 1
        try:
            self._codec.open(entry.raw)
        except RemoteProtocolError as error:
            self.violations.add(f"{place_of(entry)} is not valid: {error}", "signature")


def feed_of(entry: Entry) -> str:
    """The feed of an entry, for people."""
    began = f" (begun again {entry.incarnation} times)" if entry.incarnation else ""
    return f"account {entry.account.hex()[:12]}{began}"


def place_of(entry: Entry) -> str:
    """An entry's place, for people."""
    return f"entry {entry.seq} of {feed_of(entry)}"
