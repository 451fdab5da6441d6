"""The pictures of the screen; after a wanted change look at them and run with ``--snapshot-update``."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from textual.pilot import Pilot

from sparkle_protocol.errors import NodeNotRunning
from sparkle_tui.app import SparkleApp
from tests.tui import scenes
from tests.tui.fake_node import FakeClock, FakeNode

Compare = Callable[..., bool]
SIZES = [(50, 18), (80, 24), (160, 50)]


@dataclass
class Stage:
    """An app on a fake node, and what to do before the picture is taken."""

    scene: str
    theme: str | None = None
    keys: tuple[str, ...] = ()
    fails: bool = False
    account: str = "earning"

    def build(self) -> SparkleApp:
        self.clock = FakeClock(scenes.NOW - 41)
        self.node = FakeNode(scenes.SCENES[self.scene], account=scenes.ACCOUNTS[self.account])

        async def start_demo() -> None:
            raise NotImplementedError("snapshots never start the demo")

        self.app = SparkleApp(self.node, clock=self.clock, refresh_hz=0, start_demo=start_demo)
        return self.app

    async def play(self, pilot: Pilot[None]) -> None:
        if self.theme is not None:
            self.app.theme = self.theme
        scenes.live_through(self.app, self.node, self.clock)
        if self.fails:
            self.node.view_error = NodeNotRunning("no node answers here; start one with sparkle-node.")
            self.clock.now += 12
            self.app.poll()
        await pilot.press(*self.keys)
        await self.app.workers.wait_for_complete()
        await pilot.pause()


def matches(snap_compare: Compare, stage: Stage, size: tuple[int, int]) -> bool:
    return snap_compare(stage.build(), terminal_size=size, run_before=stage.play)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("scene", sorted(scenes.SCENES))
def test_every_state_at_every_size(snap_compare: Compare, scene: str, size: tuple[int, int]) -> None:
    assert matches(snap_compare, Stage(scene), size)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_a_node_that_does_not_answer(snap_compare: Compare, size: tuple[int, int]) -> None:
    assert matches(snap_compare, Stage("working", fails=True), size)


@pytest.mark.parametrize("size", [(50, 18), (100, 30)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_help(snap_compare: Compare, size: tuple[int, int]) -> None:
    assert matches(snap_compare, Stage("working", keys=("question_mark",)), size)


@pytest.mark.parametrize("size", [(50, 18), (100, 30)], ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("scene", ["alone", "hostile", "rejected", "working"])
def test_trust(snap_compare: Compare, scene: str, size: tuple[int, int]) -> None:
    assert matches(snap_compare, Stage(scene, keys=("t",)), size)


@pytest.mark.parametrize("size", [(50, 18), (80, 24), (110, 50)], ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("account", sorted(scenes.ACCOUNTS))
def test_credit(snap_compare: Compare, account: str, size: tuple[int, int]) -> None:
    assert matches(snap_compare, Stage("working", keys=("c",), account=account), size)


def test_the_focused_log_gets_the_room_in_a_small_terminal(snap_compare: Compare) -> None:
    assert matches(snap_compare, Stage("rejected", keys=("l",)), (50, 18))


def test_light_theme(snap_compare: Compare) -> None:
    assert matches(snap_compare, Stage("rejected", theme="sparkle-light"), (100, 30))


def test_without_colour(snap_compare: Compare, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert matches(snap_compare, Stage("rejected"), (80, 24))
