"""Runs the node's request handler for requests from peers, and turns what it raises into answers."""

import asyncio
import logging
from collections.abc import Callable
from enum import IntEnum

from sparkle_p2p.net.overlay import MAX_REQUEST_BYTES, RequestHandler
from sparkle_protocol.errors import PeerFailed, PeerUnreachable, RemoteProtocolError, SparkleError
from sparkle_protocol.ids import PeerId, short_peer

logger = logging.getLogger("sparkle.net")

HANDLER_TIMEOUT_S = 60.0  # far above every asker's time-out; frees what a hanging handler holds


class ErrorCode(IntEnum):
    """Why a request was not served."""

    REFUSED = 1
    FAILED = 2
    BUSY = 3


def error_for(code: ErrorCode, text: str) -> SparkleError:
    """What the asker's ``request`` raises for an error answer."""
    if code is ErrorCode.BUSY:
        return PeerUnreachable("the peer is busy with our earlier requests; try again later")
    if code is ErrorCode.FAILED:
        return PeerFailed("the peer failed to serve the request; try again later")
    return RemoteProtocolError(f"the peer refused the request: {text}")


Reply = Callable[[bytes | ErrorCode, str], None]


class Serving:
    """Owns the tasks of requests being served."""

    def __init__(self, handler: RequestHandler, violation: Callable[[PeerId, str], None]) -> None:
        self._handler = handler
        self._violation = violation
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, peer: PeerId, payload: bytes, reply: Reply) -> None:
        """Serve a request; ``reply`` is called once."""
        task = asyncio.get_running_loop().create_task(self._serve(peer, payload, reply), name="sparkle-serve")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, peer: PeerId, payload: bytes, reply: Reply) -> None:
        outcome: bytes | ErrorCode = ErrorCode.FAILED
        text = ""
        try:
            async with asyncio.timeout(HANDLER_TIMEOUT_S):
                outcome = await self._handler(peer, payload)
            if len(outcome) > MAX_REQUEST_BYTES:
                logger.error("a reply of %d bytes to %s is larger than the limit", len(outcome), short_peer(peer))
                outcome = ErrorCode.FAILED
        except RemoteProtocolError as error:
            outcome, text = ErrorCode.REFUSED, str(error)
            self._violation(peer, text)
        except TimeoutError:
            logger.error("a request of %s was not served within %g s", short_peer(peer), HANDLER_TIMEOUT_S)
        except Exception:
            logger.exception("serving a request of %s failed", short_peer(peer))
        finally:
            reply(outcome, text)

    async def ask_self(self, own: PeerId, payload: bytes) -> bytes:
        """The handler's reply to ourselves; a bug in it surfaces as it would to a peer.

        Raises:
            RemoteProtocolError: the handler refused.
            PeerFailed: it failed.
        """
        try:
            return await self._handler(own, payload)
        except RemoteProtocolError:
            raise
        except Exception as error:
            logger.exception("serving our own request failed")
            raise PeerFailed("this node failed to serve its own request; its log says why") from error

    async def stop(self) -> None:
        """Cancel what is being served."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
