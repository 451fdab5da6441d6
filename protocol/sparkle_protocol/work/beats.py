"""How keepers of the same job see that they know the same, and that the others are there.

Every ``BEAT_NS`` keepers that share jobs exchange a sum over what they know of each. Two that differ twice in a row
compare; while more facts keep coming, sums say little, and it takes ``BUSY_BEATS``. Peers that are invited to keep a
job are beaten to as well: whoever says that it lacks no result, no record and no input of the job, with our sum or
after it took what it was found to lack, has caught up.
"""

from random import Random

from sparkle_protocol import messages
from sparkle_protocol.facts import FactCodec, Signer
from sparkle_protocol.ids import JobId, PeerId
from sparkle_protocol.messages import JobBeat
from sparkle_protocol.work.duty import Duty
from sparkle_protocol.work.inputs import Inputs
from sparkle_protocol.work.invitations import Invitations
from sparkle_protocol.work.judging import CheckResult
from sparkle_protocol.work.kept_job import KeptJob
from sparkle_protocol.work.lease import SECOND_NS
from sparkle_protocol.work.presence import BEAT_NS
from sparkle_protocol.work.replication import Channel
from sparkle_protocol.work.rules import PRODUCTION, Rules
from sparkle_protocol.work.spares import Spares

BUSY_BEATS = 6  # a minute
GUEST_BEAT_NS = 2 * SECOND_NS  # a guest that took all there was is asked how it stands, that often at most


class Beats(Duty):
    """The part of a keeper that keeps step with the others."""

    def __init__(
        self, signer: Signer, codec: FactCodec, rng: Random, check_result: CheckResult, rules: Rules = PRODUCTION
    ) -> None:
        super().__init__(signer, codec, rng, check_result, rules)
        self._invitations = Invitations()
        self._inputs = Inputs(self.me)
        self._spares = Spares(self.me)
        self._beats: dict[int, tuple[PeerId, frozenset[JobId]]] = {}  # under way: to whom, about what
        self._beat_heard: dict[PeerId, int] = {}
        self._beat_ns: int | None = None
        self._guest_beat_ns: dict[PeerId, int] = {}

    def _shares(self, job: KeptJob, peer: PeerId) -> bool:
        """A peer may ask what we know of the job."""
        if peer == job.state.submitter or job.state.views.ever_kept(peer):
            return True
        return peer in self._invitations.of(job.state.id)

    def _targets(self, job: KeptJob, now_ns: int) -> tuple[PeerId, ...]:
        told = super()._targets(job, now_ns)
        return (*told, *(peer for peer in self._invitations.of(job.state.id) if peer not in told))

    def _shared_jobs(self) -> dict[PeerId, list[KeptJob]]:
        """The jobs that we share with each peer and that are not over."""
        found: dict[PeerId, list[KeptJob]] = {}
        for job in self.all_jobs():
            if not job.outcome or not job.mine:
                for peer in dict.fromkeys((*self.partners(job), *self._invitations.of(job.state.id))):
                    found.setdefault(peer, []).append(job)
        return found

    def _beat_soon(self, now_ns: int) -> None:
        if self._beat_ns is None and self._shared_jobs():
            self._beat_ns = now_ns + int(BEAT_NS * self._rng.uniform(0.8, 1.2))

    def _beat(self, now_ns: int) -> None:
        """Say that we are here to everybody who has not just said so, and see who is away."""
        shared = self._shared_jobs()
        self._beat_ns = None
        if not shared:
            return
        self._beat_soon(now_ns)
        self.presence.forget(set(shared))
        for peer, jobs in shared.items():
            self.presence.expect(peer, now_ns)
            if now_ns - self._beat_heard.get(peer, -BEAT_NS) >= BEAT_NS * 3 // 4:
                self._send_beat(peer, jobs)
        self._beat_heard = {peer: at for peer, at in self._beat_heard.items() if peer in shared}
        self._guest_beat_ns = {peer: at for peer, at in self._guest_beat_ns.items() if peer in shared}
        self._look_around(now_ns)

    def _send_beat(self, peer: PeerId, jobs: list[KeptJob]) -> None:
        jobs = jobs[: messages.MAX_BEATS]
        tag = self._send(peer, messages.Beat([self._job_beat(job) for job in jobs]))
        self._beats[tag] = (peer, frozenset(job.state.id for job in jobs))

    def _ask_guest(self, channel: Channel, job: KeptJob, now_ns: int) -> None:
        """A guest took all there was: does it lack anything?"""
        if channel.caught_up or not channel.idle or channel.peer not in self._invitations.of(job.state.id):
            return
        if now_ns - self._guest_beat_ns.get(channel.peer, -GUEST_BEAT_NS) >= GUEST_BEAT_NS:
            self._guest_beat_ns[channel.peer] = now_ns
            self._send_beat(channel.peer, [job])

    def _beats_for(self, peer: PeerId, beats: list[JobBeat], now_ns: int) -> list[JobBeat]:
        """What we know of the jobs that a peer says it keeps."""
        self._beat_heard[peer] = now_ns
        own: list[JobBeat] = []
        for beat in beats:
            job = self.job(JobId(beat.job))
            if job is None or not self._shares(job, peer):
                continue
            if job.mine and job.outcome in ("done", "cancelled"):
                self._persist()
                self._send(peer, messages.Release(job.state.id))
                continue
            own.append(self._job_beat(job))
            self._sums_of(job, peer, beat, now_ns)
            self._still_wanted(job, peer, now_ns)
        return own

    def _still_wanted(self, job: KeptJob, peer: PeerId, now_ns: int) -> None:
        """A keeper of the job counts on us for it."""

    def _job_beat(self, job: KeptJob) -> JobBeat:
        lacks = job.lacking or job.wanted or self._inputs.lacks(job.state.id)
        return JobBeat(job.state.id, job.state.tally.total(), not lacks, self._spares.has_room(job.state.id))

    def _tell_of_inputs(self, job: KeptJob, now_ns: int) -> None:
        """The job's inputs are here: somebody may wait to hear that."""
        if job.state.spec.inputs and not job.mine and not self._inputs.lacks(job.state.id):
            for peer in self._targets(job, now_ns):
                self._send_beat(peer, [job])

    def _is_whole(self, job: KeptJob, peer: PeerId, *, equal: bool) -> None:
        """A peer says that it holds all that we should like it to, and perhaps the same facts."""

    def _beat_answered(self, peer: PeerId, reply: messages.BeatReply, asked: frozenset[JobId], now_ns: int) -> None:
        by_job = {JobId(beat.job): beat for beat in reply.jobs}
        for job in self._shared_jobs().get(peer, ()):
            beat = by_job.get(job.state.id)
            channel = self._channels.to(job.state.id, peer)
            if beat is not None:
                self._sums_of(job, peer, beat, now_ns)
            elif job.state.id in asked and peer != job.state.submitter and not channel.refused:
                channel.synced = False  # it should keep the job and does not: it will be told all of it

    def _sums_of(self, job: KeptJob, peer: PeerId, beat: JobBeat, now_ns: int) -> None:
        channel = self._channels.to(job.state.id, peer)
        ours = job.state.tally.total()
        equal, quiet, channel.our_sum = beat.sum == ours, channel.our_sum == ours, ours
        if beat.complete and (equal or (channel.checked and not channel.owed)):
            channel.caught_up = True
        self._spares.said(job.state.id, peer, room=beat.room)
        if beat.complete:
            self._inputs.has(job.state.id, peer)
            self._is_whole(job, peer, equal=equal)
        elif job.state.spec.inputs:  # large ones take long
            self._invitations.moved(job.state.id, peer, now_ns)
        if equal:
            channel.differed = 0
            return
        channel.differed += 1
        guest = peer in self._invitations.of(job.state.id)
        if channel.differed >= (2 if quiet or guest else BUSY_BEATS) and (
            channel.idle or _is_nearly_through(channel)
        ):
            channel.synced, channel.differed = False, 0


def _is_nearly_through(channel: Channel) -> bool:
    """A newcomer was told all but what came up lately, which may never end."""
    return not channel.checked and channel.anew_ns is not None and len(channel.facts) <= messages.MAX_PUSHED_FACTS
