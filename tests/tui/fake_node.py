"""A node made of data: tests set what it shows and how it fails, and read what it was asked.

``python -m tests.tui.fake_node SCENE`` opens the real screen on one, with data that moves, to look at it.
"""

import argparse
import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

from sparkle_p2p.ledger_view import CreditView
from sparkle_p2p.view import (
    DeadUnit,
    Event,
    Explanation,
    Finding,
    JobResult,
    JobView,
    KernelView,
    NodeView,
    Reason,
    Requeued,
    SubmitRequest,
    UnitView,
)
from sparkle_protocol.errors import NodeNotRunning, SparkleError
from tests.tui import scenes


@dataclass
class FakeClock:
    """Unix seconds that move only when told."""

    now: float = scenes.NOW

    def __call__(self) -> float:
        return self.now


@dataclass
class FakeNode:
    """A ``NodeControl`` whose view is whatever the test says."""

    picture: NodeView
    view_error: Exception | None = None
    command_error: Exception | None = None
    gate: asyncio.Event | None = None  # commands wait for it
    obeys: bool = True  # a carried out command changes the view
    calls: list[str] = field(default_factory=list)
    account: CreditView = scenes.EARNING

    def view(self) -> NodeView:
        if self.view_error is not None:
            raise self.view_error
        return self.picture

    async def pause(self) -> None:
        await self._carry_out("pause")
        if self.obeys:
            reason = Reason("paused_by_user", "Paused by you.")
            self.picture = replace(self.picture, state="paused", reason=reason)

    async def resume(self) -> None:
        await self._carry_out("resume")
        if self.obeys:
            self.picture = replace(self.picture, state="working", reason=Reason("units", "Computing again."))

    async def _carry_out(self, command: str) -> None:
        self.calls.append(command)
        if self.gate is not None:
            await self.gate.wait()
        if self.command_error is not None:
            raise self.command_error

    async def submit(self, request: SubmitRequest) -> str:
        raise SparkleError("the fake node takes no jobs")

    async def job(self, job: str) -> JobView:
        raise SparkleError("the fake node has no jobs")

    async def jobs(self) -> tuple[JobView, ...]:
        return self.picture.jobs

    async def result(self, job: str) -> JobResult:
        raise SparkleError("the fake node has no results")

    async def cancel(self, job: str) -> JobView:
        raise SparkleError("the fake node has no jobs")

    async def dead(self, job: str | None = None) -> tuple[DeadUnit, ...]:
        return ()

    async def requeue(self, job: str, unit: int | None = None) -> Requeued:
        raise SparkleError("the fake node has no jobs")

    async def why(self, subject: str | None = None) -> Explanation:
        return Explanation("node", self.picture.reason)

    async def checkup(self) -> tuple[Finding, ...]:
        return (
            Finding("clock", "warn", Reason("clock_off", "The clock is \x1b[2Jwrong.", {"seconds": 900}), "Set it."),
        )

    async def credit(self, account: str | None = None) -> CreditView:
        if self.command_error is not None:
            raise self.command_error
        return self.account

    async def kernels(self) -> tuple[KernelView, ...]:
        return ()

    async def events(self) -> AsyncIterator[Event]:
        return
        yield  # an empty stream


@dataclass
class LiveNode(FakeNode):
    """A fake whose units progress with the clock, for looking at the screen."""

    began: float = field(default_factory=time.time)
    dies_after_s: float = float("inf")

    def view(self) -> NodeView:
        age = time.time() - self.began
        if age > self.dies_after_s:
            raise NodeNotRunning("no node answers for this home directory; start one with sparkle-node")
        view = super().view()
        units = view.units if view.state == "paused" else tuple(self._move(unit, age) for unit in view.units)
        wobble = 0.0 if view.state == "paused" else view.cpu_percent * (0.8 + 0.2 * ((age * 7) % 5) / 5)
        moved = tuple(replace(line, time=line.time - scenes.NOW + self.began) for line in view.log)
        return replace(view, units=units, uptime_s=view.uptime_s + age, cpu_percent=wobble, log=moved)

    @staticmethod
    def _move(unit: UnitView, age: float) -> UnitView:
        if unit.state != "running":
            return unit
        return replace(unit, progress=(unit.progress + age / 20) % 1, seconds=unit.seconds + age)


async def delay(seconds: float) -> None:
    """Let whoever looks at the screen see what it says meanwhile; no test comes here."""
    over = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, over.set)
    await over.wait()


def main() -> None:
    """Open the screen on a scene; ``--static`` shows the idle cost of a picture that does not change."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("scene", choices=sorted(scenes.SCENES))
    parser.add_argument("--static", action="store_true")
    parser.add_argument("--dies-after", type=float, default=float("inf"), metavar="SECONDS")
    arguments = parser.parse_args()
    from sparkle_tui.app import SparkleApp

    picture = scenes.SCENES[arguments.scene]
    node = FakeNode(picture) if arguments.static else LiveNode(picture, dies_after_s=arguments.dies_after)

    async def start_demo() -> None:
        await delay(1.0)
        node.picture = scenes.REJECTED

    async def leave() -> None:
        await delay(1.5)

    SparkleApp(node, start_demo=start_demo, leave=leave).run()


if __name__ == "__main__":
    main()
