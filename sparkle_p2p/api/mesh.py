"""Work from Python: ``with sparkle_p2p.connect() as mesh: mesh.submit("prime_count", stop=10**9).result()``.

Every call has an awaitable twin of the same name in ``amesh.py``.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from sparkle_p2p.api.attachment import Attachment
from sparkle_p2p.api.display import Progress
from sparkle_p2p.api.session import Document, Patience, Session, checked_done, has_ended, job_view
from sparkle_p2p.api.words import share
from sparkle_p2p.view import JobView, KernelView
from sparkle_protocol.errors import SparkleError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Verify = Literal["fast", "final", "critical"]


def connect(home: "str | os.PathLike[str] | None" = None, net: str | None = None, *, progress: bool = True) -> "Mesh":
    """A mesh through the node that runs in ``home``, or through one that is started for the duration.

    An embedded node is a process of its own in the same directory: it has that directory's identity, settings and
    jobs, works for others as any node does, and leaves with ``close`` or with this program. Jobs that have not
    ended then go on when a node runs there again.

    Args:
        home: the node's directory; None: ``SPARKLE_HOME``, else ``~/.sparkle``.
        net: the network it must be in; None: any, and for an embedded node the one that is configured.
        progress: show the progress of jobs that are waited for, on stderr if that is a terminal, or in the notebook.

    Raises:
        ConfigError: the directory or the network cannot work.
        SparkleError: no node could be started.
    """
    attachment = Attachment(home, net)
    return Mesh(Session(attachment.open()), attachment, Progress(progress))


class Mesh:
    """The jobs of one node. Use it as a context manager, or ``close`` it. Every method raises SparkleError only."""

    def __init__(self, session: Session, attachment: Attachment, progress: Progress) -> None:
        self._session = session
        self._attachment = attachment
        self._progress = progress

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Mesh {'with a node of its own ' if self._attachment.embedded else ''}in {self._attachment.home}>"

    def close(self) -> None:
        """Let go of the node; an embedded one leaves (up to ten seconds). Idempotent."""
        self._attachment.close()

    def submit(
        self,
        kernel: str,
        inputs: Mapping[str, Any] | None = None,
        units: int | None = None,
        verify: Verify = "final",
        *,
        free: bool = False,
        sealed: bool = False,
        **params: Any,
    ) -> "Job":
        """Publish a job and return it.

        The node cuts and hashes the arrays and finds peers that keep the job before it answers: with gigabytes that
        takes a while. Ctrl-C meanwhile cancels the job as soon as it is there; once more does not wait for that.

        Args:
            kernel: what to compute; ``kernels()`` lists them.
            inputs: the kernel's arrays by name: NumPy arrays, or paths of .npy and .png files.
            units: pieces to cut the job into; None: as many as the kernel finds sensible.
            verify: ``fast``, ``final`` or ``critical``: one result, one of a known worker or two that agree, three.
            free: offers no credit: computed where there is nothing better to do.
            sealed: arrays are stored and sent encrypted, in a private network only; parameters are not.
            **params: the kernel's parameters: numbers or text.

        Raises:
            ConfigError: such a kernel, array or parameter cannot work.
            StorageError: there is no room for the arrays.
            TransportError: too few peers took the job up in time.
            NodeNotRunning: the node has gone.
        """
        with self._session.submission(kernel, inputs, units, verify, params, free=free, sealed=sealed) as publish:
            job = _or_undone(publish, undo=self._session.cancel)
        return Job(job, self._session, self._progress)

    def gemm(
        self,
        a: "NDArray[Any]",
        b: "NDArray[Any]",
        verify: Verify = "final",
        *,
        free: bool = False,
        sealed: bool = False,
    ) -> "NDArray[Any]":
        """The matrix product ``a @ b``, waited for; Ctrl-C cancels it.

        Args:
            a: m x k, float32 or float64.
            b: k x n, of the same type.
            verify: as for ``submit``; every block is checked by projection whatever it is.
            free: as for ``submit``.
            sealed: as for ``submit``.

        Returns:
            m x n of the same type, each element within k u / (1 - k u) · (|a| |b|) of the exact one
            (u = 2^-24 for float32, 2^-53 for float64).

        Raises:
            ConfigError: shapes or types do not fit, or a block needs more memory than any worker has.
            ComputeError: the job failed.
            StorageError: there is no room for the arrays.
        """
        return self.submit("gemm", {"a": a, "b": b}, verify=verify, free=free, sealed=sealed).result()  # type: ignore[no-any-return]

    def conv2d(
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
        """The image filtered, waited for; Ctrl-C cancels it. Filters are applied as they are, not turned round.

        Args:
            image: H x W, H x W x C or N x H x W x C, of uint8, float32 or float64.
            weights: h x w for every channel alike, or h x w x C x F; float32 or float64.
            stride: pixels from one window to the next.
            padding: pixels added around the image, or ``same``: the result is as large (odd filters only).
            border: what is added: ``zeros``, or the pixels of the ``edge``, as for photographs.
            verify: as for ``submit``.
            free: as for ``submit``.
            sealed: as for ``submit``.

        Returns:
            As many axes as the image, float32 (float64 for images of float64), and F channels with F filters.

        Raises:
            ConfigError: shapes or types do not fit.
            ComputeError: the job failed.
            StorageError: there is no room for the arrays.
        """
        job = self.submit(
            "conv2d", {"image": image, "weights": weights},
            verify=verify, free=free, sealed=sealed, stride=stride, padding=padding, border=border,
        )  # fmt: skip
        return job.result()  # type: ignore[no-any-return]

    def jobs(self) -> "list[Job]":
        """All jobs of the node, newest first."""
        return [self._job(document) for document in self._session.jobs()]

    def job(self, job: str) -> "Job":
        """One job by id or unique prefix. Raises NotFound."""
        return self._job(self._session.document(job))

    def status(self) -> dict[str, Any]:
        """The document of ``sparkle status --json``: state with reason, peers, safety, load."""
        return self._session.status()

    def kernels(self) -> list[KernelView]:
        """Kernels that the node knows, with their parameters."""
        return self._session.kernels()

    def _job(self, document: Document) -> "Job":
        return Job(document["job"], self._session, self._progress)


class Job:
    """A job of the node. ``id`` is its name; everything else asks the node."""

    def __init__(self, job: str, session: Session, progress: Progress) -> None:
        self.id = job
        self._session = session
        self._progress = progress

    def __repr__(self) -> str:
        return f"<Job {self.id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def state(self) -> str:
        """``queued``, ``running``, ``done``, ``cancelled`` or ``failed``."""
        return str(self._session.document(self.id)["state"])

    @property
    def progress(self) -> float:
        """The share of its units that are accepted, 0 to 1."""
        return share(self._session.document(self.id))

    def view(self) -> JobView:
        """Everything the node shows of it: units by state, workers, rejected results, time left."""
        return job_view(self._session.document(self.id))

    def wait(
        self, timeout: float | None = None, *, cancel_on_interrupt: bool = True, progress: bool | None = None
    ) -> JobView:
        """Return once the job is done, cancelled or failed.

        Args:
            timeout: seconds; None: as long as it takes.
            cancel_on_interrupt: cancel the job when Ctrl-C (KeyboardInterrupt) ends the waiting.
            progress: show the progress or not; None: as ``connect`` was told.

        Raises:
            RequestTimeout: it has not ended in time; it goes on.
            NodeNotRunning: the node has gone; the job goes on with it.
        """
        try:
            patience = Patience(self.id, timeout)
            with self._progress.shown(progress) as show:
                while True:
                    document = self._session.document(self.id)
                    show(document)
                    if has_ended(document):
                        return job_view(document)
                    time.sleep(patience.pause())
        except KeyboardInterrupt:
            if cancel_on_interrupt:
                with contextlib.suppress(SparkleError):
                    self.cancel()
            raise

    def result(
        self,
        timeout: float | None = None,
        *,
        copy: bool = True,
        cancel_on_interrupt: bool = True,
        progress: bool | None = None,
    ) -> Any:
        """What was computed, waited for as ``wait`` does: a number or other value, or a NumPy array.

        Args:
            timeout: seconds to wait; None: as long as it takes.
            copy: False: an array is the node's own file, mapped read-only, whatever its size.
            cancel_on_interrupt: as for ``wait``.
            progress: as for ``wait``.

        Raises:
            ComputeError: the job failed or was cancelled.
            RequestTimeout: it has not ended in time; it goes on.
            StorageError: the array's file is gone.
        """
        checked_done(self.wait(timeout, cancel_on_interrupt=cancel_on_interrupt, progress=progress))
        return self._session.result(self.id, copy=copy)

    def file(self) -> bytes:
        """The file that a finished job made, as the picture of ``mandelbrot`` (PNG); empty if it made none.

        Raises:
            ConfigError: the job is not done.
        """
        return self._session.file(self.id)

    def cancel(self) -> JobView:
        """End the job; one that has ended stays as it is."""
        return job_view(self._session.cancel(self.id))


def _or_undone(publish: Callable[[], str], undo: Callable[[str], object]) -> str:
    """The job that ``publish`` gives. Of one that was published while Ctrl-C came nobody would know: it is undone."""
    with _interrupts_noted() as noted:
        try:
            job = publish()
        except SparkleError as error:
            if noted:
                raise KeyboardInterrupt from error
            raise
    if noted:
        with contextlib.suppress(SparkleError):
            undo(job)
        raise KeyboardInterrupt
    return job


@contextlib.contextmanager
def _interrupts_noted() -> Iterator[list[int]]:
    """Has the first Ctrl-C noted instead of raised; one more is raised. A program's own handler stays as it is."""
    noted: list[int] = []

    def note(number: int, frame: object) -> None:
        if noted:
            raise KeyboardInterrupt
        noted.append(number)

    in_main = threading.current_thread() is threading.main_thread()  # only there are signals handled
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield noted
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
