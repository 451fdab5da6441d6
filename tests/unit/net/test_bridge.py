"""The trio thread and the calls into it."""

import asyncio
import subprocess
import sys
import threading

import pytest

from sparkle_p2p.net.libp2p.bridge import MAX_CALLS, TrioThread
from sparkle_protocol.errors import OverlayDown, PeerUnreachable, RequestTimeout


@pytest.fixture
async def thread():
    made, ready = await running()
    async with asyncio.timeout(10):
        await ready.wait()
    yield made
    made.cancel()
    async with asyncio.timeout(10):
        await made.wait_ended()


async def running(last_words=lambda: None):
    loop, ready = asyncio.get_running_loop(), asyncio.Event()

    def load():
        import trio

        async def main():
            loop.call_soon_threadsafe(ready.set)
            await trio.sleep_forever()

        return main

    made = TrioThread("test")
    made.start(load, last_words)
    return made, ready


async def forever():
    import trio

    await trio.sleep_forever()


async def test_results_and_errors_come_back(thread):
    async def double(number):
        return 2 * number

    async def fail():
        raise PeerUnreachable("on purpose")

    assert await thread.call(double, 21, timeout_s=5) == 42
    with pytest.raises(PeerUnreachable, match="on purpose"):
        await thread.call(fail, timeout_s=5)


async def test_a_call_that_takes_too_long_is_cancelled_in_the_thread(thread):
    loop, cancelled = asyncio.get_running_loop(), asyncio.Event()

    async def endless():
        try:
            await forever()
        finally:
            loop.call_soon_threadsafe(cancelled.set)

    with pytest.raises(RequestTimeout, match="the test took longer"):
        await thread.call(endless, timeout_s=0.05, what="the test")
    async with asyncio.timeout(5):
        await cancelled.wait()


async def test_cancelling_the_caller_cancels_the_call(thread):
    loop, entered, left = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

    async def endless():
        loop.call_soon_threadsafe(entered.set)
        try:
            await forever()
        finally:
            loop.call_soon_threadsafe(left.set)

    caller = asyncio.ensure_future(thread.call(endless, timeout_s=60))
    async with asyncio.timeout(5):
        await entered.wait()
        caller.cancel()
        await left.wait()
    with pytest.raises(asyncio.CancelledError):
        await caller


async def test_death_fails_every_pending_call(thread):
    calls = [asyncio.ensure_future(thread.call(forever, timeout_s=60)) for _ in range(10)]
    bare = thread.future()
    await asyncio.wait(calls, timeout=0)
    thread.die("test")
    async with asyncio.timeout(5):
        error = await thread.wait_ended()
        results = await asyncio.gather(*calls, bare, return_exceptions=True)
    assert error is not None
    assert all(isinstance(result, OverlayDown) for result in results)
    assert not thread.alive
    with pytest.raises(OverlayDown):
        await thread.call(forever, timeout_s=1)
    with pytest.raises(OverlayDown):
        thread.post(print)


async def test_a_posted_function_that_fails_is_logged_and_kills_nothing(thread, caplog):
    thread.post(lambda: 1 // 0)

    async def answer():
        return "alive"

    assert await thread.call(answer, timeout_s=5) == "alive"
    assert "ZeroDivisionError" in caplog.text


async def test_unanswered_calls_are_bounded(thread):
    waiting = [thread.future() for _ in range(MAX_CALLS)]
    with pytest.raises(OverlayDown, match="unanswered"):
        thread.future()
    waiting.pop().set_result(None)
    await asyncio.wait([*waiting[:1]], timeout=0)
    assert thread.future() is not None


async def test_a_thread_given_up_while_importing_never_runs():
    importing, imported, ran = threading.Event(), threading.Event(), []

    def load():
        importing.set()
        imported.wait(10)

        async def main():
            ran.append(True)

        return main

    made = TrioThread("test")
    made.start(load, lambda: ran.append("last words"))
    await asyncio.to_thread(importing.wait, 10)
    assert not made.entered
    made.abandon()
    assert await made.wait_ended() is None
    imported.set()
    await asyncio.to_thread(made._thread.join, 10)
    assert made.entered
    assert ran == ["last words"]


async def test_last_words_are_said_before_anybody_is_told():
    said = []
    made, ready = await running(lambda: said.append(made.alive))
    async with asyncio.timeout(10):
        await ready.wait()
        made.die("test")
        await made.wait_ended()
    assert said == [True]


def test_importing_the_overlay_loads_neither_libp2p_nor_trio():
    code = "import sys, sparkle_p2p.net.libp2p as o; o.Libp2pOverlay; print({'libp2p', 'trio'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "set()"
