"""The rows of the sections: units, jobs, peers and the log, each fitted to a width.

Text that other peers wrote (agents, errors, kernel names) passes ``formatting.clean`` and is only ever drawn
as plain text, never read as markup.
"""

import time
from collections.abc import Mapping, Sequence

from sparkle_p2p.view import JobView, LogLine, NodeView, PeerView, UnitView
from sparkle_protocol.ids import short_peer
from sparkle_tui import formatting as fmt
from sparkle_tui.shown import Line, Shown
from sparkle_tui.status import ACCENT, BAD, CAUTION, GOOD, MUTED, fit

_UNITS: Mapping[str, tuple[str, str, str]] = {  # glyph, words instead of a bar, style
    "queued": ("◌", "waiting", MUTED),
    "running": ("●", "", ACCENT),
    "paused": ("‖", "", CAUTION),
    "committed": ("◐", "in review", GOOD),
    "revealed": ("✓", "handed in", GOOD),
}
_JOBS: Mapping[str, tuple[str, str, str]] = {
    "queued": ("◌", "waiting", MUTED),
    "running": ("●", "", ACCENT),
    "done": ("✓", "done", GOOD),
    "cancelled": ("–", "cancelled", MUTED),
    "failed": ("✗", "failed", BAD),
}
_LOOPBACK = ("/ip4/127.", "/ip6/::1/")  # of no use to another machine
_LEVELS: Mapping[str, tuple[str, str]] = {
    "info": ("·", MUTED),
    "good": ("✓", GOOD),
    "warning": ("!", CAUTION),
    "error": ("✗", BAD),
}


def _name_width(width: int) -> int:
    return 11 if width < 56 else 13


def unit(item: UnitView, width: int, *, paused: bool) -> Line:
    """A unit that this node holds: kernel, job and index, progress, how long it runs."""
    state = "paused" if paused and item.state == "running" else item.state
    glyph, words, style = _UNITS[state]
    name = fmt.pad(fmt.clean(item.kernel), _name_width(width))
    place = fmt.pad(f"{fmt.clean(item.job)[:6]}/{item.index}", 10 if width < 56 else 13)
    keeper = f"  for {fmt.clean(short_peer(item.keeper))}" if width >= 68 else ""
    elapsed = fmt.pad(fmt.clock_time(item.seconds) if item.seconds else "", 7, right=True)
    end = elapsed + keeper
    middle = max(3, width - 2 - len(name) - 1 - fmt.cells(place) - 1 - 1 - fmt.cells(end))
    start: Line = ((f"{glyph} ", style), (f"{name} ", "bold"), (f"{place} ", MUTED))
    if words:
        return (*start, (fmt.pad(words, middle), style), (f" {end}", MUTED))
    done, left = fmt.bar(item.progress, middle - 6)
    percent = f"{min(1.0, max(0.0, item.progress)) * 100:4.0f} %"
    return (*start, (done, style), (left, MUTED), (percent, ""), (f" {end}", MUTED))


def job(item: JobView, width: int) -> Line:
    """A job that this node submitted: progress in units and when it will be done."""
    glyph, words, style = _JOBS[item.state]
    name = fmt.pad(fmt.clean(item.kernel), _name_width(width))
    ident = fmt.clean(item.job)[:6]
    start: Line = ((f"{glyph} ", style), (f"{name} ", "bold"), (f"{ident} ", MUTED))
    room = width - 2 - fmt.cells(name) - 1 - len(ident) - 1
    if item.state == "failed":
        reason = fmt.clean(item.error or "no reason given")
        return (*start, (fmt.shorten(f"failed: {reason}", room), style))
    finished = item.units.final + item.units.provisional
    counts = f"{finished}/{item.units.total}".rjust(7 if width < 56 else 9)
    if item.eta_s is not None and item.state == "running":
        words = f"{fmt.roughly(item.eta_s)} left" if width >= 56 else f"~{fmt.roughly(item.eta_s)}"
    end = fmt.pad(words, 11 if width >= 56 else 9)
    trouble = _trouble(item) if width >= 60 else ""
    bar_width = max(3, room - fmt.cells(counts) - 2 - len(end) - fmt.cells(trouble))
    done, left = fmt.bar(finished / item.units.total if item.units.total else 0.0, bar_width)
    return (*start, (done, style), (left, MUTED), (counts, ""), (f"  {end}", MUTED), (trouble, BAD))


def _trouble(item: JobView) -> str:
    """Refused results and dead units, in a column of fixed width so that the bars align."""
    parts = []
    if item.rejected:
        parts.append(f"✗ {fmt.tally(item.rejected)}")
    if item.units.dead:
        parts.append(f"† {fmt.tally(item.units.dead)}")
    return fmt.pad(" ".join(parts), 7)


def peer(item: PeerView, width: int) -> Line:
    """A peer: short id, latency, who dialled, results accepted and refused, standing."""
    rejected = item.standing == "rejected"
    word = "rejected" if rejected else "ok"
    start: Line = (
        ("✗ " if rejected else "● ", BAD if rejected else GOOD),
        (fmt.pad(fmt.clean(short_peer(item.peer_id)), 9), "bold"),
        (f" {fmt.latency(item.latency_ms):>6} {item.direction:<3} ", MUTED),
        (f"✓ {fmt.tally(item.units_accepted):<4} ", GOOD if item.units_accepted else MUTED),
        (f"✗ {fmt.tally(item.units_rejected):<4} ", BAD if item.units_rejected else MUTED),
        (f"{word:<8}", BAD if rejected else MUTED),
    )
    room = width - sum(fmt.cells(text) for text, _ in start) - 2
    note = fmt.clean(item.agent)
    if item.violations:
        note = f"{fmt.plural(item.violations, 'broken rule')} · {note}"
    return (*start, (f"  {fmt.shorten(note, room)}", MUTED)) if room >= 8 and note else start


def peers(shown: Shown, width: int) -> list[Line]:
    """All peers, rejected ones first; without any, why that is and what to do about it."""
    view = shown.view
    if view is None:
        return []
    if view.peers:
        ordered = sorted(view.peers, key=lambda item: item.standing != "rejected")
        return [fit(peer(item, width), width) for item in ordered]
    if view.network == "starting":
        text = "Starting the network… Peers appear here within seconds. Everything else works already."
        return [((row, ""),) for row in fmt.wrap(text, width)]
    if view.network == "down":
        text = "The network service stopped and is being restarted; node.log in the node's home directory says why."
        return [((row, BAD),) for row in fmt.wrap(text, width)]
    return alone(shown, view, width)


def alone(shown: Shown, view: NodeView, width: int) -> list[Line]:
    """Says plainly that nobody else is here, and the three things that help, shortest way first."""
    if shown.demo == "running":
        demo = "The local demo starts; its peers appear here."
    elif shown.can_demo:
        demo = "Press d to try a local demo on this computer."
    else:
        demo = "Try it now in another terminal: sparkle demo"
    lines: list[Line] = [(("No other peers yet.", "bold $text-warning"),)]
    hints = [demo, "On your LAN: run sparkle-node there too."]
    outside = [address for address in view.addresses if not address.startswith(_LOOPBACK)]
    if outside:
        hints.append(f"Elsewhere: sparkle-node --bootstrap {fmt.clean(outside[0])}")
    elif view.addresses:
        hints.append(f"On this computer only: sparkle-node --home DIR --bootstrap {fmt.clean(view.addresses[0])}")
    for hint in hints:
        for number, row in enumerate(fmt.wrap(hint, width - 2)):
            lines.append((("  " if number else "› ", ACCENT), (row, "")))
    return lines


def units(shown: Shown, width: int) -> list[Line]:
    """Units held now: running ones first, then as the node lists them."""
    view = shown.view
    if view is None:
        return []
    order = {"running": 0, "paused": 0, "committed": 1, "revealed": 2, "queued": 3}
    paused = "paused" in (shown.state, view.state) and shown.wish != "running"
    ordered = sorted(view.units, key=lambda item: order[item.state])
    return [fit(unit(item, width, paused=paused), width) for item in ordered]


def jobs(shown: Shown, width: int) -> list[Line]:
    """Jobs of this node: unfinished ones first, each group as the node lists them."""
    if shown.view is None:
        return []
    ordered = sorted(shown.view.jobs, key=lambda item: item.state not in ("running", "queued"))
    return [fit(job(item, width), width) for item in ordered]


def log(entries: Sequence[LogLine], width: int, *, wrapped: bool) -> list[Line]:
    """The diary, newest last; one row per entry, or as many as its words need."""
    lines: list[Line] = []
    for entry in entries:
        glyph, style = _LEVELS[entry.level]
        stamp = time.strftime("%H:%M:%S" if width >= 60 else "%H:%M", time.localtime(entry.time))
        text = fmt.clean(entry.text)
        room = width - len(stamp) - 3
        parts = fmt.wrap(text, room) if wrapped else [fmt.shorten(text, room)]
        body = BAD if entry.level == "error" else ""
        for number, part in enumerate(parts or [""]):
            head: Line = ((f"{stamp} ", MUTED), (f"{glyph} ", style))
            lines.append((*(head if number == 0 else ((" " * (len(stamp) + 3), ""),)), (part, body)))
    return lines
