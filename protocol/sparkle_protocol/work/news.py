"""What a keeper has to tell workers, kept until it was said once. What got lost is asked for by heartbeats."""

from collections.abc import Callable
from dataclasses import dataclass, field

from sparkle_protocol.facts import MAX_BATCH, Fact
from sparkle_protocol.ids import JobId, PeerId
from sparkle_protocol.messages import ReportReply, Settled, UnitEpoch

MAX_CARRIED = 16  # facts of one message


@dataclass(slots=True)
class News:
    """What one worker should hear about one job."""

    reveal: dict[int, int] = field(default_factory=dict)  # unit -> epoch
    drop: dict[int, int] = field(default_factory=dict)
    settled: dict[int, tuple[int, bool]] = field(default_factory=dict)
    leases: list[Fact] = field(default_factory=list)  # units carried over into a new epoch

    def __bool__(self) -> bool:
        return bool(self.reveal or self.drop or self.settled or self.leases)


class Newsboard:
    """The news of one job, by worker."""

    def __init__(self, job: JobId) -> None:
        self._job = job
        self._news: dict[PeerId, News] = {}
        self._opened: dict[PeerId, None] = {}  # workers whose page was opened since ``take_opened``

    def of(self, worker: PeerId) -> News:
        """The worker's page, to be written on. It will hear of the job even if nothing is written."""
        news = self._news.get(worker)
        if news is None:
            news = self._news[worker] = News()
        self._opened[worker] = None
        return news

    def waiting(self) -> tuple[PeerId, ...]:
        """Workers with a page."""
        self._opened.clear()
        return tuple(self._news)

    def take_opened(self) -> list[PeerId]:
        """Workers with a page that was opened to be written on since this was last asked."""
        opened = [worker for worker in self._opened if worker in self._news]
        self._opened.clear()
        return opened

    def says_something(self, worker: PeerId) -> bool:
        """There is something on the worker's page."""
        return bool(self._news.get(worker))

    def forget(self, worker: PeerId) -> None:
        """Take the page away unread."""
        self._news.pop(worker, None)

    def take(self, worker: PeerId, views: Callable[[], list[Fact]], *, ended: bool) -> ReportReply:
        """The worker's page as a message; it starts a new one. ``views``: who keeps the job now."""
        news = self._news.pop(worker, None) or News()
        if news.leases[MAX_CARRIED:]:
            self.of(worker).leases = news.leases[MAX_CARRIED:]
        carried = news.leases[:MAX_CARRIED]
        return ReportReply(
            self._job,
            [UnitEpoch(unit, epoch) for unit, epoch in sorted(news.reveal.items())[:MAX_BATCH]],
            [UnitEpoch(unit, epoch) for unit, epoch in sorted(news.drop.items())[:MAX_BATCH]],
            [Settled(unit, epoch, good) for unit, (epoch, good) in sorted(news.settled.items())[:MAX_BATCH]],
            ended=ended,
            views=[fact.raw for fact in views()] if carried else [],
            leases=[fact.raw for fact in carried],
        )
