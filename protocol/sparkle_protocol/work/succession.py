"""Who keeps a job from now on, when keepers are lost or peers come that could be.

- With fewer than four keepers the submitter alone decides, so it adds peers as they come (``GROW_NS`` apart).
- When fewer keepers than the threshold can be counted on for ``RECOVER_NS``, or at once when they agreed to different
  successors, the submitter names a new set by itself: those that are there, and others in place of the rest. Units
  not final begin a new epoch in it, as in every view. While a submitter has no connection, and for ``REJOIN_NS``
  after that if it has not heard of them, it takes its keepers for cut off and not for lost: it names nobody.
- When a keeper has been away for ``REPLACE_NS`` and another peer can take its place, the submitter, or while that is
  away one keeper after the other, proposes a set with the one replaced. The newcomer first gets all that they have.
  The set counts once the threshold of the old one endorsed it: each keeper endorses one successor at most, if it
  misses those that go as well. Whoever sees a proposal that may still win makes no other.
- A keeper that is proven two-faced (``JobState.two_faced``) is treated as gone from then on: it is not counted on, a
  set that does without it is endorsed, it is named again by nobody, and what it proposes holds up no other proposal.
  So three of eight cost a job the few seconds until its submitter names others in their place, and one or two are
  replaced by agreement.
- A keeper that endorses nothing, while more than half of them have endorsed results for a minute that become no more
  final for it, is not counted on by the submitter either, nor asked again for the job (``endorsers.py``).
- Where results are checked and not compared, keepers that did not hear of each other may come to stand by different
  results of a unit, so that none can become final. Then the same keepers begin a new view, in either of these ways.

So no keeper is left out because of a partition that leaves its submitter without anybody, nor by keepers of which
fewer than the threshold see each other. A submitter that still sees some, too few, does go on with these and others;
what the rest decides meanwhile in the old view stays final.
"""

from collections.abc import Set
from dataclasses import dataclass, field
from random import Random

from sparkle_protocol.effects import Effects, Tick
from sparkle_protocol.facts import VIEWS_PER_GENERATION, Endorsements, Fact, FactCodec, KeeperSet, Signer
from sparkle_protocol.ids import FactId, JobId, PeerId, key_from_peer_id
from sparkle_protocol.work.endorsers import Endorsers
from sparkle_protocol.work.fairness import Weigh, equal_weight
from sparkle_protocol.work.judging import CheckResult
from sparkle_protocol.work.keeper import Keeper
from sparkle_protocol.work.kept_job import KeptJob
from sparkle_protocol.work.lease import SECOND_NS
from sparkle_protocol.work.placement import (
    FEWEST_DECIDING,
    MAX_JOB_KEEPERS,
    Candidate,
    choose_keepers,
    primaries,
    threshold,
)
from sparkle_protocol.work.proposals import Proposals
from sparkle_protocol.work.publishing import with_submitter
from sparkle_protocol.work.rules import PRODUCTION, Rules
from sparkle_protocol.work.views import View, next_view

TEND_NS = 5 * SECOND_NS
GROW_NS = 10 * SECOND_NS
RECOVER_NS = 10 * SECOND_NS
REPLACE_NS = 120 * SECOND_NS
REJOIN_NS = 60 * SECOND_NS  # for the others to be connected again, after we had no connection at all
ALONE_NS = 300 * SECOND_NS  # until a submitter without a connection goes on with a job of a handful of peers
RENEW_NS = 30 * SECOND_NS  # for a view's keepers to stand by the same results
NEXT_NS = 60 * SECOND_NS  # until the next keeper proposes a set if the first does not
LOOK_NS = 3 * SECOND_NS  # for other proposals to turn up before one is endorsed
PENDING_NS = 60 * SECOND_NS  # for a proposal to be agreed to before there may be another
MAX_STEPS = 32  # agreed sets after the submitter's own word; and, as each is shown to every worker,
MAX_PROOF = 48  # the facts that prove them


@dataclass(slots=True)
class _Care:
    """What is remembered about the keepers of one job."""

    view: int | None = None
    changed_ns: int = 0  # when the view last changed
    away: set[PeerId] = field(default_factory=set)  # keepers that are, as was told
    short_ns: int | None = None  # since when too few can be counted on
    whole_ns: int | None = None  # when there last were enough again
    could_ns: int | None = None  # since when we could propose a set
    seen_ns: dict[FactId, int] = field(default_factory=dict)  # proposals to follow the view
    endorsers: Endorsers = field(default_factory=Endorsers)


class Succession(Keeper):
    """A keeper that sees to it that its jobs stay kept."""

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
        self._tend_ns: int | None = None
        self._cares: dict[JobId, _Care] = {}
        self._alone_ns: int | None = None  # since when there is no connection at all
        self._joined_ns: int | None = None  # since when there has been one

    def handle(self, event: object, now_ns: int) -> Effects:
        """React to an event."""
        if isinstance(event, Tick) and self._tend_ns is not None and now_ns >= self._tend_ns:
            self._tend_ns = None
            self._note_connections(now_ns)
            for job in self._open():
                self._tend(job, now_ns)
        if self._tend_ns is None and self._open():
            self._tend_ns = now_ns + int(TEND_NS * self._rng.uniform(0.8, 1.2))
        effects = super().handle(event, now_ns)
        self._note_connections(now_ns)
        return effects

    def next_deadline(self) -> int | None:
        """When ``Tick`` is due."""
        times = (super().next_deadline(), self._tend_ns if self._open() else None)
        return min((time for time in times if time is not None), default=None)

    def _note_connections(self, now_ns: int) -> None:
        if any(peer != self.me for peer in self._peers):
            self._alone_ns = None
            self._joined_ns = now_ns if self._joined_ns is None else self._joined_ns
        else:
            self._joined_ns = None
            self._alone_ns = now_ns if self._alone_ns is None else self._alone_ns

    def _care_of(self, job: KeptJob) -> _Care:
        return self._cares.setdefault(job.state.id, _Care())

    def _forget(self, job_id: JobId) -> None:
        super()._forget(job_id)
        self._cares.pop(job_id, None)

    def _after_news(self, job: KeptJob, now_ns: int) -> None:
        view = job.state.view
        if view is not None and view.number != self._care_of(job).view:
            self._view_changed(job, "agreed", now_ns)
        self._consider_successors(job, now_ns)
        super()._after_news(job, now_ns)

    def _view_changed(self, job: KeptJob, reason: str, now_ns: int) -> None:
        """A new set keeps the job: talk to those in it, from the start to those who are new."""
        view = job.state.view
        if view is None:
            return
        before = self._care_of(job)
        self._cares[job.state.id] = _Care(view.number, now_ns, before.away, endorsers=before.endorsers)
        self._invitations.close(job.state.id)
        for peer in self.partners(job):
            self.presence.expect(peer, now_ns)
        self._channels.drop(job.state.id, keep=self.partners(job))
        if before.view is not None:
            job.moved(now_ns)
            for peer in self.partners(job):
                self._channels.to(job.state.id, peer).synced = False
            self._conclude(job, now_ns)
            self._notify(
                "keepers_changed", job=job.state.id.hex(), view=view.number, keepers=len(view.keys), reason=reason
            )
        elif job.mine:  # what came up before there was anybody to tell
            self._pass_on(job, [fact for fact in job.state.facts() if fact.id != job.state.spec_fact.id], self.me)
        self._beat_soon(now_ns)
        self._set_duty(job, now_ns)
        if not job.mine and not job.outcome:
            alone = self.presence.away(job.state.submitter, now_ns)
            self._out += self._inputs.hold(job.state, self.quota.sizes, alone=alone)  # others may be asked for them
            self._tell_of_inputs(job, now_ns)

    def _set_duty(self, job: KeptJob, now_ns: int) -> None:
        super()._set_duty(job, now_ns)
        if job.outcome:  # nobody will keep it but those who do
            for peer in self._invitations.of(job.state.id):
                self._channels.drop_one(job.state.id, peer)
            self._invitations.close(job.state.id)

    # --- looking after ------------------------------------------------------------------------------------

    def _tend(self, job: KeptJob, now_ns: int) -> None:
        view = job.state.view
        if view is None or job.outcome:
            return
        away = {peer for peer in view.keepers if self.presence.away(peer, now_ns)}
        self._note_away(job, away)
        if job.mine and not view.certifying:
            self._grow(job, view, away, now_ns)
        elif view.certifying:
            proposals = Proposals(job.state, view)
            if job.mine:
                self._note_silent(job, view, now_ns)
            self._count_on(job, view, away, proposals, now_ns)
            if self._care_of(job).short_ns is None:
                self._replace(job, view, away, proposals, now_ns)
            elif job.mine:
                self._recover(job, view, away, proposals, now_ns)
        self._consider_successors(job, now_ns)
        for peer in self._invitations.dismiss(job.state.id, now_ns):
            self._channels.drop_one(job.state.id, peer)

    def _note_away(self, job: KeptJob, away: set[PeerId]) -> None:
        """Tell who went and who is back; of those who were replaced meanwhile nothing is told any more."""
        care = self._care_of(job)
        for peer in sorted(away - care.away):
            self._notify("keeper_away", job=job.state.id.hex(), peer=peer)
        for peer in sorted((care.away - away).intersection(self.partners(job))):
            self._notify("keeper_back", job=job.state.id.hex(), peer=peer)
        care.away = away

    def _note_silent(self, job: KeptJob, view: View, now_ns: int) -> None:
        found = self._care_of(job).endorsers.look(job.state, view, job.supported_units(), self.me, now_ns)
        for peer in sorted(found):
            reason = "for a minute it has endorsed no result that others did"
            self._notify("keeper_refused", job=job.state.id.hex(), peer=peer, reason=reason)

    def _unfit(self, job: KeptJob) -> Set[PeerId]:
        """Who is not counted on as a keeper, nor asked to be one."""
        return self._false(job) | self._care_of(job).endorsers.silent

    def _count_on(self, job: KeptJob, view: View, away: set[PeerId], proposals: Proposals, now_ns: int) -> None:
        """See whether enough keepers are there that agreed to no other set, so that they can decide."""
        care = self._care_of(job)
        if len(set(view.keepers) - away - proposals.bound - self._unfit(job)) < view.threshold:
            care.short_ns = now_ns if care.short_ns is None else care.short_ns
        elif care.short_ns is not None:  # they may have agreed to something without us
            care.short_ns, care.whole_ns = None, now_ns
            for peer in self.partners(job):
                self._channels.to(job.state.id, peer).synced = False

    def _false(self, job: KeptJob) -> Set[PeerId]:
        """Others that signed for two results: nothing good comes of having them as keepers."""
        return job.state.known_two_faced - {self.me}

    def _others(self, job: KeptJob, view: View, now_ns: int) -> list[Candidate]:
        """Connected peers that are no keepers and may be asked to be."""
        left_out = self._invitations.left_out(job.state.id, now_ns) | self._unfit(job)
        return [
            Candidate(peer, tuple(at))
            for peer, at in self._peers.items()
            if not view.holds(peer) and peer != job.state.submitter and peer not in left_out
        ]

    def _grow(self, job: KeptJob, view: View, away: set[PeerId], now_ns: int) -> None:
        """Few keep the job: let more, now that they are here, and do without those that are gone."""
        if now_ns - self._care_of(job).changed_ns < GROW_NS:
            return
        stay = [peer for peer in view.keepers if peer != self.me and peer not in away | self._unfit(job)]
        _, ready = self._invite(job, view, MAX_JOB_KEEPERS - len(stay), now_ns)
        if ready:
            self._name(job, with_submitter([*stay, *ready], self.me), "grown", now_ns)

    def _recover(self, job: KeptJob, view: View, away: set[PeerId], proposals: Proposals, now_ns: int) -> None:
        """Too few can be counted on: name others, unless it may be us who are cut off."""
        care = self._care_of(job)
        if self._alone_ns is not None:
            care.short_ns = now_ns
            if now_ns - self._alone_ns >= ALONE_NS and not _had_four_others(job):
                self._name(job, [self.me], "recovered", now_ns)
            return
        short_ns = now_ns - (care.short_ns if care.short_ns is not None else now_ns)
        there = [peer for peer in view.keepers if peer not in away and peer not in self._unfit(job)]
        lost = len(there) < view.threshold  # else they agreed to different sets, or to one too slowly
        stay = [peer for peer in there if peer != self.me]
        pending, ready = self._invite(job, view, MAX_JOB_KEEPERS - len(stay), now_ns)
        if lost:
            waits = short_ns < RECOVER_NS or (pending and short_ns < 2 * RECOVER_NS) or self._may_be_cut(away, now_ns)
        else:
            waits = not proposals.frozen and short_ns < PENDING_NS
        if not waits and (stay or ready or self._unfit(job) & set(view.keepers)):
            self._name(job, with_submitter([*stay, *ready], self.me), "recovered", now_ns)

    def _may_be_cut(self, away: set[PeerId], now_ns: int) -> bool:
        """We had no connection a while ago, and some have not been heard of since: they may still be coming."""
        joined_ns = self._joined_ns
        if joined_ns is None or now_ns - joined_ns >= REJOIN_NS:
            return joined_ns is None
        return any((self.presence.away_since(peer, now_ns) or 0) <= joined_ns for peer in away)

    # --- proposing ----------------------------------------------------------------------------------------

    def _replace(self, job: KeptJob, view: View, away: set[PeerId], proposals: Proposals, now_ns: int) -> None:
        """Have keepers that are gone replaced, if it is for us to propose that."""
        care = self._care_of(job)
        renew = job.state.checked and now_ns - care.changed_ns >= RENEW_NS and job.state.held_up
        if job.mine and (renew or self._is_far_from_own_word(job)):
            self._name(job, list(view.keepers), "renewed", now_ns)
            return
        gone = self._gone(job, view, now_ns)
        others = self._others(job, view, now_ns)
        serves_itself = job.mine and not others and not view.holds(self.me)
        replace = bool(gone) and (bool(others) or serves_itself)
        if not (replace or renew) or not self._may_propose(job, view, proposals, now_ns):
            care.could_ns = None
            return
        care.could_ns = now_ns if care.could_ns is None else care.could_ns
        if now_ns - care.could_ns < NEXT_NS * self._turn(job, view, gone):
            return
        room = MAX_JOB_KEEPERS - len(view.keepers) + len(gone)
        ready = [self.me] if serves_itself else self._invite(job, view, room, now_ns)[1] if replace else []
        if ready or renew:
            stay = [peer for peer in view.keepers if peer not in gone[: len(ready)]]
            keys = [key_from_peer_id(peer) for peer in [*stay, *ready][:MAX_JOB_KEEPERS]]
            number = next_view(view.number, by_submitter=False)
            self._state(job, KeeperSet(job.state.id, number, keys, threshold(len(keys)), bytes(view.fact.id)))

    def _may_propose(self, job: KeptJob, view: View, proposals: Proposals, now_ns: int) -> bool:
        """The submitter proposes, or while it is away a keeper; nobody beside a proposal that may still win."""
        care = self._care_of(job)
        if (view.number + 1) % VIEWS_PER_GENERATION == 0:
            return False
        if care.whole_ns is not None and now_ns - care.whole_ns < NEXT_NS // 3:  # what others proposed comes first
            return False
        if not job.mine and (not view.holds(self.me) or not self.presence.away(job.state.submitter, now_ns)):
            return False
        if self.me in proposals.bound:
            return False
        return not any(
            proposals.can_win(one)
            and (self._is_young(job, fact, now_ns) or self._is_sound(job, proposals, one, now_ns))
            for one, fact in proposals.facts.items()
        )

    def _is_young(self, job: KeptJob, proposal: Fact, now_ns: int) -> bool:
        """A proposal may still be agreed to, as it came a moment ago and its author is to be believed."""
        seen_ns = self._care_of(job).seen_ns.get(proposal.id, now_ns)
        return proposal.author not in self._false(job) and now_ns - seen_ns < PENDING_NS

    def _turn(self, job: KeptJob, view: View, gone: list[PeerId]) -> int:
        """How many come before us: nobody before the submitter, else those first in the order of range 0."""
        if job.mine:
            return 0
        keys = [key for key, peer in zip(view.keys, view.keepers, strict=True) if peer not in gone]
        return primaries(job.state.id, 0, keys).index(key_from_peer_id(self.me))

    def _is_far_from_own_word(self, job: KeptJob) -> bool:
        """The submitter's own word, by which the view counts, is many agreed sets ago."""
        steps = job.state.views.agreed
        return steps > MAX_STEPS or (steps > 0 and len(job.state.view_facts()) > MAX_PROOF)

    def _gone(self, job: KeptJob, view: View, now_ns: int) -> list[PeerId]:
        """Keepers that are two-faced, and then those that have been away for long."""
        found = [peer for peer in view.keepers if peer in self._false(job)]
        for peer in view.keepers:
            if peer in found:
                continue
            since_ns = self.presence.away_since(peer, now_ns)
            if since_ns is not None and now_ns - since_ns >= REPLACE_NS:
                found.append(peer)
        return found

    def _invite(self, job: KeptJob, view: View, room: int, now_ns: int) -> tuple[list[PeerId], list[PeerId]]:
        """Give peers everything that a keeper has; returns those that are still at it, and those that have it all.

        Guests stay as long as they are here. Who refuses, or is too slow, makes room for the next.
        """
        name = job.state.id
        others = {one.peer: one for one in self._others(job, view, now_ns)}
        guests = [peer for peer in self._invitations.of(name) if peer in others][:room]
        new = choose_keepers(name, [one for peer, one in others.items() if peer not in guests], room - len(guests))
        pending: list[PeerId] = []
        ready: list[PeerId] = []
        for peer in (*guests, *new):
            channel = self._channels.to(name, peer)
            if self._invitations.want(name, peer, now_ns):
                self._channels.start_from_nothing(channel, job, now_ns)
            elif channel.refused or self._invitations.is_slow(name, peer, now_ns):
                self._invitations.give_up(name, peer, now_ns)
                self._channels.drop_one(name, peer)
                continue
            self._ask_guest(channel, job, now_ns)
            (ready if channel.caught_up and not channel.refused else pending).append(peer)
        return pending, ready

    def _name(self, job: KeptJob, peers: list[PeerId], reason: str, now_ns: int) -> None:
        """Sign by our own word who keeps our job, unless they do already and agreed to no other set."""
        view = job.state.view
        if view is None or (not view.certifying and set(peers) == set(view.keepers)):
            return
        keys = [key_from_peer_id(peer) for peer in peers]
        number = next_view(view.number, by_submitter=True)
        self._state(job, KeeperSet(job.state.id, number, keys, threshold(len(keys)), b""))
        self._view_changed(job, reason, now_ns)

    # --- agreeing -----------------------------------------------------------------------------------------

    def _consider_successors(self, job: KeptJob, now_ns: int) -> None:
        """Endorse a successor of our view if it only replaces keepers that we miss too.

        Proposals are passed on when they are first seen, and looked at for a moment: whoever knows the same ones
        then endorses the same one.
        """
        view = job.state.view
        if view is None or not view.certifying or not job.state.views.successors(view):
            return
        if not (job.mine or view.holds(self.me)):
            return
        proposals, care = Proposals(job.state, view), self._care_of(job)
        for one, fact in proposals.facts.items():
            if one not in care.seen_ns:
                care.seen_ns[one] = now_ns
                self._pass_on(job, [fact], fact.author)
        if not view.holds(self.me) or self.me in proposals.bound:
            return
        sound = [
            one
            for one in proposals.facts
            if now_ns - care.seen_ns[one] >= LOOK_NS
            and proposals.can_win(one)
            and self._is_sound(job, proposals, one, now_ns)
        ]
        best = proposals.best(sound)
        if best is not None:
            self._state(job, Endorsements(job.state.id, [bytes(best)]))
            newest = job.state.view
            if newest is not None and newest.number != view.number:
                self._view_changed(job, "agreed", now_ns)

    def _is_sound(self, job: KeptJob, proposals: Proposals, one: FactId, now_ns: int) -> bool:
        """A proposal does without nobody that is there for us, but those who are two-faced."""
        if proposals.renews(one):
            return True
        leavers = proposals.leavers(one)
        return bool(leavers) and all(self.presence.away(peer, now_ns) for peer in leavers - self._false(job))


def _had_four_others(job: KeptJob) -> bool:
    """Four peers other than the submitter kept the job together at some time."""
    me = job.state.submitter
    return any(len(set(view.keepers) - {me}) >= FEWEST_DECIDING for view in job.state.views.counting())
