"""A thread that runs trio, and calls into it from asyncio.

Calls in go through trio's ``run_sync_soon``, answers out through ``call_soon_threadsafe`` (about 0.05 ms
per hop). The bridge is bounded: at most ``MAX_CALLS`` unanswered calls, further ones fail at once. When
the thread ends, for whatever reason, every pending call fails with ``OverlayDown``.
"""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from sparkle_protocol.errors import OverlayDown, RequestTimeout

if TYPE_CHECKING:
    import trio

logger = logging.getLogger("sparkle.net")

T = TypeVar("T")

MAX_CALLS = 4096  # 64 peers with 64 requests each; a caller beyond that is told so at once

Main = Callable[[], Awaitable[None]]


def _nothing_to_run() -> Main:
    raise OverlayDown("the thread was not started")


class TrioThread:
    """One run of trio in a thread. Create a new one to run again."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._token: trio.lowlevel.TrioToken | None = None
        self._nursery: trio.Nursery | None = None
        self._pending: set[asyncio.Future[Any]] = set()
        self._error: BaseException | None = None
        self._cancelled = False
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._load: Callable[[], Main] = _nothing_to_run
        self._last_words: Callable[[], None] = lambda: None

    @property
    def error(self) -> BaseException | None:
        """What killed the thread; None while it runs or after an orderly end."""
        return self._error

    @property
    def alive(self) -> bool:
        """Whether calls can still be answered."""
        return not self._ended.is_set()

    @property
    def entered(self) -> bool:
        """Whether its imports are done and trio runs, or has run."""
        return self._nursery is not None

    def start(self, load: Callable[[], Main], last_words: Callable[[], None]) -> None:
        """Run ``load()`` in the thread (slow imports belong there), then the async function it returns.

        ``last_words`` runs in the thread after trio has ended, before anybody is told.
        """
        self._load = load
        self._last_words = last_words
        self._thread.start()

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            main = self._load()
            import trio

            from sparkle_p2p.net.libp2p.wakeful import WakefulClock

            trio.run(self._root, main, clock=WakefulClock())
        except BaseException as caught:  # noqa: BLE001  supervision boundary: reported by whoever owns the thread
            error = caught
        try:
            self._last_words()
        except Exception:
            logger.exception("cleaning up after the network thread failed")
        with suppress(RuntimeError):  # the asyncio loop is closed: nobody is left to tell
            self._loop.call_soon_threadsafe(self._finish, error)

    async def _root(self, main: Main) -> None:
        import trio

        self._token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            if not self._cancelled:
                await main()
            nursery.cancel_scope.cancel()

    def _finish(self, error: BaseException | None) -> None:
        if self._ended.is_set():
            return
        self._error = error
        self._ended.set()
        self.fail_pending()

    def fail_pending(self) -> None:
        """Fail every call under way with ``OverlayDown``."""
        for future in list(self._pending):
            if not future.done():
                future.set_exception(OverlayDown("the network service is not running"))

    async def wait_ended(self) -> BaseException | None:
        """Wait until the thread has ended; what killed it, if anything did."""
        await self._ended.wait()
        return self._error

    def cancel(self) -> None:
        """Have the thread end, now or as soon as its imports are done; ``wait_ended`` says when."""
        self._cancelled = True
        nursery = self._nursery
        if nursery is not None:
            with suppress(OverlayDown):
                self.post(nursery.cancel_scope.cancel)

    def abandon(self) -> None:
        """Wait no longer for a thread to end: fail what is pending and never hear from it again."""
        self.cancel()
        self._finish(None)

    def post(self, function: Callable[..., None], *args: Any) -> None:
        """Run a plain function in the thread, soon.

        Raises:
            OverlayDown: the thread does not run.
        """
        if self._token is None or self._ended.is_set():
            raise OverlayDown("the network service is not running")

        def guarded() -> None:
            try:
                function(*args)
            except Exception:
                logger.exception("a call into the network thread failed")

        try:
            self._token.run_sync_soon(guarded)
        except RuntimeError as error:  # trio.RunFinishedError
            raise OverlayDown("the network service is not running") from error

    def die(self, reason: str) -> None:
        """Break the running trio loop from inside, as a bug in a library would. For fault tests only."""

        def break_loop() -> None:
            raise RuntimeError(reason)

        if self._token is not None:
            self._token.run_sync_soon(break_loop)

    def future(self) -> "asyncio.Future[Any]":
        """A future that fails with ``OverlayDown`` when the thread ends.

        Raises:
            OverlayDown: the thread does not run, or too many calls are unanswered.
        """
        if self._token is None or self._ended.is_set():
            raise OverlayDown("the network service is not running")
        if len(self._pending) >= MAX_CALLS:
            raise OverlayDown(f"{MAX_CALLS} network calls are unanswered; try again later")
        future: asyncio.Future[Any] = self._loop.create_future()
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        return future

    def resolve(self, future: "asyncio.Future[Any]", outcome: Any) -> None:
        """Give a future its result, or its exception; callable from the thread, once or late."""

        def settle() -> None:
            if future.done():
                return
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(settle)

    async def call(
        self,
        function: Callable[..., Awaitable[T]],
        *args: Any,
        timeout_s: float,
        what: str = "the network call",
    ) -> T:
        """Run an async function in the thread and return its result; cancels it there when we stop waiting.

        Raises:
            RequestTimeout: no result within ``timeout_s``.
            OverlayDown: the thread does not run or died meanwhile.
        """
        future = self.future()
        scope: list[trio.CancelScope] = []
        abandoned = threading.Event()

        async def run() -> None:
            import trio

            with trio.CancelScope() as cancel_scope:
                scope.append(cancel_scope)
                if abandoned.is_set():
                    return
                try:
                    self.resolve(future, await function(*args))
                except Exception as error:  # noqa: BLE001  handed to the caller
                    self.resolve(future, error)

        def begin() -> None:
            if self._nursery is not None:
                self._nursery.start_soon(run)

        def abandon() -> None:
            abandoned.set()
            for cancel_scope in scope:
                cancel_scope.cancel()

        try:
            self.post(begin)
            async with asyncio.timeout(timeout_s):
                result: T = await future
                return result
        except TimeoutError as error:
            raise RequestTimeout(f"{what} took longer than {timeout_s:g} s") from error
        finally:
            if not future.done() or future.cancelled():
                future.cancel()
                with suppress(OverlayDown):
                    self.post(abandon)
