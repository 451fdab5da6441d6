"""The screen as a user drives it: every key in every state, with a node made of data."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
from rich.cells import cell_len
from textual.content import Content
from textual.pilot import Pilot
from textual.widgets import Digits

from sparkle_p2p.view import LogLine, NodeView, Reason
from sparkle_protocol.errors import ConfigError, NodeNotRunning, TransportError
from sparkle_tui.app import SparkleApp
from sparkle_tui.help import HelpScreen
from sparkle_tui.panels import Section, Text
from tests.tui import scenes
from tests.tui.fake_node import FakeClock, FakeNode

Callback = Callable[[], Awaitable[None]]
SIZES = ((50, 18), (95, 18), (96, 18), (96, 28), (160, 50), (120, 20), (30, 10), (80, 60))


@dataclass
class Screen:
    """A running app with its node and clock."""

    app: SparkleApp
    node: FakeNode
    clock: FakeClock
    pilot: Pilot[None] = field(repr=False)

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()

    async def shows(self, view: NodeView) -> None:
        self.node.picture = view
        self.app.poll()
        await self.pilot.pause()

    def text(self, selector: str) -> str:
        widget = self.app.query_one(selector)
        text = widget.text if isinstance(widget, Section) else widget
        assert isinstance(text.content, Content)  # type: ignore[attr-defined]
        return text.content.plain  # type: ignore[attr-defined]

    @property
    def notes(self) -> str:
        return "\n".join(note.message for note in self.app._notifications)


@asynccontextmanager
async def screen(
    view: NodeView = scenes.WORKING,
    *,
    size: tuple[int, int] = (80, 24),
    start_demo: Callback | None = None,
    leave: Callback | None = None,
) -> AsyncIterator[Screen]:
    node, clock = FakeNode(view), FakeClock()
    app = SparkleApp(node, clock=clock, refresh_hz=0, start_demo=start_demo, leave=leave)
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        yield Screen(app, node, clock, pilot)


async def test_space_pauses_at_once_and_the_node_follows() -> None:
    async with screen() as seen:
        seen.node.gate = asyncio.Event()
        await seen.press("space")
        assert "PAUSED" in seen.text("#state")
        assert "Pausing" in seen.text("#state")
        assert "‖ prime_count" in seen.text("#units")
        assert "Resume" in seen.text("#keys")
        assert seen.node.picture.state == "working"
        seen.node.gate.set()
        await seen.app.workers.wait_for_complete()
        assert seen.node.calls == ["pause"]
        assert "Paused by you." in seen.text("#state")


async def test_space_resumes_a_paused_node() -> None:
    async with screen(scenes.PAUSED) as seen:
        await seen.press("space")
        await seen.app.workers.wait_for_complete()
        assert seen.node.calls == ["resume"]
        assert "WORKING" in seen.text("#state")


async def test_quick_presses_end_in_the_last_wish() -> None:
    async with screen() as seen:
        seen.node.gate = asyncio.Event()
        await seen.press("space", "space", "space", "space")
        assert "WORKING" in seen.text("#state")
        seen.node.gate.set()
        await seen.app.workers.wait_for_complete()
        assert seen.node.calls == ["pause", "resume"]
        assert seen.node.picture.state == "working"


@pytest.mark.parametrize("error", [TransportError("The node is busy; try again."), ValueError("bug")])
async def test_a_pause_that_fails_is_taken_back_and_told(error: Exception) -> None:
    async with screen() as seen:
        seen.node.command_error = error
        await seen.press("space")
        await seen.app.workers.wait_for_complete()
        assert "WORKING" in seen.text("#state")
        assert "Could not pause" in seen.notes


async def test_a_node_that_stays_paused_for_its_own_reason_is_believed() -> None:
    scheduled = replace(scenes.PAUSED, reason=Reason("schedule", "Paused until 20:00."))
    async with screen(scheduled) as seen:
        seen.node.obeys = False
        await seen.press("space")
        await seen.app.workers.wait_for_complete()
        assert "WORKING" in seen.text("#state")
        seen.clock.now += 4
        await seen.shows(seen.node.picture)
        assert "PAUSED" in seen.text("#state")
        assert "still paused: Paused until 20:00." in seen.notes


async def test_q_shows_that_it_leaves_until_the_node_has_stopped() -> None:
    stopped = asyncio.Event()

    async def leave() -> None:
        await stopped.wait()

    async with screen(leave=leave) as seen:
        await seen.press("q")
        assert "Leaving…" in seen.text("#banner")
        assert "LEAVING" in seen.text("#state")
        assert seen.app.is_running
        await seen.press("space")
        assert seen.node.calls == []
        stopped.set()
        await seen.app.workers.wait_for_complete()
    assert seen.app.return_code == 0


@pytest.mark.parametrize("key", ["q", "ctrl+c", "ctrl+q"])
async def test_every_way_out_closes_the_screen(key: str) -> None:
    async with screen() as seen:
        await seen.press(key)
    assert seen.app.return_code == 0


async def test_a_second_q_does_not_wait() -> None:
    async def leave() -> None:
        await asyncio.Event().wait()

    async with screen(leave=leave) as seen:
        await seen.press("q", "q")
    assert seen.app.return_code == 0


async def test_alone_offers_the_demo_and_d_starts_it() -> None:
    ready = asyncio.Event()
    started = []

    async def start_demo() -> None:
        started.append(True)
        await ready.wait()

    async with screen(scenes.ALONE, start_demo=start_demo) as seen:
        assert "No other peers yet." in seen.text("#peers")
        assert "Press d" in seen.text("#peers")
        assert scenes.ADDRESS in seen.text("#peers").replace("\n  ", "")
        await seen.press("d", "d")
        assert "The local demo starts" in seen.text("#peers")
        ready.set()
        await seen.app.workers.wait_for_complete()
        await seen.shows(scenes.WORKING)
        assert started == [True]
        assert "…f7mTq4Ws" in seen.text("#peers")


@pytest.mark.parametrize(
    ("hosts", "said"),
    [
        (("ip4/127.0.0.1", "ip4/192.168.1.23"), "› Elsewhere: sparkle-node --bootstrap /ip4/192.168.1.23/"),
        (("ip6/::1", "ip6/2001:db8::7"), "› Elsewhere: sparkle-node --bootstrap /ip6/2001:db8::7/"),
        (("ip4/127.0.0.1",), "› On this computer only: sparkle-node --home DIR --bootstrap /ip4/127.0.0.1/"),
    ],
)
async def test_other_machines_are_given_no_address_of_loopback(hosts: tuple[str, ...], said: str) -> None:
    addresses = tuple(f"/{host}/tcp/41234/p2p/{scenes.ME}" for host in hosts)
    async with screen(replace(scenes.ALONE, addresses=addresses), size=(160, 40)) as seen:
        assert said.replace(" ", "") in "".join(seen.text("#peers").split())


async def test_without_a_demo_of_its_own_the_command_is_named() -> None:
    async with screen(scenes.ALONE) as seen:
        assert "sparkle demo" in seen.text("#peers")
        await seen.press("d")
        assert "sparkle demo" in seen.notes


async def test_d_does_nothing_among_peers() -> None:
    async def start_demo() -> None:
        raise AssertionError("must not start")

    async with screen(start_demo=start_demo) as seen:
        assert "Demo" not in seen.text("#keys")
        await seen.press("d")
        assert "no other peers are there" in seen.notes


async def test_a_demo_that_fails_is_told_and_can_be_tried_again() -> None:
    async def start_demo() -> None:
        raise ConfigError("No free port; close other demos.")

    async with screen(scenes.ALONE, start_demo=start_demo) as seen:
        await seen.press("d")
        await seen.app.workers.wait_for_complete()
        assert "Could not start the local demo: No free port" in seen.notes
        assert "Press d" in seen.text("#peers")


async def test_help_opens_and_closes() -> None:
    async with screen(size=(50, 18)) as seen:
        for closing in ("escape", "question_mark", "q"):
            await seen.press("question_mark")
            assert isinstance(seen.app.screen, HelpScreen)
            assert "Pause at once" in seen.app.screen.query_one(Text).content.plain  # type: ignore[union-attr]
            await seen.press(closing)
            assert not isinstance(seen.app.screen, HelpScreen)
        assert seen.app.is_running


async def test_t_shows_who_is_trusted_follows_the_node_and_closes() -> None:
    async with screen(size=(100, 30)) as seen:
        for closing in ("escape", "t", "q"):
            await seen.press("t")
            told = seen.app.screen.query_one(Text).content.plain  # type: ignore[union-attr]
            assert "3 known workers" in told
            assert re.search(r"● …f7mTq4Ws +known +1480 +141.5 h +6 % ", told)
            assert re.search(r"○ …Zp9Lk2Ha +newcomer +4 +7.2 s +all ", told)
            assert re.search(r"★ …N5vRx8Ju +named ", told)
            await seen.shows(scenes.REJECTED)
            told = seen.app.screen.query_one(Text).content.plain  # type: ignore[union-attr]
            assert re.search(r"✗ …Bad1iArs +newcomer +0 .* 1 ", told)
            await seen.shows(scenes.WORKING)
            await seen.press(closing)
            assert isinstance(seen.app.screen, HelpScreen) is False
            assert seen.app.screen.query("#board")
        assert seen.app.is_running


async def test_where_nobody_is_known_the_trust_screen_says_what_decides() -> None:
    async with screen(scenes.ALONE) as seen:
        await seen.press("t")
        told = seen.app.screen.query_one(Text).content.plain  # type: ignore[union-attr]
        assert "0 known workers: two that agree decide" in told
        assert "Nothing was compared yet" in told


def told(seen: Screen) -> str:
    return seen.app.screen.query_one("#credit", Text).content.plain  # type: ignore[union-attr]


async def test_c_shows_the_account_follows_the_node_and_closes() -> None:
    async with screen(size=(100, 40)) as seen:
        for closing in ("escape", "c", "q"):
            await seen.press("c")
            await seen.app.workers.wait_for_complete()
            await seen.pilot.pause()
            assert seen.app.screen.query_one(Digits).value == "12.354321"
            assert re.search(r"earned +20.000000 +spent +5.645679 +held +2.000000", told(seen))
            assert re.search(r"…f7mTq4Ws +c01d88aa +17.250000 +0.000000", told(seen))
            assert re.search(r"3fa2c17b +2.000000 +0.120000", told(seen))
            assert "(pending:hold)" in told(seen)
            assert "✗ 77aa00ff …Bad1iArs at entry 12" in told(seen)
            seen.node.account = scenes.FORKED
            seen.app.screen.ask()  # type: ignore[attr-defined]
            await seen.app.workers.wait_for_complete()
            assert "✗ This account signed two entries" in told(seen)
            assert "this account" in told(seen).splitlines()[-2]
            seen.node.account = scenes.EARNING
            await seen.press(closing)
            assert seen.app.screen.query("#board")
        assert seen.app.is_running


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ConfigError("this node has no part in the ledger; ask another one"), "no part in the ledger"),
        (ValueError("bug"), "a fault (ValueError)"),
    ],
)
async def test_a_node_that_does_not_tell_its_credit_is_named_and_the_last_word_stays(
    error: Exception, says: str
) -> None:
    async with screen() as seen:
        seen.node.command_error = error
        await seen.press("c")
        await seen.app.workers.wait_for_complete()
        assert says in told(seen)
        seen.node.command_error = None
        seen.app.screen.ask()  # type: ignore[attr-defined]
        await seen.app.workers.wait_for_complete()
        assert "earned" in told(seen)
        assert says not in told(seen)
        seen.node.command_error = error
        seen.app.screen.ask()  # type: ignore[attr-defined]
        await seen.app.workers.wait_for_complete()
        assert says in told(seen)
        assert "earned" in told(seen)


@pytest.mark.parametrize("size", SIZES)
async def test_the_credit_screen_draws_any_account_at_any_size(size: tuple[int, int]) -> None:
    async with screen(size=size) as seen:
        for account in scenes.ACCOUNTS.values():
            seen.node.account = account
            await seen.press("c")
            await seen.app.workers.wait_for_complete()
            await seen.pilot.resize_terminal(60, 20)
            await seen.pilot.resize_terminal(*size)
            await seen.pilot.pause()
            widest = max(20, min(92, size[0]) - 5)
            assert all(cell_len(row) <= widest for row in told(seen).splitlines()), told(seen)
            assert "\x1b" not in told(seen)
            await seen.press("c")


async def test_l_goes_to_the_log_and_escape_back() -> None:
    async with screen(scenes.REJECTED, size=(50, 18)) as seen:
        before = seen.app.query_one("#log").size.height
        await seen.press("l")
        assert seen.app.focused is seen.app.query_one("#log")
        assert seen.app.query_one("#log").size.height > before
        await seen.press("escape")
        assert seen.app.focused is None
        assert seen.app.query_one("#log").size.height == before


async def test_tab_walks_through_the_panels() -> None:
    async with screen() as seen:
        visited = []
        for _ in range(4):
            await seen.press("tab")
            assert isinstance(seen.app.focused, Section)
            visited.append(seen.app.focused.section)
        assert visited == ["units", "jobs", "peers", "log"]


async def test_the_log_follows_the_newest_entry_until_the_user_scrolls_up() -> None:
    lines = tuple(LogLine(scenes.NOW, "info", f"entry {number}") for number in range(60))
    async with screen(replace(scenes.WORKING, log=lines)) as seen:
        log = seen.app.query_one("#log", Section)
        assert log.scroll_offset.y == log.max_scroll_y > 0
        await seen.shows(replace(scenes.WORKING, log=(*lines, *lines)))
        assert log.scroll_offset.y == log.max_scroll_y
        await seen.press("l", "pageup")
        read = log.scroll_offset.y
        await seen.shows(replace(scenes.WORKING, log=(*lines, *lines, *lines)))
        assert log.scroll_offset.y == read


async def test_a_dead_node_is_named_and_recovers() -> None:
    async with screen() as seen:
        seen.node.view_error = NodeNotRunning("No node answers for this home; start one with sparkle-node.")
        await seen.shows(seen.node.picture)
        assert "No node answers for this home" in seen.text("#banner").replace("\n", " ")
        assert seen.app.query_one("#banner").display
        assert "NO ANSWER" in seen.text("#state")
        seen.node.view_error = None
        await seen.shows(seen.node.picture)
        assert not seen.app.query_one("#banner").display
        assert "WORKING" in seen.text("#state")


@pytest.mark.parametrize("error", [NodeNotRunning("No node runs."), RuntimeError("bug")])
async def test_a_node_dead_from_the_start_gives_a_screen_with_the_reason(error: Exception) -> None:
    node = FakeNode(scenes.WORKING, view_error=error)
    app = SparkleApp(node, clock=FakeClock(), refresh_hz=0)
    async with app.run_test(size=(50, 18)) as pilot:
        seen = Screen(app, node, FakeClock(), pilot)
        await pilot.pause()
        assert "does not answer" in seen.text("#banner")
        for key in ("space", "d", "l", "tab", "question_mark", "escape"):
            await seen.press(key)
        assert node.calls == []


async def test_text_of_others_is_never_markup() -> None:
    async with screen(scenes.HOSTILE, size=(160, 50)) as seen:
        for selector in ("#state", "#units", "#jobs", "#peers", "#log"):
            text = seen.text(selector)
            assert "\x1b" not in text
            assert "\u202e" not in text
        assert "[bold red]own[/]" in seen.text("#log")
        assert "[@click=app.quit]" in seen.text("#log")
        await seen.pilot.click("#log", offset=(30, 1))
        assert seen.app.is_running
        seen.node.command_error = TransportError(scenes.HOSTILE_TEXT)
        await seen.press("space")
        await seen.app.workers.wait_for_complete()
        assert "[bold red]own[/]" in seen.notes


@pytest.mark.parametrize("view", scenes.SCENES.values(), ids=scenes.SCENES)
async def test_every_size_draws_without_overflow(view: NodeView) -> None:
    async with screen(view) as seen:
        for width, height in SIZES:
            await seen.pilot.resize_terminal(width, height)
            await seen.pilot.pause()
            bottom = seen.app.query_one("#keys").region
            assert (bottom.y, bottom.height) == (height - 1, 1)
            for section in filter(lambda section: section.display, seen.app.query(Section)):
                assert section.region.bottom <= height - 1
                for text in section.query(Text):
                    assert isinstance(text.content, Content)
                    assert all(line.cell_length <= text.size.width for line in text.content.split("\n"))


async def test_nothing_is_repainted_while_nothing_changes() -> None:
    async with screen() as seen:
        before = [text.drawn for text in seen.app.query(Text)]
        for _ in range(10):
            seen.app.poll()
            await seen.pilot.pause()
        assert [text.drawn for text in seen.app.query(Text)] == before


async def test_the_palette_offers_the_same_commands() -> None:
    async with screen(scenes.ALONE) as seen:
        titles = [command.title for command in seen.app.get_system_commands(seen.app.screen)]
        assert titles == ["Pause", "Local demo", "Log", "Trust", "Credit", "Light or dark", "Theme", "Help", "Quit"]
        seen.app.action_look()
        await seen.pilot.pause()
        assert seen.app.theme == "sparkle-light"
        await seen.press("ctrl+p", "escape")
        assert seen.app.is_running


async def test_an_unknown_theme_in_the_environment_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXTUAL_THEME", "no-such-theme")
    async with screen() as seen:
        assert seen.app.theme == "sparkle-dark"


async def test_it_reads_the_node_by_itself() -> None:
    read = asyncio.Event()

    class Counting(FakeNode):
        reads = 0

        def view(self) -> NodeView:
            self.reads += 1
            if self.reads == 3:
                read.set()
            return super().view()

    node = Counting(scenes.WORKING)
    async with SparkleApp(node, refresh_hz=50).run_test(), asyncio.timeout(10):
        await read.wait()
    assert node.reads >= 3
