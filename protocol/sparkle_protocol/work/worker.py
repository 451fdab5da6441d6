"""The worker side of every job this node helps with: finds work, computes it, keeps its promises to keepers.

::

    leased ─▶ queued ─▶ running ─▶ committing ─▶ committed ─▶ revealing ─▶ revealed ─▶ settled (forgotten)

- Whom to ask for work is decided in ``keepers.py``, where to look for somebody in ``lookup.py``, how much to ask for
  in ``prefetch.py``; what is said about it, and to whom, in ``reporting.py``.
- Running: handed to the executors. Of short units that is more than they have slots (``prefetch.py``); as they are
  computed in that order, the first are those that have begun.
- Paused: nothing starts, what has not begun goes back at once, what runs stays suspended for ``PAUSE_HOLD_NS``.
- When computing fails through no fault of the unit, the node takes nothing for a while, longer after each failure.
- Of a job with a price of which nobody shows that the pay was set aside nothing more is taken for ``UNPAID_NS``.
- Gossip may make us dial strangers: at most ``MAX_DIALS`` at a time, and only when there is room for work.
"""

from collections.abc import Iterable
from itertools import islice
from random import Random

from sparkle_protocol import messages
from sparkle_protocol.effects import (
    Compute,
    Computed,
    ComputeFailed,
    ComputeProgress,
    Dial,
    Dialled,
    Effect,
    Effects,
    Gossiped,
    JobUnfunded,
    Notify,
    PeerDown,
    PeerUp,
    Prepare,
    Replied,
    Reply,
    Requested,
    Send,
    SendFailed,
    Tick,
    Value,
    Violation,
)
from sparkle_protocol.errors import RemoteProtocolError
from sparkle_protocol.facts import (
    MAX_RESULT_BYTES,
    Endorsements,
    Fact,
    FactCodec,
    KeeperSet,
    Leases,
    Signer,
    view_of,
)
from sparkle_protocol.ids import JobId, PeerId, key_from_peer_id
from sparkle_protocol.work.failover import keepers_of
from sparkle_protocol.work.held import MAX_HELD, MAX_HELD_PER_KEEPER, Hands, Held, HeldState, UnitKey
from sparkle_protocol.work.keepers import Keepers, backoff_ns
from sparkle_protocol.work.lease import SECOND_NS
from sparkle_protocol.work.lookup import Lookup
from sparkle_protocol.work.memory import MemoryLimit
from sparkle_protocol.work.reporting import Reporter
from sparkle_protocol.work.rules import PRODUCTION, Rules
from sparkle_protocol.work.state import JobState
from sparkle_protocol.work.terms import check_giver, check_lease, learn_job

MAX_DIALS = 4
PAUSE_HOLD_NS = 300 * SECOND_NS
FULL_PAUSE_NS = SECOND_NS // 5
UNPAID_NS = 900 * SECOND_NS  # longer than from one look for the pay to the next


class WorkerAgent:
    """Decides what this node computes."""

    def __init__(
        self,
        signer: Signer,
        codec: FactCodec,
        rng: Random,
        kernels: Iterable[str],
        slots: int = 1,
        device: str = "",
        memory_bytes: int = messages.UNSAID,
        rules: Rules = PRODUCTION,
    ) -> None:
        self.me = signer.peer_id
        self.kernels = sorted(kernels)
        self.slots = slots
        self.device = device
        self.paused = False
        self.stopping = False
        self.units_done = 0
        self.memory = MemoryLimit(memory_bytes)
        self._codec = codec
        self._rng = rng
        self._out: list[Effect] = []
        self._hands = Hands()
        self._keepers = Keepers(self.me, rng)
        self._reporter = Reporter(signer, codec, rng, self._hands, self._out, self._send, device, self._pace_ns)
        self._lookup = Lookup(codec.network, self.kernels, rng)
        self._prefetch = rules.prefetch(slots)
        self._unpaid: dict[JobId, int] = {}  # jobs that we take nothing of, and until when
        self._unshown: set[JobId] = set()  # jobs that have a view which we have not seen
        self._connected: set[PeerId] = set()
        self._now_ns = 0
        self._dials: set[int] = set()
        self._busy = False
        self._tag = 0
        self._paused_ns = 0
        self._local_failures = 0
        self._unwell_until_ns = 0

    @property
    def held(self) -> dict[UnitKey, Held]:
        """Units in our hands."""
        return self._hands.all

    @property
    def begun(self) -> Iterable[UnitKey]:
        """Units that are being computed."""
        return islice(self._hands.running, self.slots)

    @property
    def jobs(self) -> dict[JobId, JobState]:
        """Jobs whose units we hold or held lately."""
        return self._reporter.jobs

    @property
    def units_verified(self) -> int:
        """Results of ours that were accepted."""
        return self._reporter.verified

    @property
    def units_rejected(self) -> int:
        """Results of ours that were refused."""
        return self._reporter.rejected

    @property
    def drained(self) -> bool:
        """Nothing is left to be reported."""
        return self._reporter.drained

    # --- commands -----------------------------------------------------------------------------------------

    def pause(self, now_ns: int) -> Effects:
        """Take nothing more and give back what has not started."""
        self.paused, self._paused_ns = True, now_ns
        self._give_back("queued")
        for key in [*islice(self._hands.running, self.slots, None)]:
            self._return(key)
        return self._pump(now_ns)

    def resume(self, now_ns: int) -> Effects:
        """Work again."""
        self.paused = False
        self._keepers.retry_all(now_ns)
        return self._pump(now_ns)

    def stop(self, now_ns: int) -> Effects:
        """Give back all that is not committed; ``drained`` tells when keepers know."""
        self.stopping = True
        self._give_back("queued", "running")
        return self._pump(now_ns)

    def restore(
        self, spec: Fact, facts: Iterable[Fact], commits: Iterable[tuple[int, int, bytes, bytes]], now_ns: int
    ) -> Effects:
        """Take up commits (unit, epoch, nonce, result) made before a restart.

        Args:
            spec: of their job.
            facts: all facts of the job that are stored. Leases, keeper sets and endorsements are used.
            commits: all that are stored of the job.
            now_ns: monotonic clock.
        """
        facts = list(facts)
        views = [fact for fact in facts if isinstance(fact.payload, KeeperSet | Endorsements)]
        state = self.jobs[spec.job] = self.jobs.get(spec.job) or JobState(spec, self._codec.network)
        state.merge(views)
        leases = self._leases_in(facts)
        for unit, epoch, nonce, result in sorted(commits, key=lambda commit: commit[:2], reverse=True):
            key, lease = (state.id, unit, epoch), leases.get((unit, epoch))
            giver = lease.author if lease is not None and state.is_keeper(lease.author) else state.submitter
            held = Held(giver, "committing", now_ns, now_ns, lease, progress=1.0, nonce=nonce, result=result)
            self._reporter.shelf.stored(key, held)
            if self._hands.of_unit(state.id, unit) is not None or len(self.held) >= MAX_HELD:
                self._reporter.shelf.let_go(held)  # it was carried into a later epoch
                continue
            self._reporter.expect(state.id, giver, now_ns)
            self._hands.add(key, held)
            self._reporter.commit(key)
        self._reporter.shelf.keep_only(state.id, leases.values(), facts)
        return self._pump(now_ns)

    def _leases_in(self, facts: Iterable[Fact]) -> dict[tuple[int, int], Fact]:
        """Leases of ours by unit and epoch."""
        mine = key_from_peer_id(self.me)
        return {
            (item.unit, item.epoch): fact
            for fact in facts
            if type(fact.payload) is Leases
            for item in fact.payload.items
            if item.worker == mine
        }

    # --- events -------------------------------------------------------------------------------------------

    def handle(self, event: object, now_ns: int) -> Effects:
        """React to an event; events that do not concern a worker change nothing."""
        if isinstance(event, Computed | ComputeFailed | ComputeProgress):
            self._from_executor(event, now_ns)
        elif isinstance(event, Requested):
            self._requested(event, now_ns)
        elif isinstance(event, Replied):
            self._replied(event, now_ns)
        elif isinstance(event, SendFailed):
            self._send_failed(event, now_ns)
        elif isinstance(event, Gossiped):
            self._gossiped(event, now_ns)
        elif isinstance(event, Dialled):
            self._dials.discard(event.tag)
        elif isinstance(event, PeerUp):
            if not self._connected:
                self._lookup.restart(now_ns)
            self._connected.add(event.peer)
            self._keepers.connected(event.peer, now_ns)
            self._reporter.connected(event.peer, now_ns)
        elif isinstance(event, PeerDown):
            self._connected.discard(event.peer)
            self._reporter.reach.down(event.peer, now_ns)
        elif isinstance(event, JobUnfunded):
            self._unfunded(event.job, now_ns)
        elif isinstance(event, Tick):
            self._tick(now_ns)
        return self._pump(now_ns)

    def next_deadline(self) -> int | None:
        """When ``Tick`` is due."""
        times = [self._reporter.next_deadline(self._now_ns)]
        if self._room() > 0:
            ask_ns = self._keepers.next_ask_ns()
            times.append(max(ask_ns, self._unwell_until_ns) if ask_ns is not None else None)
        if self._seeks:
            times.append(self._lookup.due_ns)
        if self.paused and self._hands.running:
            times.append(self._paused_ns + PAUSE_HOLD_NS)
        return min((time for time in times if time is not None), default=None)

    def _tick(self, now_ns: int) -> None:
        if self.paused and now_ns >= self._paused_ns + PAUSE_HOLD_NS:
            self._give_back("running")
        self._reporter.give_up_hopeless(now_ns)

    def _pump(self, now_ns: int) -> Effects:
        self._now_ns = now_ns
        self._reporter.reroute(now_ns)  # may drop what waits too long, which makes room
        self._start(now_ns)
        self._ask(now_ns)
        was_busy, self._busy = self._busy, bool(self._hands.busy)
        if was_busy:
            self._lookup.busy(now_ns)
        if self._seeks:
            self._out += self._lookup.look(now_ns)
        self._reporter.send_due(now_ns)
        out = tuple(self._out)
        self._out.clear()  # the reporter writes into the same list
        return out

    def _send(self, peer: PeerId, message: messages.Request) -> int:
        self._tag += 1
        self._out.append(Send(self._tag, peer, message))
        return self._tag

    # --- finding work -------------------------------------------------------------------------------------

    @property
    def _works(self) -> bool:
        return bool(self.kernels) and not self.paused and not self.stopping

    @property
    def _seeks(self) -> bool:
        """There is nothing to do and nobody to ask."""
        return self._works and not self._hands.busy and not self._keepers.answering()

    def _room(self) -> int:
        """How many more units we want."""
        if not self._works:
            return 0
        return self._prefetch.room(self._hands.busy, self._kernels_in_hand())

    def _pace_ns(self, job: JobState) -> int:
        return self._prefetch.pace_ns(job.kernel, files=bool(job.spec.inputs))

    def _kernels_in_hand(self) -> Iterable[str]:
        return (self.jobs[job].kernel for job in self._hands.busy_jobs)

    def _requested(self, event: Requested, now_ns: int) -> None:
        message = event.message
        if type(message) is messages.Offer:
            if set(message.kernels) & set(self.kernels):
                self._keepers.learn(event.peer, now_ns, message.waiting)
            self._out.append(Reply(event.token, messages.Ok()))
        elif type(message) is messages.Notice:
            self._reporter.notice(event.peer, message, now_ns)
            self._out.append(Reply(event.token, messages.Ok()))

    def _gossiped(self, event: Gossiped, now_ns: int) -> None:
        if event.topic != messages.jobs_topic(self._codec.network) or event.author == self.me:
            return
        try:
            announcement = messages.decode_announcement(event.payload)
        except RemoteProtocolError as error:
            self._out.append(Violation(event.author, str(error)))
            return
        if not set(announcement.kernels) & set(self.kernels) or not self._works:
            return
        if event.author not in self._connected and self._room() > 0 and len(self._dials) < MAX_DIALS:
            own = [address for address in announcement.addresses if address.endswith(f"/p2p/{event.author}")]
            if own:
                self._tag += 1
                self._dials.add(self._tag)
                self._out.append(Dial(self._tag, own[0]))
        self._keepers.learn(event.author, now_ns)

    def _ask(self, now_ns: int) -> None:
        """Ask one keeper for as much as there is room for."""
        room = self._room()
        peer = self._keepers.due(now_ns) if room > 0 and now_ns >= self._unwell_until_ns else None
        if peer is None:
            return
        if self._hands.of_keeper(peer) + self._reporter.backlog(peer) >= MAX_HELD_PER_KEEPER:
            self._keepers.postpone(peer, FULL_PAUSE_NS, now_ns)  # it leaves too much undecided
            return
        want = min(room, messages.MAX_WANT)
        self._unshown &= self.jobs.keys()
        known = [job for job, state in self.jobs.items() if state.is_keeper(peer) and job not in self._unshown]
        known.sort(key=lambda job: not self._reporter.speaks_of(job))
        shown: list[bytes] = [*known[: messages.MAX_KNOWN_JOBS]]
        self._unpaid = {job: until_ns for job, until_ns in self._unpaid.items() if until_ns > now_ns}
        request = messages.LeaseRequest(
            want, self.kernels, shown, self.device, self.memory.size_bytes, [*self._unpaid]
        )
        self._keepers.asked(peer, self._send(peer, request), want, now_ns)

    def _replied(self, event: Replied, now_ns: int) -> None:
        want = self._keepers.answered(event.peer, event.tag)
        if want is None:
            self._reporter.replied(event.tag, event.peer, event.message, now_ns)
        elif type(event.message) is messages.Refusal:
            self._keepers.failed(event.peer, now_ns)
        else:
            try:
                self._leased(event.peer, event.message, want, now_ns)
            except RemoteProtocolError as error:
                self._keepers.forget(event.peer)
                self._out.append(Violation(event.peer, str(error)))

    def _send_failed(self, event: SendFailed, now_ns: int) -> None:
        if self._keepers.answered(event.peer, event.tag) is not None:
            self._keepers.failed(event.peer, now_ns)
        else:
            self._reporter.send_failed(event.tag, event.peer, now_ns)

    def _leased(self, peer: PeerId, reply: messages.Reply, want: int, now_ns: int) -> None:
        """Take what a keeper gives. Raises RemoteProtocolError before anything changes."""
        if type(reply) is not messages.LeaseReply:
            raise RemoteProtocolError("a lease request was answered by something else")
        states: dict[JobId, JobState] = {}
        for shown in reply.jobs:
            state = learn_job(self._codec, self.jobs, shown)
            states[state.id] = state
            if state.id in self.jobs:
                self.jobs[state.id] = state
        granted = [self._check_leases(peer, self._codec.open(raw), states) for raw in reply.leases]
        count = sum(len(leases.items) for _, _, leases in granted)
        if count > want:
            raise RemoteProtocolError("more leases than were asked for")
        self._unshown -= states.keys()
        self.memory.told(peer, reply.too_large, now_ns)
        for state, fact, leases in granted:
            self._accept(peer, state, fact, leases, now_ns)
        self._prefetch.given(count, want, self._hands.busy)
        if granted:
            self._lookup.restart(now_ns)
        if not self._works:
            self._give_back("queued")
        if granted and all(self._goes_back(peer, state, leases) for state, _, leases in granted):
            self._keepers.failed(peer, now_ns)  # it shall be asked ever more rarely
        elif reply.open_jobs:
            self._keepers.gave(peer, len(granted), reply.wait_ms * 1_000_000, now_ns, reply.waiting)
        else:
            self._keepers.finished(peer, now_ns)

    def _accept(self, peer: PeerId, state: JobState, fact: Fact, leases: Leases, now_ns: int) -> None:
        """Take the units that a keeper gives, or have them go back."""
        self.jobs[state.id] = state
        self._reporter.expect(state.id, peer, now_ns)
        for item in leases.items:
            key = (state.id, item.unit, item.epoch)
            if not self._wants(state):
                self._reporter.refuse(key, peer, now_ns)
            elif check_giver(state, peer, item) and state.is_keeper(peer):
                self._take(key, Held(peer, "queued", now_ns, now_ns + item.ttl_ms * 1_000_000, fact))
            else:
                self._unseen_view(state, key, peer, now_ns)

    def _wants(self, state: JobState) -> bool:
        return self.memory.allows(state.spec) and state.id not in self._unpaid

    def _goes_back(self, peer: PeerId, state: JobState, leases: Leases) -> bool:
        """A keeper gave what it should not: it does not listen, or has not heard that others keep the job now."""
        if not self._wants(state):
            return True
        newest = state.view.number if state.view is not None else -1
        seen = all(view_of(item.epoch) <= newest for item in leases.items)
        return seen and not any(check_giver(state, peer, item) and state.is_keeper(peer) for item in leases.items)

    def _unseen_view(self, state: JobState, key: UnitKey, peer: PeerId, now_ns: int) -> None:
        """A unit in a view that we have not seen, or that is over: it goes back. We ask to be shown the former."""
        self._reporter.refuse(key, peer, now_ns)
        if state.view is None or view_of(key[2]) > state.view.number:
            self._unshown.add(state.id)

    def _check_leases(self, peer: PeerId, fact: Fact, new: dict[JobId, JobState]) -> tuple[JobState, Fact, Leases]:
        state = new.get(fact.job) or self.jobs.get(fact.job)
        if state is None:
            raise RemoteProtocolError("a lease of an unknown job")
        leases = check_lease(state, fact, key_from_peer_id(self.me))
        if fact.author != peer:
            raise RemoteProtocolError("a lease that is not by whoever gave it")
        if state.kernel not in self.kernels:
            raise RemoteProtocolError(f"a lease for kernel {state.kernel}, which was not asked for")
        for item in leases.items:
            check_giver(state, peer, item)
        return state, fact, leases

    def _take(self, key: UnitKey, held: Held) -> None:
        if self._hands.of_unit(key[0], key[1]) is not None:
            if held.lease is not None:
                self._reporter.carry(key, held.lease, held.keeper, held.deadline_ns - held.since_ns, held.since_ns)
            return
        if len(self.held) >= MAX_HELD:
            oldest = self._hands.longest_waiting()
            if oldest is None:
                return
            self._reporter.drop(oldest)
        self._hands.add(key, held)
        state = self.jobs[key[0]]
        if state.spec.inputs:
            held.run = key
            self._out.append(Prepare(*key, state.spec, self._holders(state)))

    def _holders(self, state: JobState) -> tuple[PeerId, ...]:
        """Who has the inputs of a job, if it has any."""
        return tuple(peer for peer in keepers_of(state) if peer != self.me) if state.spec.inputs else ()

    # --- computing ----------------------------------------------------------------------------------------

    def _start(self, now_ns: int) -> None:
        if not self._works or not self._hands.queued:
            return
        files = any(self.jobs[job].spec.inputs for job in self._hands.busy_jobs)
        free = self._prefetch.handed(self._kernels_in_hand(), files=files) - len(self._hands.running)
        for key in [*islice(self._hands.queued, max(0, free))]:
            self._hands.start(key, now_ns)
            state, run = self.jobs[key[0]], self.held[key].run or key
            self._out.append(Compute(*run, state.spec, self._holders(state)))

    def _from_executor(self, event: Computed | ComputeFailed | ComputeProgress, now_ns: int) -> None:
        key = self._hands.of_run((event.job, event.unit, event.epoch))
        if key is None:
            return
        held = self.held[key]
        if isinstance(event, ComputeProgress):
            held.progress = max(0.0, min(1.0, event.progress))
        elif isinstance(event, ComputeFailed):
            self._compute_failed(key, event, now_ns)
        elif len(event.result) > MAX_RESULT_BYTES:
            self._fail(key, "kernel", f"the result has {len(event.result)} bytes, more than {MAX_RESULT_BYTES}")
        else:
            self._local_failures = 0
            held.progress, held.result = 1.0, event.result
            self.units_done += 1
            self._reporter.commit(key)
            seconds = (now_ns - held.started_ns) / 1e9 if event.seconds is None else event.seconds
            self._prefetch.ran(self.jobs[event.job].kernel, seconds)
            fields: dict[str, Value] = {"job": event.job.hex(), "unit": event.unit, "seconds": seconds}
            self._out.append(Notify("unit_computed", fields))

    def _compute_failed(self, key: UnitKey, event: ComputeFailed, now_ns: int) -> None:
        if event.blame:
            self._fail(key, event.code, event.text)
            return
        self._local_failures += 1
        self._unwell_until_ns = now_ns + backoff_ns(self._rng, self._local_failures)
        self._reporter.give_back(key)

    def _fail(self, key: UnitKey, code: str, text: str) -> None:
        self._reporter.fail(key, code, text)
        self._out.append(Notify("unit_failed", {"job": key[0].hex(), "unit": key[1], "text": text[:400]}))

    def _give_back(self, *states: HeldState) -> None:
        for key in [key for key, held in self.held.items() if held.state in states]:
            self._return(key)

    def _unfunded(self, job: JobId, now_ns: int) -> None:
        """Nobody shows what a job is paid from: what was not computed yet goes back."""
        known = self._unpaid.pop(job, None) is not None
        self._unpaid[job] = now_ns + UNPAID_NS
        if len(self._unpaid) > messages.MAX_UNWANTED:
            del self._unpaid[next(iter(self._unpaid))]
        if not known:
            self._out.append(Notify("job_unfunded", {"job": job.hex()}))
            for key in list(self._hands.of_job(job)):
                if self.held[key].state in ("queued", "running"):
                    self._return(key)

    def _return(self, key: UnitKey) -> None:
        """Give one unit back; nobody computes it here unless it comes again."""
        self._out += self._hands.to_stop(key, resumes=True)
        self._reporter.give_back(key)
