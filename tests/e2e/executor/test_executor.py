"""The executor with real worker processes: whatever a unit does, the node goes on."""

import asyncio
import os
import signal
import struct
from pathlib import Path

import msgpack
import pytest

from sparkle_protocol.errors import ComputeError, ConfigError, ExecutorCrashed, LocalProtocolError
from sparkle_worker.executor import MAX_RUNS, Executor
from sparkle_worker.kernels.registry import KERNELS

ODD_KERNELS = f"{Path(__file__).parent / 'odd_kernels.py'}:ODD"


def quiet(_share):
    pass


@pytest.fixture
async def executor():
    """An executor that knows the odd kernels; its process must be gone afterwards."""
    executor = Executor(kernels=ODD_KERNELS, idle_priority=False, memory_mb=1024)
    yield executor
    pid = executor.pid
    await executor.stop()
    assert executor.pid is None
    if pid is not None:
        assert not exists(pid)


class Spinning:
    """A run of the kernel that never ends, begun and known to compute."""

    def __init__(self, executor):
        self._executor = executor
        self._computes = asyncio.Event()
        self.task = None

    async def __aenter__(self):
        self.task = asyncio.create_task(self._executor.run("spin", 1, {}, lambda _share: self._computes.set()))
        await self.progress()
        return self

    async def __aexit__(self, *_):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def progress(self):
        self._computes.clear()
        async with asyncio.timeout(30):
            await self._computes.wait()


async def works(executor):
    unit = {"start": 5, "text": "ü", "flag": True}
    return msgpack.unpackb(await executor.run("echo", 1, unit, quiet)) == unit


async def stopped(pid):
    """Wait until the kernel has taken the process off the processor."""
    async with asyncio.timeout(10):
        await asyncio.to_thread(os.waitid, os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    return process_state(pid) == "T"


def exists(pid):
    return Path(f"/proc/{pid}").exists()


def process_state(pid):
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def cpu_ticks(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


async def test_units_are_computed_as_in_this_process_by_one_process(executor):
    assert executor.pid is None  # nothing is started before it is needed
    pids = set()
    for name, params in [
        ("prime_count", {"stop": 10**6}),
        ("collatz", {"stop": 10**5}),
        ("mandelbrot", {"width": 64, "height": 48}),
    ]:
        kernel = KERNELS[name]
        unit = kernel.unit(kernel.validate(params), 2, 1)
        assert await executor.run(name, 1, unit, quiet) == kernel.compute(unit, quiet)
        pids.add(executor.pid)
    assert len(pids) == 1
    assert not executor.running


async def test_progress_arrives_while_a_unit_runs(executor):
    shares = []
    result = await executor.run("prime_count", 1, {"start": 0, "stop": 10**10}, shares.append)
    assert struct.unpack("<Q", result) == (455052511,)
    assert shares == sorted(shares)
    assert shares
    assert all(0 < share <= 1 for share in shares)


async def test_more_units_than_are_taken_are_our_own_bug(executor):
    async with Spinning(executor):
        assert executor.running
        rest = [asyncio.create_task(executor.run("echo", 1, {}, quiet)) for _ in range(MAX_RUNS - 1)]
        await asyncio.wait(rest, timeout=0)
        with pytest.raises(LocalProtocolError):
            await executor.run("echo", 1, {}, quiet)
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
    assert await works(executor)


class Queue:
    """Units behind each other: which have begun, and what became of each."""

    def __init__(self, executor):
        self._executor = executor
        self.begun = []
        self.shares = {}
        self.first_begun = asyncio.Event()
        self.tasks = {}

    def add(self, name, kernel="echo", **unit):
        def begin():
            self.begun.append(name)
            self.first_begun.set()

        unit = unit or {"name": name}
        run = self._executor.run(kernel, 1, unit, lambda share: self.shares.setdefault(name, share), begin)
        self.tasks[name] = asyncio.create_task(run)

    async def result(self, name):
        async with asyncio.timeout(30):
            return msgpack.unpackb(await self.tasks[name])


@pytest.fixture
async def queue(executor):
    queue = Queue(executor)
    yield queue
    for task in queue.tasks.values():
        task.cancel()
    await asyncio.gather(*queue.tasks.values(), return_exceptions=True)


async def test_units_under_way_are_computed_in_their_order_by_one_process(executor, queue):
    await executor.start()
    pid = executor.pid
    for number in range(MAX_RUNS):
        queue.add(number, text="x" * 50_000, number=number)  # together more than the pipe is given at a time
    for number in range(MAX_RUNS):
        assert (await queue.result(number))["number"] == number
    assert queue.begun == [*range(MAX_RUNS)]
    assert executor.pid == pid
    assert not executor.running


async def test_a_unit_begins_when_those_before_it_are_done(executor, queue):
    queue.add("endless", "spin", x=1)
    queue.add("next")
    async with asyncio.timeout(30):
        while "endless" not in queue.shares:
            await asyncio.wait(queue.tasks.values(), timeout=0.02)
    assert queue.begun == ["endless"]
    queue.tasks["endless"].cancel()
    assert await queue.result("next") == {"name": "next"}
    assert queue.begun == ["endless", "next"]
    assert "next" not in queue.shares


async def test_what_runs_when_the_process_dies_is_to_blame_and_nothing_else(executor, queue):
    await executor.start()
    queue.add("before")
    queue.add("crash", "crash", x=1)
    queue.add("refused", "explode", x=1)
    queue.add("after")
    assert await queue.result("before") == {"name": "before"}
    with pytest.raises(ExecutorCrashed, match="SIGSEGV"):
        await queue.result("crash")
    with pytest.raises(ComputeError, match="explode failed"):
        await queue.result("refused")
    assert await queue.result("after") == {"name": "after"}
    assert queue.begun == ["before", "crash", "refused", "after"]


async def test_cancelling_what_runs_costs_those_behind_it_only_time(executor, queue):
    queue.add("endless", "spin", x=1)
    for number in range(3):
        queue.add(number)
    async with asyncio.timeout(30):
        await queue.first_begun.wait()
    first = executor.pid
    queue.tasks["endless"].cancel()
    assert [await queue.result(number) for number in range(3)] == [{"name": number} for number in range(3)]
    assert executor.pid != first


async def test_cancelling_what_has_not_begun_leaves_the_process_alone(executor, queue):
    await executor.start()
    pid = executor.pid
    for number in range(4):
        queue.add(number)
    await asyncio.wait(queue.tasks.values(), timeout=0)
    os.kill(pid, signal.SIGSTOP)  # nothing is answered until we have cancelled
    async with asyncio.timeout(30):
        await queue.first_begun.wait()
    queue.tasks[1].cancel()
    queue.tasks[3].cancel()
    await asyncio.wait([queue.tasks[1], queue.tasks[3]], timeout=30)
    os.kill(pid, signal.SIGCONT)
    assert await queue.result(0) == {"name": 0}
    assert await queue.result(2) == {"name": 2}
    assert await works(executor)
    assert executor.pid == pid
    assert queue.begun == [0, 2]


async def test_what_was_cancelled_before_its_turn_does_not_hold_the_process_for_long(executor, queue):
    queue.add("slow", "prime_count", start=0, stop=3 * 10**8)
    queue.add("endless", "spin", x=1)
    queue.add("after")
    async with asyncio.timeout(30):
        await queue.first_begun.wait()
    first = executor.pid
    queue.tasks["endless"].cancel()
    assert await queue.result("after") == {"name": "after"}
    assert executor.pid != first
    assert queue.tasks["slow"].done()
    assert queue.begun == ["slow", "after"]


@pytest.mark.parametrize("paused", [False, True])
async def test_stop_fails_all_units_under_way(executor, queue, paused):
    queue.add("endless", "spin", x=1)
    queue.add("behind")
    async with asyncio.timeout(30):
        await queue.first_begun.wait()
    if paused:
        executor.pause()
        queue.add("late")
        await asyncio.wait([queue.tasks["late"]], timeout=0)
    await executor.stop()
    assert executor.pid is None
    for name in queue.tasks:
        with pytest.raises(ExecutorCrashed, match="stopped"):
            await queue.result(name)
    assert executor.pid is None
    executor.resume()
    assert await works(executor)


@pytest.mark.parametrize(
    ("kernel", "version", "unit", "words"),
    [
        ("explode", 1, {}, r"explode failed: RuntimeError: the kernel \?\[31mfailed"),
        ("leave", 1, {}, "SystemExit"),
        ("greedy", 1, {}, "more memory than the 1024 MB"),
        ("wrong_type", 1, {}, "str instead of bytes"),
        ("chatty", 1, {"size": 2**24}, "at most"),
        ("prime_cuont", 1, {}, "prime_count"),
        ("prime_count", 2, {}, "version 1, not 2"),
        ("prime_count", 1, {"start": "x"}, "must be a number"),
        ("prime_count", 1, {"stop": 2**70}, "cannot be handed"),
        ("echo", 1, {"text": "x" * 2**21}, "cannot be handed"),
    ],
)
async def test_a_unit_that_cannot_be_computed_costs_nothing_but_itself(executor, kernel, version, unit, words):
    assert await works(executor)
    pid = executor.pid
    with pytest.raises(ComputeError, match=words) as caught:
        await executor.run(kernel, version, unit, quiet)
    assert not isinstance(caught.value, ExecutorCrashed)
    assert "\n" not in str(caught.value)
    assert await works(executor)
    assert executor.pid == pid


async def test_a_killed_process_fails_its_unit_and_is_replaced(executor):
    async with Spinning(executor) as spinning:
        killed = executor.pid
        os.kill(killed, signal.SIGKILL)
        with pytest.raises(ExecutorCrashed, match="SIGKILL"):
            await spinning.task
    assert await works(executor)
    assert executor.pid != killed


async def test_a_crash_in_native_code_is_named(executor):
    with pytest.raises(ExecutorCrashed, match="SIGSEGV"):
        await executor.run("crash", 1, {}, quiet)
    assert await works(executor)


async def test_a_process_that_breaks_its_protocol_is_ended(executor):
    with pytest.raises(ExecutorCrashed, match="protocol"):
        await executor.run("forge", 1, {}, quiet)
    assert await works(executor)


async def test_what_a_kernel_prints_disturbs_nothing(executor, capfd):
    assert await executor.run("chatty", 1, {"size": 100_000}, quiet) == bytes(100_000)
    assert await works(executor)
    captured = capfd.readouterr()
    assert "hello" not in captured.out + captured.err


async def test_a_cancelled_run_ends_its_process_and_the_next_gets_another(executor):
    async with Spinning(executor) as spinning:
        first = executor.pid
        spinning.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await spinning.task
        assert executor.pid is None
        assert not executor.running
    assert await works(executor)
    assert executor.pid != first


async def test_a_failing_progress_callback_fails_its_run_only(executor):
    def fail(_share):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await executor.run("spin", 1, {}, fail)
    assert await works(executor)


async def test_pause_takes_the_unit_off_the_processor_and_resume_lets_it_go_on(executor):
    clock = Executor(idle_priority=False)
    async with Spinning(executor) as spinning:
        pid, before = executor.pid, cpu_ticks(executor.pid)
        executor.pause()
        executor.pause()
        assert executor.paused
        assert await stopped(pid)
        at_stop = cpu_ticks(pid)
        assert (at_stop - before) / os.sysconf("SC_CLK_TCK") <= 0.05
        await clock.run("prime_count", 1, {"start": 0, "stop": 3 * 10**8}, quiet)  # others go on meanwhile
        assert process_state(pid) == "T"
        assert cpu_ticks(pid) == at_stop
        executor.resume()
        executor.resume()
        assert not executor.paused
        await spinning.progress()
        assert executor.pid == pid
    await clock.stop()


async def test_pause_works_without_a_unit_and_before_there_is_a_process(executor):
    executor.pause()
    waiting = asyncio.create_task(works(executor))
    starting = asyncio.create_task(executor.start())
    while executor.pid is None:  # started, and stopped before it can do anything
        await asyncio.wait([waiting, starting], timeout=0.01)
    assert await stopped(executor.pid)
    assert not waiting.done()
    executor.resume()
    async with asyncio.timeout(30):
        await starting
        assert await waiting
    executor.pause()
    assert await stopped(executor.pid)
    executor.resume()
    assert await works(executor)


async def test_a_paused_run_can_be_cancelled(executor):
    await executor.start()
    pid = executor.pid
    executor.pause()
    waiting = asyncio.create_task(works(executor))
    await asyncio.wait([waiting], timeout=0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    executor.resume()
    assert await works(executor)
    assert executor.pid == pid  # it never had the unit


async def test_stop_ends_a_paused_process_at_once(executor):
    async with Spinning(executor) as spinning:
        pid = executor.pid
        executor.pause()
        assert await stopped(pid)
        async with asyncio.timeout(5):
            await executor.stop()
        assert not exists(pid)
        with pytest.raises(ExecutorCrashed, match="stopped"):
            await spinning.task
    executor.resume()
    assert await works(executor)  # it may be used again


async def test_stop_is_harmless_before_the_start_during_it_and_twice(executor):
    await executor.stop()
    starting = asyncio.create_task(executor.start())
    await asyncio.wait([starting], timeout=0)
    await executor.stop()
    with pytest.raises(ExecutorCrashed, match="stopped"):
        await starting
    assert await works(executor)
    await executor.stop()
    await executor.stop()


async def test_ctrl_c_does_not_reach_the_process(executor):
    await executor.start()
    os.kill(executor.pid, signal.SIGINT)
    assert await works(executor)


async def test_the_process_is_confined(tmp_path, monkeypatch):
    (tmp_path / "numpy.py").write_text("raise SystemExit('the wrong numpy')")
    monkeypatch.chdir(tmp_path)  # a user's script folder with a numpy.py in it
    executor = Executor(kernels=ODD_KERNELS, memory_mb=777)
    facts = msgpack.unpackb(await executor.run("surroundings", 1, {}, quiet))
    assert executor.missing_protections == ()
    await executor.stop()
    assert facts["nice"] == 19
    assert facts["policy"] == os.SCHED_IDLE
    assert 0 <= facts["memory"] - facts["present"] - 777 * 2**20 <= 128 * 2**20  # beside Python and NumPy
    assert facts["core"] == 0
    assert facts["blas_threads"] == "1"
    assert facts["threads"] == 1
    assert facts["group"]
    assert "" not in facts["path"]
    assert str(tmp_path) not in facts["path"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("no.such.module:X", "no kernels could be loaded"),
        ("/nowhere.py:X", "no kernels"),
        ("os:sep", "mapping"),
    ],
)
async def test_a_wrong_plug_in_is_said_at_the_start(source, words):
    executor = Executor(kernels=source, idle_priority=False)
    with pytest.raises(ExecutorCrashed, match=words):
        await executor.start()
    await executor.stop()


async def test_a_process_that_does_not_get_ready_is_given_up(tmp_path):
    (tmp_path / "endless.py").write_text("while True: pass")
    executor = Executor(kernels=f"{tmp_path / 'endless.py'}:X", idle_priority=False, startup_seconds=0.5)
    with pytest.raises(ExecutorCrashed, match="did not get ready"):
        await executor.start()
    assert executor.pid is None
    await executor.stop()


async def test_where_processes_cannot_be_paused_it_is_said(executor, monkeypatch):
    monkeypatch.setattr("sparkle_worker.executor.os.name", "nt")
    with pytest.raises(ConfigError, match="cannot pause"):
        executor.pause()
