"""A small synchronous client of a running node's local API.

``sparkle status`` is judged by its start-up time, so this module speaks HTTP over ``_socket`` itself:
importing ``socket`` costs almost as much as a bare Python start, ``http.client`` three times that. It speaks
HTTP/1.0, where a body ends with its connection, so neither chunks nor keep-alive have to be understood.
"""

from __future__ import annotations

import _socket
import os
import time

from sparkle_p2p.runtime.locate import RunningNode, find_node
from sparkle_protocol import errors
from sparkle_protocol.errors import ConfigError, NodeNotRunning, RequestTimeout, SparkleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

TIMEOUT_S = 35.0  # a little more than the server gives a call
SUBMIT_TIMEOUT_S = 80.0
INPUTS_TIMEOUT_S = 3630.0  # gigabytes are cut, hashed and copied to the keepers first; a little more than the server
CONNECT_TIMEOUT_S = 3.0
MAX_RESPONSE_BYTES = 256 * 1024 * 1024
_MAX_EVENT_BYTES = 1024 * 1024
_STREAM_SILENCE_S = 35.0  # three missed keep-alives
_POLL_S = 0.5


class LocalClient:
    """Asks the node that runs in ``home``. Every method raises ``SparkleError`` subclasses only.

    A node that was restarted is found again: each call looks the address up.
    """

    __slots__ = ("home",)

    def __init__(self, home: str | os.PathLike[str]) -> None:
        self.home = os.fspath(home)

    def status_bytes(self) -> bytes:
        """The status document as it came, for ``status --json`` without parsing."""
        return self.request("GET", "/api/v1/status")

    def status(self) -> dict[str, Any]:
        """The status document."""
        return self._json("GET", "/api/v1/status")  # type: ignore[no-any-return]

    def view_bytes(self) -> bytes:
        """The whole ``NodeView`` as JSON."""
        return self.request("GET", "/api/v1/view")

    def peers(self) -> list[dict[str, Any]]:
        """Connected peers."""
        return self._json("GET", "/api/v1/peers")  # type: ignore[no-any-return]

    def kernels(self) -> list[dict[str, Any]]:
        """Kernels that the node knows."""
        return self._json("GET", "/api/v1/kernels")  # type: ignore[no-any-return]

    def jobs(self) -> list[dict[str, Any]]:
        """The node's own jobs, newest first."""
        return self._json("GET", "/api/v1/jobs")  # type: ignore[no-any-return]

    def job(self, job: str) -> dict[str, Any]:
        """One job by id or unique prefix."""
        return self._json("GET", f"/api/v1/jobs/{_quote(job)}")  # type: ignore[no-any-return]

    def submit(
        self,
        kernel: str,
        params: Mapping[str, Any],
        units: int | None = None,
        verify: str = "final",
        inputs: Mapping[str, str] | None = None,
        *,
        free: bool = False,
        sealed: bool = False,
    ) -> str:
        """Publish a job and return its id; ``inputs``: absolute paths of files that the node reads, by name."""
        document: dict[str, Any] = {"kernel": kernel, "params": dict(params), "units": units, "verify": verify}
        if inputs:
            document["inputs"] = dict(inputs)
        if free:
            document["free"] = True
        if sealed:
            document["sealed"] = True
        return str(
            self._json("POST", "/api/v1/jobs", document, INPUTS_TIMEOUT_S if inputs else SUBMIT_TIMEOUT_S)["job"]
        )

    def result(self, job: str) -> dict[str, Any]:
        """A finished job's ``job``, ``kernel``, ``value``, ``media_type`` and ``data`` (bytes)."""
        import base64

        document: dict[str, Any] = self._json("GET", f"/api/v1/jobs/{_quote(job)}/result")
        document["data"] = base64.b64decode(document.get("data") or "")
        return document

    def cancel(self, job: str) -> dict[str, Any]:
        """Cancel a job and return it."""
        return self._json("DELETE", f"/api/v1/jobs/{_quote(job)}")  # type: ignore[no-any-return]

    def dead(self, job: str | None = None) -> list[dict[str, Any]]:
        """Dead units with their evidence, of a job or of all."""
        query = f"?job={_quote(job)}" if job else ""
        return self._json("GET", "/api/v1/dead" + query)  # type: ignore[no-any-return]

    def requeue(self, job: str, unit: int | None = None) -> dict[str, Any]:
        """Begin a dead unit (None: all of the job) anew; returns ``job``, ``units`` and ``state``."""
        query = f"?unit={unit}" if unit is not None else ""
        return self._json("POST", f"/api/v1/jobs/{_quote(job)}/requeue{query}")  # type: ignore[no-any-return]

    def why(self, subject: str | None = None) -> dict[str, Any]:
        """The explanation of the node's state or of a subject."""
        query = f"?subject={_quote(subject)}" if subject else ""
        return self._json("GET", "/api/v1/why" + query)  # type: ignore[no-any-return]

    def checkup(self) -> list[dict[str, Any]]:
        """What the node's checks of itself came to."""
        return self._json("GET", "/api/v1/checkup")  # type: ignore[no-any-return]

    def credit(self, account: str | None = None) -> dict[str, Any]:
        """The credit of the node's account, or of another that it keeps entries of."""
        query = f"?account={_quote(account)}" if account else ""
        return self._json("GET", "/api/v1/credit" + query)  # type: ignore[no-any-return]

    def pause(self) -> dict[str, Any]:
        """Stop computing at once; returns the status."""
        return self._json("POST", "/api/v1/pause")  # type: ignore[no-any-return]

    def resume(self) -> dict[str, Any]:
        """Compute again; returns the status."""
        return self._json("POST", "/api/v1/resume")  # type: ignore[no-any-return]

    def events(self, stopped: Callable[[], bool] = lambda: False) -> Iterator[dict[str, Any]]:
        """Events from now on, until ``stopped()`` (asked twice a second) or the node leaves.

        Raises:
            NodeNotRunning: the node has gone, or nothing (not even a keep-alive) came for 35 s.
        """
        import json

        for line in self._event_lines(stopped):
            if line.startswith(b"data: "):
                yield json.loads(line[6:])

    def _event_lines(self, stopped: Callable[[], bool]) -> Iterator[bytes]:
        node = find_node(self.home)
        connection = _connect(node)
        try:
            try:
                _send(connection, node, "GET", "/api/v1/events", b"")
            except OSError as error:
                raise NodeNotRunning(f"the node in {self.home} has stopped") from error
            buffer, head_seen = b"", False
            deadline = time.monotonic() + _STREAM_SILENCE_S
            while not stopped():
                chunk = _receive_within(connection, _POLL_S)
                if chunk is None and time.monotonic() > deadline:
                    raise NodeNotRunning(f"the node in {self.home} fell silent; look at its log")
                if chunk == b"":
                    raise NodeNotRunning(f"the node in {self.home} has stopped")
                if not chunk:
                    continue
                deadline = time.monotonic() + _STREAM_SILENCE_S
                buffer += chunk
                if not head_seen and b"\r\n\r\n" in buffer:
                    head, _, buffer = buffer.partition(b"\r\n\r\n")
                    head_seen = True
                    if _status(head) != 200:
                        raise _error(_status(head), buffer)
                if head_seen:
                    *lines, buffer = buffer.split(b"\n")
                    yield from lines
                if len(buffer) > _MAX_EVENT_BYTES:
                    raise SparkleError(f"the node in {self.home} sent an endless event")
        finally:
            connection.close()

    def request(self, method: str, path: str, body: bytes = b"", timeout_s: float = TIMEOUT_S) -> bytes:
        """The body of the answer to one request; a refusal is raised as the error it names."""
        node = find_node(self.home)
        connection = _connect(node)
        try:
            _send(connection, node, method, path, body)
            answer = _receive_all(connection, time.monotonic() + timeout_s)
        except TimeoutError as error:
            raise RequestTimeout(
                f"the node in {self.home} did not answer within {timeout_s:.0f} s; look at its log"
            ) from error
        except OSError as error:
            raise NodeNotRunning(f"the node in {self.home} stopped before it answered") from error
        finally:
            connection.close()
        head, found, payload = answer.partition(b"\r\n\r\n")
        status = _status(head)
        if not found or not _complete(head, payload):
            raise NodeNotRunning(f"the node in {self.home} stopped before it had answered")
        if status >= 400:
            raise _error(status, payload)
        return payload

    def _json(self, method: str, path: str, document: Any = None, timeout_s: float = TIMEOUT_S) -> Any:
        import json

        body = b"" if document is None else json.dumps(document).encode()
        answer = self.request(method, path, body, timeout_s)
        try:
            return json.loads(answer)
        except ValueError as error:
            raise SparkleError(f"the node in {self.home} answered with something that is not JSON") from error


def _connect(node: RunningNode) -> _socket.socket:
    family = _socket.AF_INET6 if ":" in node.host else _socket.AF_INET
    connection = _socket.socket(family, _socket.SOCK_STREAM)
    try:
        connection.settimeout(CONNECT_TIMEOUT_S)
        connection.connect((node.host, node.port))
        connection.settimeout(TIMEOUT_S)
    except OSError as error:
        connection.close()
        raise NodeNotRunning(
            f"the node in {node.home} (process {node.pid}) does not answer on port {node.port}; "
            "look at its log, or stop it and start it again"
        ) from error
    return connection


def _send(connection: _socket.socket, node: RunningNode, method: str, path: str, body: bytes) -> None:
    host = f"[{node.host}]" if ":" in node.host else node.host
    head = (
        f"{method} {path} HTTP/1.0\r\nHost: {host}:{node.port}\r\nAuthorization: Bearer {node.token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    connection.sendall(head.encode("ascii") + body)


def _receive_all(connection: _socket.socket, deadline: float) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        part = connection.recv(256 * 1024)
        if not part:
            return b"".join(parts)
        parts.append(part)
        size += len(part)
        if size > MAX_RESPONSE_BYTES:
            raise SparkleError(f"the node answered with more than {MAX_RESPONSE_BYTES >> 20} MiB")


def _receive_within(connection: _socket.socket, seconds: float) -> bytes | None:
    connection.settimeout(seconds)
    try:
        return connection.recv(64 * 1024)
    except TimeoutError:
        return None
    except OSError:
        return b""


def _status(head: bytes) -> int:
    words = head[:32].split(b" ", 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        raise NodeNotRunning("what answers on the node's port is not a Sparkle node; restart the node")
    return int(words[1])


def _complete(head: bytes, payload: bytes) -> bool:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return value.strip().isdigit() and int(value) == len(payload)
    return True


def _error(status: int, payload: bytes) -> SparkleError:
    """The error that the node named, back in our tree."""
    import json

    try:
        document = json.loads(payload)
        sentence, kind = str(document["error"]), str(document["kind"])
    except (ValueError, KeyError, TypeError):
        sentence, kind = f"the node answered with HTTP status {status}", "SparkleError"
    cls = getattr(errors, kind, SparkleError)
    if not (isinstance(cls, type) and issubclass(cls, SparkleError)):
        cls = SparkleError
    return cls(sentence)


def _quote(text: str) -> str:
    """Percent-encoding of one path segment or query value (RFC 3986), without importing urllib."""
    if not text or len(text) > 256:
        raise ConfigError("an id has 1 to 256 characters")
    safe = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
    return "".join(chr(byte) if byte in safe else f"%{byte:02X}" for byte in text.encode("utf-8", "replace"))
