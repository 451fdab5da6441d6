"""Slots: whatever an executor does wrong becomes an event about its unit, and the node lives."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from sparkle_p2p.node.computing import Computing
from sparkle_p2p.node.results import make_spec
from sparkle_p2p.view import SubmitRequest
from sparkle_protocol.effects import Compute, Computed, ComputeFailed, StopCompute
from sparkle_protocol.errors import ComputeError, ExecutorCrashed
from sparkle_protocol.facts import JobSpec
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import JobId
from sparkle_protocol.work.prefetch import MAX_HANDED

JOB = JobId(b"j" * 32)


class ScriptedExecutor:
    """Ends each run as the test says; None: never."""

    def __init__(self, *outcomes: bytes | Exception | None, begins: bool = True) -> None:
        self.outcomes = list(outcomes)
        self.begins = begins
        self.cancelled = 0
        self.missing_protections: tuple[str, ...] = ()

    async def run(
        self,
        kernel: str,
        version: int,
        unit: dict[str, Any],
        on_progress: Callable[[float], None],
        on_begin: Callable[[], None] | None = None,
    ) -> bytes:
        outcome = self.outcomes.pop(0)
        if self.begins and on_begin is not None:
            on_begin()
        if outcome is None:
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled += 1
        if isinstance(outcome, Exception):
            raise outcome
        assert outcome is not None
        return outcome

    async def run_arrays(self, *_: Any) -> None:
        raise AssertionError("no unit here has arrays")

    def pause(self) -> None: ...
    def resume(self) -> None: ...
    async def stop(self) -> None: ...


def spec(**params: Any) -> JobSpec:
    return make_spec(SubmitRequest("prime_count", params or {"stop": 1000}, 4), Identity.generate())


async def test_what_the_system_does_not_enforce_is_said_once() -> None:
    async with asyncio.TaskGroup() as group:
        executors = [ScriptedExecutor(), ScriptedExecutor()]
        for one in executors:
            one.missing_protections = ("the memory of worker processes cannot be limited: no",)
        computing = Computing([*executors], lambda event: None, group)
        assert computing.missing_protections == ("the memory of worker processes cannot be limited: no",)


async def outcome(computing: Computing, told: "asyncio.Queue[object]", job: JobSpec) -> Any:
    computing.start(Compute(JOB, 1, 0, job))
    async with asyncio.timeout(5):
        return await told.get()


async def run(executor: ScriptedExecutor, *jobs: JobSpec) -> list[Any]:
    told: asyncio.Queue[object] = asyncio.Queue()
    async with asyncio.TaskGroup() as group:
        computing = Computing([executor], told.put_nowait, group)
        return [await outcome(computing, told, job) for job in jobs]


async def test_a_result_is_told() -> None:
    (event,) = await run(ScriptedExecutor(b"r"), spec())
    assert isinstance(event, Computed)
    assert (event.unit, event.result) == (1, b"r")
    assert event.seconds is not None
    assert 0 <= event.seconds < 5


async def test_the_first_crash_is_forgiven_the_second_is_not() -> None:
    crash = ExecutorCrashed("killed")
    events = await run(ScriptedExecutor(crash, crash, crash, b"r", crash), *[spec()] * 5)
    assert [getattr(event, "blame", None) for event in events] == [False, True, False, None, False]
    assert events[0].code == "crash"


async def test_a_process_that_ends_before_a_unit_began_is_never_held_against_it() -> None:
    crash = ExecutorCrashed("it did not start")
    events = await run(ScriptedExecutor(*[crash] * 4, begins=False), *[spec()] * 4)
    assert [(event.code, event.blame) for event in events] == [("crash", False)] * 4


async def test_a_units_time_runs_from_when_its_turn_comes() -> None:
    hurried = spec()
    hurried = JobSpec(
        **{field: getattr(hurried, field) for field in JobSpec.__struct_fields__}
        | {"deadlines": msgspec.structs.replace(hurried.deadlines, execution_s=0)}
    )
    waiting, told = ScriptedExecutor(None, None, begins=False), asyncio.Queue[object]()
    async with asyncio.TaskGroup() as group:
        computing = Computing([waiting], told.put_nowait, group)
        computing.start(Compute(JOB, 1, 0, hurried))
        for _ in range(10):
            await asyncio.sleep(0)
        waiting.begins = True
        computing.start(Compute(JOB, 2, 0, hurried))
        async with asyncio.timeout(5):
            late: Any = await told.get()
        assert (late.unit, late.code, late.blame) == (2, "time", True)
        assert told.empty()
        computing.drop(StopCompute(JOB, 1, 0))


async def test_units_go_to_the_slot_with_the_fewest_and_what_no_slot_takes_goes_back() -> None:
    told: asyncio.Queue[object] = asyncio.Queue()
    many = make_spec(SubmitRequest("prime_count", {"stop": 1000}, 100), Identity.generate())
    slots = [ScriptedExecutor(*[None] * MAX_HANDED) for _ in range(2)]
    async with asyncio.TaskGroup() as group:
        computing = Computing([*slots], told.put_nowait, group)
        for unit in range(2 * MAX_HANDED):
            computing.start(Compute(JOB, unit, 0, many))
            await asyncio.sleep(0)
            assert abs(len(slots[0].outcomes) - len(slots[1].outcomes)) <= 1
        computing.start(Compute(JOB, 99, 0, many))
        async with asyncio.timeout(5):
            refused: Any = await told.get()
        assert (refused.unit, refused.code, refused.blame) == (99, "refused", False)
        for unit in range(2 * MAX_HANDED):
            computing.drop(StopCompute(JOB, unit, 0))


@pytest.mark.parametrize("failure", [ValueError("a bug"), OSError("no more processes")])
async def test_an_unexpected_failure_costs_one_unit_not_the_node(failure: Exception) -> None:
    failed, computed = await run(ScriptedExecutor(failure, b"r"), spec(), spec())
    assert (failed.code, failed.blame) == ("crash", False)
    assert isinstance(computed, Computed)


async def test_what_a_kernel_refuses_is_the_units_fault() -> None:
    (event,) = await run(ScriptedExecutor(ComputeError("too deep")), spec())
    assert (event.code, event.blame, event.text) == ("kernel", True, "too deep")


async def test_a_spec_that_no_kernel_takes_never_reaches_the_executor() -> None:
    impossible = JobSpec(**{field: getattr(spec(), field) for field in JobSpec.__struct_fields__} | {"units": 5000})
    (event,) = await run(ScriptedExecutor(), impossible)
    assert isinstance(event, ComputeFailed)
    assert (event.code, event.blame) == ("refused", True)


async def test_a_dropped_unit_is_cancelled_and_its_slot_is_free() -> None:
    told: asyncio.Queue[object] = asyncio.Queue()
    executor = ScriptedExecutor(None, b"r")
    async with asyncio.TaskGroup() as group:
        computing = Computing([executor], told.put_nowait, group)
        computing.start(Compute(JOB, 1, 0, spec()))
        await asyncio.sleep(0)
        computing.drop(StopCompute(JOB, 1, 0))
        computing.start(Compute(JOB, 2, 0, spec()))
        async with asyncio.timeout(5):
            assert replace(await told.get(), seconds=None) == Computed(JOB, 2, 0, b"r")
    assert executor.cancelled == 1
