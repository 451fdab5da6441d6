"""Who may talk to the local API.

A browser on this machine can reach every loopback port, so any web page may try. In order:

1. ``Host`` must name us (a page that rebinds its own DNS name to 127.0.0.1 fails here).
2. ``Origin``, if sent, must be our own, and ``Sec-Fetch-Site`` must not be another site.
3. Everything below ``/api/`` needs the token from the home directory, compared in constant time.

Errors leave as ``{"error": sentence, "kind": class name}``; a bug's traceback stays in the log.
"""

import asyncio
import hmac
import logging

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from sparkle_p2p.api.documents import encode
from sparkle_protocol.errors import (
    ComputeError,
    ConfigError,
    HomeInUse,
    LedgerError,
    LocalProtocolError,
    NodeNotRunning,
    NotFound,
    OverlayDown,
    RemoteProtocolError,
    RequestTimeout,
    SparkleError,
    StorageError,
    TransportError,
    VerificationError,
)

log = logging.getLogger(__name__)

# The first class that an error is an instance of decides: subclasses stand before their bases.
_STATUS: tuple[tuple[type[SparkleError], int], ...] = (
    (NotFound, 404),
    (HomeInUse, 409),
    (NodeNotRunning, 503),
    (ConfigError, 400),
    (RequestTimeout, 504),
    (OverlayDown, 503),
    (TransportError, 502),
    (RemoteProtocolError, 502),
    (StorageError, 507),
    (VerificationError, 422),
    (ComputeError, 500),
    (LedgerError, 500),
    (LocalProtocolError, 500),
)


def json_response(document: object, status: int = 200) -> web.Response:
    """A JSON answer."""
    return web.Response(body=encode(document), status=status, content_type="application/json")


def error_response(status: int, sentence: str, kind: str) -> web.Response:
    """A refusal in words."""
    return json_response({"error": sentence, "kind": kind}, status)


def status_of(error: SparkleError) -> int:
    """The HTTP status that an error of ours travels under."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every failure becomes a JSON document with one sentence."""
    try:
        return await handler(request)
    except SparkleError as error:
        return error_response(status_of(error), str(error), type(error).__name__)
    except web.HTTPRequestEntityTooLarge:
        return error_response(413, "the request body is too large", "ConfigError")
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        response = error_response(405, f"{request.path} only answers {allowed}", "ConfigError")
        response.headers["Allow"] = allowed
        return response
    except web.HTTPNotFound:
        return error_response(404, f"there is nothing at {request.path[:120]}", "NotFound")
    except web.HTTPException as error:
        return error_response(error.status, error.reason, "ConfigError")
    except TimeoutError:
        return error_response(504, "the node did not answer in time; its log may say why", "RequestTimeout")
    except (ConnectionError, asyncio.CancelledError):
        raise  # the client has gone, or we are stopping: nobody to tell
    except Exception:  # the boundary that keeps one bad request from taking the API down
        log.exception("%s %s failed", request.method, request.path)
        return error_response(500, "the node failed to answer; its log has the details", "SparkleError")


def guard(token: str, hosts: frozenset[str]) -> Middleware:
    """A middleware that lets through what the rules above allow.

    Args:
        token: the bearer token.
        hosts: the values of ``Host`` that mean us, with the port.
    """
    origins = frozenset(f"http://{host}" for host in hosts)
    expected = f"Bearer {token}".encode()

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if len(request.headers.getall("Host", ())) != 1 or request.headers["Host"].lower() not in hosts:
            return error_response(403, "this API answers only under its loopback address", "Forbidden")
        origin = request.headers.get("Origin")
        if origin is not None and origin.lower() not in origins:
            return error_response(403, "this API does not answer other web sites", "Forbidden")
        if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            return error_response(403, "this API does not answer other web sites", "Forbidden")
        if request.path.startswith("/api/"):
            given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
            if not hmac.compare_digest(given, expected):
                response = error_response(
                    401, "the token is missing or wrong; it is in the file api.token", "Unauthorized"
                )
                response.headers["WWW-Authenticate"] = "Bearer"
                return response
        return await handler(request)

    return check


async def harden(_request: web.Request, response: web.StreamResponse) -> None:
    """Headers that every answer carries."""
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "no-store"
    response.headers["Content-Security-Policy"] = "default-src 'none'; frame-ancestors 'none'"
    response.headers["Server"] = "sparkle"
