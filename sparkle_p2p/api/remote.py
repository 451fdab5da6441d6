"""A node in another process, seen through its local API as if it were here: for ``sparkle-node attach``."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import msgspec

from sparkle_p2p.api.client import LocalClient
from sparkle_p2p.api.documents import event_from_document, view_from_json
from sparkle_p2p.view import (
    DeadUnit,
    Event,
    Explanation,
    Finding,
    JobResult,
    JobView,
    KernelView,
    NodeView,
    Requeued,
    SubmitRequest,
)
from sparkle_protocol.errors import NodeNotRunning, SparkleError

if TYPE_CHECKING:
    from sparkle_p2p.ledger_view import CreditView

POLL_S = 0.25
VIEW_TIMEOUT_S = 5.0
EVENT_QUEUE = 256  # a slow reader loses the oldest

T = TypeVar("T")


class RemoteControl:
    """``NodeControl`` over HTTP. A thread fetches the view, so that ``view()`` never waits.

    Use it as a context manager; entering raises ``NodeNotRunning`` if no node answers. When the node goes,
    ``view()`` raises ``NodeNotRunning``; when another starts in the same home directory, it is shown again.
    """

    def __init__(self, client: LocalClient, *, poll_s: float = POLL_S) -> None:
        self._client = client
        self._poll_s = poll_s
        self._latest: NodeView | SparkleError = NodeNotRunning("nothing has been asked yet")
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="sparkle-attach", daemon=True)

    def __enter__(self) -> Self:
        self._latest = self._fetch()
        if isinstance(self._latest, SparkleError):
            raise self._latest
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join(VIEW_TIMEOUT_S + 1)

    def _poll(self) -> None:
        while not self._stopped.wait(self._poll_s):
            self._latest = self._fetch()

    def _fetch(self) -> NodeView | SparkleError:
        try:
            return view_from_json(self._client.request("GET", "/api/v1/view", b"", VIEW_TIMEOUT_S))
        except SparkleError as error:
            return error
        except msgspec.DecodeError:
            return NodeNotRunning("the running node is of another version; restart it")

    def view(self) -> NodeView:
        """The picture of a moment ago."""
        latest = self._latest
        if isinstance(latest, SparkleError):
            raise type(latest)(str(latest))
        return latest

    async def pause(self) -> None:
        """Stop computing at once."""
        await asyncio.to_thread(self._client.pause)

    async def resume(self) -> None:
        """Compute again."""
        await asyncio.to_thread(self._client.resume)

    async def submit(self, request: SubmitRequest) -> str:
        """Publish a job and return its id."""
        return await asyncio.to_thread(
            self._client.submit, request.kernel, request.params, request.units, request.verify, request.inputs,
            free=request.free, sealed=request.sealed,
        )  # fmt: skip

    async def job(self, job: str) -> JobView:
        """One job by id or unique prefix."""
        return await self._typed(JobView, self._client.job, job)

    async def jobs(self) -> tuple[JobView, ...]:
        """All jobs of the node, newest first."""
        return await self._typed(tuple[JobView, ...], self._client.jobs)

    async def result(self, job: str) -> JobResult:
        """The result of a finished job."""
        document = await asyncio.to_thread(self._client.result, job)
        return JobResult(**document)

    async def cancel(self, job: str) -> JobView:
        """Cancel a job."""
        return await self._typed(JobView, self._client.cancel, job)

    async def dead(self, job: str | None = None) -> tuple[DeadUnit, ...]:
        """Dead units of a job or of all."""
        return await self._typed(tuple[DeadUnit, ...], self._client.dead, job)

    async def requeue(self, job: str, unit: int | None = None) -> Requeued:
        """Begin a dead unit, or all of a job, anew."""
        return await self._typed(Requeued, self._client.requeue, job, unit)

    async def why(self, subject: str | None = None) -> Explanation:
        """Explain the node's state or a subject."""
        return await self._typed(Explanation, self._client.why, subject)

    async def checkup(self) -> tuple[Finding, ...]:
        """What blocks the node."""
        return await self._typed(tuple[Finding, ...], self._client.checkup)

    async def credit(self, account: str | None = None) -> "CreditView":
        """The credit of the node's account, or of another."""
        from sparkle_p2p.ledger_view import CreditView

        return await self._typed(CreditView, self._client.credit, account)

    async def kernels(self) -> tuple[KernelView, ...]:
        """Kernels that the node knows."""
        return await self._typed(tuple[KernelView, ...], self._client.kernels)

    async def events(self) -> AsyncIterator[Event]:
        """Events from now on; raises ``NodeNotRunning`` when the node has gone."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[Event | SparkleError] = asyncio.Queue(EVENT_QUEUE)
        stopped = threading.Event()

        def offer(item: Event | SparkleError) -> None:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(item)

        def pump() -> None:
            with suppress(RuntimeError):  # the loop has closed: nobody listens any more
                try:
                    for document in self._client.events(stopped.is_set):
                        loop.call_soon_threadsafe(offer, event_from_document(document))
                except SparkleError as error:
                    loop.call_soon_threadsafe(offer, error)

        threading.Thread(target=pump, name="sparkle-events", daemon=True).start()
        try:
            while True:
                item = await queue.get()
                if isinstance(item, SparkleError):
                    raise item
                yield item
        finally:
            stopped.set()

    async def _typed(self, shape: type[T], call: Callable[..., Any], *arguments: Any) -> T:
        document = await asyncio.to_thread(call, *arguments)
        try:
            return msgspec.convert(document, shape)
        except msgspec.ValidationError as error:
            raise SparkleError("the running node is of another version; restart it") from error
