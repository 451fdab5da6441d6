"""Which jobs of others this node is to hold the inputs of, and which of these are not here yet.

A keeper has its shell fetch the inputs as soon as it takes a job up, once more after a restart, and when others come
to keep the job: from those as well. Until the shell has said that all are here the keeper is not ``complete``
(``beats.py``), so that nobody counts on it: for publishing a job, or in place of a keeper that is gone.

The submitter has them, unless it is away, and so have keepers that said that they are complete: these come first.
"""

from sparkle_protocol.effects import HoldInputs, ReleaseInputs
from sparkle_protocol.errors import ConfigError
from sparkle_protocol.ids import JobId, PeerId
from sparkle_protocol.work.blob_sizes import BlobSizes
from sparkle_protocol.work.failover import keepers_of
from sparkle_protocol.work.state import JobState


class Inputs:
    """What was asked of the shell."""

    def __init__(self, me: PeerId) -> None:
        self._me = me
        self._held: dict[JobId, bool] = {}  # jobs whose inputs are asked for, and whether they are here
        self._sources: dict[JobId, tuple[PeerId, ...]] = {}  # of those that are not
        self._have: dict[JobId, set[PeerId]] = {}  # keepers of these that have them all

    def lacks(self, job: JobId) -> bool:
        """The job has inputs that are not here yet."""
        return self._held.get(job) is False

    def has(self, job: JobId, peer: PeerId) -> None:
        """A keeper of the job says that it lacks nothing of it."""
        if self.lacks(job):
            self._have.setdefault(job, set()).add(peer)

    def hold(self, state: JobState, sizes: BlobSizes, *, alone: bool = False) -> tuple[HoldInputs, ...]:
        """The job's inputs are wanted, from those who keep it now; ``alone``: its submitter is away."""
        if not state.spec.inputs or self._held.setdefault(state.id, False):
            return ()
        sources = tuple(peer for peer in keepers_of(state) if peer != self._me)
        if self._sources.get(state.id) == sources:
            return ()
        self._sources[state.id] = sources
        have = self._have.get(state.id, set()) | (set() if alone else {state.submitter})
        likely = [peer for peer in sources if peer in have]
        order = (*likely, *(peer for peer in sources if peer not in have))
        return (HoldInputs(state.id, tuple(state.spec.inputs), order, len(likely), _sizes(state, sizes)),)

    def came(self, job: JobId) -> bool:
        """All of them are here; True when that is new."""
        news = self.lacks(job)
        if news:
            self._held[job] = True
            del self._sources[job]
            self._have.pop(job, None)
        return news

    def release(self, state: JobState) -> tuple[ReleaseInputs, ...]:
        """They are not needed any more."""
        self._sources.pop(state.id, None)
        self._have.pop(state.id, None)
        if self._held.pop(state.id, None) is None:
            return ()
        return (ReleaseInputs(state.id, tuple(state.spec.inputs)),)


def _sizes(state: JobState, sizes: BlobSizes) -> tuple[int, ...]:
    try:
        return sizes.inputs(state.spec)
    except ConfigError:  # it was taken up by an earlier version
        return ()
