"""Which results this node is to keep the blobs of, so that they outlive the worker that computed them.

- While a job's submitter is there it fetches every accepted result itself, and nobody else need. While it is away,
  the blob of each result that keepers stand by is kept by its worker if that is a keeper, and by ``SPARES`` others:
  the first keepers in the order of the unit's range (``placement.primaries``) that are there and have room. Everybody
  knows these, so nobody is asked to.
- With fewer than four keepers nobody but the submitter accepts: then each result that was shown here is kept so.
- A keeper counts as there until it has been away for ``GONE_NS``. One without room says so with its beats for
  ``FULL_NS`` and then tries again; meanwhile the next in order takes over, and keeps what it has then.
- What the submitter accepted of a job whose results are checked it has already: it fetched them to check them.
- Blobs are kept until the submitter releases the job, or as long as the job is kept at all (``co_keeping.py``).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sparkle_protocol.effects import HoldResult
from sparkle_protocol.ids import JobId, PeerId, ResultHash, peer_id_from_key
from sparkle_protocol.work.failover import order_of
from sparkle_protocol.work.kept_job import KeptJob
from sparkle_protocol.work.lease import SECOND_NS
from sparkle_protocol.work.presence import Presence
from sparkle_protocol.work.quota import Quota

SPARES = 2  # TRUST: on the worker and two more peers
GONE_NS = 60 * SECOND_NS  # longer than a restart takes, shorter than until a keeper is replaced
FULL_NS = 600 * SECOND_NS
LOOK_UNITS = 4096  # of one job at a beat; the others at the next ones


@dataclass(slots=True)
class _Look:
    """Where looking through a job's units stands."""

    known: tuple[int, frozenset[PeerId], bytes] | None = None  # what the last round went by
    next: int = 0
    left: int = 0  # units until the round is over


class Spares:
    """What is asked of the shell, by job."""

    def __init__(self, me: PeerId) -> None:
        self._me = me
        self._held: dict[JobId, dict[int, tuple[ResultHash, int]]] = {}  # results and their sizes
        self._looks: dict[JobId, _Look] = {}
        self._full: dict[JobId, dict[PeerId, None]] = {}  # keepers without room
        self._full_until: dict[JobId, int] = {}  # we ourselves

    def said(self, job: JobId, peer: PeerId, *, room: bool) -> None:
        """A keeper says whether it has room for results."""
        full = self._full.setdefault(job, {})
        full.pop(peer, None)
        if not room:
            full[peer] = None

    def has_room(self, job: JobId) -> bool:
        """What we say of ourselves."""
        return job not in self._full_until

    def look(self, job: KeptJob, presence: Presence, quota: Quota, now_ns: int) -> Iterator[HoldResult]:
        """The results of a job of somebody else that are to be kept here from now on, each said once."""
        state, view = job.state, job.state.view
        if now_ns >= self._full_until.get(state.id, now_ns):
            self._full_until.pop(state.id, None)
        if view is None or not self.has_room(state.id) or not presence.away(state.submitter, now_ns):
            return
        if not quota.sizes.result_bytes(state.spec, 0):
            return
        gone = frozenset(self._full.get(state.id, ())) | {
            peer
            for peer in view.keepers
            if (since_ns := presence.away_since(peer, now_ns)) is not None and now_ns - since_ns >= GONE_NS
        }
        look, known = self._looks.setdefault(state.id, _Look()), (view.number, gone, state.tally.total())
        if look.known != known:
            look.known, look.left = known, state.spec.units
        held = self._held.setdefault(state.id, {})
        for _ in range(min(look.left, LOOK_UNITS)):
            unit, look.next, look.left = look.next, (look.next + 1) % state.spec.units, look.left - 1
            for result, givers in self._worth_keeping(job, unit):
                order = [peer for peer in order_of(state, unit)[1:] if peer not in givers and peer not in gone]
                ours = self._me in givers or self._me in order[:SPARES]
                if not ours or held.get(unit, (b"",))[0] == result:
                    continue
                if not job.has_result(result) and result in job.lacking:
                    look.known = None  # its name is still to come: look again
                    continue
                size = quota.sizes.result_bytes(state.spec, unit)
                if quota.no_room(state.id, size):
                    self._full_until[state.id] = now_ns + FULL_NS
                    look.known = None
                    return
                quota.grow(state.id, blob_bytes=size)
                held[unit] = (result, size)
                sources = dict.fromkeys((*sorted(givers), *order, state.submitter))
                sources.pop(self._me, None)
                yield HoldResult(state.id, unit, result, size, tuple(sources), len(givers - {self._me}))

    def _worth_keeping(self, job: KeptJob, unit: int) -> Iterable[tuple[ResultHash, frozenset[PeerId]]]:
        """At most one result of a unit, with those who gave it."""
        state, final = job.state, job.state.final(unit)
        epoch, votes = state.epoch(unit), state.votes(unit)
        support = state.support(unit, epoch)
        if final is None:
            certifying = state.view is not None and state.view.certifying
            shown = {given for worker, given in votes.items() if worker not in job.rejected and job.has_result(given)}
            wrong = {given for given in shown if job.checks is not None and job.checks.why_wrong(unit, given)}
            final = min((support.keys() if certifying else shown) - wrong, default=None)
        if final is None or (state.checked and state.submitter in support.get(final, ())):
            return ()
        givers = {peer_id_from_key(key) for _, verdict in state.agreeing(unit, final) for key in verdict.accepted}
        givers |= {worker for worker, given in votes.items() if given == final}
        return ((final, state.accepted_workers(unit) | givers),)

    def not_held(self, job: JobId, unit: int, now_ns: int, *, full: bool) -> int:
        """The shell gave a result up, perhaps for want of room; returns its size."""
        _, size = self._held.get(job, {}).pop(unit, (b"", 0))
        if full:
            self._full_until[job] = now_ns + FULL_NS
        look = self._looks.get(job)
        if look is not None:
            look.known = None
        return size

    def release(self, job: JobId) -> None:
        """The job is not kept here any more."""
        for left in (self._held, self._looks, self._full, self._full_until):
            left.pop(job, None)
