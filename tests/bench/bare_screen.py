"""The least that Textual can do: one word on the screen, and q."""

from textual.app import App, ComposeResult
from textual.widgets import Static


class BareScreen(App[None]):
    """Draws a word that the measurement of the first frame waits for."""

    BINDINGS = [("q", "quit", "Quit")]  # noqa: RUF012

    def compose(self) -> ComposeResult:
        yield Static("IDLE")


if __name__ == "__main__":
    BareScreen().run()
