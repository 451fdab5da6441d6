"""Records that a failing disk did not take: each once, however often it is repeated, in an order that holds."""

from collections.abc import Hashable, Iterator
from itertools import count

from sparkle_protocol.effects import (
    DropCommit,
    DropFact,
    Record,
    SealRange,
    StoreCommit,
    StoreFact,
    StoreResult,
)
from sparkle_protocol.ids import JobId

_RECORD_BYTES = 256  # what a record costs beside its contents


class Backlog:
    """Written in its order, it gives what all added records would have given."""

    def __init__(self) -> None:
        self.bytes = 0
        self._records: dict[Hashable, Record] = {}
        # What removes or reads other records of its job must stay between those before and those after it.
        self._fences: dict[JobId, int] = {}
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records.values())

    def add(self, record: Record) -> None:
        """Keep a record; what it makes pointless goes."""
        job, name = _job(record), _name(record)
        if name is None:
            self._fences[job] = next(self._numbers)
        key = (self._fences.get(job), name)
        before = self._records.get(key)
        self.bytes += record_bytes(record) - (record_bytes(before) if before is not None else 0)
        self._records[key] = record

    def clear(self) -> None:
        """All of it is on disk."""
        self._records.clear()
        self._fences.clear()
        self.bytes = 0


def record_bytes(record: Record) -> int:
    """About how much memory a record holds."""
    if isinstance(record, StoreFact):
        return _RECORD_BYTES + len(record.fact.raw)
    if isinstance(record, StoreResult | StoreCommit):
        return _RECORD_BYTES + len(record.result)
    if isinstance(record, SealRange):
        return _RECORD_BYTES * (1 + len(record.drop)) + len(record.raw)
    return _RECORD_BYTES


def _job(record: Record) -> JobId:
    return record.fact.job if isinstance(record, StoreFact) else record.job


def _name(record: Record) -> Hashable:
    """Of two records of a name the later one alone counts; None: it concerns more than one thing."""
    if isinstance(record, StoreFact):
        return ("fact", record.fact.job, record.fact.id)
    if isinstance(record, DropFact):
        return ("fact", record.job, record.fact_id)
    if isinstance(record, StoreResult):
        return ("result", record.job, record.result_hash)
    if isinstance(record, StoreCommit | DropCommit):
        return ("commit", record.job, record.unit, record.epoch)
    return None
