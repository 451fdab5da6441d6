"""Who keeps a job from now on, when keepers are lost or peers come that could be.

- With fewer than four keepers the submitter alone decides, so it adds peers as they come (``GROW_NS`` apart).
- When fewer keepers than the threshold have been there for ``RECOVER_NS``, the submitter names a new set by itself.
  Units not final begin a new epoch in it, as in every view.
- When a keeper has been away for ``REPLACE_NS`` and another peer can take its place, the submitter, or the first
  keeper that is there while the submitter is away, proposes a set with the one replaced. The newcomer first gets all
  facts and results. The set counts once the threshold of the old one endorsed it: each keeper endorses one successor
  at most, if it misses the ones that go as well. A partition only makes keepers wait: no set shrinks because of one.
"""

from sparkle_protocol.effects import Effects, Tick
from sparkle_protocol.facts import VIEWS_PER_GENERATION, Endorsements, Fact, KeeperSet
from sparkle_protocol.ids import FactId, JobId, PeerId, key_from_peer_id, peer_id_from_key
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
from sparkle_protocol.work.publishing import with_submitter
from sparkle_protocol.work.views import View, next_view

TEND_NS = 5 * SECOND_NS
GROW_NS = 10 * SECOND_NS
RECOVER_NS = 30 * SECOND_NS
REPLACE_NS = 120 * SECOND_NS
INVITE_NS = 120 * SECOND_NS  # for a newcomer to get everything


class Succession(Keeper):
    """A keeper that sees to it that its jobs stay kept."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._tend_ns: int | None = None
        self._seen_views: dict[JobId, int] = {}
        self._away: dict[JobId, set[PeerId]] = {}  # keepers of each job that are, as was told
        self._changed_ns: dict[JobId, int] = {}  # when the view last changed
        self._short_since: dict[JobId, int] = {}  # fewer keepers than the threshold are there
        self._invited: dict[JobId, dict[PeerId, int]] = {}  # peers that get everything, to be keepers soon

    def handle(self, event: object, now_ns: int) -> Effects:
        """React to an event."""
        if isinstance(event, Tick) and self._tend_ns is not None and now_ns >= self._tend_ns:
            self._tend_ns = None
            for job in self._open():
                self._tend(job, now_ns)
        if self._tend_ns is None and any(True for _ in self._open()):
            self._tend_ns = now_ns + int(TEND_NS * self._rng.uniform(0.8, 1.2))
        return super().handle(event, now_ns)

    def next_deadline(self) -> int | None:
        """When ``Tick`` is due."""
        times = (super().next_deadline(), self._tend_ns)
        return min((time for time in times if time is not None), default=None)

    def _after_news(self, job: KeptJob, now_ns: int) -> None:
        view = job.state.view
        if view is not None and view.number != self._seen_views.get(job.state.id):
            self._view_changed(job, "agreed", now_ns)
        self._consider_successors(job, now_ns)
        super()._after_news(job, now_ns)

    def _view_changed(self, job: KeptJob, reason: str, now_ns: int) -> None:
        """A new set keeps the job: talk to those in it, from the start to those who are new."""
        view = job.state.view
        if view is None:
            return
        first = job.state.id not in self._seen_views
        self._seen_views[job.state.id] = view.number
        self._changed_ns[job.state.id] = now_ns
        self._short_since.pop(job.state.id, None)
        self._invited.pop(job.state.id, None)
        for peer in self.partners(job):
            self.presence.expect(peer, now_ns)
        self._channels.drop(job.state.id, keep=self.partners(job))
        if not first:
            job.moved(now_ns)
            for peer in self.partners(job):
                self._channels.to(job.state.id, peer).synced = False
            self._conclude(job, now_ns)
            self._notify(
                "keepers_changed", job=job.state.id.hex(), view=view.number, keepers=len(view.keys), reason=reason
            )
        self._beat_soon(now_ns)
        self._set_duty(job, now_ns)

    # --- proposing ----------------------------------------------------------------------------------------

    def _tend(self, job: KeptJob, now_ns: int) -> None:
        view = job.state.view
        if view is None or job.outcome:
            return
        away = {peer for peer in view.keepers if self.presence.away(peer, now_ns)}
        self._note_away(job, away)
        if job.mine and not view.certifying:
            self._grow(job, view, away, now_ns)
        elif job.mine and len(view.keepers) - len(away) < view.threshold:
            since_ns = self._short_since.setdefault(job.state.id, now_ns)
            if now_ns - since_ns >= RECOVER_NS:
                self._recover(job, view, away, now_ns)
        else:
            self._short_since.pop(job.state.id, None)
            if view.certifying and self._proposes(job, view, away, now_ns):
                self._replace(job, view, now_ns)
        self._consider_successors(job, now_ns)

    def _note_away(self, job: KeptJob, away: set[PeerId]) -> None:
        """Tell who went and who is back."""
        before = self._away.get(job.state.id, set())
        for peer in sorted(away - before):
            self._notify("keeper_away", job=job.state.id.hex(), peer=peer)
        for peer in sorted(before - away):
            self._notify("keeper_back", job=job.state.id.hex(), peer=peer)
        self._away[job.state.id] = away

    def _others(self, view: View) -> list[Candidate]:
        """Connected peers that are no keepers."""
        return [Candidate(peer, tuple(at)) for peer, at in self._peers.items() if not view.holds(peer)]

    def _grow(self, job: KeptJob, view: View, away: set[PeerId], now_ns: int) -> None:
        """Few keep the job: let more, now that they are here, and do without those that are gone."""
        others = self._others(view)
        if not others or now_ns - self._changed_ns.get(job.state.id, 0) < GROW_NS:
            return
        stay = [peer for peer in view.keepers if peer != self.me and peer not in away]
        chosen = choose_keepers(job.state.id, others, MAX_JOB_KEEPERS - len(stay))
        ready = self._invite(job, chosen, now_ns)
        if ready:
            self._succeed(job, with_submitter([*stay, *ready], self.me), by_submitter=True, now_ns=now_ns)

    def _recover(self, job: KeptJob, view: View, away: set[PeerId], now_ns: int) -> None:
        stay = [peer for peer in view.keepers if peer != self.me and peer not in away]
        chosen = choose_keepers(job.state.id, self._others(view), MAX_JOB_KEEPERS - len(stay))
        ready = self._invite(job, chosen, now_ns)
        if len(ready) == len(chosen) or now_ns - self._short_since[job.state.id] >= 2 * RECOVER_NS:
            self._succeed(job, with_submitter([*stay, *ready], self.me), by_submitter=True, now_ns=now_ns)

    def _proposes(self, job: KeptJob, view: View, away: set[PeerId], now_ns: int) -> bool:
        """It is for us to propose a successor: the submitter, or the first keeper of range 0 that is there."""
        if job.mine:
            return True
        if not view.holds(self.me) or not self.presence.away(job.state.submitter, now_ns):
            return False
        there = [key for key, peer in zip(view.keys, view.keepers, strict=True) if peer not in away]
        return primaries(job.state.id, 0, there)[:1] == (key_from_peer_id(self.me),)

    def _gone(self, view: View, now_ns: int) -> list[PeerId]:
        """Keepers that have been away for long."""
        found = []
        for peer in view.keepers:
            since_ns = self.presence.away_since(peer, now_ns)
            if since_ns is not None and now_ns - since_ns >= REPLACE_NS:
                found.append(peer)
        return found

    def _replace(self, job: KeptJob, view: View, now_ns: int) -> None:
        gone = self._gone(view, now_ns)
        room = MAX_JOB_KEEPERS - len(view.keepers) + len(gone)
        if not gone or self._bound(job) or (view.number + 1) % VIEWS_PER_GENERATION == 0:
            return
        chosen = choose_keepers(job.state.id, self._others(view), room)
        if job.mine and not chosen and not view.holds(self.me):
            ready: list[PeerId] = [self.me]
        else:
            ready = self._invite(job, [p for p in chosen if p != job.state.submitter], now_ns)
        if ready:
            leave = gone[: len(ready)]
            stay = [peer for peer in view.keepers if peer not in leave]
            self._succeed(job, [*stay, *ready][:MAX_JOB_KEEPERS], by_submitter=False, now_ns=now_ns)

    def _invite(self, job: KeptJob, chosen: tuple[PeerId, ...] | list[PeerId], now_ns: int) -> list[PeerId]:
        """Give peers everything that a keeper has; returns those that have it."""
        invited = self._invited.setdefault(job.state.id, {})
        ready: list[PeerId] = []
        for peer in chosen:
            channel = self._channels.to(job.state.id, peer)
            if peer not in invited:
                invited[peer] = now_ns
                self._channels.start_from_nothing(channel, job, now_ns)
            elif channel.idle and not channel.refused and now_ns - invited[peer] < INVITE_NS:
                ready.append(peer)
        return ready

    def _succeed(self, job: KeptJob, peers: list[PeerId], *, by_submitter: bool, now_ns: int) -> None:
        view = job.state.view
        if view is None or set(peers) == set(view.keepers):
            return
        keys = [key_from_peer_id(peer) for peer in peers]
        number = next_view(view.number, by_submitter=by_submitter)
        previous = b"" if by_submitter else bytes(view.fact.id)
        self._state(job, KeeperSet(job.state.id, number, keys, threshold(len(keys)), previous))
        if by_submitter:
            self._view_changed(job, "recovered" if view.certifying else "grown", now_ns)

    # --- agreeing -----------------------------------------------------------------------------------------

    def _consider_successors(self, job: KeptJob, now_ns: int) -> None:
        """Endorse a successor of our view if it only replaces keepers that we miss too."""
        view = job.state.view
        if view is None or not view.certifying or not view.holds(self.me) or self._bound(job):
            return
        for fact in job.state.views.successors(view):
            if self._is_sound(view, fact, now_ns):
                self._state(job, Endorsements(job.state.id, [bytes(FactId(fact.id))]))
                newest = job.state.view
                if newest is not None and newest.number != view.number:
                    self._view_changed(job, "agreed", now_ns)
                return

    def _is_sound(self, view: View, fact: Fact, now_ns: int) -> bool:
        proposed = fact.payload
        if not isinstance(proposed, KeeperSet) or len(proposed.keys) < max(FEWEST_DECIDING, len(view.keys)):
            return False
        named = {peer_id_from_key(key) for key in proposed.keys}
        left = set(view.keepers) - named
        return bool(left) and all(self.presence.away(peer, now_ns) for peer in left)
