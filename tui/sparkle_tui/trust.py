"""What ``t`` opens: whom this node trusts how far, as a table that follows the node. Loaded when it is asked for."""

from collections.abc import Mapping
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen

from sparkle_p2p.view import NodeView, StandingView
from sparkle_protocol.ids import short_peer
from sparkle_tui import formatting as fmt
from sparkle_tui.panels import Text
from sparkle_tui.shown import Line, Segment, Shown
from sparkle_tui.status import BAD, CAUTION, GOOD, MUTED, fit

_STATES: Mapping[str, tuple[str, str, str]] = {  # glyph, word, style
    "named": ("★", "named", GOOD),
    "known": ("●", "known", GOOD),
    "vouched": ("◐", "vouched", GOOD),
    "newcomer": ("○", "newcomer", MUTED),
}
_ORDER = ("named", "known", "vouched", "newcomer")
_WIDEST = 92
_WORK_FROM = 52  # cells from which on the work behind the comparisons is shown
_DEVICE_FROM = 76  # cells from which on the class of kernels and the device are named too
_ABOUT = (
    "The answer of one known worker is enough; a coin decides whether a second one audits it. Answers of newcomers "
    "are compared and decide nothing; sixty that were right make a worker known, or the word of a peer you named. "
    "The more work was found right here, the fewer audits."
)


class TrustScreen(ModalScreen[None]):
    """Workers with what they have shown; any of the closing keys returns to the node."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,t,q,enter,space", "app.pop_screen", "Close", show=False),
    ]

    def __init__(self, shown: Shown) -> None:
        super().__init__()
        self._shown = shown

    def compose(self) -> ComposeResult:
        """One scrollable box that fits the smallest supported terminal."""
        with VerticalScroll() as box:
            box.border_title = "Trust"
            box.border_subtitle = "esc closes"
            yield Text(id="trust")

    def on_mount(self) -> None:
        """Fill the box and let the arrow keys scroll it."""
        self.query_one(VerticalScroll).focus()
        self._draw()

    def on_resize(self) -> None:
        """Arrange the columns anew."""
        self._draw()

    def show(self, shown: Shown) -> None:
        """Draw this moment; what has not changed is left alone."""
        self._shown = shown
        self._draw()

    def _draw(self) -> None:
        if not self.is_mounted:
            return
        width, view = max(20, min(_WIDEST, self.app.size.width) - 5), self._shown.view
        key = (view.known_workers, view.standings) if view is not None else ()
        self.query_one(Text).show((key, width), lambda: lines(view, width))


def lines(view: NodeView | None, width: int) -> list[Line]:
    """How many are known, a row for each worker, and what that means."""
    if view is None:
        return [(("Waiting for the node's first word.", MUTED),)]
    drawn: list[Line] = [_known(view), ((_head(width), MUTED),)]
    # What was proven wrong is what an owner wants to see first.
    ordered = sorted(view.standings, key=lambda one: (not one.failures, _ORDER.index(one.state), -one.capital_h))
    drawn += [fit(standing(one, width), width) for one in ordered]
    if not ordered:
        drawn[1:] = [((row, MUTED),) for row in fmt.wrap("Nothing was compared yet: run a job among peers.", width)]
    return [*drawn, ((" ", ""),), *(((row, MUTED),) for row in fmt.wrap(_ABOUT, width))]


def _known(view: NodeView) -> Line:
    count = fmt.plural(view.known_workers, "known worker")
    if view.known_workers >= 2:
        return (("● ", GOOD), (count, "bold"))
    return (("○ ", CAUTION), (count, "bold"), (": two that agree decide", CAUTION))


def _head(width: int) -> str:
    work = f" {'work':>8}" if width >= _WORK_FROM else ""
    more = "  kernels, device" if width >= _DEVICE_FROM else ""
    return fmt.shorten(f"  {'peer':<9} {'standing':<8} {'passes':>6}{work} {'audited':>7}  {'✗':<5}{more}", width)


def standing(item: StandingView, width: int) -> Line:
    """A worker: state as glyph and word, comparisons passed, work behind them, how often it is audited, failures."""
    glyph, word, style = _STATES[item.state]
    if item.failures and item.state == "newcomer":
        glyph, style = "✗", BAD
    failed: Segment = (f"{fmt.tally(item.failures):<5}", BAD if item.failures else MUTED)
    start: Line = (
        (f"{glyph} ", style),
        (fmt.pad(fmt.clean(short_peer(item.peer_id)), 9), "bold"),
        (f" {word:<8}", style),
        (f" {fmt.tally(item.passes) if item.state != 'named' else '–':>6}", ""),
        (f" {_work(item) if item.state != 'named' else '–':>8}" if width >= _WORK_FROM else "", ""),
        (f" {_rate(item):>7}  ", MUTED),
        failed,
    )
    if width < _DEVICE_FROM:
        return start
    where = ", ".join(fmt.clean(part) for part in (item.verification, item.device) if part)
    return (*start, (f"  {fmt.shorten(where or 'all', 28)}", MUTED))


def _work(item: StandingView) -> str:
    """Reference work that was found right."""
    if item.capital_h >= 1000:
        return f"{fmt.tally(int(item.capital_h))} h"
    if item.capital_h >= 1:
        return f"{item.capital_h:.1f} h"
    minutes = item.capital_h * 60
    return f"{minutes:.1f} min" if minutes >= 1 else f"{minutes * 60:.1f} s"


def _rate(item: StandingView) -> str:
    return "all" if item.state == "newcomer" else f"{item.audit_rate * 100:.0f} %"
