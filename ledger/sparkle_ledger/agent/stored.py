"""Reads back the evidence about closed jobs: of those that we submitted or worked for it is still on disk.

Whoever meets us later may ask for what proves an old Work of ours. One job is read at a time, and what the disk gives
is made into a record a little at a time; it was verified before it was kept. The last record stays ready for a while,
as a proof is asked for range by range.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator

from sparkle_ledger.agent.desk import SECOND_NS, Desk
from sparkle_ledger.evidence import JobRecord
from sparkle_protocol import effects as fx
from sparkle_protocol.errors import RemoteProtocolError
from sparkle_protocol.facts import Fact, FactCodec, JobSpec
from sparkle_protocol.ids import JobId
from sparkle_protocol.work.sealed import SealedRange

MAX_WAITING = 16  # requests
FACTS = 256  # opened at a time, or as many added to a record: some milliseconds
SEALED = 4  # records of a thousand units each
READY_NS = 30 * SECOND_NS

Found = Callable[[JobRecord | None], None]


class Stored:
    """Evidence on disk that the book does without."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._codec = FactCodec(desk.book.network, verify=_verified_before)
        self._waiting: deque[tuple[JobId, Found]] = deque()
        self._reading: tuple[int, JobId] | None = None  # what the disk was asked for
        self._steps: Generator[None, None, JobRecord | None] | None = None  # make its answer a record
        self._ready: tuple[JobRecord, int] | None = None  # until when

    def __len__(self) -> int:
        return len(self._waiting)

    def find(self, job: JobId, found: Found) -> bool:
        """Have ``found`` called with what is on disk about a job; False: too many wait for that."""
        if self._ready is not None and self._ready[0].job == job:
            found(self._ready[0])
            return True
        if len(self._waiting) >= MAX_WAITING:
            return False
        self._waiting.append((job, found))
        self._read_next()
        return True

    def read(self, event: fx.EvidenceRead) -> None:
        """The disk has answered."""
        if self._reading is not None and self._reading[0] == event.tag and self._steps is None:
            self._steps = self._make(event)

    def tick(self) -> None:
        """Go on with the record, and forget one that nobody asks for."""
        now_ns = self._desk.now_ns
        if self._ready is not None and self._ready[1] <= now_ns:
            self._ready = None
        if self._steps is None or self._reading is None:
            return
        try:
            next(self._steps)
        except StopIteration as made:
            self._answer(self._reading[1], made.value)

    def _answer(self, job: JobId, record: JobRecord | None) -> None:
        self._steps = self._reading = None
        if record is not None:
            self._ready = (record, self._desk.now_ns + READY_NS)
        asked = [found for wanted, found in self._waiting if wanted == job]
        self._waiting = deque(one for one in self._waiting if one[0] != job)
        for found in asked:
            found(record)
        self._read_next()

    def dues(self) -> Iterator[int]:
        """When ``tick`` has something to do."""
        if self._steps is not None:
            yield self._desk.now_ns
        if self._ready is not None:
            yield self._ready[1]

    def _read_next(self) -> None:
        if self._reading is None and self._waiting:
            job = self._waiting[0][0]
            self._reading = (self._desk.next_tag(), job)
            self._desk.do(fx.ReadEvidence(*self._reading))

    def _make(self, event: fx.EvidenceRead) -> Generator[None, None, JobRecord | None]:
        facts: list[Fact] = []
        for number, raw in enumerate(event.facts, start=1):
            try:
                facts.append(self._codec.open(raw))
            except RemoteProtocolError:  # of a version that is not spoken any more
                continue
            if not number % FACTS:
                yield
        spec = next((fact for fact in facts if type(fact.payload) is JobSpec), None)
        if spec is None:
            return None
        record = JobRecord(spec, self._codec.network)
        for first in range(0, len(facts), FACTS):
            record.add_all(facts[first : first + FACTS])
            yield
        for number, raw in enumerate(event.sealed, start=1):
            try:
                record.add_sealed(SealedRange.decode(raw))
            except RemoteProtocolError:
                continue
            if not number % SEALED:
                yield
        return record


def _verified_before(_key: bytes, _signature: bytes, _message: bytes) -> None:
    """Accepts: only what was verified is kept."""
