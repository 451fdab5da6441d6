"""What is left of units that are final for good: a few bytes each, instead of all facts that led there.

Rules
-----
- A *range* is ``SEAL_UNITS`` consecutive units; range *i* begins with unit *i* · ``SEAL_UNITS``, a job's last one may
  be shorter. It can be sealed when all its units are final.
- Its record says of each unit the epoch, the hash of the accepted result and whose results were accepted. The Merkle
  root over these is the range's name: equal contents, equal root.
- A keeper that holds the record *and all its results* says so in a signed ``Seals`` (``seal_votes.py``).
- The record replaces the finer facts once ``threshold`` keepers of one view (under 4 keepers: the submitter) state
  the same root. No single keeper, lying or lost, can then change or lose what was accepted.
- Sealed is for ever. A range takes one record, the first; later facts about its units change nothing any more.
"""

import sys
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from sparkle_protocol.codec import Wire, decode, encode
from sparkle_protocol.errors import LocalProtocolError, RemoteProtocolError
from sparkle_protocol.facts import MAX_UNITS, SEAL_UNITS, UnitIndex
from sparkle_protocol.ids import HASH_BYTES, PUBLIC_KEY_BYTES, PeerId, ResultHash, key_from_peer_id, peer_id_from_key
from sparkle_protocol.messages import MAX_SEAL_BYTES
from sparkle_protocol.work import merkle

SEAL_VERSION = 1
MAX_ACCEPTED = 64  # workers of one unit, as in a VerdictItem
MAX_RANGE_WORKERS = 1 << 14  # different ones: 16 for each unit, the largest quorum

_EPOCH_BYTES = 4
_MAX_EPOCH = (1 << 32) - 1
_SHORT_PLACES = 256  # so many workers are told apart by one byte


class _Record(Wire, frozen=True):
    """A sealed range on the wire and on disk. Each field is one packed column; integers are big-endian."""

    version: int
    first: UnitIndex
    workers: bytes  # 32-byte keys of all accepted workers, ascending
    epochs: bytes  # u32 of each unit, or one for all when they are equal
    hashes: bytes  # 32 bytes of each unit
    counts: bytes  # u8 of each unit: how many workers were accepted
    accepted: bytes  # these workers, unit by unit: ascending places in the table, u8 or (more than 256 workers) u16


@dataclass(frozen=True, slots=True)
class SealedUnit:
    """How a unit ended. ``accepted`` is sorted: PeerIds sort like the keys inside them."""

    epoch: int
    result_hash: ResultHash
    accepted: tuple[PeerId, ...]


def range_of(unit: int) -> int:
    """The range that a unit belongs to."""
    return unit // SEAL_UNITS


def range_count(units: int) -> int:
    """How many ranges a job of that many units has."""
    return -(-units // SEAL_UNITS)


def range_units(index: int, units: int) -> range:
    """The units of a range, in a job of ``units``; empty when the job has no such range."""
    return range(index * SEAL_UNITS, min((index + 1) * SEAL_UNITS, units))


def leaf(unit: int, epoch: int, result_hash: bytes, accepted: Sequence[bytes]) -> bytes:
    """The bytes of a unit that the Merkle root is over. ``accepted`` are ascending keys.

    Only the keys vary in number, so that no two units have the same bytes.
    """
    return b"".join((unit.to_bytes(4, "big"), epoch.to_bytes(_EPOCH_BYTES, "big"), result_hash, *accepted))


class SealedRange:
    """How each unit of one range ended, in about 40 bytes a unit. A value: equal when its root is."""

    __slots__ = ("_accepted", "_counts", "_epochs", "_hashes", "_root", "count", "first", "workers")

    def __init__(self, first: int, workers: tuple[PeerId, ...], columns: tuple[bytes, bytes, bytes, bytes]) -> None:
        """For ``pack`` and ``decode``: ``columns`` are the last four of the record and hold together already."""
        self.first = first
        self.workers = workers  # all that were accepted in the range, ascending
        self._epochs, self._hashes, self._counts, self._accepted = columns
        self.count = len(self._counts)
        self._root: bytes | None = None

    @classmethod
    def pack(cls, first: int, items: Sequence[SealedUnit]) -> "SealedRange":
        """The record of the units from ``first`` on.

        Raises:
            LocalProtocolError: these do not make a range, or a unit has no proper end.
        """
        if first % SEAL_UNITS or not 0 <= first < MAX_UNITS or not 0 < len(items) <= SEAL_UNITS:
            raise LocalProtocolError(f"{len(items)} units from {first} on are no range")
        for unit, item in enumerate(items, first):
            names = item.accepted
            if not 0 < len(names) <= MAX_ACCEPTED or any(a >= b for a, b in pairwise(names)):
                raise LocalProtocolError(
                    f"the accepted workers of unit {unit} are not 1 to {MAX_ACCEPTED}, ascending"
                )
            if not 0 <= item.epoch <= _MAX_EPOCH or len(item.result_hash) != HASH_BYTES:
                raise LocalProtocolError(f"unit {unit} has no proper epoch or result hash")
        workers = tuple(sorted({worker for item in items for worker in item.accepted}))
        if len(workers) > MAX_RANGE_WORKERS:
            raise LocalProtocolError(f"the units from {first} on have {len(workers)} workers: too many for one range")
        place = {worker: at for at, worker in enumerate(workers)}
        epochs = [item.epoch for item in items]
        if len(set(epochs)) == 1:
            del epochs[1:]
        columns = (
            b"".join(epoch.to_bytes(_EPOCH_BYTES, "big") for epoch in epochs),
            b"".join(item.result_hash for item in items),
            bytes(len(item.accepted) for item in items),
            _pack_places([place[worker] for item in items for worker in item.accepted], len(workers)),
        )
        return cls(first, workers, columns)

    def encode(self) -> bytes:
        """The record for wire and disk; one range has one encoding."""
        keys = b"".join(map(key_from_peer_id, self.workers))
        return encode(
            _Record(SEAL_VERSION, self.first, keys, self._epochs, self._hashes, self._counts, self._accepted)
        )

    @classmethod
    def decode(cls, raw: bytes) -> "SealedRange":
        """The range in ``raw``. Whether it is the right one is for its ``root`` to tell.

        Raises:
            RemoteProtocolError: it is malformed.
        """
        record = decode(raw, _Record, max_bytes=MAX_SEAL_BYTES)
        if record.version != SEAL_VERSION:
            raise RemoteProtocolError(f"a sealed range of version {record.version} is not spoken here")
        _check(record)
        size = PUBLIC_KEY_BYTES
        keys = [record.workers[at : at + size] for at in range(0, len(record.workers), size)]
        if any(a >= b for a, b in pairwise(keys)):
            raise RemoteProtocolError("the workers of a sealed range are not ascending")
        _check_places(_unpack_places(record.accepted, len(keys)), record.counts, len(keys))
        columns = (record.epochs, record.hashes, record.counts, record.accepted)
        return cls(record.first, tuple(map(peer_id_from_key, keys)), columns)

    @property
    def index(self) -> int:
        """Which range of its job it is."""
        return self.first // SEAL_UNITS

    @property
    def root(self) -> bytes:
        """The Merkle root over its units; worked out when first asked for, which takes milliseconds."""
        if self._root is None:
            self._root = merkle.root(self._leaves())
        return self._root

    def __contains__(self, unit: object) -> bool:
        return isinstance(unit, int) and self.first <= unit < self.first + self.count

    def __iter__(self) -> Iterator[SealedUnit]:
        places, at = _unpack_places(self._accepted, len(self.workers)), 0
        for offset, count in enumerate(self._counts):
            accepted = tuple(self.workers[place] for place in places[at : at + count])
            yield SealedUnit(self._epoch(offset), self._hash(offset), accepted)
            at += count

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SealedRange) and (self.first, self.root) == (other.first, other.root)

    def __hash__(self) -> int:
        return hash((self.first, self.root))

    def unit(self, unit: int) -> SealedUnit:
        """How a unit of the range ended.

        Raises:
            LocalProtocolError: the unit is not of this range.
        """
        offset = self._offset(unit)
        at, count = sum(self._counts[:offset]), self._counts[offset]
        width = _width(len(self.workers))
        places = _unpack_places(self._accepted[at * width : (at + count) * width], len(self.workers))
        accepted = tuple(self.workers[place] for place in places)
        return SealedUnit(self._epoch(offset), self._hash(offset), accepted)

    def epoch(self, unit: int) -> int:
        """The epoch in which a unit of the range became final."""
        return self._epoch(self._offset(unit))

    def result_hash(self, unit: int) -> ResultHash:
        """The accepted result of a unit of the range."""
        return self._hash(self._offset(unit))

    def result_hashes(self) -> list[ResultHash]:
        """The accepted results of its units, in their order."""
        return [ResultHash(self._hashes[at : at + HASH_BYTES]) for at in range(0, len(self._hashes), HASH_BYTES)]

    def accepted_by(self) -> Counter[PeerId]:
        """How many results of each worker were accepted."""
        counts = Counter(_unpack_places(self._accepted, len(self.workers)))
        return Counter({self.workers[place]: count for place, count in counts.items()})

    def _offset(self, unit: int) -> int:
        if unit not in self:
            raise LocalProtocolError(f"unit {unit} is not of the range from {self.first} on")
        return unit - self.first

    def _epoch(self, offset: int) -> int:
        at = offset * _EPOCH_BYTES if len(self._epochs) > _EPOCH_BYTES else 0
        return int.from_bytes(self._epochs[at : at + _EPOCH_BYTES], "big")

    def _hash(self, offset: int) -> ResultHash:
        return ResultHash(self._hashes[offset * HASH_BYTES : (offset + 1) * HASH_BYTES])

    def _leaves(self) -> Iterator[bytes]:
        keys = [key_from_peer_id(worker) for worker in self.workers]
        places, at = _unpack_places(self._accepted, len(keys)), 0
        for offset, count in enumerate(self._counts):
            accepted = [keys[place] for place in places[at : at + count]]
            yield leaf(self.first + offset, self._epoch(offset), self._hash(offset), accepted)
            at += count


class SealedJob:
    """The sealed ranges of one job, and what one asks about all of them.

    Memory: ranges of about 40 bytes a unit and 8 for each of their workers, and each worker's name once.
    """

    __slots__ = ("_names", "_ranges", "_sealed_units", "accepted_by", "units")

    def __init__(self, units: int) -> None:
        self.units = units
        self.accepted_by: Counter[PeerId] = Counter()  # results accepted in sealed ranges, by worker
        self._ranges: list[SealedRange | None] = [None] * range_count(units)
        self._sealed_units = 0
        self._names: dict[PeerId, PeerId] = {}

    def add(self, sealed: SealedRange) -> bool:
        """Take in a range; False when it is sealed already, which nothing changes any more.

        Raises:
            RemoteProtocolError: the job has no such range.
        """
        if len(range_units(sealed.index, self.units)) != sealed.count:
            raise RemoteProtocolError(f"{sealed.count} units from {sealed.first} on are no range of this job")
        if self._ranges[sealed.index] is not None:
            return False
        # Decoded ranges have a string of their own for every worker: 100 bytes instead of a reference.
        sealed.workers = tuple(self._names.setdefault(name, name) for name in sealed.workers)
        self._ranges[sealed.index] = sealed
        self._sealed_units += sealed.count
        self.accepted_by.update(sealed.accepted_by())
        return True

    def __contains__(self, unit: object) -> bool:
        return isinstance(unit, int) and 0 <= unit < self.units and self._ranges[unit // SEAL_UNITS] is not None

    def __len__(self) -> int:
        """How many units are sealed."""
        return self._sealed_units

    def range_at(self, index: int) -> SealedRange | None:
        """A range, if it is sealed."""
        return self._ranges[index] if 0 <= index < len(self._ranges) else None

    def ranges(self) -> Iterator[SealedRange]:
        """The sealed ranges, ascending."""
        return (sealed for sealed in self._ranges if sealed is not None)

    def get(self, unit: int) -> SealedUnit | None:
        """How a unit ended, if it is sealed."""
        sealed = self.range_at(unit // SEAL_UNITS)
        return sealed.unit(unit) if sealed is not None and unit in sealed else None

    def result_hash(self, unit: int) -> ResultHash | None:
        """The accepted result of a unit, if it is sealed."""
        sealed = self.range_at(unit // SEAL_UNITS)
        return sealed.result_hash(unit) if sealed is not None and unit in sealed else None

    def result_hashes(self) -> Iterator[tuple[int, ResultHash]]:
        """Every sealed unit with its result, ascending."""
        for sealed in self.ranges():
            yield from enumerate(sealed.result_hashes(), sealed.first)


def _width(workers: int) -> int:
    return 1 if workers <= _SHORT_PLACES else 2


def _pack_places(places: list[int], workers: int) -> bytes:
    if _width(workers) == 1:
        return bytes(places)
    return b"".join(place.to_bytes(2, "big") for place in places)


def _unpack_places(packed: bytes, workers: int) -> Sequence[int]:
    if _width(workers) == 1:
        return packed
    places = array("H", packed)
    if sys.byteorder == "little":
        places.byteswap()
    return places


def _check(record: _Record) -> None:
    """The columns have the lengths that belong together, and only one form says the same."""
    count, workers = len(record.counts), len(record.workers) // PUBLIC_KEY_BYTES
    if record.first % SEAL_UNITS or not 0 < count <= SEAL_UNITS:
        raise RemoteProtocolError(f"{count} units from {record.first} on are no range")
    if len(record.workers) % PUBLIC_KEY_BYTES or workers > MAX_RANGE_WORKERS:
        raise RemoteProtocolError("a sealed range's table of workers is malformed")
    if len(record.hashes) != count * HASH_BYTES:
        raise RemoteProtocolError("a sealed range has not one result hash for each unit")
    if len(record.epochs) != _EPOCH_BYTES and len(record.epochs) != count * _EPOCH_BYTES:
        raise RemoteProtocolError("a sealed range has not one epoch for each unit")
    if len(record.epochs) > _EPOCH_BYTES and record.epochs == record.epochs[:_EPOCH_BYTES] * count:
        raise RemoteProtocolError("a sealed range repeats one epoch")
    if min(record.counts) == 0 or max(record.counts) > MAX_ACCEPTED:
        raise RemoteProtocolError(f"a sealed unit has not 1 to {MAX_ACCEPTED} accepted workers")
    if len(record.accepted) != sum(record.counts) * _width(workers):
        raise RemoteProtocolError("a sealed range's accepted workers are not as many as it counts")


def _check_places(places: Sequence[int], counts: bytes, workers: int) -> None:
    """Every unit's workers are of the table and ascending, and nobody is in the table for nothing."""
    if len(set(places)) != workers or max(places) >= workers:
        raise RemoteProtocolError("a sealed range's table of workers is not that of its units")
    starts = set(accumulate(counts))  # where the next unit's workers begin
    if any(a >= b and at not in starts for at, (a, b) in enumerate(pairwise(places), 1)):
        raise RemoteProtocolError("a sealed unit's accepted workers are not ascending")
