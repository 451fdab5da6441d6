"""Makes records durable: group commit, and what becomes of records that a failing disk does not take.

Calls that arrive while a commit is under way share the next one, so a flush costs a node the same whether one unit
or a hundred wait for it; they end in the order in which they were made. Records that could not be written are kept
and go first into the next attempt, which is made every ``RETRY_S`` even if nobody asks, so that a disk that was full
for a while leaves no gap. If more comes than can be kept, memory and disk differ: from then on every write fails,
until the node is started again.
"""

import asyncio
import logging
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sparkle_p2p.node.store.backlog import Backlog, record_bytes
from sparkle_p2p.node.store.schema import write_records
from sparkle_protocol.effects import Record
from sparkle_protocol.errors import SparkleError

log = logging.getLogger("sparkle.store")

# Of records that are not on disk yet. Beyond the first bounds the store is crowded: what nobody was promised yet is
# refused, requests of peers too. What comes all the same is taken up to the second ones, and beyond them given up.
CROWDED_RECORDS, CROWDED_BYTES = 100_000, 128 << 20
MAX_RECORDS, MAX_BYTES = 200_000, 256 << 20
RETRY_S = 2.0  # between attempts while the disk fails and nobody asks for one
EAGER_RECORDS = 1_000  # a longer backlog is not tried again with every write, but every RETRY_S


class StoreError(SparkleError):
    """The database could not be read or written."""


@dataclass(slots=True)
class _Write:
    """Records of one caller, what tells it that they are on disk, and whether to try again if they are not."""

    records: Sequence[Record]
    size: int  # in bytes
    done: asyncio.Future[None]
    keep: bool


class RecordWriter(ABC):
    """Writes records in the order in which they come.

    Args:
        path: of the database, for what is told about it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.on_change: Callable[[], None] = _nothing
        """Called when ``failure`` has changed, before those who wait for a write hear of it."""
        self._pending: list[_Write] = []
        self._waiting_records = 0  # pending ones and those that are being written
        self._waiting_bytes = 0
        self._backlog = Backlog()
        self._failing: StoreError | None = None  # how the latest attempt failed
        self._lost: StoreError | None = None  # records were given up
        self._flushing: asyncio.Task[None] | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._retry_due = False
        self._closing = False

    @abstractmethod
    async def _transact(self, work: Callable[[sqlite3.Connection], None]) -> None:
        """Run something with the connection. Raises StoreError when there is none, and what ``work`` raises."""

    async def _drain(self) -> None:
        """Try a last time to write what is pending."""
        if self._backlog:
            self._try_again()
        self._closing = True
        if self._flushing is not None:
            await self._flushing
        if self._retry is not None:
            self._retry.cancel()

    @property
    def idle(self) -> bool:
        """All that was handed over is on disk."""
        return not (self._pending or self._flushing or self.behind)

    @property
    def behind(self) -> bool:
        """There are records that could not be written so far, or never will be."""
        return bool(self._backlog) or self._lost is not None

    @property
    def failure(self) -> StoreError | None:
        """Why nothing can be written now, as a sentence."""
        return self._lost or self._failing

    @property
    def crowded(self) -> bool:
        """More waits for the disk than should."""
        return self._lost is not None or not self._has_room(0, 0, CROWDED_RECORDS, CROWDED_BYTES)

    async def write(self, records: Sequence[Record], *, keep: bool = True) -> None:
        """Make records durable. Raises StoreError."""
        await self.write_soon(records, keep=keep)

    def write_soon(self, records: Sequence[Record], *, keep: bool = True) -> asyncio.Future[None]:
        """Have records written; the future is done when they, and all before them, are on disk.

        Args:
            records: may be empty, which tries again what could not be written before.
            keep: try again later if this fails; otherwise a failure means that they will never be written.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.add_done_callback(mark_seen)
        size = sum(map(record_bytes, records))
        if keep and records and self._lost is None and not self._has_room(len(records), size, MAX_RECORDS, MAX_BYTES):
            self._give_up("more came than can wait for the disk; make room on it and restart the node")
        if self._lost is not None:
            done.set_exception(self._lost)
        elif not keep and records and not self._has_room(len(records), size, CROWDED_RECORDS, CROWDED_BYTES):
            slow = StoreError(f"{self.path} cannot be written fast enough; try again later")
            done.set_exception(self._failing or slow)
        else:
            self._pending.append(_Write(records, size, done, keep))
            self._waiting_records += len(records)
            self._waiting_bytes += size
            self._start_flush()
        return done

    def _has_room(self, records: int, size: int, most_records: int, most_bytes: int) -> bool:
        records += self._waiting_records + len(self._backlog)
        return records <= most_records and size + self._waiting_bytes + self._backlog.bytes <= most_bytes

    def _try_again(self) -> None:
        self._retry_due = True
        self._start_flush()

    def _start_flush(self) -> None:
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush(), name="write to the database")

    async def _flush(self) -> None:
        try:
            while self._pending or self._retry_due:
                batch, self._pending = self._pending, []
                if self._failing is not None and len(self._backlog) > EAGER_RECORDS and not self._retry_due:
                    self._put_off(batch, self._failing)
                else:
                    self._retry_due = False
                    await self._attempt(batch)
                self._waiting_records -= sum(len(write.records) for write in batch)
                self._waiting_bytes -= sum(write.size for write in batch)
        finally:
            self._flushing = None
            if self._failing is not None and not self._closing:
                if self._retry is not None:
                    self._retry.cancel()
                self._retry = asyncio.get_running_loop().call_later(RETRY_S, self._try_again)

    async def _attempt(self, batch: Sequence[_Write]) -> None:
        """Write the backlog and a batch in one transaction."""
        records = [*self._backlog, *(record for write in batch for record in write.records)]
        try:
            await self._write(records)
        except StoreError as error:
            self._put_off(batch, error)
        except Exception:
            log.exception("writing %s failed; its writes are tried one by one", self.path)
            await self._attempt_each(batch)
        else:
            self._written()
            _finish(batch, None)

    async def _attempt_each(self, batch: Sequence[_Write]) -> None:
        """A record that no database takes is a bug of ours: find whose it is, so that it fails alone."""
        backlog = _Write([*self._backlog], 0, asyncio.get_running_loop().create_future(), keep=True)
        backlog.done.add_done_callback(mark_seen)
        writes = [backlog, *batch]
        for place, write in enumerate(writes):
            try:
                await self._write(write.records)
            except StoreError as error:
                self._put_off([one for one in writes[place:] if one is not backlog], error)
                return
            except Exception as error:
                log.exception("a write of %d records failed", len(write.records))
                _finish([write], StoreError(f"{self.path} could not be written ({error}); the log says more"))
                if write.keep:
                    self._give_up(f"it cannot be written ({error}); restart the node, and report this with its log")
                    self._backlog.clear()
                    _finish([*writes, *self._pending], self._lost)
                    self._waiting_records -= sum(len(one.records) for one in self._pending)
                    self._waiting_bytes -= sum(one.size for one in self._pending)
                    self._pending = []
                    return
            else:
                self._written()
                _finish([write], None)

    async def _write(self, records: Sequence[Record]) -> None:
        """One transaction. Raises StoreError when the disk fails, and anything else for a record that is no good."""
        # Without records there must be something to write, or a full disk would pass for one that works.
        try:
            await self._transact(partial(write_records, records=records, probe=self._failing is not None))
        except sqlite3.Error as error:
            if not _is_the_disks(error):
                raise
            raise StoreError(complaint(self.path, "could not be written", error)) from error

    def _put_off(self, batch: Sequence[_Write], error: StoreError) -> None:
        """Keep for the next attempt what may be kept."""
        for record in (record for write in batch if write.keep for record in write.records):
            self._backlog.add(record)
        if self._failing is None:
            log.error("%s", error)
            self._fails(error)
        _finish(batch, error)

    def _written(self) -> None:
        """All up to here is on disk."""
        self._backlog.clear()
        if self._failing is not None:
            self._fails(None)

    def _fails(self, error: StoreError | None) -> None:
        self._failing = error
        if self._lost is None:
            self.on_change()

    def _give_up(self, why: str) -> None:
        """What memory knows will not be on disk: nothing that may rest on it can be promised any more."""
        self._lost = StoreError(f"{self.path} lacks what this node did last: {why}")
        log.error("%s", self._lost)
        self.on_change()


def mark_seen(done: asyncio.Future[None]) -> None:
    """Keep asyncio from reporting a failure for which nobody waits any more."""
    if not done.cancelled():
        done.exception()


def _nothing() -> None:
    """Nobody wants to hear of it."""


def complaint(path: Path, what: str, error: Exception) -> str:
    """What happened to the database and what can be done, as one sentence."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        advice = "it is damaged: restore it, or move it away to start without its history"
    elif code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        advice = "check its permissions and whether its disk is mounted read-only"
    else:
        advice = "free some space or check the disk"
    return f"{path} {what} ({error}); {advice}"


def _is_the_disks(error: sqlite3.Error) -> bool:
    """The database or its disk failed; other errors are about what was to be written."""
    return isinstance(error, sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError


def _finish(batch: Sequence[_Write], error: StoreError | None) -> None:
    for write in batch:
        if not write.done.done():
            if error is None:
                write.done.set_result(None)
            else:
                write.done.set_exception(error)
