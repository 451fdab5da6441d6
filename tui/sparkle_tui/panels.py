"""The widgets: text that repaints only when it changed, in a frame or under a rule.

None of them reads markup: what a peer wrote is drawn as it is.
"""

from collections.abc import Callable, Sequence
from typing import Any

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from sparkle_tui.shown import Line

Draw = Callable[[], list[Line]]


class Text(Static):
    """Rows of styled text. Setting the same rows again costs a comparison and no repaint."""

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__("", markup=False, id=id, classes=classes)
        self._key: tuple[Any, ...] = ()
        self._rows: list[Line] = []
        self.drawn = 0  # how often the rows changed

    def show(self, key: tuple[Any, ...], draw: Draw) -> Sequence[Line]:
        """Draw anew if ``key`` (everything that ``draw`` reads) differs from the last time."""
        if key != self._key:
            self._key = key
            rows = draw()
            if rows != self._rows:
                # A different number of rows may need a new layout; the same number never does.
                self.update(as_content(rows), layout=len(rows) != len(self._rows))
                self._rows = rows
                self.drawn += 1
        return self._rows


class Section(VerticalScroll):
    """A titled list that can be focused and scrolled."""

    def __init__(self, name: str, *, newest_last: bool = False) -> None:
        super().__init__(id=name)
        self.section = name
        self.text = Text()
        self.boxed = False
        self._newest_last = newest_last
        self._at_end = True

    def compose(self) -> ComposeResult:
        """One text widget, as high as its rows."""
        yield self.text

    def on_mount(self) -> None:
        """A list with the newest entry last stays at its end until the user scrolls up to read."""
        if self._newest_last:
            self.watch(self, "scroll_y", self._note_scroll, init=False)
            self.watch(self, "virtual_size", self._stay_at_end, init=False)

    def on_resize(self) -> None:
        """Less room must not hide the newest entry."""
        self._stay_at_end()

    def _note_scroll(self) -> None:
        self._at_end = self.scroll_y >= self.max_scroll_y

    def _stay_at_end(self) -> None:
        if self._newest_last and self._at_end:
            self.scroll_end(animate=False, immediate=True)

    def fit(self, height: int) -> None:
        """Take ``height`` rows with the frame; none hides the section."""
        self.display = height > 0
        if height > 0:
            self.styles.height = height

    def title(self, words: str, count: int = 0, *, legend: str = "") -> None:
        """Set the words in the frame (our own words only: a border title is markup)."""
        text = f"{words} ({count})  {legend}".rstrip() if count else words
        if not self.boxed:
            text = f" {text} "  # a frame pads its title, a rule does not
        if self.border_title != text:
            self.border_title = text


def as_content(rows: Sequence[Line]) -> Content:
    """Rows as one piece of content; the segments' text is never parsed."""
    parts: list[str | tuple[str, str]] = []
    for number, row in enumerate(rows):
        if number:
            parts.append("\n")
        parts.extend(row)
    return Content.assemble(*parts)
