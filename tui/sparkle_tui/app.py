"""The screen of a node: one look at what this computer does for the network, and why.

It reads ``NodeView`` a few times a second and repaints what changed; it commands through ``NodeControl``.
Nothing here waits for the node: keys answer at once and the node's word follows.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from textual.app import App, ComposeResult, SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen

from sparkle_p2p.view import NodeControl, NodeView
from sparkle_protocol.errors import SparkleError
from sparkle_tui import formatting as fmt
from sparkle_tui import themes
from sparkle_tui.arrange import TALL, WIDE
from sparkle_tui.board import Board
from sparkle_tui.shown import History, Shown

if TYPE_CHECKING:
    from sparkle_tui.trust import TrustScreen

logger = logging.getLogger(__name__)
_COMMAND_S = 5.0  # pause takes effect within 50 ms; a command without an answer for this long has failed
_CONFIRM_S = 3.0  # how long a carried out wish may differ from the view before the view counts again
_DEMO_S = 60.0  # starting five local peers takes a few seconds
_LEAVE_S = 12.0  # the node itself leaves within 10 s


class SparkleApp(App[None]):
    """The terminal screen of one node.

    Args:
        control: The node, or a client of one that already runs.
        clock: Unix seconds; tests inject their own.
        refresh_hz: How often the node is read; 0 leaves that to calls of ``poll``.
        start_demo: Starts the local demo. Without it the screen names the command to run.
        leave: Stops the node while the screen says that it leaves. Without it the screen closes at once, a
            line in the terminal says so, and its owner stops the node.
    """

    CSS_PATH = Path(__file__).with_name("sparkle.tcss")
    TITLE = "Sparkle"
    AUTO_FOCUS = None
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (WIDE, "-wide")]  # noqa: RUF012 (Textual has an instance variable)
    VERTICAL_BREAKPOINTS = [(0, "-short"), (TALL, "-tall")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "pause_or_resume", "Pause or resume"),
        Binding("d", "demo", "Local demo"),
        Binding("l", "log", "Log"),
        Binding("t", "trust", "Trust"),
        Binding("c", "credit", "Credit"),
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("escape", "unfocus", "Leave the panel", show=False),
        Binding("q", "quit", "Quit"),
        Binding("ctrl+c", "quit", "Quit", show=False, priority=True),
    ]

    def __init__(
        self,
        control: NodeControl,
        *,
        clock: Callable[[], float] = time.time,
        refresh_hz: float = 4,
        start_demo: Callable[[], Awaitable[None]] | None = None,
        leave: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__()
        self.animation_level = "none"
        for theme in (themes.DARK, themes.LIGHT):
            self.register_theme(theme)
        self.theme = themes.chosen() if themes.chosen() in self.available_themes else themes.DARK.name
        self._control = control
        self._clock = clock
        self._refresh_hz = refresh_hz
        self._start_demo = start_demo
        self._leave = leave
        self._view: NodeView | None = None
        self._failure: str | None = None
        self._answered = clock()
        self._history = History()
        self._wish: Literal["paused", "running"] | None = None
        self._wished = 0.0
        self._commanding = False
        self._demo: Literal["none", "running"] = "none"
        self._leaving = False
        self._trust: TrustScreen | None = None  # the latest one that was opened

    def compose(self) -> ComposeResult:
        """One board; it is made once, later only texts and heights change."""
        self._board = Board()
        yield self._board

    def on_mount(self) -> None:
        """The first frame already shows what the node says, arranged for the terminal."""
        # Textual applies breakpoints after its first layout: without this a wrong frame flashes by.
        self.screen.set_class(self.size.width >= WIDE, "-wide")
        self.screen.set_class(self.size.height >= TALL, "-tall")
        self.poll()
        if self._refresh_hz > 0:
            self.set_interval(1 / self._refresh_hz, self.poll)

    # What the node says

    def poll(self) -> None:
        """Read the node once and repaint what changed. A node that fails is named, never fatal here."""
        now = self._clock()
        try:
            view = self._control.view()
        except SparkleError as error:
            self._failure = str(error)
        except Exception as error:
            logger.exception("the node's view failed")
            self._failure = f"it has a fault of its own ({type(error).__name__}); its log has the details."
        else:
            self._view, self._failure, self._answered = view, None, now
            self._history.add(now, view)
            self._confirm(view, now)
        self._draw()

    def _confirm(self, view: NodeView, now: float) -> None:
        if self._wish is None or self._commanding:
            return
        if (view.state == "paused") == (self._wish == "paused"):
            self._wish = None
        elif not 0 <= now - self._wished < _CONFIRM_S:
            still = "still paused" if view.state == "paused" else "not paused"
            self._wish = None
            self._say(f"The node is {still}: {view.reason.sentence}", "warning")

    def _shown(self) -> Shown:
        return Shown(
            view=self._view,
            failure=self._failure,
            failing_s=float(int(max(0.0, self._clock() - self._answered))),
            wish=self._wish,
            leaving=self._leaving,
            demo=self._demo,
            can_demo=self._start_demo is not None,
            cpu=tuple(self._history.cpu),
            accepted_recently=self._history.accepted_recently,
        )

    def _draw(self) -> None:
        shown = self._shown()
        self._board.show(shown)
        if self._trust is not None and self.screen is self._trust:
            self._trust.show(shown)

    def _say(self, text: str, severity: Literal["information", "warning", "error"] = "information") -> None:
        """A note in the corner for some seconds; never read as markup."""
        self.notify(fmt.clean(text), severity=severity, markup=False)

    # Commands

    async def _attempt(self, what: str, call: Callable[[], Awaitable[None]], limit_s: float) -> bool:
        """Await what somebody else wrote; a failure becomes a note, with ``what`` as its first words."""
        try:
            async with asyncio.timeout(limit_s):
                await call()
        except SparkleError as error:
            self._say(f"{what}: {error}", "error")
        except TimeoutError:
            self._say(f"{what}: no answer within {limit_s:.0f} s; try again.", "error")
        except Exception as error:
            logger.exception(what)
            self._say(f"{what}: a fault ({type(error).__name__}); the log has the details.", "error")
        else:
            return True
        return False

    def action_pause_or_resume(self) -> None:
        """Pause at once, or resume: the screen says so now, the node follows."""
        state = self._shown().state
        if state is None or state == "stopping":
            self._say("There is nothing to pause: the node does not run.", "warning")
            return
        self._wish = "running" if state == "paused" else "paused"
        self._draw()
        if not self._commanding:
            self._commanding = True
            self.run_worker(self._carry_out(), group="command")

    async def _carry_out(self) -> None:
        """Command what is wished until the last wish is carried out; a key pressed meanwhile changes it."""
        carried_out = None
        try:
            while self._wish is not None and self._wish != carried_out:
                carried_out = self._wish
                call, what = (
                    (self._control.pause, "Could not pause")
                    if carried_out == "paused"
                    else (self._control.resume, "Could not resume")
                )
                if not await self._attempt(what, call, _COMMAND_S):
                    self._wish = None
        finally:
            self._commanding = False
            self._wished = self._clock()
        self.poll()

    def action_demo(self) -> None:
        """Start the local demo; it is for those who are alone."""
        if self._demo == "running":
            self._say("The local demo is already starting.")
        elif not self._shown().alone:
            self._say("The local demo is for when the network is up and no other peers are there.")
        elif self._start_demo is None:
            self._say("Run in another terminal: sparkle demo")
        else:
            self._demo = "running"
            self._draw()
            self.run_worker(self._run_demo(self._start_demo), group="demo")

    async def _run_demo(self, start: Callable[[], Awaitable[None]]) -> None:
        try:
            if await self._attempt("Could not start the local demo", start, _DEMO_S):
                self._say("The local demo runs.")
        finally:
            self._demo = "none"
        self.poll()

    def action_log(self) -> None:
        """Go to the log; it gets more room."""
        self._board.focus_log()

    def action_unfocus(self) -> None:
        """Leave the panel: every section gets its usual room again."""
        self.screen.set_focus(None)

    def action_help(self) -> None:
        """Explain keys and signs."""
        from sparkle_tui.help import HelpScreen  # most runs never open it

        self.push_screen(HelpScreen())

    def action_trust(self) -> None:
        """Show whose results this node believes, and how far."""
        from sparkle_tui.trust import TrustScreen  # most runs never open it

        self._trust = TrustScreen(self._shown())
        self.push_screen(self._trust)

    def action_credit(self) -> None:
        """Show this node's account: what it earned, spent and holds, and what does not count yet."""
        from sparkle_tui.credit import ASK_S, CreditScreen  # most runs never open it

        self.push_screen(CreditScreen(self._control.credit, ASK_S if self._refresh_hz > 0 else 0))

    async def action_quit(self) -> None:
        """Leave the network and close; asked twice, close at once."""
        if self._leaving or self._leave is None:
            self.exit(message="Leaving… running units are handed back.")
            return
        self._leaving = True
        self._draw()
        self.run_worker(self._run_leave(self._leave), group="leave")

    async def _run_leave(self, leave: Callable[[], Awaitable[None]]) -> None:
        await self._attempt("The node did not leave cleanly", leave, _LEAVE_S)
        self.exit()

    def action_look(self) -> None:
        """Change between the dark and the light look."""
        self.theme = themes.DARK.name if self.theme == themes.LIGHT.name else themes.LIGHT.name

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """What the command palette (ctrl+p) offers."""
        paused = self._shown().state == "paused"
        word, effect = ("Resume", "Compute again") if paused else ("Pause", "Stop computing at once")
        yield SystemCommand(word, effect, self.action_pause_or_resume)
        if self._shown().alone:
            yield SystemCommand("Local demo", "Start peers on this computer", self.action_demo)
        yield SystemCommand("Log", "Go to the log", self.action_log)
        yield SystemCommand("Trust", "Whose results are believed, and how far", self.action_trust)
        yield SystemCommand("Credit", "What this node earned, spent and holds", self.action_credit)
        yield SystemCommand("Light or dark", "Change the look", self.action_look)
        yield SystemCommand("Theme", "Choose one of many looks", self.action_change_theme)
        yield SystemCommand("Help", "Keys and signs", self.action_help)
        yield SystemCommand("Quit", "Hand back running units and leave", self.action_quit)
