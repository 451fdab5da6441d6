"""The journals and paces of the jobs that this node keeps: fed by what its cores tell, written behind.

Only jobs that go on have their journal in memory; those of others are read when somebody asks. What happens late to
a job that is over (or is begun anew) starts a journal without the earlier entries, and the store puts them together.
"""

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Mapping
from typing import Any

from sparkle_p2p.node import reading
from sparkle_p2p.node.forecast import Pace
from sparkle_p2p.node.journal import MILESTONES, RANKS, Entry, Journal, milestone
from sparkle_p2p.node.picture import rejection_view
from sparkle_p2p.node.store import Store
from sparkle_protocol.ids import JobId, PeerId
from sparkle_protocol.work.kept_job import KeptJob

log = logging.getLogger("sparkle.node")


class Journals:
    """What happened to each job, and how fast it goes.

    Args:
        me: this node.
        store: where journals are kept.
        find: the record of a job, if there is one.
    """

    def __init__(self, me: PeerId, store: Store, find: Callable[[JobId], KeptJob | None]) -> None:
        self._me = me
        self._store = store
        self._find = find
        self._journals: dict[JobId, Journal] = {}
        self._reached: dict[JobId, int] = {}  # the latest milestone of jobs that go on
        self._accepted: dict[JobId, int] = {}  # their units accepted so far
        self._paces: dict[JobId, Pace] = {}
        self._saving = asyncio.Lock()

    # --- what happens -------------------------------------------------------------------------------------

    def hear(self, event: str, fields: Mapping[str, Any], now_ns: int, now_ms: int) -> None:
        """Take in an event of a core; one that is about no job of ours is none for a journal."""
        if event != "unit_final" and event not in RANKS:
            return
        try:
            job_id = JobId(bytes.fromhex(str(fields["job"])))
        except (KeyError, ValueError):
            return
        job = self._find(job_id)
        if job is None:
            return
        if event == "unit_final":
            self._count(job, now_ns, now_ms)
            return
        if event == "lease_expired" and fields.get("kind") == "reveal":
            event = "result_withheld"
        notes = {name: value for name, value in fields.items() if name not in ("job", "peer")}
        if event == "worker_rejected":
            notes["evidence"] = _evidence(job, str(fields.get("peer")), int(fields.get("unit", 0)))
        self._of(job).add(event, now_ms, peer=str(fields.get("peer") or ""), **notes)

    def peer_lost(self, peer: PeerId, open_jobs: Mapping[JobId, KeptJob], now_ms: int) -> None:
        """A peer's connection broke: told in the journals of jobs of which it holds units."""
        for job in open_jobs.values():
            units = 0 if job.outcome else reading.held_count(job, peer)
            if units:
                self._of(job).add("worker_lost", now_ms, peer=peer, units=units)

    def peer_back(self, peer: PeerId, now_ms: int) -> None:
        """A peer is connected: told in the journals that told of its loss."""
        for journal in self._journals.values():
            if journal.total("worker_lost", peer) > journal.total("worker_back", peer):
                journal.add("worker_back", now_ms, peer=peer)

    def look(self, now_ns: int, now_ms: int) -> None:
        """See what no event tells: that a job's first units were taken. To be called every few seconds."""
        for job_id, journal in [*self._journals.items()]:
            job = self._find(job_id)
            if job is not None and not job.outcome:
                self._look_for_start(job, now_ns, now_ms)
            else:
                self._let_go_if_over(job_id, journal)

    def stopping(self, now_ms: int) -> None:
        """The node leaves: told in the journals of jobs that are not over."""
        for job_id, journal in self._journals.items():
            job = self._find(job_id)
            if job is not None and not job.outcome:
                journal.add("node_stopped", now_ms)

    def stood_still(self, seconds: float, now_ms: int) -> None:
        """The node did not run for a while: it was suspended, or the machine slept."""
        for job_id, journal in self._journals.items():
            job = self._find(job_id)
            if job is not None and not job.outcome:
                journal.add("node_stood_still", now_ms, away_s=round(seconds))

    async def restored(self, job: KeptJob, alive_ms: int, now_ms: int) -> None:
        """An earlier run's job goes on (or is found over): load its journal and say how long the node was away.

        Args:
            job: its record.
            alive_ms: when the earlier run last gave a sign of life, as far as known.
            now_ms: the wall clock.

        Raises:
            StoreError: the store cannot be read.
        """
        if job.outcome and job.outcome != "done":
            return  # its end was told by its owner, or stands in the facts
        journal = Journal(await self._store.journal(job.state.id))
        if job.outcome:
            # Unless the end itself was lost with the last seconds before a crash.
            if journal.entries and not journal.has("job_done"):
                journal.add("job_done", now_ms, late=True)
                self._journals[job.state.id] = journal
            return
        if not journal.has("job_submitted"):
            submitted_ms = min(job.state.spec.created_ms, *(entry.first_ms for entry in journal.entries), now_ms)
            spec = job.state.spec
            journal.add("job_submitted", submitted_ms, kernel=spec.kernel, units=spec.units)
        clean = bool(journal.entries) and journal.entries[-1].kind == "node_stopped"
        last_ms = journal.last_ms if clean else max(alive_ms, journal.last_ms)
        away_s = max(0, now_ms - last_ms) // 1000
        journal.add("node_back", now_ms, away_s=away_s, clean=clean)
        self._journals[job.state.id] = journal
        self._set_reached(job)

    def pace(self, job: JobId) -> Pace:
        """How fast a job goes; an empty one when nothing was seen."""
        return self._paces.get(job) or Pace()

    def late(self, peer: PeerId) -> int:
        """How many leases of a peer ended before it had finished, in jobs that go on."""
        return sum(journal.leases_lost(peer) for journal in self._journals.values())

    # --- reading and writing ------------------------------------------------------------------------------

    async def of(self, job: JobId) -> Journal:
        """The whole journal of a job, to read. Raises StoreError."""
        journal = Journal(await self._store.journal(job))
        known = self._journals.get(job)
        if known is None:
            return journal
        whole = Journal(known.entries)
        gone = set(known.changes()[1])
        whole.absorb(entry for entry in journal.entries if entry.number not in gone)
        return whole

    async def save(self, totals: Mapping[str, int]) -> None:
        """Write what is new, if anything is, and totals with it. Raises StoreError; then it is tried again later."""
        async with self._saving:  # or what was written meanwhile would be taken for what is
            await self._save(totals)

    async def _save(self, totals: Mapping[str, int]) -> None:
        dirty = [(job, journal, *journal.changes()) for job, journal in self._journals.items() if not journal.clean]
        if not dirty:
            return
        entries: list[tuple[JobId, Entry]] = []
        for job, _, changed, _ in dirty:
            entries += [(job, dataclasses.replace(entry, notes=dict(entry.notes))) for entry in changed]
        await self._store.save_journals(
            entries, [(job, number) for job, _, _, gone in dirty for number in gone], dict(totals)
        )
        written = iter(entry for _, entry in entries)
        for job, journal, changed, gone in dirty:
            journal.saved(changed, gone, as_of=[next(written) for _ in changed])
            self._let_go_if_over(job, journal)

    def _let_go_if_over(self, job_id: JobId, journal: Journal) -> None:
        job = self._find(job_id)
        if journal.clean and (job is None or job.outcome):
            for known in (self._journals, self._reached, self._accepted, self._paces):
                known.pop(job_id, None)

    # --- one job ------------------------------------------------------------------------------------------

    def _of(self, job: KeptJob) -> Journal:
        journal = self._journals.get(job.state.id)
        if journal is None:
            journal = self._journals[job.state.id] = Journal()
            self._set_reached(job)
        return journal

    def _set_reached(self, job: KeptJob) -> None:
        """What was reached before is not told again."""
        accepted, total = reading.accepted_of(job)
        self._accepted[job.state.id] = accepted
        self._reached[job.state.id] = max((p for p in MILESTONES if accepted * 100 >= p * total), default=0)

    def _count(self, job: KeptJob, now_ns: int, now_ms: int) -> None:
        """Take in that units were accepted. A verdict about a latecomer says nothing new."""
        job_id = job.state.id
        self._of(job)
        accepted, total = reading.accepted_of(job)
        fresh = accepted - self._accepted[job_id]
        if fresh <= 0:
            return
        self._accepted[job_id] = accepted
        self._paces.setdefault(job_id, Pace()).accepted(now_ns, fresh)
        self._look_for_start(job, now_ns, now_ms)
        percent = milestone(self._reached[job_id], accepted, total)
        if percent is not None:
            self._reached[job_id] = percent
            self._of(job).add("milestone", now_ms, percent=percent, accepted=accepted, total=total)

    def _look_for_start(self, job: KeptJob, now_ns: int, now_ms: int) -> None:
        journal, pace = self._of(job), self._paces.setdefault(job.state.id, Pace())
        if pace.watched:
            return
        found = reading.first_lease(job)
        if found is None:
            return
        worker, granted_ns = found
        pace.began(granted_ns)
        told = journal.has("first_lease") or journal.has("node_back") or not journal.has("job_submitted")
        if not told:
            began_ms = now_ms - (now_ns - granted_ns) // 1_000_000
            journal.add("first_lease", began_ms, peer=worker, own=worker == self._me)


def _evidence(job: KeptJob, peer: str, unit: int) -> str:
    """Why a worker was rejected, in words."""
    found = [one for one in job.rejections if one.worker == peer and one.unit == unit]
    return rejection_view(found[0]).reason.sentence if found else ""
