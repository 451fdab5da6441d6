"""What this node knows of workers, kept over its lives: one ``TrustBook``, stored like journals.

Standings outlive the jobs in which they were earned, and belong to one network. They are written every few seconds
and when the node leaves, and at once when somebody was proven wrong: a crash may cost the passes of the last seconds
(which are earned again), but nobody regains by it what it has lost.
"""

import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from sparkle_p2p.node.store import Store, StoreError
from sparkle_p2p.view import StandingView
from sparkle_protocol.errors import SparkleError
from sparkle_protocol.ids import PeerId, key_from_peer_id
from sparkle_protocol.trust.parameters import REFERENCE_FLOPS_PER_S
from sparkle_protocol.trust.standing import MAX_STANDINGS, MAX_SUBMITTERS, Key, Standing, TrustBook

log = logging.getLogger("sparkle.node")

MAX_COUNT = 1 << 53
MINUTE_FLOPS = 60.0 * REFERENCE_FLOPS_PER_S
HOUR_FLOPS = 3600.0 * REFERENCE_FLOPS_PER_S
FLOOR = 0.05  # of what is submitted here with ``--verify final``: one result in twenty is compared at least
FLOOR_PERMILLE = round(1000 * FLOOR)
Row = tuple[str, str, str, int, float, int, str, int]


class Standings:
    """The book of one node and its place in the store.

    Args:
        store: where they are kept.
        net: of which network these are.
        trusted: peers that the owner of the node vouches for, and founders of the network.
    """

    def __init__(self, store: Store, net: str, trusted: Iterable[str] = ()) -> None:
        self.book = TrustBook(PeerId(peer) for peer in trusted)
        self._store = store
        self._net = net
        self._unsaved: dict[Key, Standing] = {}
        self._changes = 0  # orders them by when they changed last; the wall clock may jump
        self._counted: tuple[int, int] | None = None  # version of the book, and how many peers count in it

    async def load(self) -> None:
        """Take up what earlier runs stored; what is damaged is left out.

        Raises:
            StoreError: the store cannot be read.
        """
        for row in await self._store.standings(self._net, MAX_STANDINGS):
            try:
                key, standing, changed = _standing_of(row)
            except (ValueError, SparkleError) as error:
                log.warning("a stored standing of %.60r is damaged and skipped: %s", row[0], error)
                continue
            self.book.restore(key, standing)
            self._changes = max(self._changes, changed)

    async def save(self) -> None:
        """Write what has changed. Raises StoreError; it is written with the next call then."""
        for key, standing in self.book.take_fresh():
            self._unsaved.pop(key, None)  # the latest change decides about the order
            self._unsaved[key] = standing
        if not self._unsaved:
            return
        writing, self._unsaved = self._unsaved, {}
        rows = [
            _row_of(key, standing, self._changes + place) for place, (key, standing) in enumerate(writing.items(), 1)
        ]
        self._changes += len(rows)
        try:
            await self._store.save_standings(self._net, rows, MAX_STANDINGS, self.book.rules.passes_to_count)
        except StoreError:
            self._unsaved = {**writing, **self._unsaved}
            raise

    def peers(self) -> set[PeerId]:
        """Everybody of whom something is known or said, and who was named."""
        return {key.peer for key, _ in self.book.latest()} | self.book.named | self.book.vouched()

    def known_workers(self) -> int:
        """How many peers there are whose answers count, in any class of kernels."""
        if self._counted is None or self._counted[0] != self.book.version:
            counting = {key.peer for key, _ in self.book.latest() if self.book.counts(key)}
            self._counted = (self.book.version, len(counting | self.book.named | self.book.vouched()))
        return self._counted[1]


def minute_rate(book: TrustBook, key: Key) -> float:
    """The probability with which a result of a minute of reference work is audited."""
    return book.audit_rate(key, MINUTE_FLOPS, FLOOR)


def standing_views(book: TrustBook, most: int) -> tuple[StandingView, ...]:
    """Named peers, those who are only vouched for, and those whose standing changed last; ``most`` of each."""
    named = (Key(peer, "", "") for peer in sorted(book.named)[:most])
    seen = {(key.peer, key.verification) for key, _ in book.latest()}
    vouched = islice((Key(peer, "", verification) for peer, verification in book.only_vouched(seen)), most)
    others = islice((key for key, _ in book.latest() if key.peer not in book.named), most)
    return tuple(_view(book, key) for key in (*named, *vouched, *others))


def _view(book: TrustBook, key: Key) -> StandingView:
    standing = book.of(key)
    return StandingView(
        key.peer, key.device, key.verification, book.source(key),
        standing.passes, standing.capital / HOUR_FLOPS, minute_rate(book, key), standing.failures,
    )  # fmt: skip


def _row_of(key: Key, standing: Standing, changed: int) -> Row:
    others = json.dumps(standing.by_submitter)
    return (*key, standing.passes, standing.capital, standing.failures, others, changed)


def _standing_of(row: Sequence[Any]) -> tuple[Key, Standing, int]:
    """Key, standing and number of a stored row. Raises ValueError or SparkleError: it is damaged."""
    peer, device, verification, passes, capital, failures, others, changed = row
    if not all(isinstance(text, str) for text in (peer, device, verification, others)):
        raise ValueError("what should be text is none")
    key_from_peer_id(PeerId(peer))
    for number in (passes, failures, changed):
        if type(number) is not int or not 0 <= number < MAX_COUNT:
            raise ValueError("a count is none")
    if not isinstance(capital, float) or not math.isfinite(capital) or capital < 0:
        raise ValueError("its capital is no amount")
    return Key(PeerId(peer), device, verification), Standing(passes, capital, failures, _others_of(others)), changed


def _others_of(text: str) -> dict[PeerId, int]:
    """Passes by submitter."""
    found = json.loads(text)
    if not isinstance(found, Mapping) or len(found) > MAX_SUBMITTERS:
        raise ValueError("its passes in jobs of others are no list of these")
    for peer, passes in found.items():
        key_from_peer_id(PeerId(peer))
        if type(passes) is not int or not 0 <= passes < MAX_COUNT:
            raise ValueError("a count is none")
    return {PeerId(peer): passes for peer, passes in found.items()}
