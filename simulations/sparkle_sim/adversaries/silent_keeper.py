"""``silent-keeper``: takes jobs that it is asked to keep, and stores nothing of them.

Of all that is said to it afterwards it leaves a share ``rate`` unanswered. To the rest it answers as if it held
everything and knew what the asker knows: it never endorses a result, and has nothing when asked for it.

What stops it: one that does not answer is away, and replaced. One that answers and never endorses cannot be told from
one that knows less; two of eight do no harm, three hold everything up until the submitter has seen that for a minute.
"""

from typing import ClassVar

from sparkle_protocol import messages
from sparkle_protocol.effects import Requested
from sparkle_sim.adversaries.base import Adversary
from sparkle_sim.requests import SUBMITTER

Told = (
    messages.Push | messages.Beat | messages.Compare | messages.Fetch | messages.Release | messages.Report
    | messages.LeaseRequest
)  # fmt: skip
MAX_PROMISED = 4096  # jobs; the first promise is forgotten, and given once more


class SilentKeeper(Adversary):
    """Holds nothing."""

    kind: ClassVar[str] = "silent-keeper"
    keeps: ClassVar[bool] = False

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._promised: dict[bytes, None] = {}

    def event(self, core: int, event: object) -> object | None:
        """Its keeper's core hears of nobody's jobs but its own."""
        if core != SUBMITTER or not isinstance(event, Requested) or not isinstance(event.message, Told):
            return event
        if event.peer == self.peer.id or self._is_own(event.message):
            return event
        if self._takes(event.message) or self.random.random() >= self.group.rate:
            self.peer.answer(event.token, _as_if(event.message))
        return None

    def _is_own(self, message: Told) -> bool:
        job = None if isinstance(message, messages.LeaseRequest | messages.Beat) else message.job
        own = self.peer.submitter.jobs
        return bool(own) if job is None else any(job == one for one in own)

    def _takes(self, message: Told) -> bool:
        """It is asked to keep a job: that it answers."""
        if not isinstance(message, messages.Push) or message.job in self._promised:
            return False
        self._promised[message.job] = None
        if len(self._promised) > MAX_PROMISED:
            del self._promised[next(iter(self._promised))]
        return True


def _as_if(message: Told) -> messages.Reply:
    """The answer of a keeper that knows just what the asker knows, and has just nothing to add."""
    match message:
        case messages.Push():
            return messages.PushReply(message.job, [])
        case messages.Beat():
            return messages.BeatReply([messages.JobBeat(one.job, one.sum, complete=True) for one in message.jobs])
        case messages.Compare():
            return messages.CompareReply(message.job, b"", b"")
        case messages.Fetch():
            return messages.FetchReply(message.job, [])
        case messages.LeaseRequest():
            return messages.LeaseReply([], [], 1000, 0)
        case messages.Release():
            return messages.Ok()
        case messages.Report():
            return messages.Refusal("unknown_job", "this peer keeps no such job")
