"""What a worker reports to keepers about the units in its hands, and what it hears in return.

- Each job and keeper have at most one report under way; what comes up meanwhile goes into the next. A lost report is
  repeated unchanged, with growing pauses; keepers treat repetitions as such.
- Result and nonce are made durable in the very batch that sends their commit, so that a restart states the same
  commit again: a second one would be proof of cheating.
- A result is shown only when a keeper of its epoch asks. That question may overtake the answer to our commit.
- When a keeper fails (``failover.py``) its units go to the next one of their range, with the signed leases as proof
  that they are ours; their commits are stated there again, unchanged.
- A keeper that does not know the job, or refuses the report, is not asked about it again; only when nobody is left
  is the job given up, with all we hold of it.
- Units may be carried into the epoch of a new view by leases that come with news. What runs goes on; a result gets
  the commit of its new epoch.
- A unit is given up when its job's whole time has passed since it was leased, and a job when none of its keepers was
  heard of for ``PATIENCE_NS``.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random

from sparkle_protocol import messages
from sparkle_protocol.effects import Earned, Effect, Notify, Persist, Record, Violation, WorkOver
from sparkle_protocol.errors import RemoteProtocolError
from sparkle_protocol.facts import SEAL_UNITS, Fact, FactCodec, FailureItem, Signer
from sparkle_protocol.ids import JobId, PeerId, key_from_peer_id
from sparkle_protocol.work.failover import Reach, keepers_of, order_of
from sparkle_protocol.work.held import COMMITTED, Hands, Held, UnitKey
from sparkle_protocol.work.keepers import backoff_ns
from sparkle_protocol.work.lease import SECOND_NS
from sparkle_protocol.work.outbox import HEARTBEAT_NS, Composer, Failed, Outbox, prune_shown
from sparkle_protocol.work.shelf import Shelf
from sparkle_protocol.work.state import JobState
from sparkle_protocol.work.terms import check_giver, check_lease, follow

MAX_FAILURE_CHARS = 200
PATIENCE_NS = 24 * 3600 * SECOND_NS
MAX_JOBS_KEPT = 64  # specs of jobs that we hold nothing of, in case their keeper comes back
TRANSIENT = ("busy", "storage", "internal", "unserved")  # refusals that say nothing about the report
News = messages.ReportReply | messages.Notice


@dataclass(slots=True)
class Desk:
    """What is said about one job."""

    heard_ns: int
    boxes: dict[PeerId, Outbox] = field(default_factory=dict)
    refused: set[PeerId] = field(default_factory=set)  # keepers that want to hear nothing about it


class Reporter:
    """Outboxes of all jobs that this node works for. Appends its effects to ``out``."""

    def __init__(
        self,
        signer: Signer,
        codec: FactCodec,
        rng: Random,
        hands: Hands,
        out: list[Effect],
        send: Callable[[PeerId, messages.Request], int],
        device: str,
        pace_ns: Callable[[JobState], int],
    ) -> None:
        self.jobs: dict[JobId, JobState] = {}
        self.verified = 0
        self.rejected = 0
        self.reach = Reach(signer.peer_id)
        self.shelf = Shelf(signer.peer_id)
        self._me = signer.peer_id
        self._mine = key_from_peer_id(signer.peer_id)
        self._untold: dict[JobId, set[int]] = {}  # ranges of committed units that went without a word
        self._device = device
        self._pace_ns = pace_ns
        self._codec = codec
        self._rng = rng
        self._hands = hands
        self._out = out
        self._send = send
        self._composer = Composer(signer, codec, hands, self.shelf, device)
        self._desks: dict[JobId, Desk] = {}
        self._by_tag: dict[int, Outbox] = {}

    # --- what is to be said -------------------------------------------------------------------------------

    def expect(self, job: JobId, keeper: PeerId, now_ns: int) -> None:
        """Units of a job are in our hands: this keeper will hear of them."""
        if job not in self._desks:
            self._desks[job] = Desk(now_ns)
            self._earned(
                job, ()
            )  # whoever is to claim pay for it knows the job before anything of it can be accepted
        self._desks[job].refused.discard(keeper)
        self._box(job, keeper, now_ns)

    def _box(self, job: JobId, keeper: PeerId, now_ns: int) -> Outbox:
        boxes = self._desks[job].boxes
        if keeper not in boxes:
            boxes[keeper] = Outbox(job, keeper, now_ns + HEARTBEAT_NS)
        return boxes[keeper]

    def _box_of(self, key: UnitKey) -> Outbox:
        return self._desks[key[0]].boxes[self._hands.all[key].keeper]

    def commit(self, key: UnitKey) -> None:
        """A unit is computed."""
        self._hands.move(key, "committing")
        self._box_of(key).commits.append(key)

    def fail(self, key: UnitKey, code: str, text: str) -> None:
        """A unit cannot be computed."""
        item = FailureItem(key[1], key[2], code, text[:MAX_FAILURE_CHARS], self._device)
        self._box_of(key).failures.append(Failed(item, self._hands.all[key].lease))
        self._hands.pop(key)

    def give_back(self, key: UnitKey) -> None:
        """A unit will not be computed here."""
        self._box_of(key).returned.append(messages.UnitEpoch(key[1], key[2]))
        self._hands.pop(key)

    def refuse(self, key: UnitKey, keeper: PeerId, now_ns: int) -> None:
        """A unit that was given to us goes back at once."""
        self.expect(key[0], keeper, now_ns)
        self._box(key[0], keeper, now_ns).returned.append(messages.UnitEpoch(key[1], key[2]))

    def speaks_of(self, job: JobId) -> bool:
        """There is something of a job in our hands, or still to be said about it."""
        return job in self._desks

    def backlog(self, keeper: PeerId) -> int:
        """Things waiting to be said to a keeper besides the units held."""
        boxes = (desk.boxes.get(keeper) for desk in self._desks.values())
        return sum(len(box.failures) + len(box.returned) for box in boxes if box is not None)

    @property
    def _boxes(self) -> list[Outbox]:
        return [box for desk in self._desks.values() for box in desk.boxes.values()]

    @property
    def drained(self) -> bool:
        """Nothing is left to be reported."""
        return not any(box.urgent for box in self._boxes)

    def next_deadline(self, now_ns: int) -> int | None:
        """When ``reroute`` or ``send_due`` has something to do."""
        times: list[int] = []
        for box in self._boxes:
            open_ = box.urgent or self._hands.of_box(box.job, box.keeper)
            if box.tag is None and open_:
                due_ns = self._due_ns(box)
                times.append(due_ns if box.urgent else max(box.beat_at_ns, due_ns))
            fails_ns = self.reach.fails_at(box.keeper) if open_ else None
            if fails_ns is not None and fails_ns > now_ns:
                times.append(fails_ns)
        return min(times, default=None)

    # --- saying it ----------------------------------------------------------------------------------------

    def reroute(self, now_ns: int) -> None:
        """Let other keepers hear what one that fails does not."""
        for box in self._boxes:
            if self.reach.fails(box.keeper, now_ns):
                self._fail_over(box, now_ns)

    def send_due(self, now_ns: int) -> None:
        """Send what is due; forget jobs of which there is nothing to say."""
        for box in self._boxes:
            if box.tag is not None or now_ns < self._due_ns(box):
                continue
            if not box.urgent and not self._hands.of_box(box.job, box.keeper):
                self._rest(box)
            elif box.urgent or now_ns >= box.beat_at_ns:
                self._send_one(box, now_ns)

    def _due_ns(self, box: Outbox) -> int:
        """When the next report may leave: while more results are to come it waits for them, but not for long.

        Units that go back do not wait, as others could compute them now.
        """
        if box.flight is not None or box.returned or box.sent_ns is None or not self._hands.busy:
            return box.retry_at_ns
        return max(box.retry_at_ns, box.sent_ns + self._pace_ns(self.jobs[box.job]))

    def _send_one(self, box: Outbox, now_ns: int) -> None:
        again = box.flight.repeated(self._hands) if box.flight is not None else None
        flight = again or self._composer.compose(self.jobs[box.job], box, now_ns)
        if flight.is_empty:
            return
        if flight.records:
            self._persist(flight.records)
        box.flight = flight
        self.reach.sent(box.keeper, now_ns)
        box.tag, box.sent_ns = self._send(box.keeper, flight.report), now_ns
        self._by_tag[box.tag] = box

    def _rest(self, box: Outbox) -> None:
        """There is nothing more to be said to a keeper about a job, and perhaps to nobody."""
        self._forget_tag(box)
        desk = self._desks[box.job]
        desk.boxes.pop(box.keeper, None)
        if not desk.boxes:
            self._close(box.job)

    def _close(self, job: JobId) -> None:
        """There is nothing more to be said about a job."""
        for box in self._desks.pop(job).boxes.values():
            self._forget_tag(box)
        if self._untold.get(job):
            self._work_over(job)
        records = self.shelf.drop_job(job)
        if records or self.shelf.gone:
            self._persist(records)
        self.jobs[job] = self.jobs.pop(job)  # its keeper may send leases without the spec: kept, the latest last
        idle = [known for known in self.jobs if known not in self._desks]
        for known in idle[: max(0, len(idle) - MAX_JOBS_KEPT)]:
            del self.jobs[known]

    def _forget_tag(self, box: Outbox) -> None:
        if box.tag is not None:
            self._by_tag.pop(box.tag, None)
            box.tag = None

    def _persist(self, records: Iterable[Record]) -> None:
        self._out.append(Persist((*self.shelf.gone, *records)))
        self.shelf.gone.clear()

    # --- hearing ------------------------------------------------------------------------------------------

    def replied(self, tag: int, peer: PeerId, message: messages.Reply, now_ns: int) -> None:
        """The answer to one of our reports."""
        box = self._by_tag.get(tag)
        if box is None or box.keeper != peer:
            return
        self._forget_tag(box)
        if type(message) is messages.Refusal and message.code in TRANSIENT:
            self._again(box, now_ns)
        elif type(message) is messages.ReportReply and message.job == box.job:
            self.reach.heard(peer)
            try:
                self._follow(box.job, peer, message, now_ns)
            except RemoteProtocolError as error:
                self._out.append(Violation(peer, str(error)))
                self._again(box, now_ns)
                return
            self._landed(box, now_ns)
            self._hear(box.job, peer, message, now_ns)
        else:
            text = message.text if type(message) is messages.Refusal else "an unexpected answer"
            self._refused(box, text, now_ns)

    def _landed(self, box: Outbox, now_ns: int) -> None:
        """A report arrived."""
        desk, flight = self._desks[box.job], box.flight
        desk.heard_ns = now_ns
        desk.refused.discard(box.keeper)
        box.flight, box.attempts, box.retry_at_ns = None, 0, now_ns
        if flight is None:
            return
        box.shown.update(flight.proofs)
        prune_shown(box, (self._hands.all[key].lease for key in self._hands.of_box(box.job, box.keeper)))
        for key in flight.commits:
            held = self._hands.get(key)
            if held is not None and held.state == "committing" and held.keeper == box.keeper:
                self._hands.move(key, "committed")
                self._reveal_if_asked(key, held)
        for key in flight.reveals:
            held = self._hands.get(key)
            if held is not None and held.state == "revealing" and held.keeper == box.keeper:
                self._hands.move(key, "revealed")

    def send_failed(self, tag: int, peer: PeerId, now_ns: int) -> None:
        """One of our reports got lost: it is said again, but units we have not begun go once their lease is over."""
        box = self._by_tag.get(tag)
        if box is None or box.keeper != peer:
            return
        self._forget_tag(box)
        self.reach.lost(peer, now_ns)
        self._again(box, now_ns)
        for key in list(self._hands.of_box(box.job, peer)):
            self._drop_if_stale(key, now_ns)

    def _again(self, box: Outbox, now_ns: int) -> None:
        box.attempts += 1
        box.retry_at_ns = now_ns + backoff_ns(self._rng, box.attempts)

    def connected(self, peer: PeerId, now_ns: int) -> None:
        """A peer is back: do not wait out the back-off, and let it know that we are."""
        self.reach.up(peer)
        for box in self._boxes:
            if box.keeper == peer:
                box.retry_at_ns = now_ns
                box.beat_at_ns = min(box.beat_at_ns, now_ns)

    def notice(self, peer: PeerId, message: messages.Notice, now_ns: int) -> None:
        """News that a keeper sent unasked."""
        job = JobId(message.job)
        desk = self._desks.get(job)
        if desk is None or not (peer in desk.boxes or self.jobs[job].is_keeper(peer)):
            return
        try:
            self._follow(job, peer, message, now_ns)
        except RemoteProtocolError as error:
            self._out.append(Violation(peer, str(error)))
            return
        desk.heard_ns = now_ns
        self._hear(job, peer, message, now_ns)

    def _hear(self, job: JobId, peer: PeerId, news: News, now_ns: int) -> None:
        """Act on a keeper's news; repetitions change nothing."""
        for wanted in news.reveal:
            self._asked((job, wanted.unit, wanted.epoch), peer, now_ns)
        for gone in news.drop:
            key = (job, gone.unit, gone.epoch)
            if self._concerns(peer, key):
                self.drop(key)
        accepted: list[tuple[int, int]] = []
        for verdict in news.settled:
            key = (job, verdict.unit, verdict.epoch)
            if self._concerns(peer, key):
                self._settled(key)
                accepted += [(verdict.unit, verdict.epoch)] if verdict.accepted else []
                self.verified += verdict.accepted
                self.rejected += not verdict.accepted
                event = "result_accepted" if verdict.accepted else "result_rejected"
                self._out.append(Notify(event, {"job": job.hex(), "unit": verdict.unit}))
        if accepted:
            self._earned(job, tuple(accepted))
        if news.ended:
            self._ended(job, peer)

    def _settled(self, key: UnitKey) -> None:
        """A unit goes of which it is known what became of it."""
        known = self._untold.get(key[0], set()).copy()
        self.drop(key)
        if key[0] in self._untold:
            self._untold[key[0]] = known

    def _earned(self, job: JobId, units: tuple[tuple[int, int], ...]) -> None:
        """Have pay claimed, if the job has a price and another submitter."""
        state = self.jobs[job]
        if state.spec.price_micro and state.submitter != self._me:
            views = tuple(state.view_facts())
            self._out.append(Earned(state.spec_fact, views, units, tuple(keepers_of(state))))

    def _concerns(self, peer: PeerId, key: UnitKey) -> bool:
        """We hold a unit, and a peer has a say in it."""
        held = self._hands.get(key)
        return held is not None and (held.keeper == peer or self.jobs[key[0]].may_keep(peer, key[2]))

    def _asked(self, key: UnitKey, peer: PeerId, now_ns: int) -> None:
        """A keeper wants to see a result. Whoever asks is told, with all else about the unit from then on."""
        held = self._hands.get(key)
        if held is None or not held.nonce or not self._concerns(peer, key):
            return
        if held.keeper != peer and held.lease is not None and held.state in ("committed", "revealed"):
            self._box(key[0], peer, now_ns)
            self._hands.hand_to(key, peer)
        held.asked = True
        self._reveal_if_asked(key, held)

    def _reveal_if_asked(self, key: UnitKey, held: Held) -> None:
        if held.asked and held.state in ("committed", "revealed"):
            held.asked = False
            self._hands.move(key, "revealing")
            self._box_of(key).reveals.append(key)

    def _ended(self, job: JobId, peer: PeerId) -> None:
        """The job is over, as its submitter says, or a keeper for the units that it hears about."""
        everything = peer == self.jobs[job].submitter
        for key in list(self._hands.of_job(job)):
            held = self._hands.all[key]
            if (everything or held.keeper == peer) and held.state != "revealing":
                self.drop(key)
        self._work_over(job)
        desk = self._desks[job]
        for box in list(desk.boxes.values()):
            if (everything or box.keeper == peer) and not self._hands.of_box(job, box.keeper):
                self._rest(box)

    def _work_over(self, job: JobId) -> None:
        """Have what is left of the pay claimed, if the job has a price and another submitter."""
        ranges = tuple(sorted(self._untold.pop(job, ())))
        if self.jobs[job].spec.price_micro and self.jobs[job].submitter != self._me:
            self._out.append(WorkOver(job, ranges))

    def drop(self, key: UnitKey) -> None:
        """A unit is of use to nobody."""
        held = self._hands.get(key)
        if held is None:
            return
        if held.state in COMMITTED and self.jobs[key[0]].spec.price_micro:
            self._untold.setdefault(key[0], set()).add(key[1] // SEAL_UNITS)
        self._out += self._hands.to_stop(key)
        self._hands.pop(key)
        self.shelf.let_go(held)

    # --- another view -------------------------------------------------------------------------------------

    def _follow(self, job: JobId, peer: PeerId, news: News, now_ns: int) -> None:
        """Learn who keeps the job now and take units over into their new epoch. Raises before a unit changes."""
        if not news.views and not news.leases:
            return
        before = self.jobs[job].view
        state = self.jobs[job] = follow(self.jobs[job], [self._codec.open(raw) for raw in news.views])
        if state.view is not before:
            self._desks[job].refused.clear()
        carried: list[tuple[UnitKey, Fact, int]] = []
        for fact in [self._codec.open(raw) for raw in news.leases]:
            for item in check_lease(state, fact, self._mine).items:
                if not check_giver(state, peer, item) or not check_giver(state, fact.author, item):
                    raise RemoteProtocolError("a lease in a view that was not shown")
                carried.append(((job, item.unit, item.epoch), fact, item.ttl_ms * 1_000_000))
        for key, fact, ttl_ns in carried:
            self.carry(key, fact, peer, ttl_ns, now_ns)

    def carry(self, key: UnitKey, lease: Fact, peer: PeerId, ttl_ns: int, now_ns: int) -> None:
        """Hold a unit in the epoch of ``key`` if we hold it in an older one."""
        old = self._hands.of_unit(key[0], key[1])
        if old is None or old[2] >= key[2]:
            return
        self._box(key[0], peer, now_ns)
        held = self._hands.carry(old, key)
        self._hands.hand_to(key, peer)
        held.lease, held.deadline_ns = lease, now_ns + ttl_ns
        if held.state in COMMITTED:
            held.nonce, held.asked = b"", False
            self.commit(key)

    # --- another keeper -----------------------------------------------------------------------------------

    def _fail_over(self, box: Outbox, now_ns: int) -> None:
        """Whatever may go to a keeper that answers goes there."""
        state, refused = self.jobs[box.job], self._desks[box.job].refused | {box.keeper}
        units = (self._hands.all[key] for key in self._hands.of_box(box.job, box.keeper))
        if not box.all_failures and all(held.lease is None for held in units):
            return
        if self.reach.first(keepers_of(state), refused, now_ns) is None:
            return
        self._move_all(box, lambda unit: self.reach.first(order_of(state, unit), refused, now_ns), now_ns)
        if not self._hands.of_box(box.job, box.keeper):
            self._rest(box)

    def _refused(self, box: Outbox, text: str, now_ns: int) -> None:
        """A keeper wants to hear nothing about a job: another one may."""
        state, desk = self.jobs[box.job], self._desks[box.job]
        desk.refused.add(box.keeper)
        left = [peer for peer in keepers_of(state) if peer not in desk.refused]
        if not left:
            self.abandon(box.job, text)
            return

        def next_of(unit: int) -> PeerId:
            order = [peer for peer in order_of(state, unit) if peer in left]
            return self.reach.first(order, (), now_ns) or order[0]

        self._move_all(box, next_of, now_ns)
        for key in list(self._hands.of_box(box.job, box.keeper)):
            self.drop(key)  # nobody else would believe that it is ours
        self._rest(box)

    def _move_all(self, box: Outbox, target: Callable[[int], PeerId | None], now_ns: int) -> None:
        """Let other keepers hear about the units of a box. Without its lease a unit stays."""
        self._unsend(box)
        for key in list(self._hands.of_box(box.job, box.keeper)):
            held = self._hands.all[key]
            peer = target(key[1]) if held.lease is not None else None
            if peer is None or self._drop_if_stale(key, now_ns):
                continue
            self._box(box.job, peer, now_ns).beat_at_ns = now_ns  # or it would give the unit to somebody else
            self._hands.hand_to(key, peer)
            if held.state in COMMITTED:
                held.asked = False
                self.commit(key)
        for failed in box.failures:
            peer = target(failed.item.unit)
            if peer is not None and failed.lease is not None:
                self._box(box.job, peer, now_ns).failures.append(failed)
        box.failures.clear()
        box.returned.clear()  # nobody else knows that we had them

    def _unsend(self, box: Outbox) -> None:
        """Put what is under way back."""
        self._forget_tag(box)
        flight, box.flight = box.flight, None
        if flight is not None:
            box.commits[:0] = flight.commits
            box.reveals[:0] = flight.reveals
            box.failures[:0] = flight.failures

    def _drop_if_stale(self, key: UnitKey, now_ns: int) -> bool:
        """A unit not begun goes once its lease is over."""
        held = self._hands.all[key]
        if held.state != "queued" or now_ns <= held.deadline_ns:
            return False
        self._out += self._hands.to_stop(key, resumes=True)
        self._hands.pop(key)
        return True

    # --- giving up ----------------------------------------------------------------------------------------

    def abandon(self, job: JobId, text: str) -> None:
        """Nothing we hold of a job is of use to anybody."""
        for key in list(self._hands.of_job(job)):
            self.drop(key)
        self._close(job)
        del self.jobs[job]
        self._out.append(Notify("report_refused", {"job": job.hex(), "text": text}))

    def give_up_hopeless(self, now_ns: int) -> None:
        """Let go of what nobody will ask for any more."""
        for job, desk in list(self._desks.items()):
            if now_ns - desk.heard_ns > PATIENCE_NS:
                self.abandon(job, "none of its keepers was heard of for a day")
                continue
            limit_ns = self.jobs[job].spec.deadlines.total_s * SECOND_NS
            held = [(key, self._hands.all[key]) for key in self._hands.of_job(job)]
            late = [key for key, one in held if now_ns - one.since_ns > limit_ns]
            for key in late:
                self.drop(key)
            if late and len(late) == len(held):
                self.abandon(job, "the job's time is over")
