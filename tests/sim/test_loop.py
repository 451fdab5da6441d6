"""asyncio on virtual time: its clock is the kernel's, its order the same in every process, and no error is lost."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import pytest

from sparkle_protocol.errors import LocalProtocolError
from sparkle_sim.guard import no_outside
from sparkle_sim.kernel import MS, SECOND, Kernel
from sparkle_sim.loop import MAX_UNSEEN, VirtualLoop

passes = asyncio.sleep  # of virtual time


def run(program: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(Kernel())) as runner:
        return runner.run(program())


def now() -> float:
    return asyncio.get_running_loop().time()


def test_time_passes_when_all_wait_and_not_before() -> None:
    async def program() -> list[float]:
        times = [now()]
        for seconds in (0.1, 3600.0, 0.0, 1e-9):
            await passes(seconds)
            times.append(now())
        return times

    began = time.monotonic()
    assert run(program) == [0.0, 0.1, 3600.1, 3600.1, 3600.100000001]
    assert time.monotonic() - began < 60


def test_callbacks_come_in_the_order_of_their_time_and_of_their_making() -> None:
    kernel, seen = Kernel(), []
    loop = VirtualLoop(kernel)
    loop.call_later(0.002, seen.append, "timer")
    kernel.at(2 * MS, seen.append, "event")
    loop.call_at(0.002, seen.append, "second timer")
    loop.call_soon(seen.append, "soon")
    kernel.at(0, seen.append, "due")
    loop.call_later(0.001, seen.append, "never").cancel()
    kernel.run(SECOND)
    assert seen == ["soon", "due", "timer", "event", "second timer"]


def test_the_smallest_wait_is_a_nanosecond() -> None:
    """Whoever waits for the rest of a time, as floats have it, must not wait for ever."""

    async def program() -> float:
        until_s = 0.1 + 0.2  # a little more than 0.3
        while (left := until_s - now()) > 0:
            await passes(left)
        return now()

    assert run(program) == 0.300000001


def test_time_outs_groups_and_queues_are_those_of_asyncio() -> None:
    async def program() -> list[object]:
        queue: asyncio.Queue[int] = asyncio.Queue(maxsize=1)
        got: list[object] = []

        async def produce() -> None:
            for number in range(3):
                await queue.put(number)
                await passes(1.0)

        async with asyncio.TaskGroup() as group:
            group.create_task(produce())
            for _ in range(3):
                got.append((await queue.get(), now()))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2.5):
                await asyncio.Event().wait()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(passes(100.0), 0.5)
        got.append(now())
        return got

    assert run(program) == [(0, 0.0), (1, 1.0), (2, 2.0), 6.0]


def test_an_async_generator_that_is_left_cleans_up() -> None:
    async def numbers(ended: list[float]) -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            await passes(1.0)
            ended.append(now())

    async def program() -> list[float]:
        ended: list[float] = []
        async for _ in numbers(ended):
            break
        await passes(2.0)
        return ended

    assert run(program) == [1.0]


def test_a_loop_runs_within_the_kernel_and_only_while_its_callbacks_do() -> None:
    kernel = Kernel()
    loop, seen = VirtualLoop(kernel), []

    async def program() -> None:
        assert asyncio.get_running_loop() is loop
        assert loop.is_running()
        await passes(1.0)
        seen.append(loop.time())

    def elsewhere() -> None:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        seen.append("elsewhere")

    task = loop.create_task(program())
    kernel.at(SECOND // 2, elsewhere)
    with no_outside():
        kernel.run(2 * SECOND)
    assert seen == ["elsewhere", 1.0]
    assert task.done()
    assert not loop.is_running()


async def test_virtual_time_passes_within_a_program_on_real_time() -> None:
    kernel = Kernel()
    loop = VirtualLoop(kernel)
    task = loop.create_task(passes(5.0, "five"))
    here = asyncio.get_running_loop()
    kernel.run(10 * SECOND)
    assert asyncio.get_running_loop() is here
    assert task.result() == "five"


# --- what goes wrong ------------------------------------------------------------------------------------------


def test_an_error_of_a_callback_is_raised_at_once() -> None:
    kernel = Kernel()
    loop = VirtualLoop(kernel)
    loop.call_later(1.0, lambda: 1 // 0)
    loop.call_later(2.0, pytest.fail, "time went on")
    assert not kernel.run(3 * SECOND)
    with pytest.raises(ZeroDivisionError):
        loop.raise_failure()
    assert loop.time() == 1.0
    loop.raise_failure()  # it was raised


def test_an_error_of_a_task_that_nobody_awaits_is_not_lost() -> None:
    kernel = Kernel()
    loop = VirtualLoop(kernel)

    async def fail(text: str) -> None:
        raise ValueError(text)

    async def program() -> None:
        awaited = asyncio.ensure_future(fail("seen"))
        asyncio.ensure_future(fail("unseen"))  # noqa: RUF006 - that is what is tested
        await passes(1.0)
        with pytest.raises(ValueError, match=r"^seen"):
            await awaited

    loop.create_task(program())
    kernel.run(SECOND)
    loop.raise_failure()
    with pytest.raises(ValueError, match="unseen"):
        loop.finish()
    loop.finish()  # it was raised


def test_failing_tasks_do_not_pile_up_unseen() -> None:
    kernel = Kernel()
    loop = VirtualLoop(kernel)

    async def fail(number: int) -> None:
        raise ValueError(str(number))

    for number in range(MAX_UNSEEN + 1):
        loop.create_task(fail(number))
    kernel.run(SECOND)
    with pytest.raises(ValueError, match=r"^0$"):
        loop.raise_failure()


def test_waiting_for_what_never_comes_is_an_error() -> None:
    with pytest.raises(LocalProtocolError, match="nothing will ever wake them"):
        run(lambda: asyncio.Event().wait())  # type: ignore[arg-type]


def test_tasks_that_are_pending_at_the_end_make_no_noise(caplog: pytest.LogCaptureFixture) -> None:
    kernel = Kernel()
    VirtualLoop(kernel).create_task(passes(100.0))
    kernel.run(SECOND)
    del kernel
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("ask", "what"),
    [
        (lambda: asyncio.to_thread(print), "threads"),
        (lambda: asyncio.open_connection("localhost", 1), "sockets"),
        (lambda: asyncio.start_server(print, "localhost", 0), "sockets"),
        (lambda: asyncio.create_subprocess_exec("true"), "processes"),
        (lambda: asyncio.get_running_loop().getaddrinfo("localhost", 1), "names of hosts"),
    ],
)
def test_what_is_outside_is_refused_in_one_sentence(ask: Callable[[], Awaitable[object]], what: str) -> None:
    async def program() -> None:
        await ask()

    with pytest.raises(LocalProtocolError, match=f"a simulation has no {what} "):
        run(program)


def test_signals_are_refused() -> None:
    with pytest.raises(LocalProtocolError, match="has no signals"):
        VirtualLoop(Kernel()).add_signal_handler(2, print)


def test_no_thread_is_started() -> None:
    before = threading.active_count()

    async def program() -> int:
        return threading.active_count()

    assert run(program) == before


# --- one order in every process -------------------------------------------------------------------------------

ORDERS = """
import asyncio
from sparkle_sim.kernel import Kernel
from sparkle_sim.loop import VirtualLoop

def note(*what):
    print(*what, asyncio.get_running_loop().time(), asyncio.current_task().get_name())

async def work(number):
    try:
        await asyncio.sleep(number % 7 / 10)
        if number == 33:
            raise ValueError(number)
        await asyncio.sleep(10.0)
    except asyncio.CancelledError:
        note("cancelled", number)  # a TaskGroup cancels its tasks in the order of a set
        raise

async def main():
    moved = []  # objects between the tasks, as many as the seed of hashes says: their addresses differ
    try:
        async with asyncio.TaskGroup() as group:
            for number in range(40):
                moved += [bytes(size) for size in range(64, 512, 16) for _ in range(hash(f"{number}/{size}") % 4)]
                group.create_task(work(number))
    except* ValueError:
        note("failed")
    tasks = [asyncio.ensure_future(asyncio.sleep(n % 3, n)) for n in range(30)]
    done, pending = await asyncio.wait(tasks, timeout=1.5)
    note([task.result() for task in done], len(pending))
    tasks = [asyncio.ensure_future(asyncio.sleep(n % 4, n)) for n in range(20)]
    note([await first for first in asyncio.as_completed(tasks)])
    note([task.get_name() for task in asyncio.all_tasks()])

with asyncio.Runner(loop_factory=lambda: VirtualLoop(Kernel())) as runner:
    runner.run(main())
"""


def test_what_goes_through_sets_has_one_order_in_every_process() -> None:
    told = []
    for hash_seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run([sys.executable, "-c", ORDERS], env=env, capture_output=True, text=True, check=True)
        told.append(done.stdout)
    assert told[0] == told[1]
    assert told[0].count("cancelled") == 39
