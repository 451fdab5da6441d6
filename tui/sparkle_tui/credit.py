"""What ``c`` opens: the node's account in the ledger, with where its credit came from. Loaded when it is asked for.

The node is asked when the screen opens, and every two seconds or more rarely; what it said last stays while it does
not answer.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Digits

from sparkle_p2p.balance_chart import chart, times
from sparkle_p2p.ledger_view import CreditView, EntryView, EscrowView, ForkView, PartnerView
from sparkle_protocol.errors import SparkleError
from sparkle_protocol.ids import short_peer
from sparkle_protocol.work.price import core_time, exactly
from sparkle_tui import formatting as fmt
from sparkle_tui.panels import Text
from sparkle_tui.shown import Line
from sparkle_tui.status import ACCENT, BAD, CAUTION, GOOD, MUTED, fit

logger = logging.getLogger(__name__)

ASK_S, ASK_LIMIT_S = 2.0, 10.0
_REST = 10  # times as long as the last answer took
_WIDEST = 92
_TALL = 24  # rows from which on the balance is drawn in large digits
_DIGIT_CELLS = 3
_WIDE = 56  # cells from which on accounts are named beside peers
_CHART_ROWS, _LEAST_COLUMNS = 5, 10
_CELL = 25  # of a sum with its name
_STATES: Mapping[str, tuple[str, str]] = {
    "ready": ("●", GOOD),
    "learning": ("◌", CAUTION),
    "lost": ("✗", BAD),
    "forked": ("✗", BAD),
    "revoked": ("✗", BAD),
    "cloned": ("✗", BAD),
    "kept": ("○", MUTED),
}

Ask = Callable[[], Awaitable[CreditView]]


class CreditScreen(ModalScreen[None]):
    """The account; any of the closing keys returns to the node.

    Args:
        ask: gives the account as it is now.
        ask_s: seconds between two questions; 0: the node is asked once, and whenever ``ask`` is called.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,c,q,enter,space", "app.pop_screen", "Close", show=False),
    ]

    def __init__(self, ask: Ask, ask_s: float = ASK_S) -> None:
        super().__init__()
        self._ask = ask
        self._ask_s = ask_s
        self._view: CreditView | None = None
        self._failure: str | None = None

    def compose(self) -> ComposeResult:
        """One scrollable box that fits the smallest supported terminal."""
        with VerticalScroll() as box:
            box.border_title = "Credit"
            box.border_subtitle = "esc closes"
            yield Digits("", id="balance")
            yield Text(id="credit")

    def on_mount(self) -> None:
        """Ask, and let the arrow keys scroll the box."""
        self.query_one(VerticalScroll).focus()
        self._draw()
        self.ask()

    def on_resize(self) -> None:
        """Arrange the columns anew."""
        self._draw()

    def ask(self) -> None:
        """Ask the node; an answer that is still on its way is not waited for."""
        self.run_worker(self._hear(), group="credit", exclusive=True)

    async def _hear(self) -> None:
        began = time.monotonic()
        try:
            async with asyncio.timeout(ASK_LIMIT_S):
                self._view, self._failure = await self._ask(), None
        except SparkleError as error:
            self._failure = str(error)
        except TimeoutError:
            self._failure = f"no answer within {ASK_LIMIT_S:.0f} s"
        except Exception as error:
            logger.exception("asking for the credit failed")
            self._failure = f"a fault ({type(error).__name__}); the log has the details"
        self._draw()
        if self._ask_s > 0 and self.is_mounted:  # a node that reads a long feed is asked more rarely
            self.set_timer(max(self._ask_s, _REST * (time.monotonic() - began)), self.ask)

    def _draw(self) -> None:
        if not self.is_mounted:
            return
        view, failure = self._view, self._failure
        width = max(20, min(_WIDEST, self.app.size.width) - 5)
        large = view is not None and self.app.size.height >= _TALL and len(_large(view)) * _DIGIT_CELLS <= width
        digits = self.query_one(Digits)
        digits.display = large
        if large and view is not None and digits.value != _large(view):
            digits.update(_large(view))
        self.query_one(Text).show((view, failure, width, large), lambda: lines(view, failure, width, large=large))


def _large(view: CreditView) -> str:
    return exactly(view.balance_micro)


def lines(view: CreditView | None, failure: str | None, width: int, *, large: bool = False) -> list[Line]:
    """The account from its balance down to known forks. ``large``: the balance stands above already."""
    drawn: list[Line] = []
    if failure is not None:
        drawn += [((row, CAUTION),) for row in fmt.wrap(f"Not answered: {fmt.clean(failure)}", width)]
    if view is None:
        return drawn or [(("Waiting for the node's word.", MUTED),)]
    drawn += _head(view, width, large=large)
    drawn += _chart(view, width)
    drawn += _list("Partners", view.partner_count, _partners(view.partners, width), width)
    drawn += _list("Set aside for jobs", view.escrow_count, _escrows(view.escrows, width), width)
    drawn += _list("Does not count yet", view.pending_count, _entries(view.pending, width), width)
    drawn += _list("Does not count", view.void_count, _entries(view.void, width), width)
    forks = [_fork(one, view) for one in view.forks]
    return drawn + _list("Signed two entries for one place, so spends no more", view.fork_count, forks, width)


def _head(view: CreditView, width: int, *, large: bool) -> list[Line]:
    balance: Line = () if large else ((exactly(view.balance_micro), "bold $text-accent"), (" ", ""))
    worth = f"credits, {core_time(abs(view.balance_micro))} of a laptop core" if view.balance_micro else "credits"
    glyph, style = _STATES[view.state]
    sentence = fmt.wrap(fmt.clean(view.reason.sentence), width - 2)
    sums = [
        ("earned", exactly(view.earned_micro)),
        ("spent", exactly(view.spent_micro)),
        ("held", exactly(view.held_micro)),
        ("limit", "none" if view.unlimited else exactly(view.limit_micro)),
        ("can spend", exactly(view.spendable_micro)),
        ("pending", exactly(view.pending_micro)),
    ]
    return [
        fit((*balance, (worth, MUTED)), width),
        *(((f"{glyph} " if not number else "  ", style), (row, "")) for number, row in enumerate(sentence)),
        ((" ", ""),),
        *_grid(sums, width),
    ]


def _grid(sums: Sequence[tuple[str, str]], width: int) -> list[Line]:
    """Names and sums, as many beside each other as there is room for, in full."""
    cell = max(_CELL, *(11 + len(value) + 2 for _, value in sums))
    beside = max(1, min(3, (width + 2) // cell))
    drawn: list[Line] = []
    for start in range(0, len(sums), beside):
        row: list[tuple[str, str]] = []
        for name, value in sums[start : start + beside]:
            row += [(f"{name:<10} ", MUTED), (f"{value:>{cell - 13}}  ", "bold")]
        drawn.append(fit(tuple(row), width))
    return drawn


def _chart(view: CreditView, width: int) -> list[Line]:
    margin = max(len(exactly(one.balance_micro)) for one in view.history) + 2
    points = [(one.time_ms, one.balance_micro) for one in view.history]
    columns = width - margin - 1
    drawn = chart(points, columns, _CHART_ROWS) if columns >= _LEAST_COLUMNS else None
    if drawn is None:
        return []
    labels = {0: exactly(drawn.top_micro)}
    if drawn.top_micro != drawn.bottom_micro:
        labels[_CHART_ROWS - 1] = exactly(drawn.bottom_micro)
    rows: list[Line] = [((" ", ""),)]
    for number, row in enumerate(drawn.rows):
        rows.append(((f"{labels.get(number, ''):>{margin - 2}} │", MUTED), (row, ACCENT)))
    first, last = times(drawn)
    rows.append(((f"{'':{margin - 1}}{first}{last:>{max(0, columns + 1 - len(first))}}", MUTED),))
    return rows


def _list(title: str, count: int, rows: Sequence[Line], width: int) -> list[Line]:
    """A heading with the number there is, and the rows; nothing where there is none."""
    if not count:
        return []
    heading: Line = ((f"{title} ({fmt.number(count)})", "bold $text-accent"),)
    return [((" ", ""),), *(fit(row, width) for row in (heading, *rows))]


def _partners(partners: Sequence[PartnerView], width: int) -> list[Line]:
    wide = width >= _WIDE
    cell, account = (16, f"  {'account':<8}") if wide else (13, "")
    rows: list[Line] = [((f"  {'peer':<9}{account} {'earned from':>{cell}} {'spent on':>{cell}}", MUTED),)]
    for one in partners:
        peer = fmt.pad(fmt.clean(short_peer(one.peer_id)) if one.peer_id else "–", 9)
        rows.append(
            (
                (f"  {peer}", "bold"),
                (f"  {_start_of(one.account)}" if wide else "", MUTED),
                (f" {exactly(one.earned_micro):>{cell}}", GOOD if one.earned_micro else MUTED),
                (f" {exactly(one.spent_micro):>{cell}}", "" if one.spent_micro else MUTED),
            )
        )
    return rows


def _escrows(escrows: Sequence[EscrowView], width: int) -> list[Line]:
    cell = 16 if width >= _WIDE else 12
    rows: list[Line] = [((f"  {'job':<8} {'in escrow':>{cell}} {'still owed':>{cell}}", MUTED),)]
    for one in escrows:
        owed = "not known" if one.owed_micro is None else exactly(one.owed_micro)
        sums = f" {exactly(one.left_micro):>{cell}} {owed:>{cell}}"
        ended = "  ended" if one.over else ""
        rows.append(((f"  {_start_of(one.job)}", "bold"), (sums, ""), (ended, MUTED)))
    return rows


def _start_of(name: str) -> str:
    return fmt.clean(name)[:8].ljust(8)


def _entries(entries: Sequence[EntryView], width: int) -> list[Line]:
    drawn: list[Line] = []
    for one in entries:
        amount = f" of {exactly(one.stated_micro)}" if one.stated_micro else ""
        job = f" for {fmt.clean(one.job)[:8]}" if one.job else ""
        drawn.append(((f"  entry {one.seq}: {fmt.clean(one.kind)}{amount}{job}", "bold"),))
        why = f"{fmt.clean(one.sentence)} ({fmt.clean(one.outcome)})"
        drawn += [((f"    {row}", MUTED),) for row in fmt.wrap(why, width - 4)]
    return drawn


def _fork(one: ForkView, view: CreditView) -> Line:
    whose = "this account" if one.account == view.account else f"{fmt.clean(one.account)[:8]}"
    return (("  ✗ ", BAD), (f"{whose} {fmt.clean(short_peer(one.peer_id))}", "bold"), (f" at entry {one.seq}", MUTED))
