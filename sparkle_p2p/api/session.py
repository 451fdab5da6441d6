"""What a program asks of its node, one blocking call each: the part that ``Mesh`` and ``AsyncMesh`` share."""

import contextlib
import operator
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import msgspec

from sparkle_p2p.api.arrays import ARRAY_MEDIA_TYPE, input_files, load_array
from sparkle_p2p.api.client import LocalClient
from sparkle_p2p.api.words import ENDED, ending, short_job
from sparkle_p2p.view import JobView, KernelView
from sparkle_protocol.errors import ComputeError, ConfigError, RequestTimeout, SparkleError

_LEVELS = ("fast", "final", "critical")
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.25

Document = dict[str, Any]
T = TypeVar("T")


class Session:
    """Calls to one node. Every method raises ``SparkleError`` subclasses only, and may be used from any thread."""

    def __init__(self, client: LocalClient) -> None:
        self._client = client

    @contextlib.contextmanager
    def submission(
        self,
        kernel: str,
        inputs: Mapping[str, Any] | None,
        units: int | None,
        verify: str,
        params: Mapping[str, Any],
        *,
        free: bool = False,
        sealed: bool = False,
    ) -> Iterator[Callable[[], str]]:
        """What publishes a job and gives its id; its arrays lie in files while the block runs."""
        if not isinstance(kernel, str):
            raise ConfigError(f"a kernel has a name, as 'prime_count'; this is a {type(kernel).__name__[:40]}")
        if not isinstance(inputs, Mapping | None):
            raise ConfigError(
                f"inputs are arrays by name, as inputs={{'a': array}}, not a {type(inputs).__name__[:40]}; "
                "parameters are given by name, as stop=1000"
            )
        if verify not in _LEVELS:
            raise ConfigError(f"verify is one of {', '.join(_LEVELS)}, not {str(verify)[:40]!r}")
        plain = {name: _plain(name, value) for name, value in params.items()}
        whole = _whole(units)
        with input_files(self._client.home, inputs or {}) as files:
            yield lambda: self._client.submit(kernel, plain, whole, verify, files, free=free, sealed=sealed)

    def document(self, job: str) -> Document:
        """The job as it stands."""
        return self._client.job(job)

    def jobs(self) -> list[Document]:
        """All jobs of the node, newest first."""
        return self._client.jobs()

    def status(self) -> Document:
        """The status document."""
        return self._client.status()

    def kernels(self) -> list[KernelView]:
        """Kernels that the node knows."""
        return converted(self._client.kernels(), list[KernelView])

    def result(self, job: str, *, copy: bool) -> Any:
        """The value of a job that is done, or its array."""
        document = self._client.result(job)
        if document.get("media_type") == ARRAY_MEDIA_TYPE:
            return load_array(document["value"], copy=copy)
        return document["value"]

    def file(self, job: str) -> bytes:
        """The file of a job that is done; empty if its result is a value alone."""
        data: bytes = self._client.result(job)["data"]
        return data

    def cancel(self, job: str) -> Document:
        """End the job."""
        return self._client.cancel(job)


def job_view(document: Document) -> JobView:
    """A job's document as the type that everything shows."""
    return converted(document, JobView)


def converted(document: Any, wanted: type[T]) -> T:
    """A document of the node as a type of ours.

    Raises:
        SparkleError: it is none.
    """
    try:
        return msgspec.convert(document, wanted)
    except msgspec.ValidationError as error:
        raise SparkleError("the node speaks another version of Sparkle; restart it with this one") from error


class Patience:
    """Says when to look at a job again: soon at first, so that a short job is noticed at once.

    Args:
        job: its id.
        timeout: seconds after which waiting ends; None: never.
    """

    def __init__(self, job: str, timeout: float | None) -> None:
        self._job = job
        self._timeout = timeout
        self._until = None if timeout is None else time.monotonic() + timeout
        self._pause = _FIRST_PAUSE_S

    def pause(self) -> float:
        """Seconds until the next look.

        Raises:
            RequestTimeout: there is no time left.
        """
        pause, self._pause = self._pause, min(self._pause * 1.5, _LONGEST_PAUSE_S)
        if self._until is None or self._timeout is None:
            return pause
        left = self._until - time.monotonic()
        if left <= 0:
            raise RequestTimeout(f"job {short_job(self._job)} has not ended within {self._timeout:g} s; it goes on")
        return min(pause, left)


def has_ended(document: Document) -> bool:
    """Whether nothing more will happen to the job by itself."""
    return document["state"] in ENDED


def checked_done(view: JobView) -> None:
    """Return if the job is done.

    Raises:
        ComputeError: it failed or was cancelled; the sentence says why.
    """
    if view.state != "done":
        words = ending({"state": view.state, "error": view.error})
        raise ComputeError(f"job {short_job(view.job)} {words}; 'sparkle why {short_job(view.job)}' explains it")


def _plain(name: str, value: Any) -> Any:
    """A parameter as JSON knows it: NumPy's scalars become Python's."""
    if not isinstance(value, str | int | float) and getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if value - value != 0:  # infinities and NaN
            raise ConfigError(f"the parameter '{name}' is {value}; pass a finite number")
        return float(value)
    advice = f"pass arrays as inputs={{'{name}': array}}" if hasattr(value, "shape") else "pass a number or text"
    raise ConfigError(f"the parameter '{name}' cannot be a {type(value).__name__[:40]}; {advice}")


def _whole(units: Any) -> int | None:
    try:
        return None if units is None else operator.index(units)
    except TypeError:
        raise ConfigError(f"units is a whole number, not {str(units)[:40]}") from None
