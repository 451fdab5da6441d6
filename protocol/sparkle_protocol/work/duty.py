"""Which units a keeper hands out of which job, and what it must hear or fetch before.

- Of our own jobs we hand out everything; of others', while the submitter is away, the ranges of which we are the
  first keeper that is there. While there is no room for a job's results, nothing of it is handed out.
- After a restart a job is held for a moment, until we heard what the others know.
- Results that should be here are fetched from the submitter, which has them if anybody does, and from one keeper
  after the other as long as that brings none.
"""

from abc import abstractmethod
from random import Random

from sparkle_protocol.facts import FactCodec, Signer
from sparkle_protocol.ids import JobId, key_from_peer_id
from sparkle_protocol.work.blob_sizes import BlobSizes
from sparkle_protocol.work.board import Board
from sparkle_protocol.work.judging import CheckResult
from sparkle_protocol.work.kept_job import KeptJob
from sparkle_protocol.work.lease import SECOND_NS
from sparkle_protocol.work.placement import primaries, ranges_of, span_of
from sparkle_protocol.work.quota import Quota, with_blobs
from sparkle_protocol.work.rules import PRODUCTION, Rules

HOLD_NS = 5 * SECOND_NS  # after a restart: first hear what the others know
FETCH_PAUSE_NS = 2 * SECOND_NS
Spans = tuple[tuple[int, int], ...]


class Duty(Board):
    """The part of a keeper that knows what it is there for."""

    def __init__(
        self, signer: Signer, codec: FactCodec, rng: Random, check_result: CheckResult, rules: Rules = PRODUCTION
    ) -> None:
        super().__init__(signer, codec, rng, check_result, rules)
        self.quota = Quota()
        self._held_until: dict[JobId, int] = {}  # restored jobs that nothing is handed out of yet
        self._spans: dict[JobId, tuple[int, list[bytes], Spans]] = {}  # ours, by view and who is there
        self._fetching: dict[JobId, int] = {}  # when results may be asked for next
        self._in_vain: dict[JobId, int] = {}  # so many times in a row nobody had any of them

    def lend(self, space_bytes: int, sizes: BlobSizes) -> None:
        """Keep blobs of others' jobs too, in a part of so much space. Before there are any jobs."""
        self.quota = with_blobs(space_bytes, sizes)

    @abstractmethod
    def _beat_soon(self, now_ns: int) -> None:
        """Have the next beat sent in a while, if there is anybody to send one to."""

    def _look_around(self, now_ns: int) -> None:
        """See who is away, and take over or give back what follows from it."""
        for job in list(self.all_jobs()):
            self._set_duty(job, now_ns)

    def _set_duty(self, job: KeptJob, now_ns: int) -> None:
        """Hand out what is ours to hand out.

        Of our own jobs that is everything; of others', while the submitter is away, the ranges of which we are the
        first keeper that is there, unless there is no room for their results.
        """
        view, before = job.state.view, job.leases.spans
        leads, held = job.mine, self._is_held(job, now_ns)
        spans: tuple[tuple[int, int], ...] = ()
        if view is not None and not job.outcome and not held:
            if job.mine:
                spans = ((0, job.state.spec.units),)
            elif view.holds(self.me) and self.presence.away(job.state.submitter, now_ns):
                leads = view.certifying
                spans = () if self.quota.over(job.state.id) else self._own_spans(job, now_ns)
        if leads and not job.leads:
            self._compare_with_all(job)
        if spans != before or leads != job.leads:
            job.set_duty(spans, leads=leads, now_ns=now_ns)
            self._touched[job.state.id] = job
            self._conclude(job, now_ns)
        if not job.mine and bool(spans) != bool(before) and not job.outcome:
            event = "duty_taken" if spans else "duty_returned"
            self._notify(event, job=job.state.id.hex(), peer=job.state.submitter, ranges=len(spans))

    def _own_spans(self, job: KeptJob, now_ns: int) -> tuple[tuple[int, int], ...]:
        view, units = job.state.view, job.state.spec.units
        if view is None:
            return ()
        there = [
            key for key, peer in zip(view.keys, view.keepers, strict=True) if not self.presence.away(peer, now_ns)
        ]
        known = self._spans.get(job.state.id)
        if known is not None and known[:2] == (view.number, there):
            return known[2]
        ranges, mine = ranges_of(units, len(view.keys)), key_from_peer_id(self.me)
        spans: list[tuple[int, int]] = []
        for one in range(ranges):
            if primaries(job.state.id, one, there)[:1] == (mine,):
                start, stop = span_of(one, units, ranges)
                if spans and spans[-1][1] == start:
                    start = spans.pop()[0]
                spans.append((start, stop))
        self._spans[job.state.id] = (view.number, there, tuple(spans))
        return tuple(spans)

    def _compare_with_all(self, job: KeptJob) -> None:
        """Find out who knows what, as after a restart.

        When the submitter is seen to be away, keepers have told it alone what came up since it really went.
        """
        for peer in self.partners(job):
            self._channels.to(job.state.id, peer).synced = False

    def _is_held(self, job: KeptJob, now_ns: int) -> bool:
        """The job was restored, and what others know of it may still come."""
        until_ns = self._held_until.get(job.state.id)
        if until_ns is None:
            return False
        if now_ns < until_ns and not all(channel.idle for channel in self._channels.of_job(job.state.id)):
            return True
        del self._held_until[job.state.id]
        return False

    def _hold(self, job: KeptJob, now_ns: int) -> None:
        """After a restart: compare with everybody before anything is handed out."""
        others = self.partners(job)
        for peer in others:
            self.presence.expect(peer, now_ns)
        self._compare_with_all(job)
        if others:
            self._held_until[job.state.id] = now_ns + HOLD_NS
            self._beat_soon(now_ns)

    def _fetch_results(self, job: KeptJob, now_ns: int) -> None:
        """Ask one of the others for results and records that should be here; another if that was in vain."""
        at_ns = self._next_fetch_ns(job)
        if at_ns is None or now_ns < at_ns:
            return
        there = [
            self._channels.to(job.state.id, peer)
            for peer in self.partners(job)
            if not self.presence.away(peer, now_ns)
        ]
        usable = [channel for channel in there if not channel.refused]
        self._fetching[job.state.id] = now_ns + FETCH_PAUSE_NS
        if usable:
            tried = self._in_vain.get(job.state.id, 0)
            self._in_vain[job.state.id] = tried + 1
            channel = usable[tried % len(usable)]
            channel.ranges.update(dict.fromkeys(job.wanted))
            channel.results.update(job.lacking)

    def _next_fetch_ns(self, job: KeptJob) -> int | None:
        """When to ask for results and records that should be here; None if there are none, or no room for them."""
        if not (job.lacking or job.wanted) or self.quota.over(job.state.id):
            return None
        return self._fetching.get(job.state.id, 0)
