"""What the screen knows at one moment: the node's own picture and what only the screen can know.

The screen is the place where a wish (pause), a failure (the node does not answer) and the past (CPU over the
last minutes) meet the node's view. One frozen value carries all of it to the functions that draw.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from sparkle_p2p.view import NodeView

Segment = tuple[str, str]  # text, style of Textual ("" for none)
Line = tuple[Segment, ...]
State = Literal["working", "idle", "paused", "stopping"]

_HISTORY = 240  # samples: as many cells as the widest sparkline has
_SAMPLE_S = 1.0
_RECENT_S = 60.0


@dataclass(frozen=True, slots=True)
class Shown:
    """One moment of the screen."""

    view: NodeView | None = None  # the last one that the node gave
    failure: str | None = None  # why there is no newer one
    failing_s: float = 0.0
    wish: Literal["paused", "running"] | None = None  # asked for, not yet confirmed by the node
    leaving: bool = False
    demo: Literal["none", "running"] = "none"
    can_demo: bool = False
    cpu: tuple[float, ...] = ()
    accepted_recently: int = 0

    @property
    def state(self) -> State | None:
        """The state to show: a wish counts at once, the node's word follows."""
        if self.leaving:
            return "stopping"
        if self.view is None:
            return None
        if self.view.state == "stopping" or self.wish is None:
            return self.view.state
        if self.wish == "paused":
            return "paused"
        if self.view.state != "paused":
            return self.view.state
        return "working" if self.view.units else "idle"

    @property
    def alone(self) -> bool:
        """The network runs and nobody else is there."""
        return self.view is not None and self.view.network == "alone"


@dataclass(slots=True)
class History:
    """The past that a view does not tell: CPU samples and accepted units, one sample a second at most."""

    cpu: deque[float] = field(default_factory=lambda: deque(maxlen=_HISTORY))
    _accepted: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=_HISTORY))
    _last: float | None = None

    def add(self, now: float, view: NodeView) -> None:
        """Take a sample if the last one is a second old (or from the future: the clock was set back)."""
        if self._last is not None and 0 <= now - self._last < _SAMPLE_S:
            return
        if self._last is not None and now < self._last:
            self._accepted.clear()
        self._last = now
        self.cpu.append(view.cpu_percent)
        self._accepted.append((now, view.units_verified))

    @property
    def accepted_recently(self) -> int:
        """Units accepted during the last minute; a count that fell (another node answers now) starts anew."""
        if not self._accepted:
            return 0
        now, accepted = self._accepted[-1]
        return accepted - min(number for time, number in self._accepted if now - time <= _RECENT_S)
