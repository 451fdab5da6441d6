"""What ``?`` opens: the keys and the signs, in words. Loaded when it is first asked for."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen

from sparkle_tui import formatting as fmt
from sparkle_tui.panels import Text
from sparkle_tui.shown import Line

KEYS = (
    ("space", "Pause at once, or compute again"),
    ("d", "Start the local demo while nobody else is there"),
    ("l", "Go to the log"),
    ("t", "Whose results this node believes, and how far"),
    ("c", "What this node earned, spent and holds, and from whom"),
    ("tab", "Go to the next panel; it gets more room"),
    ("arrows", "Scroll the panel you are in"),
    ("esc", "Leave the panel"),
    ("ctrl+p", "All commands, light and dark look"),
    ("q", "Hand back running units and quit"),
)
SIGNS = (
    ("● ○", "working, idle"),
    ("‖ ■", "paused, stopping"),
    ("◌ ◐", "waiting, being checked by others"),
    ("✓ ✗", "results accepted, refused as wrong"),
    ("★ ● ○", "on the trust screen: named, known, newcomer"),
    ("†", "units given up after several failures"),
    ("in out", "the peer dialled this computer, or the reverse"),
)
_ABOUT = (
    "This computer shares its idle time with other peers. Results of peers that it does not know are compared "
    "with others before they count, those of known ones from time to time; a peer that returns wrong results is "
    "rejected and begins again."
)


class HelpScreen(ModalScreen[None]):
    """Keys and signs; any of the closing keys returns to the node."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,q,enter,space", "app.pop_screen", "Close", show=False),
    ]

    def compose(self) -> ComposeResult:
        """One scrollable box that fits the smallest supported terminal."""
        with VerticalScroll() as box:
            box.border_title = "Help"
            box.border_subtitle = "esc closes"
            yield Text(id="help")

    def on_mount(self) -> None:
        """Fill the box and let the arrow keys scroll it."""
        self.query_one(VerticalScroll).focus()
        self._draw()

    def on_resize(self) -> None:
        """Wrap the words anew."""
        self._draw()

    def _draw(self) -> None:
        width = max(20, min(64, self.app.size.width) - 5)
        self.query_one(Text).show((width,), lambda: lines(width))


def lines(width: int) -> list[Line]:
    """The help text, wrapped to a width."""
    drawn: list[Line] = []
    for heading, entries in (("Keys", KEYS), ("Signs", SIGNS)):
        drawn.append(((heading, "bold $text-accent"),))
        for key, words in entries:
            for number, row in enumerate(fmt.wrap(words, width - 9)):
                drawn.append(((fmt.pad("" if number else key, 8) + " ", "bold"), (row, "")))
    drawn.append((("How it works", "bold $text-accent"),))
    drawn.extend(((row, ""),) for row in fmt.wrap(_ABOUT, width))
    return drawn
