"""The order in which effects are performed: each core has a lane, and what has to wait for the disk waits there.

A core's batches are performed in order. What stands after a ``Persist`` waits until that is on disk, and so does
every later batch of this core: it may already rest on those records. Records are handed to the store at once, so
that one flush still serves many batches.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from sparkle_p2p.node.store import Store, StoreError
from sparkle_protocol import effects as fx

log = logging.getLogger("sparkle.node")

MAX_UNTOLD = 10_000  # events of a failing disk; the oldest beyond are dropped, as are records

CoreT = TypeVar("CoreT")
CoreT_contra = TypeVar("CoreT_contra", contravariant=True)


class Performer(Protocol[CoreT_contra]):
    """What performs single effects."""

    def perform_one(self, core: CoreT_contra, effect: fx.Effect) -> None:
        """Perform an effect whose turn has come."""
        ...

    def fail_one(self, core: CoreT_contra, effect: fx.Effect, reason: str) -> None:
        """What an effect rests on is not on disk: whoever waits for it hears so. Never given a ``Notify``."""
        ...


@dataclass(frozen=True, slots=True)
class _Step:
    """Effects to be performed once ``written`` is done."""

    effects: fx.Effects
    written: asyncio.Future[None] | None = None
    keep: bool = True
    done: asyncio.Future[None] | None = None  # whoever waits for the end of the batch


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
        self._storage_failed = False
        self._untold: deque[fx.Notify] = deque(maxlen=MAX_UNTOLD)  # what rests on records that are not on disk yet

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
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for step in self._steps(effects, keep=keep):
            self._advance(core, step)
        self._advance(core, _Step((), self._store.write_soon((), keep=keep), keep, done))
        return done

    def _steps(self, effects: fx.Effects, *, keep: bool) -> Iterator[_Step]:
        """Cut a batch at its Persists; each is handed to the store when its step is taken."""
        # What could not be written before must be on disk before anything is said that may rest on it.
        written = self._store.write_soon(()) if self._store.behind and effects else None
        start = 0
        for position, effect in enumerate(effects):
            if isinstance(effect, fx.Persist):
                if effects[start:position]:
                    yield _Step(effects[start:position], written, keep)
                start = position + 1
                idle = not effect.records and self._store.idle  # a mere barrier, with nothing to wait for
                written = None if idle else self._store.write_soon(effect.records, keep=keep)
        if effects[start:] or written is not None:
            yield _Step(effects[start:], written, keep)

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
                    self._note_storage(failure)
                self._take(core, step, failure)
                lane.popleft()
        finally:
            del self._lanes[id(core)]

    def _take(self, core: CoreT, step: _Step, failure: StoreError | None = None) -> None:
        for effect in step.effects if failure is None or step.keep else ():
            try:
                if failure is None:
                    self._performer.perform_one(core, effect)
                elif isinstance(effect, fx.Notify):
                    self._untold.append(effect)
                else:
                    self._performer.fail_one(core, effect, str(failure))
            except Exception:
                log.exception("performing a %s failed", type(effect).__name__)
        if step.done is not None and not step.done.done():
            if failure is None:
                step.done.set_result(None)
            else:
                step.done.set_exception(failure)

    def _note_storage(self, failure: StoreError | None) -> None:
        """Tell once that the disk fails, and once that it works again."""
        if failure is not None and not self._storage_failed:
            self._tell(fx.Notify("storage_failed", {"reason": str(failure)}))
        elif failure is None and self._storage_failed:
            self._tell(fx.Notify("storage_restored", {}))
        self._storage_failed = failure is not None
        while self._untold and failure is None:  # a batch that was written brought all from before with it
            self._tell(self._untold.popleft())
