"""Slots: whatever an executor does wrong becomes an event about its unit, and the node lives."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from sparkle_p2p.node.computing import Computing
from sparkle_p2p.node.results import make_spec
from sparkle_p2p.view import SubmitRequest
from sparkle_protocol.effects import Compute, Computed, ComputeFailed, StopCompute
from sparkle_protocol.errors import ComputeError, ExecutorCrashed
from sparkle_protocol.facts import JobSpec
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import JobId

JOB = JobId(b"j" * 32)


class ScriptedExecutor:
    """Ends each run as the test says; None: never."""

    def __init__(self, *outcomes: bytes | Exception | None) -> None:
        self.outcomes = list(outcomes)
        self.cancelled = 0

    async def run(
        self, kernel: str, version: int, unit: dict[str, Any], on_progress: Callable[[float], None]
    ) -> bytes:
        outcome = self.outcomes.pop(0)
        if outcome is None:
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled += 1
        if isinstance(outcome, Exception):
            raise outcome
        assert outcome is not None
        return outcome

    def pause(self) -> None: ...
    def resume(self) -> None: ...
    async def stop(self) -> None: ...


def spec(**params: Any) -> JobSpec:
    return make_spec(SubmitRequest("prime_count", params or {"stop": 1000}, 4), Identity.generate())


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
    assert await run(ScriptedExecutor(b"r"), spec()) == [Computed(JOB, 1, 0, b"r")]


async def test_the_first_crash_is_forgiven_the_second_is_not() -> None:
    crash = ExecutorCrashed("killed")
    events = await run(ScriptedExecutor(crash, crash, crash, b"r", crash), *[spec()] * 5)
    assert [getattr(event, "blame", None) for event in events] == [False, True, False, None, False]
    assert events[0].code == "crash"


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
            assert await told.get() == Computed(JOB, 2, 0, b"r")
    assert executor.cancelled == 1
