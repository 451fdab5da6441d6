"""``copy``: computes nothing, and hands in what it sees of others, which is what passes through it as a keeper.

Of a share ``rate`` of its units it states another worker's *commit* as its own, and later that one's opening. Of the
others it waits until a *result* was shown, and commits to that by itself. What it sees nothing of it gives back.

What stops it: a commit contains its worker's key, so that the opening of another's opens nothing: that breaks a rule,
and whoever does it five times is banned. Results are shown only after all workers that are wanted so far have
committed, so that there is mostly nothing to copy; a copy that comes later is right when what it copied is, and
decides nothing but between two that disagree.
"""

from collections import OrderedDict
from dataclasses import replace
from typing import ClassVar, TypeVar

import msgspec

from sparkle_protocol import effects as fx
from sparkle_protocol import messages
from sparkle_protocol.errors import RemoteProtocolError
from sparkle_protocol.facts import CommitItem, Commits, RevealItem, Reveals
from sparkle_protocol.ids import JobId, hash_result
from sparkle_sim.adversaries.base import Adversary
from sparkle_sim.computing import result_size
from sparkle_sim.requests import SUBMITTER, WORKER

PATIENCE_S = 20.0
MAX_SEEN = 8192  # of each kind; the first seen is forgotten

Unit = tuple[JobId, int]
K = TypeVar("K")
T = TypeVar("T")


class Copy(Adversary):
    """A pupil that looks at its neighbours' sheets."""

    kind: ClassVar[str] = "copy"

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._commits: OrderedDict[Unit, bytes] = OrderedDict()
        self._openings: OrderedDict[Unit, tuple[bytes, bytes]] = OrderedDict()  # result's name and nonce
        self._results: OrderedDict[bytes, bytes] = OrderedDict()  # by name
        self._waiting: dict[Unit, fx.Compute] = {}

    def begin(self) -> None:
        """What an earlier life waited for is gone."""
        self._waiting.clear()

    # --- what it sees -----------------------------------------------------------------------------------------

    def event(self, core: int, event: object) -> object | None:
        """Its keeper's core hears everything as well."""
        if core == SUBMITTER and isinstance(event, fx.Requested | fx.Replied):
            message = event.message
            if isinstance(message, messages.Push | messages.Report | messages.FetchReply):
                self._look_at(message)
        return event

    def _look_at(self, message: messages.Push | messages.Report | messages.FetchReply) -> None:
        for result in message.results:
            _remember(self._results, bytes(hash_result(result)), result)
        for raw in message.facts:
            try:
                fact = self.peer.world.codec.open(raw)
            except RemoteProtocolError:  # another adversary's nonsense
                continue
            payload = fact.payload
            if fact.author == self.peer.id or not isinstance(payload, Commits | Reveals):
                continue
            for item in payload.items:
                unit = (fact.job, item.unit)
                if isinstance(item, CommitItem):
                    _remember(self._commits, unit, item.commit)
                else:
                    _remember(self._openings, unit, (item.result_hash, item.nonce))
        for effect in list(self._waiting.values()):
            self._try(effect)

    # --- what it makes of it ----------------------------------------------------------------------------------

    def effects(self, core: int, effects: fx.Effects) -> fx.Effects:
        """Nothing is computed, and reports say what others said."""
        if core != WORKER:
            return effects
        return tuple(done for one in effects if (done := self._instead(one)) is not None)

    def _instead(self, effect: fx.Effect) -> fx.Effect | None:
        if isinstance(effect, fx.Compute):
            self._waiting[effect.job, effect.unit] = effect
            self.peer.later(PATIENCE_S, WORKER, fx.ComputeFailed(
                effect.job, effect.unit, effect.epoch, "refused", "nothing to copy", blame=False
            ))  # fmt: skip
            self._try(effect)
            return None
        if isinstance(effect, fx.StopCompute):
            self._waiting.pop((effect.job, effect.unit), None)
        elif isinstance(effect, fx.Send) and isinstance(effect.message, messages.Report):
            return replace(effect, message=self._as_others(effect.message))
        return effect

    def _try(self, effect: fx.Compute) -> None:
        """Have a result of a unit if there is anything to copy; its core forgets the failure that is to come."""
        unit = (effect.job, effect.unit)
        result = bytes(result_size(effect.spec)) if self._copies_commit(*unit) else None  # for its own core to see
        if not self.does(effect.job, effect.unit.to_bytes(4, "big")):
            result = self._results.get(self._openings.get(unit, (b"", b""))[0])
        if result is not None:
            del self._waiting[unit]
            self.peer.later(0.0, WORKER, fx.Computed(effect.job, effect.unit, effect.epoch, result, 0.1))

    def _copies_commit(self, job: JobId, unit: int) -> bool:
        return (job, unit) in self._commits and self.does(job, unit.to_bytes(4, "big"))

    def _as_others(self, report: messages.Report) -> messages.Report:
        job, results = JobId(report.job), list(report.results)
        facts: list[bytes] = []
        shown = 0
        for raw in report.facts:
            payload = self.peer.world.codec.open(raw).payload
            if isinstance(payload, Commits):
                items = [self._commit(job, item) for item in payload.items]
                raw = self.peer.sign(Commits(job, items)).raw
            elif isinstance(payload, Reveals):
                opened = [self._opening(job, item) for item in payload.items]
                raw = self.peer.sign(Reveals(job, opened)).raw
                for item in opened:
                    results[shown] = self._results.get(item.result_hash, results[shown])
                    shown += 1
            facts.append(raw)
        return msgspec.structs.replace(report, facts=facts, results=results)

    def _commit(self, job: JobId, item: CommitItem) -> CommitItem:
        if not self._copies_commit(job, item.unit):
            return item
        return CommitItem(item.unit, item.epoch, self._commits[job, item.unit])

    def _opening(self, job: JobId, item: RevealItem) -> RevealItem:
        name, nonce = self._openings.get((job, item.unit), (b"", b""))
        if not self._copies_commit(job, item.unit) or name not in self._results:
            return item
        return RevealItem(item.unit, item.epoch, name, nonce)


def _remember(seen: OrderedDict[K, T], key: K, value: T) -> None:
    """The first that is seen of a unit counts."""
    seen.setdefault(key, value)
    if len(seen) > MAX_SEEN:
        seen.popitem(last=False)
