"""The submitter of jobs: publishes them, hands out their units while it is there, and has the last word on them.

A job is published once most of its keepers hold it with its inputs (``publishing.py``); from then on it goes on
without us. While we are there we hand out its units and judge the results, and its keepers follow; what they decided
meanwhile is fetched when we are back. Who keeps it is looked after in ``succession.py``.
"""

from random import Random

from sparkle_protocol import messages
from sparkle_protocol.effects import (
    Effects,
    FindPeers,
    FoundPeers,
    Notify,
    PeerDown,
    PeerUp,
    ReleaseInputs,
    Replied,
    Requested,
    SendFailed,
    StoreFact,
)
from sparkle_protocol.errors import ConfigError, LocalProtocolError, NotFound, RemoteProtocolError
from sparkle_protocol.facts import (
    MAX_RESETS,
    AuditSecret,
    Cancel,
    Fact,
    FactCodec,
    JobSpec,
    KeeperSet,
    Reset,
    Signer,
    Standings,
)
from sparkle_protocol.ids import JobId, PeerId, key_from_peer_id
from sparkle_protocol.trust.coin import audit_secret, commitment_to
from sparkle_protocol.trust.judges import statement
from sparkle_protocol.trust_messages import KnownRequest
from sparkle_protocol.work.dead import failure_text
from sparkle_protocol.work.fairness import Weigh, equal_weight
from sparkle_protocol.work.judging import CheckResult
from sparkle_protocol.work.keeper import MAX_PEERS_OFFERED
from sparkle_protocol.work.kept_job import MAX_STANDINGS, KeptJob
from sparkle_protocol.work.lease import SECOND_NS
from sparkle_protocol.work.placement import MAX_JOB_KEEPERS, Candidate, holders_needed, threshold
from sparkle_protocol.work.publishing import LOOK_UP_NS, Publication, with_submitter
from sparkle_protocol.work.references import References
from sparkle_protocol.work.rules import PRODUCTION, Rules
from sparkle_protocol.work.succession import Succession
from sparkle_protocol.work.views import next_view

MAX_JOBS = 1024  # unfinished ones
FINE_FACTS = 20_000  # of all jobs of ours that are done: about 20 MB
STATE_EVERY_NS = 60 * SECOND_NS  # between two of the first statements on whose answers count
STATED_OFTEN = MAX_STANDINGS // 8  # after so many of a job the pause doubles: those that are left last for six days
HEAR_NS = 60 * SECOND_NS  # for keepers to tell what became of a job whose time is over: we may have been away
FETCH_NS = 3600 * SECOND_NS  # the same for results of which they have told


class Submitter(Succession):
    """A keeper that also has jobs of its own."""

    def __init__(
        self,
        signer: Signer,
        codec: FactCodec,
        rng: Random,
        check_result: CheckResult,
        weigh: Weigh = equal_weight,
        rules: Rules = PRODUCTION,
    ) -> None:
        super().__init__(signer, codec, rng, check_result, weigh, rules)
        self._publishing: dict[JobId, Publication] = {}
        self._state_ns: dict[JobId, int] = {}  # when standings may be stated again
        self._references = References(self.me)
        self._late: dict[JobId, int] = {}  # jobs whose time is over and since when we wait for their keepers

    # --- commands -----------------------------------------------------------------------------------------

    def submit(self, spec: JobSpec, now_ns: int) -> tuple[JobId, Effects]:
        """Begin to publish a job: ``is_published`` and the event ``job_published`` tell when it is done.

        Raises:
            ConfigError: the node keeps as many jobs as it may, or no peer would take this one.
        """
        fact = self.seal(spec)
        job = self._take_up(fact, (), now_ns)
        job.records.append(StoreFact(fact))
        self._persist()
        self._notify("job_submitted", job=fact.job.hex(), kernel=spec.kernel, units=spec.units)
        self._publish(job, now_ns)
        return job.state.id, self._flush(now_ns)

    def seal(self, spec: JobSpec) -> Fact:
        """The job as it is when it is submitted: the same each time. Raises ConfigError as ``submit`` does."""
        if sum(1 for job in self.jobs.values() if not job.outcome) >= MAX_JOBS:
            raise ConfigError(f"this node keeps {MAX_JOBS} unfinished jobs already; wait for some to end")
        if spec.policy.quorum > spec.policy.max_replicas:
            raise ConfigError(
                f"{spec.policy.quorum} workers cannot agree among at most {spec.policy.max_replicas}; ask for fewer"
            )
        try:
            fact = self._codec.seal(self._signer, spec)
            self._codec.open(fact.raw)  # as its workers will
        except (LocalProtocolError, RemoteProtocolError) as error:
            raise ConfigError(
                f"no peer would take this job ({error}); give it fewer or smaller parameters"
            ) from error
        return fact

    def _resumed(self, job: KeptJob, now_ns: int) -> None:
        super()._resumed(job, now_ns)
        if job.mine and job.state.view is None and not job.outcome:  # stopped before its keepers were named
            self._publish(job, now_ns)

    def is_published(self, job_id: JobId) -> bool:
        """Most of the job's keepers hold it."""
        return job_id in self.jobs and job_id not in self._publishing

    def withdraw(self, job_id: JobId) -> None:
        """Forget a job that could not be stored: nobody was promised anything about it."""
        self._publishing.pop(job_id, None)
        self._forget(job_id)

    def cancel(self, job_id: JobId, reason: str, now_ns: int) -> Effects:
        """End a job; one that is over stays as it is."""
        job = self.jobs.get(job_id)
        if job is None:
            raise NotFound(f"no job '{job_id.hex()[:12]}' of this node")
        if not job.outcome:
            self._state(job, Cancel(job_id, reason[:400]))
            self._end_if_over(job, now_ns)
        return self._flush(now_ns)

    def requeue(self, job_id: JobId, unit: int | None, now_ns: int) -> tuple[tuple[int, ...], Effects]:
        """Begin a dead unit (None: all of a job) anew; a job that failed goes on. Returns the units that were dead.

        Raises:
            NotFound: there is no such job.
            ConfigError: nothing of that name is dead.
        """
        job = self.jobs.get(job_id)
        if job is None:
            raise NotFound(f"no job '{job_id.hex()[:12]}' of this node")
        name = job_id.hex()[:12] if unit is None else f"{job_id.hex()[:12]}/{unit}"
        if job.outcome == "cancelled":
            raise ConfigError(f"job {job_id.hex()[:12]} was cancelled; submit it again")
        units = job.to_start_over(unit)
        if not units or not job.dead:
            what = "no unit is dead" if unit is None else "that unit is not dead"
            raise ConfigError(f"nothing to requeue in {name}: {what}; 'sparkle dead' lists those that are")
        if job.outcome and sum(1 for one in self.jobs.values() if not one.outcome) >= MAX_JOBS:
            raise ConfigError(f"this node keeps {MAX_JOBS} unfinished jobs already; wait for some to end")
        if any(job.state.reset_count(again) + 1 >= MAX_RESETS for again in units):
            raise ConfigError(f"{name} was requeued {MAX_RESETS - 1} times; submit the job again")
        dead = tuple(again for again in units if again in job.dead)
        for again in units:
            reason = job.dead.get(again) or "its workers had dropped it when the job failed"
            job.start_over(again)
            self._state(job, Reset(job_id, again, job.state.reset_count(again) + 1, reason[:400]))
        job.go_on(now_ns)
        self._set_duty(job, now_ns)
        self._persist()
        self._notify("units_requeued", job=job_id.hex(), units=len(dead))
        self._end_if_over(job, now_ns)  # others may be dead still
        self._offer([self.me, *list(self._peers)[:MAX_PEERS_OFFERED]])
        self._announce_soon(now_ns)
        self._beat_soon(now_ns)
        return dead, self._flush(now_ns)

    # --- events -------------------------------------------------------------------------------------------

    def handle(self, event: object, now_ns: int) -> Effects:
        """React to an event; events that do not concern a submitter change nothing."""
        if isinstance(event, FoundPeers):
            self._found(event, now_ns)
        elif isinstance(event, PeerDown):
            self._references.left(event.peer)
        elif isinstance(event, Replied | SendFailed):
            self._asked_candidate(event, now_ns)
            known = self._references.answered(event, self.trust)
            if known is not None:
                self._notify("workers_vouched", peer=event.peer, workers=known)
        for publication in list(self._publishing.values()):
            self._go_on_publishing(publication, now_ns)
        self._ask_who_is_known(now_ns)
        effects = super().handle(event, now_ns)
        return *effects, *(Notify("trusted_failed", {"peer": peer}) for peer in self.trust.take_disowned())

    def next_deadline(self) -> int | None:
        """When ``Tick`` is due."""
        times = [super().next_deadline()]
        for publication in self._publishing.values():
            job = self.jobs.get(publication.job)
            view = job.state.view if job is not None and publication.set_ns is not None else None
            times.append(publication.until_ns if view is None else publication.due_ns(view))
        times += [self._deadline(job)[0] for job in self._open() if job.mine]
        times.append(self._references.next_deadline())
        return min((time for time in times if time is not None), default=None)

    # --- whom others know ---------------------------------------------------------------------------------

    def _up(self, event: PeerUp, now_ns: int) -> None:
        super()._up(event, now_ns)
        if event.peer in self.trust.named:
            self._references.came(event.peer, now_ns)
            self._ask_who_is_known(now_ns)

    def _requested(self, event: Requested, now_ns: int) -> None:
        if type(event.message) is KnownRequest:
            self._reply(event.token, self._references.answer(self.trust, now_ns))
        else:
            super()._requested(event, now_ns)

    def _ask_who_is_known(self, now_ns: int) -> None:
        for peer in self._references.to_ask(now_ns):
            self._references.asks(self._send(peer, KnownRequest()), peer)

    # --- whose answers count while we are away ------------------------------------------------------------

    def _tend(self, job: KeptJob, now_ns: int) -> None:
        super()._tend(job, now_ns)
        if job.mine and job.trust is not None and now_ns >= self._state_ns.get(job.state.id, 0):
            self._state_standings(job, now_ns)

    def _state_standings(self, job: KeptJob, now_ns: int) -> None:
        """Tell the keepers whom to believe, if that is not what we said last."""
        view, known = job.state.view, job.state.standings
        if job.trust is None or job.outcome or view is None or not view.certifying:
            return
        items = statement(self.trust, job.state.spec)
        self._state_ns[job.state.id] = now_ns + (STATE_EVERY_NS << known.stated // STATED_OFTEN)
        if known.stated < MAX_STANDINGS and {i.worker: i.audit_permille for i in items} != known.by_key():
            self._state(job, Standings(job.state.id, known.next_number, items))

    def _forget(self, job_id: JobId) -> None:
        super()._forget(job_id)
        self._state_ns.pop(job_id, None)

    # --- publishing ---------------------------------------------------------------------------------------

    def _publish(self, job: KeptJob, now_ns: int) -> None:
        """Look for keepers; with fewer peers than keepers there is nobody to look for."""
        publication = Publication(job.state.id, None, now_ns, bool(job.state.spec.inputs))
        self._publishing[job.state.id] = publication
        if len(self._peers) < MAX_JOB_KEEPERS:
            publication.choose(self._candidates(()), now_ns)
        else:
            self._tag += 1
            publication.look_up, publication.until_ns = self._tag, now_ns + LOOK_UP_NS
            self._out.append(FindPeers(self._tag, job.state.id))
        self._go_on_publishing(publication, now_ns)

    def _candidates(self, found: tuple[PeerId, ...]) -> list[Candidate]:
        peers = {**dict.fromkeys(found, ()), **self._peers}
        peers.pop(self.me, None)
        return [Candidate(peer, tuple(addresses)) for peer, addresses in peers.items()]

    def _found(self, event: FoundPeers, now_ns: int) -> None:
        for publication in self._publishing.values():
            if publication.look_up == event.tag:
                publication.choose(self._candidates(event.peers), now_ns)

    def _asked_candidate(self, event: Replied | SendFailed, now_ns: int) -> None:
        for publication in self._publishing.values():
            if publication.asked.pop(event.tag, None) is None:
                continue
            if isinstance(event, Replied) and type(event.message) is messages.PushReply:
                publication.took.append(event.peer)
            elif isinstance(event, Replied) and type(event.message) is messages.Refusal:
                reason = event.message.text or event.message.code
                self._notify("keeper_refused", job=publication.job.hex(), peer=event.peer, reason=reason)
            self.presence.heard(event.peer, now_ns)

    def _go_on_publishing(self, publication: Publication, now_ns: int) -> None:
        job = self.jobs.get(publication.job)
        if job is None or job.outcome:
            self._publishing.pop(publication.job, None)
        elif publication.set_ns is not None and job.state.view is not None:
            if publication.view != job.state.view.fact.id:
                publication.named(job.state.view, self.me, now_ns, replaced=True)
            if now_ns >= publication.due_ns(job.state.view):
                self._name_keepers(job, publication, publication.staying(job.state.view, self.me), now_ns)
        elif publication.look_up is not None:
            if now_ns >= publication.until_ns:
                publication.choose(self._candidates(()), now_ns)
                self._go_on_publishing(publication, now_ns)
        else:
            for peer in publication.to_ask() if now_ns < publication.until_ns else ():
                push = messages.Push(job.state.id, [job.state.spec_fact.raw])
                publication.asked[self._send(peer, push)] = peer
            if publication.settled(now_ns):
                order = {one: place for place, one in enumerate(publication.took)}
                self._name_keepers(job, publication, sorted(publication.took, key=order.__getitem__), now_ns)

    def _name_keepers(self, job: KeptJob, publication: Publication, peers: list[PeerId], now_ns: int) -> None:
        """Sign who keeps the job: view 0 first; a later one if too few came to hold that."""
        keys = [key_from_peer_id(peer) for peer in with_submitter(peers, self.me)]
        before = job.state.view
        view = next_view(before.number, by_submitter=True) if before is not None else 0
        self._state(job, KeeperSet(job.state.id, view, keys, threshold(len(keys))))
        if job.state.view is not None:
            publication.named(job.state.view, self.me, now_ns, replaced=False)
        self._view_changed(job, "published", now_ns)
        self._state_standings(job, now_ns)
        self._offer([self.me, *list(self._peers)[:MAX_PEERS_OFFERED]])
        self._announce_soon(now_ns)
        self._kept_by(job, self.me, None, now_ns)

    def _kept_by(self, job: KeptJob, peer: PeerId, asked: messages.Request | None, now_ns: int) -> None:
        publication, view = self._publishing.get(job.state.id), job.state.view
        if publication is None or publication.set_ns is None or view is None:
            return
        named = type(asked) is messages.Push and view.fact.raw in asked.facts
        if named or peer == self.me:
            publication.hold.add(peer)
        holding = len(publication.holding(view, self.me))
        if holding >= holders_needed(len(view.keys)):
            del self._publishing[job.state.id]
            self._persist()
            self._notify("job_published", job=job.state.id.hex(), keepers=len(view.keys), holding=holding)

    def _is_whole(self, job: KeptJob, peer: PeerId, *, equal: bool) -> None:
        publication, view = self._publishing.get(job.state.id), job.state.view
        if publication is None or view is None:
            return
        publication.whole.add(peer)
        if equal:
            publication.hold.add(peer)
        self._kept_by(job, peer, None, 0)

    # --- ends ---------------------------------------------------------------------------------------------

    def _end_if_over(self, job: KeptJob, now_ns: int) -> None:
        super()._end_if_over(job, now_ns)
        if job.outcome or not job.mine:
            return
        cancel, (deadline_ns, too_late) = job.state.cancel, self._deadline(job)
        if job.state.finished and not job.lacking:
            job.end("done", "", now_ns)
        elif cancel is not None:
            job.end("failed" if cancel.failed else "cancelled", cancel.reason if cancel.failed else "", now_ns)
        elif not job.has_failed and now_ns >= deadline_ns and self._waits_for_keepers(job, now_ns):
            pass
        elif job.has_failed or now_ns >= deadline_ns:
            error = (failure_text(job.dead) if job.has_failed else too_late)[:400]
            self._state(job, Cancel(job.state.id, error, failed=True, restarts=job.state.restarts))
            job.end("failed", error, now_ns)
        if job.outcome:
            self._ended(job, now_ns)

    def _deadline(self, job: KeptJob) -> tuple[int, str]:
        """When the job fails unless it got on, and in what words."""
        limits = job.state.spec.deadlines
        if limits.queue_s < limits.total_s and not job.leases.books and not job.state.final_units:
            text = f"nobody took a unit of the job within its {limits.queue_s} seconds"
            return job.started_ns + limits.queue_s * SECOND_NS, text
        text = f"the job did not finish within its {limits.total_s} seconds"
        due_ns = job.started_ns + limits.total_s * SECOND_NS
        if job.state.finished:
            text = "all its units were accepted, but none of its keepers could give the last results"
        late_ns = self._late.get(job.state.id)
        return due_ns if late_ns is None else late_ns + (FETCH_NS if job.state.finished else HEAR_NS), text

    def _waits_for_keepers(self, job: KeptJob, now_ns: int) -> bool:
        """The job is late as far as is known here, but its keepers may have done it; True when that was not awaited.

        We may have been cut off, or asleep.
        """
        sets = (fact.payload for fact in job.state.facts() if type(fact.payload) is KeeperSet)
        if job.state.id in self._late or not any(len(one.keys) > 1 for one in sets):
            return False
        self._late[job.state.id] = now_ns
        return True

    def _open_audits(self, job: KeptJob) -> None:
        """Show that what was audited followed from the secret; a job that failed may go on, and needs it still."""
        if job.trust is None or job.outcome == "failed" or job.state.standings.secret is not None:
            return
        secret = audit_secret(self._signer, job.state.spec.nonce)
        if commitment_to(secret) == job.state.spec.audit_commitment:
            self._state(job, AuditSecret(job.state.id, secret))

    def _ended(self, job: KeptJob, now_ns: int) -> None:
        self._open_audits(job)
        self._late.pop(job.state.id, None)
        self._touched[job.state.id] = job
        self._publishing.pop(job.state.id, None)
        self._persist()
        self._notify(f"job_{job.outcome}", job=job.state.id.hex(), error=job.error or None)
        self._set_duty(job, now_ns)
        if job.outcome in ("done", "cancelled"):
            if job.state.spec.inputs:
                self._out.append(ReleaseInputs(job.state.id, tuple(job.state.spec.inputs)))
            for peer in self.partners(job):
                self._send(peer, messages.Release(job.state.id))
            self._spread.pop(job.state.id, None)
            self._channels.drop(job.state.id)
            self._tidy_up(now_ns)

    def _tidy_up(self, now_ns: int) -> None:
        """Keep no more than the records of jobs that are done, but of the latest, whose course can be asked for."""
        done = sorted((job for job in self.jobs.values() if job.outcome == "done"), key=lambda job: job.ended_ns or 0)
        facts = sum(len(job.state) for job in done)
        for job in done:
            if facts <= FINE_FACTS:
                break
            facts -= len(job.state)
            job.seal_all(now_ns)
            facts += len(job.state)
            self._touched[job.state.id] = job
