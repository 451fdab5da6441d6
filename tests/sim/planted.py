"""Errors planted into the production cores, one at a time, for the checkers to find."""

from collections.abc import Callable, Iterable, Mapping, Set

import pytest

from sparkle_protocol.effects import Effects, PeerDown, Record, StoreCommit, StoreFact, StoreResult
from sparkle_protocol.facts import Endorsements, Fact, Policy, Verdicts
from sparkle_protocol.ids import PeerId, ResultHash
from sparkle_protocol.trust.coin import Coin
from sparkle_protocol.work import rules
from sparkle_protocol.work.keeper import Keeper
from sparkle_protocol.work.kept_job import KeptJob
from sparkle_protocol.work.quorum import Decision, decide
from sparkle_protocol.work.shelf import Shelf
from sparkle_protocol.work.views import View
from sparkle_protocol.work.worker import WorkerAgent

Plant = Callable[[pytest.MonkeyPatch], None]
Votes = Mapping[PeerId, ResultHash]


def accepts_without_quorum(patch: pytest.MonkeyPatch) -> None:
    """The first result that is shown is accepted."""

    def first(policy: Policy, votes: Votes, trusted: Set[PeerId]) -> Decision:
        return Decision(votes[min(votes)], len(votes)) if votes else Decision(None, 1)

    patch.setattr(rules, "decide", first)


def counts_a_vote_twice(patch: pytest.MonkeyPatch) -> None:
    """What one worker says counts as if two had said it."""

    def doubled(policy: Policy, votes: Votes, trusted: Set[PeerId]) -> Decision:
        twice = {PeerId(peer + again): given for peer, given in votes.items() for again in ("", "'")}
        found = decide(policy, twice, trusted)
        return Decision(found.accepted, -(-found.wanted // 2), found.dead)

    patch.setattr(rules, "decide", doubled)


def certifies_by_few(patch: pytest.MonkeyPatch) -> None:
    """A quarter of the keepers is enough."""

    def suffices(self: View, supporters: Iterable[PeerId], submitter: PeerId) -> bool:
        if not self.certifying:
            return submitter in supporters
        return 4 * sum(1 for peer in supporters if peer in self.keepers) >= len(self.keepers)

    patch.setattr(View, "suffices", suffices)


def loses_commits_on_restart(patch: pytest.MonkeyPatch) -> None:
    """A worker that was killed knows nothing of what it committed to."""
    patch.setattr(WorkerAgent, "restore", lambda *_, **__: ())


def commits_before_it_stores(patch: pytest.MonkeyPatch) -> None:
    """A commit leaves though it was not put on disk."""
    store = Shelf.store

    def less(self: Shelf, *arguments: object) -> list[Record]:
        return [one for one in store(self, *arguments) if not isinstance(one, StoreCommit)]  # type: ignore[arg-type]

    patch.setattr(Shelf, "store", less)


def forgets_verdicts_on_hand_off(patch: pytest.MonkeyPatch) -> None:
    """A keeper does not store the verdicts that others hand to it."""
    _forget_of_what_is_learnt(
        patch, lambda one: isinstance(one, StoreFact) and isinstance(one.fact.payload, Verdicts)
    )


def forgets_results_on_hand_off(patch: pytest.MonkeyPatch) -> None:
    """A keeper does not store the results that others hand to it."""
    _forget_of_what_is_learnt(patch, lambda one: isinstance(one, StoreResult))


def _forget_of_what_is_learnt(patch: pytest.MonkeyPatch, forgets: Callable[[Record], bool]) -> None:
    learn = KeptJob.learn

    def forgetful(self: KeptJob, facts: Iterable[Fact], results: Iterable[bytes], now_ns: int) -> list[Fact]:
        before = len(self.records)
        new = learn(self, facts, results, now_ns)
        self.records[before:] = [one for one in self.records[before:] if not forgets(one)]
        return new

    patch.setattr(KeptJob, "learn", forgetful)


def does_not_hear_keepers(patch: pytest.MonkeyPatch) -> None:
    """A keeper pays no attention to what others stand by, unless the job is its own."""
    take_in = KeptJob._take_in

    def deaf(self: KeptJob, fact: Fact, *rest: object) -> bool:
        said = isinstance(fact.payload, Endorsements) and fact.payload.range >= 0
        return (said and not self.mine) or take_in(self, fact, *rest)  # type: ignore[arg-type]

    patch.setattr(KeptJob, "_take_in", deaf)


def never_asks_for_results(patch: pytest.MonkeyPatch) -> None:
    """Workers that committed are not asked to show what they have."""
    patch.setattr(KeptJob, "_ask_reveals", lambda *_: None)


def abandons_a_lost_submitters_jobs(patch: pytest.MonkeyPatch) -> None:
    """A keeper takes the submitter's leave for its word that it needs the job no longer."""
    handle = Keeper.handle

    def faithless(self: Keeper, event: object, now_ns: int) -> Effects:
        if isinstance(event, PeerDown):
            for job in [job for job, kept in self.kept.items() if kept.state.submitter == event.peer]:
                self._let_go(job)
                self._released[job] = None
        return handle(self, event, now_ns)

    patch.setattr(Keeper, "handle", faithless)


def audits_nobody(patch: pytest.MonkeyPatch) -> None:
    """Whoever is known is believed, and no coin falls."""
    patch.setattr(Coin, "is_audited", lambda *_: False)
