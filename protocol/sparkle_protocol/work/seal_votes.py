"""Keepers' certificates of sealed ranges: who states which root, and which root is thereby certain.

A keeper signs ``Seals`` for a range once it holds the record with that root *and every result that the record names*,
on disk. When ``threshold`` keepers of one view (under 4 keepers: the submitter) state the same root, the finer facts
of the range may be dropped: no single keeper, lying or lost, can then change or lose what was accepted.
"""

from collections.abc import Collection

from sparkle_protocol.errors import RemoteProtocolError
from sparkle_protocol.facts import SealItem, Seals
from sparkle_protocol.ids import PeerId, key_from_peer_id
from sparkle_protocol.work.sealed import range_count

MAX_VOTERS = 32  # two keeper sets of the largest size
ROOTS_PER_KEEPER = 4  # that count for one range: a worker may be accepted late


class SealVotes:
    """Which keepers state which root of a job's ranges. What it says depends on what was added, not on the order.

    Bounds: ``ROOTS_PER_KEEPER`` roots (the lowest ones, so that the order does not matter) of a keeper for a range;
    ``MAX_VOTERS`` keepers, beyond which others are not heard. When other keepers come to count, all is counted anew
    (``Sealable``).
    """

    __slots__ = ("_ranges", "_voters", "_votes")

    def __init__(self, units: int) -> None:
        self._ranges = range_count(units)
        self._voters: dict[bytes, int] = {}  # key -> its bit
        self._votes: dict[int, dict[bytes, int]] = {}  # range -> root -> bits of the keepers that state it

    def add(self, keeper: PeerId, seals: Seals) -> list[int]:
        """Count a keeper's word; returns the ranges for which it says something new.

        Raises:
            RemoteProtocolError: it names a range that the job lacks; nothing of it counts.
        """
        if any(item.index >= self._ranges for item in seals.items):
            raise RemoteProtocolError(f"a seal names a range beyond the job's {self._ranges}")
        bit = self._bit(key_from_peer_id(keeper))
        return [item.index for item in seals.items if self._count(item, bit)] if bit else []

    def _bit(self, key: bytes) -> int:
        """A keeper's own bit; 0 when there is none left."""
        if key not in self._voters:
            used = sum(self._voters.values())
            free = (used + 1) & ~used  # the lowest that nobody has
            if free.bit_length() > MAX_VOTERS:
                return 0
            self._voters[key] = free
        return self._voters[key]

    def _count(self, item: SealItem, bit: int) -> bool:
        stated = self._votes.setdefault(item.index, {})
        before = sorted(root for root, voters in stated.items() if voters & bit)
        if item.root in before:
            return False
        if len(before) == ROOTS_PER_KEEPER:
            if item.root > before[-1]:
                return False
            self._take_back(stated, before[-1], bit)
        stated[item.root] = stated.get(item.root, 0) | bit
        return True

    @staticmethod
    def _take_back(stated: dict[bytes, int], root: bytes, bits: int) -> None:
        stated[root] &= ~bits
        if not stated[root]:
            del stated[root]

    def keepers(self, index: int, root: bytes) -> list[bytes]:
        """Keys of the keepers that state that root of a range, ascending."""
        voters = self._votes.get(index, {}).get(root, 0)
        return sorted(key for key, bit in self._voters.items() if voters & bit)

    def certified(self, index: int, keys: Collection[bytes], threshold: int) -> bytes | None:
        """The root of a range that at least ``threshold`` of the keepers with these keys state.

        Where several are (a worker was accepted late), that of the most keepers, then the lowest.
        """
        listening = 0
        for key in keys:
            listening |= self._voters.get(key, 0)
        counted = [((voters & listening).bit_count(), root) for root, voters in self._votes.get(index, {}).items()]
        enough = [(-count, root) for count, root in counted if count >= max(1, threshold)]
        return min(enough)[1] if enough else None

    def forget(self, index: int) -> None:
        """A range is sealed: its votes are needed no longer."""
        self._votes.pop(index, None)
