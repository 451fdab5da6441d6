"""The top of the screen in words: who this node is, its state with the reason, the machine, the score."""

from collections.abc import Mapping

from sparkle_p2p.view import NodeView
from sparkle_protocol.ids import short_peer
from sparkle_tui import formatting as fmt
from sparkle_tui.shown import Line, Segment, Shown, State

MUTED = "$foreground 60%"
GOOD = "$text-success"
BAD = "bold $text-error"
CAUTION = "$text-warning"
ACCENT = "$primary"  # bars and curves

# Glyph, word, style. The glyphs differ in shape so that they can be told apart without colour.
_STATES: Mapping[State, tuple[str, str, str]] = {
    "working": ("●", "WORKING", "bold $text-success"),
    "idle": ("○", "IDLE", "bold $text-accent"),
    "paused": ("‖", "PAUSED", "bold $text-warning"),
    "stopping": ("■", "STOPPING", "bold $text-error"),
}


def fit(line: Line, width: int) -> Line:
    """The line's beginning in at most ``width`` cells, with an ellipsis where it is cut."""
    fitted: list[Segment] = []
    used = 0
    for text, style in line:
        shown = fmt.shorten(text, width - used)
        if shown:
            fitted.append((shown, style))
            used += fmt.cells(shown)
        if shown != text:
            break
    return tuple(fitted)


def spread(left: Line, right: Line, width: int) -> Line:
    """``left`` and ``right`` at the ends of a row; the left one gives way where both do not fit."""
    room = width - sum(fmt.cells(text) for text, _ in right)
    fitted = fit(left, max(0, room - 1))
    gap = room - sum(fmt.cells(text) for text, _ in fitted)
    return fit((*fitted, (" " * gap, ""), *right), width)


def header(shown: Shown, width: int) -> Line:
    """Name, network and short id of this node; how long it runs."""
    title: Line = (("✦ ", "bold $accent"), ("Sparkle", "bold"))
    view = shown.view
    if view is None:
        return title
    about = f"  {fmt.clean(view.net)} · {fmt.clean(short_peer(view.peer_id))}"
    version = f"{fmt.clean(view.version)}  " if width >= 80 else ""
    return spread((*title, (about, "")), ((f"{version}up {fmt.clock_time(view.uptime_s)}", MUTED),), width)


def banner(shown: Shown) -> str:
    """One sentence that stands above everything else, or nothing."""
    if shown.leaving:
        return "■ Leaving… running units are handed back. Press q again to leave at once."
    if shown.failure is None:
        return ""
    return f"✗ The node does not answer: {fmt.clean(shown.failure)}"


def network(view: NodeView) -> Segment:
    """The network in a few words with a glyph."""
    if view.network == "starting":
        return "◌ Starting the network…", CAUTION
    if view.network == "down":
        return "✗ Network down", BAD
    if view.network == "alone":
        return "○ No other peers yet", CAUTION
    return f"● {fmt.plural(len(view.peers), 'peer')}", GOOD


def state(shown: Shown, width: int, reason_rows: int) -> list[Line]:
    """The state's glyph and word beside the network's, then the reason as a sentence."""
    word, sentence = _state(shown)
    if shown.view is None or shown.failure is not None:
        first = fit((word,), width)
    else:
        first = spread((word,), (network(shown.view),), width)
    return [first, *(((row, ""),) for row in fmt.wrap(sentence, width, lines=reason_rows))]


def _state(shown: Shown) -> tuple[Segment, str]:
    view, current = shown.view, shown.state
    if shown.failure is not None and not shown.leaving:
        ago = f"What you see is {fmt.roughly(shown.failing_s)} old." if view else "Nothing to show yet."
        return ("✗ NO ANSWER", BAD), f"{ago} Trying again by itself."
    if view is None or current is None:
        return ("◌ STARTING", "bold $text-warning"), "Waiting for the node's first word."
    glyph, word, style = _STATES[current]
    if shown.leaving:
        return (f"{glyph} LEAVING…", style), "The node finishes what it must and tells its peers."
    if current == view.state:
        return (f"{glyph} {word}", style), fmt.clean(view.reason.sentence)
    pending = "Pausing: running units stop at once." if shown.wish == "paused" else "Resuming…"
    return (f"{glyph} {word}", style), pending


def machine(shown: Shown, width: int, rows: int) -> list[Line]:
    """CPU with its last minutes, and memory. One row, or the CPU drawn ``rows - 1`` high above memory."""
    view = shown.view
    if view is None:
        return [(("CPU –   Memory –", MUTED),)]
    percent = f"{view.cpu_percent:.1f} %" if view.cpu_percent < 10 else f"{view.cpu_percent:.0f} %"
    memory = fmt.size(view.pss_bytes)
    if rows < 2:
        tail: Line = (("   Memory ", MUTED), (memory, ""))
        graph = max(0, min(60, width - 11 - sum(len(text) for text, _ in tail)))
        curve = fmt.sparkline(shown.cpu, graph)[0]
        return [fit((("CPU ", MUTED), (f"{percent:<6} ", ""), (curve, ACCENT), *tail), width)]
    limit = view.limits.get("cpu_percent")
    notes = [("CPU", percent), ("max", f"{limit:g} %") if isinstance(limit, int | float) else ("", "")]
    lines: list[Line] = []
    for row, curve in enumerate(fmt.sparkline(shown.cpu, max(1, width - 15), rows - 1)):
        label, value = notes[row] if row < len(notes) else ("", "")
        lines.append(((f"{label:<8}", MUTED), (f"{value:<7}", MUTED if row else "bold"), (curve, ACCENT)))
    cap = view.limits.get("memory_mb")
    allowed = f" of {cap:g} MB" if isinstance(cap, int | float) else ""
    return [*lines, fit((("Memory  ", MUTED), (memory, "bold"), (allowed, MUTED)), width)]


def score(shown: Shown, width: int, rows: int) -> list[Line]:
    """Credit, the units that this node computed, and what it refused from others."""
    view = shown.view
    if view is None:
        return [(("Credit –", MUTED),)]
    refused = sum(job.rejected for job in view.jobs)
    balance = fmt.credit(view.credit_micro)
    if rows < 2:
        line: Line = (
            ("Credit ", MUTED),
            (balance, ""),
            ("   Units ", MUTED),
            (f"{fmt.number(view.units_done)} done, {fmt.number(view.units_verified)} accepted", ""),
        )
        if refused and width >= 72:
            line = (*line, ("   Refused ", MUTED), (f"{fmt.number(refused)} of others", BAD))
        return [fit(line, width)]
    recent = f"  +{shown.accepted_recently}/min" if shown.accepted_recently else ""
    lines: list[Line] = [
        (("Credit    ", MUTED), (balance, "bold")),
        (("Computed  ", MUTED), (fmt.plural(view.units_done, "unit"), "bold")),
        (("Accepted  ", MUTED), (fmt.number(view.units_verified), "bold"), (recent, GOOD)),
        (("Refused   ", MUTED), (_refused(refused), BAD if refused else "")),
    ]
    return [fit(line, width) for line in lines[:rows]]


def _refused(refused: int) -> str:
    return f"✗ {fmt.number(refused)} of others" if refused else "0"
