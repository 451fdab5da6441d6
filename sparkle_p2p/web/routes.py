"""What the local API answers. Every handler asks ``NodeControl`` and nothing else."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import msgspec
from aiohttp import hdrs, web

from sparkle_p2p.api.documents import encode, event_document
from sparkle_p2p.view import Event, NodeControl, SubmitRequest, status_json
from sparkle_p2p.web.guard import error_response, json_response
from sparkle_protocol.errors import ConfigError

CALL_TIMEOUT_S = 30.0
SUBMIT_TIMEOUT_S = 75.0  # what the job may cost is set aside first, and then it is published
INPUTS_TIMEOUT_S = 3600.0  # a submission whose files are read and stored first
KEEP_ALIVE_S = 10.0  # proxies and clients give a silent stream up after 30 s and more
SEND_TIMEOUT_S = 10.0  # a client that takes nothing for so long is dropped
MAX_EVENT_CLIENTS = 16  # each costs a queue and a task
MAX_UNITS = 2**20
MAX_UNIT_DIGITS = 7
MAX_INPUTS = 16
MAX_PATH = 4096


class Routes:
    """Handlers over one node. ``close`` ends the event streams."""

    def __init__(self, control: NodeControl, *, keep_alive_s: float = KEEP_ALIVE_S) -> None:
        self._control = control
        self._keep_alive_s = keep_alive_s
        self._closing = asyncio.Event()
        self._event_clients = 0

    def table(self) -> list[web.RouteDef]:
        """All routes."""
        api = "/api/v1"
        return [
            web.get("/healthz", self.healthz, allow_head=False),
            web.get("/readyz", self.readyz, allow_head=False),
            web.get(f"{api}/status", self.status, allow_head=False),
            web.get(f"{api}/view", self.view, allow_head=False),
            web.get(f"{api}/peers", self.peers, allow_head=False),
            web.get(f"{api}/kernels", self.kernels, allow_head=False),
            web.get(f"{api}/why", self.why, allow_head=False),
            web.get(f"{api}/checkup", self.checkup, allow_head=False),
            web.get(f"{api}/credit", self.credit, allow_head=False),
            web.get(f"{api}/jobs", self.jobs, allow_head=False),
            web.post(f"{api}/jobs", self.submit),
            web.get(f"{api}/jobs/{{job}}", self.job, allow_head=False),
            web.delete(f"{api}/jobs/{{job}}", self.cancel),
            web.get(f"{api}/jobs/{{job}}/result", self.result, allow_head=False),
            web.get(f"{api}/dead", self.dead, allow_head=False),
            web.post(f"{api}/jobs/{{job}}/requeue", self.requeue),
            web.post(f"{api}/pause", self.pause),
            web.post(f"{api}/resume", self.resume),
            web.get(f"{api}/events", self.events, allow_head=False),
        ]

    def close(self) -> None:
        """End the event streams, so that the server can stop."""
        self._closing.set()

    async def healthz(self, _request: web.Request) -> web.Response:
        """200 while the node's loop turns."""
        return json_response({"ok": True})

    async def readyz(self, _request: web.Request) -> web.Response:
        """200 once the network is up; 503 before, after, while it is down, and while nothing can be stored."""
        view = self._control.view()
        ready = view.network in ("alone", "connected") and view.state != "stopping"
        ready = ready and view.reason.code != "storage_failed"
        document = {"ready": ready, "network": view.network, "state": view.state, "reason": view.reason.code}
        return json_response(document, 200 if ready else 503)

    async def status(self, _request: web.Request) -> web.Response:
        """The document of ``sparkle status --json``."""
        return json_response(status_json(self._control.view()))

    async def view(self, _request: web.Request) -> web.Response:
        """The whole ``NodeView``, for ``sparkle-node attach``."""
        return json_response(self._control.view())

    async def peers(self, _request: web.Request) -> web.Response:
        """Connected peers."""
        return json_response(self._control.view().peers)

    async def kernels(self, _request: web.Request) -> web.Response:
        """Kernels that this node knows."""
        async with asyncio.timeout(CALL_TIMEOUT_S):
            return json_response(await self._control.kernels())

    async def why(self, request: web.Request) -> web.Response:
        """The reason of the node's state, or of ``?subject=``."""
        async with asyncio.timeout(CALL_TIMEOUT_S):
            return json_response(await self._control.why(request.query.get("subject") or None))

    async def checkup(self, _request: web.Request) -> web.Response:
        """What blocks this node: findings of its checks of itself."""
        async with asyncio.timeout(CALL_TIMEOUT_S):
            return json_response(await self._control.checkup())

    async def credit(self, request: web.Request) -> web.Response:
        """The credit of this node's account, or of ``?account=``."""
        async with asyncio.timeout(CALL_TIMEOUT_S):
            return json_response(await self._control.credit(request.query.get("account") or None))

    async def jobs(self, _request: web.Request) -> web.Response:
        """Jobs that this node submitted, newest first."""
        async with asyncio.timeout(CALL_TIMEOUT_S):
            return json_response(await self._control.jobs())

    async def submit(self, request: web.Request) -> web.Response:
        """Publish a job; the answer holds its id."""
        if request.content_type != "application/json":
            return error_response(415, "send the job as application/json", "ConfigError")
        wanted = _submit_request(await request.read())
        async with asyncio.timeout(INPUTS_TIMEOUT_S if wanted.inputs else SUBMIT_TIMEOUT_S):
            job = await self._control.submit(wanted)
        return json_response({"job": job}, 201)

    async def job(self, request: web.Request) -> web.Response:
        """One job, by id or unique prefix."""
        async with asyncio.timeout(CALL_TIMEOUT_S):
            return json_response(await self._control.job(request.match_info["job"]))

    async def cancel(self, request: web.Request) -> web.Response:
        """Cancel a job and show it."""
        async with asyncio.timeout(CALL_TIMEOUT_S):
            return json_response(await self._control.cancel(request.match_info["job"]))

    async def dead(self, request: web.Request) -> web.Response:
        """Dead units with their evidence, of all jobs or of ``?job=``."""
        async with asyncio.timeout(CALL_TIMEOUT_S):
            return json_response(await self._control.dead(request.query.get("job") or None))

    async def requeue(self, request: web.Request) -> web.Response:
        """Begin dead units anew: ``?unit=`` or all of the job."""
        unit = request.query.get("unit")
        if unit is not None and (not unit.isdecimal() or len(unit) > MAX_UNIT_DIGITS):
            raise ConfigError(f"'{unit[:20]}' is no unit; units are numbered from 0")
        async with asyncio.timeout(CALL_TIMEOUT_S):
            number = int(unit) if unit is not None else None
            return json_response(await self._control.requeue(request.match_info["job"], number))

    async def result(self, request: web.Request) -> web.Response:
        """A finished job's result: as JSON, or its file alone if ``Accept`` names just that media type."""
        async with asyncio.timeout(CALL_TIMEOUT_S):
            result = await self._control.result(request.match_info["job"])
        if result.data and request.headers.get(hdrs.ACCEPT) == result.media_type:
            return web.Response(body=result.data, content_type=result.media_type)
        return json_response(result)

    async def pause(self, _request: web.Request) -> web.Response:
        """Stop computing at once."""
        async with asyncio.timeout(CALL_TIMEOUT_S):
            await self._control.pause()
        return json_response(status_json(self._control.view()))

    async def resume(self, _request: web.Request) -> web.Response:
        """Compute again."""
        async with asyncio.timeout(CALL_TIMEOUT_S):
            await self._control.resume()
        return json_response(status_json(self._control.view()))

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events from now on; the oldest are lost to a slow reader, a stuck one is dropped."""
        if self._event_clients >= MAX_EVENT_CLIENTS:
            return error_response(503, f"{MAX_EVENT_CLIENTS} clients follow the events already", "ConfigError")
        self._event_clients += 1
        try:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await response.prepare(request)
                await response.write(b": sparkle events\n\n")
            with contextlib.suppress(ConnectionError, TimeoutError):
                await self._stream(response)
            return response
        finally:
            self._event_clients -= 1

    async def _stream(self, response: web.StreamResponse) -> None:
        source = self._control.events()
        closing = asyncio.ensure_future(self._closing.wait())
        upcoming: asyncio.Future[Event | None] = asyncio.ensure_future(anext(source, None))
        try:
            while not self._closing.is_set():
                # wait() leaves the pending read alone: cancelling it would end the iterator.
                await asyncio.wait(
                    (upcoming, closing), timeout=self._keep_alive_s, return_when=asyncio.FIRST_COMPLETED
                )
                chunk = b": still here\n\n"
                if upcoming.done():
                    event = upcoming.result()
                    if event is None:
                        return
                    chunk = _sse(event)
                    upcoming = asyncio.ensure_future(anext(source, None))
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    await response.write(chunk)
        finally:
            for task in (upcoming, closing):
                task.cancel()
            await asyncio.gather(upcoming, closing, return_exceptions=True)
            await _close(source)


async def _close(source: AsyncIterator[Event]) -> None:
    close = getattr(source, "aclose", None)
    if close is not None:
        await close()


def _sse(event: Event) -> bytes:
    name = "".join(character for character in event.event if character.isalnum() or character in "-_.")
    return b"event: " + name.encode() + b"\ndata: " + encode(event_document(event)) + b"\n\n"


def _submit_request(body: bytes) -> SubmitRequest:
    try:
        request = msgspec.json.decode(body, type=SubmitRequest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"this is not a job: {str(error)[:200]}") from error
    if request.units is not None and not 1 <= request.units <= MAX_UNITS:
        raise ConfigError(f"a job has 1 to {MAX_UNITS} units, not {request.units}")
    if len(request.inputs) > MAX_INPUTS or any(len(text) > MAX_PATH for text in request.inputs.values()):
        raise ConfigError(f"a job has at most {MAX_INPUTS} inputs, each the path of a file")
    return request
