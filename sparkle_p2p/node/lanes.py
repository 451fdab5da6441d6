"""The order in which effects are performed: each core has a lane, and what has to wait for the disk waits there.

A core's batches are performed in order. What stands after a ``Persist`` waits until that is on disk, and so does
every later batch of this core: it may already rest on those records. Records are handed to the store at once, so
that one flush still serves many batches. Events that rest on records which could not be written are withheld, and
told as soon as these are on disk, before anything that comes later.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from sparkle_p2p.node.store import Store, StoreError
from sparkle_p2p.node.store.writing import mark_seen
from sparkle_protocol import effects as fx

log = logging.getLogger("sparkle.node")

MAX_UNTOLD = 10_000  # events of a failing disk; of more, the oldest are never told

CoreT = TypeVar("CoreT")
CoreT_contra = TypeVar("CoreT_contra", contravariant=True)


class Performer(Protocol[CoreT_contra]):
    """What performs single effects."""

    def perform_one(self, core: CoreT_contra, effect: fx.Effect) -> None:
        """Perform an effect whose turn has come."""
        ...

    def fail_one(self, core: CoreT_contra, effect: fx.Effect, reason: str) -> None:
        """What an effect rests on is not on disk: whoever waits for it hears so. It is never a ``Notify``."""
        ...


@dataclass(slots=True)
class _Batch:
    """A batch for whose end somebody waits."""

    done: asyncio.Future[None]
    failure: StoreError | None = None  # of its steps so far, the first one


@dataclass(frozen=True, slots=True)
class _Step:
    """Effects to be performed once ``written`` is done."""

    effects: fx.Effects
    written: asyncio.Future[None] | None = None
    keep: bool = True
    batch: _Batch | None = None
    last: bool = False  # of its batch


class Lanes(Generic[CoreT]):
    """Puts the effects of cores in order.

    Args:
        store: where records go.
        performer: performs what has its turn.
        tell: tells an event to people and clients.
        spawn: runs something in the background, under a name.
    """

    def __init__(
        self,
        store: Store,
        performer: Performer[CoreT],
        tell: Callable[[fx.Notify], None],
        spawn: Callable[[Awaitable[None], str], None],
    ) -> None:
        self._store = store
        self._performer = performer
        self._tell = tell
        self._spawn = spawn
        # Steps that wait for the disk, in order. Each belongs to a request under way or to a unit held, both of
        # which are bounded; an unanswered request is refused after a while whatever its step does.
        self._lanes: dict[int, deque[_Step]] = {}
        self._untold: deque[fx.Notify] = deque(maxlen=MAX_UNTOLD)  # what rests on records that are not on disk yet
        self._stopped = False
        store.on_change = self._storage_changed

    def perform(self, core: CoreT, effects: fx.Effects) -> None:
        """Perform a batch; what has to wait for the disk follows in the background."""
        for step in self._steps(effects, keep=True):
            self._advance(core, step)

    def perform_durably(self, core: CoreT, effects: fx.Effects, *, keep: bool) -> asyncio.Future[None]:
        """Perform a batch; the future is done when its records are on disk.

        Args:
            core: whose effects these are.
            effects: what to perform.
            keep: after a failure write the records later; otherwise the batch has then never happened.
        """
        batch = _Batch(asyncio.get_running_loop().create_future())
        batch.done.add_done_callback(mark_seen)
        for step in self._steps(effects, keep=keep, batch=batch):
            self._advance(core, step)
        self._advance(core, _Step((), self._store.write_soon((), keep=keep), keep, batch, last=True))
        return batch.done

    def stop(self) -> None:
        """Tell nothing any more."""
        self._stopped = True

    def _steps(self, effects: fx.Effects, *, keep: bool, batch: _Batch | None = None) -> Iterator[_Step]:
        """Cut a batch at its Persists; each is handed to the store when its step is taken."""
        # What could not be written before must be on disk before anything is said that may rest on it.
        written = self._store.write_soon(()) if self._store.behind and effects else None
        start = 0
        for position, effect in enumerate(effects):
            if isinstance(effect, fx.Persist):
                if effects[start:position]:
                    yield _Step(effects[start:position], written, keep, batch)
                start = position + 1
                idle = not effect.records and self._store.idle  # a mere barrier, with nothing to wait for
                written = None if idle else self._store.write_soon(effect.records, keep=keep)
        if effects[start:] or written is not None:
            yield _Step(effects[start:], written, keep, batch)

    def _advance(self, core: CoreT, step: _Step) -> None:
        """Take a step now if nothing stands before it, else when its turn has come."""
        lane = self._lanes.get(id(core))
        if lane is not None:
            lane.append(step)
        elif step.written is not None:
            self._lanes[id(core)] = deque((step,))
            self._spawn(self._walk(core), "wait for the disk")
        else:
            self._take(core, step)

    async def _walk(self, core: CoreT) -> None:
        """Take a core's waiting steps in order."""
        lane = self._lanes[id(core)]
        try:
            while lane:
                step = lane[0]
                failure, written = None, step.written
                if written is None and self._store.behind:  # what stood before it in the lane was not written
                    written = self._store.write_soon(())
                if written is not None:
                    try:
                        await written
                    except StoreError as error:
                        failure = error
                self._take(core, step, failure)
                lane.popleft()
        finally:
            del self._lanes[id(core)]
            for step in lane:  # this task was cancelled
                if step.last:
                    self._end(step, StoreError("this node is stopping; whether this is on its disk is not known"))

    def _take(self, core: CoreT, step: _Step, failure: StoreError | None = None) -> None:
        if step.batch is not None:
            step.batch.failure = step.batch.failure or failure
            if not step.keep:  # it happens as a whole or not at all
                failure = step.batch.failure
        for effect in step.effects:
            try:
                if failure is None:
                    self._performer.perform_one(core, effect)
                elif not isinstance(effect, fx.Notify):
                    self._performer.fail_one(core, effect, str(failure))
                elif step.keep:
                    self._untold.append(effect)
            except Exception:
                log.exception("performing a %s failed", type(effect).__name__)
        self._tell_withheld()
        if step.last:
            self._end(step, None)

    @staticmethod
    def _end(step: _Step, failure: StoreError | None) -> None:
        """Answer whoever waits for the batch."""
        if step.batch is None or step.batch.done.done():
            return
        failure = step.batch.failure or failure
        if failure is None:
            step.batch.done.set_result(None)
        else:
            step.batch.done.set_exception(failure)

    def _storage_changed(self) -> None:
        """Tell that the disk fails, or that it works again; then what was withheld."""
        failure = self._store.failure
        if failure is not None:
            self._tell_safely(fx.Notify("storage_failed", {"reason": str(failure)}))
        else:
            self._tell_safely(fx.Notify("storage_restored", {}))
        self._tell_withheld()

    def _tell_withheld(self) -> None:
        while self._untold and not self._store.behind:
            self._tell_safely(self._untold.popleft())

    def _tell_safely(self, event: fx.Notify) -> None:
        if self._stopped:
            return
        try:
            self._tell(event)
        except Exception:
            log.exception("telling %s failed", event.event)
