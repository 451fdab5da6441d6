"""Work from Python with asyncio: ``async with sparkle_p2p.aconnect() as mesh: job = await mesh.submit(...)``.

Each call is a blocking one of ``session.py`` in a thread: they are short, and one implementation serves both twins.
"""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from sparkle_p2p.api.attachment import Attachment
from sparkle_p2p.api.display import Progress
from sparkle_p2p.api.mesh import Verify
from sparkle_p2p.api.session import Document, Patience, Session, checked_done, has_ended, job_view
from sparkle_p2p.api.words import share
from sparkle_p2p.view import JobView, KernelView
from sparkle_protocol.errors import NodeNotRunning, SparkleError

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")


def aconnect(
    home: "str | os.PathLike[str] | None" = None, net: str | None = None, *, progress: bool = True
) -> "AsyncMesh":
    """As ``connect``, for ``async with``: entering finds or starts the node, and raises what ``connect`` does."""
    return AsyncMesh(Attachment(home, net), Progress(progress))


class AsyncMesh:
    """The awaitable twin of ``Mesh``. Use it as an async context manager."""

    def __init__(self, attachment: Attachment, progress: Progress) -> None:
        self._attachment = attachment
        self._progress = progress
        self._opened: Session | None = None

    async def __aenter__(self) -> Self:
        try:
            self._opened = Session(await asyncio.to_thread(self._attachment.open))
        except asyncio.CancelledError:
            await asyncio.to_thread(self._attachment.close)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<AsyncMesh in {self._attachment.home}>"

    @property
    def _session(self) -> Session:
        if self._opened is None:
            raise NodeNotRunning("this mesh is not connected; write 'async with aconnect() as mesh:'")
        return self._opened

    async def close(self) -> None:
        """Let go of the node; an embedded one leaves (up to ten seconds). Idempotent."""
        await asyncio.to_thread(self._attachment.close)

    async def submit(
        self,
        kernel: str,
        inputs: Mapping[str, Any] | None = None,
        units: int | None = None,
        verify: Verify = "final",
        *,
        free: bool = False,
        sealed: bool = False,
        **params: Any,
    ) -> "AsyncJob":
        """As ``Mesh.submit``; a cancellation meanwhile cancels the job."""
        session = self._session

        def publish() -> str:
            with session.submission(kernel, inputs, units, verify, params, free=free, sealed=sealed) as now:
                return now()

        job = await _or_undone(publish, undo=session.cancel)
        return AsyncJob(job, session, self._progress)

    async def gemm(
        self,
        a: "NDArray[Any]",
        b: "NDArray[Any]",
        verify: Verify = "final",
        *,
        free: bool = False,
        sealed: bool = False,
    ) -> "NDArray[Any]":
        """As ``Mesh.gemm``; the cancellation of the task cancels the job."""
        job = await self.submit("gemm", {"a": a, "b": b}, verify=verify, free=free, sealed=sealed)
        return await job.result()  # type: ignore[no-any-return]

    async def conv2d(
        self,
        image: "NDArray[Any]",
        weights: "NDArray[Any]",
        stride: int = 1,
        padding: int | str = "same",
        border: Literal["zeros", "edge"] = "zeros",
        verify: Verify = "final",
        *,
        free: bool = False,
        sealed: bool = False,
    ) -> "NDArray[Any]":
        """As ``Mesh.conv2d``; the cancellation of the task cancels the job."""
        job = await self.submit(
            "conv2d", {"image": image, "weights": weights},
            verify=verify, free=free, sealed=sealed, stride=stride, padding=padding, border=border,
        )  # fmt: skip
        return await job.result()  # type: ignore[no-any-return]

    async def jobs(self) -> "list[AsyncJob]":
        """All jobs of the node, newest first."""
        return [self._job(document) for document in await asyncio.to_thread(self._session.jobs)]

    async def job(self, job: str) -> "AsyncJob":
        """One job by id or unique prefix. Raises NotFound."""
        return self._job(await asyncio.to_thread(self._session.document, job))

    async def status(self) -> dict[str, Any]:
        """As ``Mesh.status``."""
        return await asyncio.to_thread(self._session.status)

    async def kernels(self) -> list[KernelView]:
        """As ``Mesh.kernels``."""
        return await asyncio.to_thread(self._session.kernels)

    def _job(self, document: Document) -> "AsyncJob":
        return AsyncJob(document["job"], self._session, self._progress)


class AsyncJob:
    """The awaitable twin of ``Job``: ``await job.state``, ``await job.result()``."""

    def __init__(self, job: str, session: Session, progress: Progress) -> None:
        self.id = job
        self._session = session
        self._progress = progress

    def __repr__(self) -> str:
        return f"<AsyncJob {self.id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AsyncJob) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def state(self) -> Awaitable[str]:
        """As ``Job.state``, to be awaited."""
        return self._asked(lambda document: str(document["state"]))

    @property
    def progress(self) -> Awaitable[float]:
        """As ``Job.progress``, to be awaited."""
        return self._asked(share)

    async def view(self) -> JobView:
        """As ``Job.view``."""
        return job_view(await self._document())

    async def wait(
        self, timeout: float | None = None, *, cancel_on_interrupt: bool = True, progress: bool | None = None
    ) -> JobView:
        """As ``Job.wait``; what interrupts it is the cancellation of the task, also by ``asyncio.timeout``."""
        try:
            patience = Patience(self.id, timeout)
            with self._progress.shown(progress) as show:
                while True:
                    document = await self._document()
                    show(document)
                    if has_ended(document):
                        return job_view(document)
                    await asyncio.sleep(patience.pause())
        except asyncio.CancelledError:
            if cancel_on_interrupt:
                with contextlib.suppress(SparkleError):
                    await self.cancel()
            raise

    async def result(
        self,
        timeout: float | None = None,
        *,
        copy: bool = True,
        cancel_on_interrupt: bool = True,
        progress: bool | None = None,
    ) -> Any:
        """As ``Job.result``."""
        checked_done(await self.wait(timeout, cancel_on_interrupt=cancel_on_interrupt, progress=progress))
        return await asyncio.to_thread(self._session.result, self.id, copy=copy)

    async def file(self) -> bytes:
        """As ``Job.file``."""
        return await asyncio.to_thread(self._session.file, self.id)

    async def cancel(self) -> JobView:
        """As ``Job.cancel``."""
        return job_view(await asyncio.to_thread(self._session.cancel, self.id))

    async def _document(self) -> Document:
        return await asyncio.to_thread(self._session.document, self.id)

    async def _asked(self, of: Callable[[Document], T]) -> T:
        return of(await self._document())


async def _or_undone(call: Callable[[], str], undo: Callable[[str], object]) -> str:
    """The result of ``call`` in a thread; when we are cancelled meanwhile, its end is awaited and undone."""
    asked = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        return await asyncio.shield(asked)
    except asyncio.CancelledError:
        with contextlib.suppress(SparkleError):
            await asyncio.to_thread(undo, await asked)
        raise
