"""The board: header, cards, sections and keys, drawn from one ``Shown`` for any size of terminal."""

from collections.abc import Callable

from textual.app import ComposeResult
from textual.containers import Container
from textual.content import Content
from textual.widgets import Static

from sparkle_tui import formatting as fmt
from sparkle_tui import rows, status
from sparkle_tui.arrange import Geometry, arrange
from sparkle_tui.panels import Section, Text
from sparkle_tui.shown import Line, Shown

# Rows of log from which on entries are wrapped to full sentences instead of cut with an ellipsis.
_LOG_WRAPS_FROM = 6
_LOG_GLANCE = 60  # entries to draw while nobody reads: drawing all 300 took 24 ms for each new one
_CARD_SHARES = (5, 4, 4)  # widths of the three cards side by side; the style sheet has the same
_NO_UNITS = "Nothing to compute right now."
_NO_JOBS = "None yet. Submit one in another terminal, for example: sparkle submit prime_count --wait"


class Keys(Static):
    """The keys that matter now; each can be clicked."""

    def __init__(self) -> None:
        super().__init__("", id="keys")
        self._line = ""

    def show(self, shown: Shown, width: int) -> None:
        """Name the keys; the less important ones only where they fit."""
        keys = [("space", "Resume" if shown.state == "paused" else "Pause", "pause_or_resume")]
        if shown.alone and shown.demo == "none":
            keys.append(("d", "Demo", "demo"))
        keys += [("l", "Log", "log"), ("?", "Help", "help"), ("q", "Quit", "quit")]
        extra = [
            ("t", "Trust", "trust"), ("c", "Credit", "credit"), ("ctrl+p", "Commands", "command_palette"),
            ("tab", "Next panel", "focus_next"),
        ]  # fmt: skip
        for item in extra:
            if sum(len(key) + len(word) + 3 for key, word, _ in [*keys, item]) <= width:
                keys.insert(-2, item)
        line = "  ".join(f"[@click=app.{action}][b $accent]{key}[/] {word}[/]" for key, word, action in keys)
        if line != self._line:
            self._line = line
            self.update(Content.from_markup(line))  # our own words only


class Board(Container):
    """All that a node's screen shows, arranged for the space there is."""

    def __init__(self) -> None:
        super().__init__(id="board")
        self._shown = Shown()
        self._header, self._banner, self._keys = Text(id="header"), Text(id="banner"), Keys()
        self._state = Text(id="state", classes="card")
        self._machine = Text(id="machine", classes="card")
        self._score = Text(id="score", classes="card")
        self._units, self._jobs, self._peers = Section("units"), Section("jobs"), Section("peers")
        self._log = Section("log", newest_last=True)

    def compose(self) -> ComposeResult:
        """Top to bottom; the style sheet puts cards and columns side by side where the terminal is wide."""
        self._state.border_title, self._machine.border_title = "State", "This computer"
        self._score.border_title = "Results"
        yield self._header
        yield self._banner
        yield Container(self._state, self._machine, self._score, id="cards")
        yield Container(Container(self._units, self._jobs, id="left"), Container(self._peers, id="right"), id="upper")
        yield self._log
        yield self._keys

    def on_mount(self) -> None:
        """A focused section gets more room."""
        self.watch(self.screen, "focused", self._draw, init=False)

    def on_resize(self) -> None:
        """Arrange everything for the new size."""
        self._draw()

    def show(self, shown: Shown) -> None:
        """Draw this moment; what has not changed is left alone."""
        self._shown = shown
        self._draw()

    def focus_log(self) -> None:
        """Go to the log."""
        self._log.focus()

    def _draw(self) -> None:
        size = self.app.size
        if not size.width:
            return
        shown, geometry = self._shown, Geometry(size.width, size.height)
        width = geometry.width - 2
        self._header.show((shown, width), lambda: [status.header(shown, width)])
        self._keys.show(shown, width)
        used = 2 + self._draw_banner(shown, width)
        used += self._draw_cards(shown, geometry)
        self._draw_sections(shown, geometry, geometry.height - used)

    def _draw_banner(self, shown: Shown, width: int) -> int:
        text = status.banner(shown)
        self._banner.set_class(bool(text), "-shown")
        self._banner.set_class(shown.leaving, "-calm")
        wrapped = fmt.wrap(text, width, lines=3)
        self._banner.show((wrapped,), lambda: [((row, ""),) for row in wrapped])
        return len(wrapped)

    def _draw_cards(self, shown: Shown, geometry: Geometry) -> int:
        if geometry.wide:
            return self._draw_cards_wide(shown, geometry)
        return self._draw_cards_stacked(shown, geometry.width - 2)

    def _draw_cards_stacked(self, shown: Shown, width: int) -> int:
        """State with its reason, then one row each for the machine and the score; returns the rows taken."""
        reason = self._state.show((shown, width), lambda: status.state(shown, width, 2))
        self._machine.show((shown, width), lambda: status.machine(shown, width, 1))
        self._score.show((shown, width), lambda: status.score(shown, width, 1))
        for card, height in ((self._state, len(reason)), (self._machine, 1), (self._score, 1)):
            card.styles.height = height
        return len(reason) + 2

    def _draw_cards_wide(self, shown: Shown, geometry: Geometry) -> int:
        """Three cards of equal height side by side; returns the rows taken."""
        lines, frame, sides = (4, 2, 4) if geometry.boxed else (3, 0, 2)
        widths = [geometry.width * share // sum(_CARD_SHARES) - sides for share in _CARD_SHARES]
        self._state.show((shown, widths[0], lines), lambda: status.state(shown, widths[0], lines - 1))
        self._machine.show((shown, widths[1], lines), lambda: status.machine(shown, widths[1], lines))
        self._score.show((shown, widths[2], lines), lambda: status.score(shown, widths[2], lines))
        for card in (self._state, self._machine, self._score):
            card.styles.height = lines + frame
        return lines + frame

    def _draw_sections(self, shown: Shown, geometry: Geometry, available: int) -> None:
        left, right = (geometry.inner(column) for column in geometry.columns)
        empty = geometry.wide
        counts = {
            "units": self._fill(self._units, shown, left, rows.units, _NO_UNITS if empty else ""),
            "jobs": self._fill(self._jobs, shown, left, rows.jobs, _NO_JOBS if empty else ""),
            "peers": self._fill(self._peers, shown, right, rows.peers, ""),
        }
        self._name_sections(shown, geometry)
        focused = self.screen.focused
        focus = focused.section if isinstance(focused, Section) else None
        heights = arrange(geometry, counts, available, alone=shown.alone, focus=focus)
        for section in (self._units, self._jobs, self._peers, self._log):
            section.fit(heights[section.section])
        entries = shown.view.log if shown.view else ()
        if focus != "log":
            entries = entries[-_LOG_GLANCE:]
        width = geometry.inner(geometry.width)
        wrapped = focus == "log" or heights["log"] - geometry.chrome >= _LOG_WRAPS_FROM
        self._log.text.show((entries, width, wrapped), lambda: rows.log(entries, width, wrapped=wrapped))

    def _fill(
        self, section: Section, shown: Shown, width: int, draw: Callable[[Shown, int], list[Line]], empty: str
    ) -> int:
        """Draw a section's rows, or the words that stand for none; returns how many there are."""

        def lines() -> list[Line]:
            return draw(shown, width) or [((row, status.MUTED),) for row in fmt.wrap(empty, width)]

        return len(section.text.show((shown, width, empty), lines))

    def _name_sections(self, shown: Shown, geometry: Geometry) -> None:
        view = shown.view
        for section in (self._units, self._jobs, self._peers, self._log):
            section.boxed = geometry.boxed
        units, jobs, peers = (len(view.units), len(view.jobs), len(view.peers)) if view else (0, 0, 0)
        self._units.title("Units on this computer", units)
        self._jobs.title("Jobs you submitted", jobs)
        self._peers.title("Peers", peers, legend="✓ accepted  ✗ refused")
        self._log.title("Log")
