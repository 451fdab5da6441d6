"""A job's state as a pure function of a grow-only set of signed facts.

Rules
-----
- Facts are only ever added. Two copies merge by union, in any order, any number of times, and then say the same.
- A fact counts by who signed it: keeper sets, verdicts, resets and cancels only from the submitter, leases only
  from a keeper of the newest view, commits, reveals and failures for their own author.
- A worker's single commit for a unit and epoch binds. Two different ones are proof of cheating and void its vote.
- A vote is a reveal that opens the author's binding commit. Only it counts for a quorum.
- A unit's epoch is the highest that the submitter's resets name; facts of other epochs do not count for it.
- That the job failed counts until a unit starts over that had not when it was stated; a cancellation counts for ever.
- A unit is final by the submitter's verdict in its epoch. Later verdicts may judge latecomers by the same result.
  Were there two results, that of the lowest fact id counts, so that all copies agree; ``conflicts`` names them.

What time decides (leases that ran out) is not here: it is the keeper's own business (``lease.py``).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from sparkle_protocol.errors import LocalProtocolError, RemoteProtocolError
from sparkle_protocol.facts import (
    Cancel,
    CommitItem,
    Commits,
    Fact,
    FailureItem,
    Failures,
    JobSpec,
    KeeperSet,
    LeaseItem,
    Leases,
    Payload,
    Reset,
    RevealItem,
    Reveals,
    VerdictItem,
    Verdicts,
    commitment,
)
from sparkle_protocol.ids import FactId, JobId, PeerId, ResultHash, key_from_peer_id, peer_id_from_key

Key = tuple[int, PeerId]  # (epoch, worker)


@dataclass(slots=True)
class UnitFacts:
    """What has been stated about one unit, by epoch and worker."""

    epoch: int = 0
    leased: dict[Key, set[PeerId]] = field(default_factory=dict)  # by which keepers
    commits: dict[Key, set[bytes]] = field(default_factory=dict)
    openings: dict[Key, set[tuple[bytes, bytes]]] = field(default_factory=dict)  # (result hash, nonce)
    failures: dict[Key, tuple[str, str]] = field(default_factory=dict)  # (code, text)
    resets: dict[int, str] = field(default_factory=dict)  # epoch that was opened -> reason
    verdicts: dict[int, dict[tuple[FactId, int], VerdictItem]] = field(default_factory=dict)  # (fact, place in it)
    votes: dict[PeerId, ResultHash] | None = None  # cache; None: to be worked out again


@dataclass(frozen=True, slots=True)
class Failed:
    """A worker's word that it could not compute a unit in an epoch."""

    epoch: int
    worker: PeerId
    code: str
    text: str


_NOTHING = UnitFacts()


def unit_epochs(payload: Payload) -> list[tuple[int, int]]:
    """The units, each with its epoch, that a fact speaks of."""
    if isinstance(payload, Reset):
        return [(payload.unit, payload.epoch)]
    if isinstance(payload, JobSpec | KeeperSet | Cancel):
        return []
    items: list[LeaseItem | CommitItem | RevealItem | VerdictItem | FailureItem] = [*payload.items]
    return [(item.unit, item.epoch) for item in items]


class JobState:
    """Everything known about one job. Build it from its spec, then ``add`` facts."""

    __slots__ = (
        "_cancels", "_facts", "_keeper_sets", "_units", "final_units", "id", "network", "restarts", "spec",
        "spec_fact", "submitter",
    )  # fmt: skip

    def __init__(self, spec_fact: Fact, network: str) -> None:
        if not isinstance(spec_fact.payload, JobSpec):
            raise LocalProtocolError("a job's state starts from its spec")
        self.id: JobId = spec_fact.job
        self.spec: JobSpec = spec_fact.payload
        self.submitter: PeerId = spec_fact.author
        self.network = network
        self._facts: dict[FactId, Fact] = {spec_fact.id: spec_fact}
        self.spec_fact = spec_fact
        self._keeper_sets: dict[int, dict[FactId, Fact]] = {}
        self._cancels: dict[FactId, Cancel] = {}
        self._units: dict[int, UnitFacts] = {}
        self.final_units: set[int] = set()
        self.restarts = 0  # sum of all units' epochs

    # --- the set ------------------------------------------------------------------------------------------

    def add(self, fact: Fact) -> bool:
        """Add a verified fact; False when it was known already.

        Raises:
            RemoteProtocolError: it belongs to another job, names a unit that the job lacks, or its author may
                not state such a thing.
        """
        if fact.id in self._facts:
            return False
        self._check(fact)
        self._facts[fact.id] = fact
        self._index(fact)
        return True

    def merge(self, facts: Iterable[Fact]) -> int:
        """Add many; returns how many were new."""
        return sum(self.add(fact) for fact in facts)

    def facts(self) -> Iterator[Fact]:
        """All facts, the spec first."""
        return iter(self._facts.values())

    def __len__(self) -> int:
        return len(self._facts)

    def _check(self, fact: Fact) -> None:
        payload = fact.payload
        if fact.job != self.id:
            raise RemoteProtocolError("a fact of another job")
        if isinstance(payload, KeeperSet | Verdicts | Reset | Cancel) and fact.author != self.submitter:
            raise RemoteProtocolError(f"only the submitter may state {type(payload).__name__}")
        if isinstance(payload, KeeperSet) and payload.threshold > len(payload.keys):
            raise RemoteProtocolError("a keeper set's threshold exceeds its size")
        if any(unit >= self.spec.units for unit, _ in unit_epochs(payload)):
            raise RemoteProtocolError(f"a fact names a unit beyond the job's {self.spec.units}")

    def _index(self, fact: Fact) -> None:
        payload = fact.payload
        if isinstance(payload, Leases | Commits | Reveals | Failures):
            self._index_work(fact.author, payload)
        elif isinstance(payload, Verdicts):
            for place, verdict in enumerate(payload.items):
                unit = self._touch(verdict.unit)
                unit.verdicts.setdefault(verdict.epoch, {})[fact.id, place] = verdict
                self._refresh_final(verdict.unit, unit)
        elif isinstance(payload, Reset):
            unit = self._touch(payload.unit)
            self.restarts += max(0, payload.epoch - unit.epoch)
            unit.epoch = max(unit.epoch, payload.epoch)
            unit.resets[payload.epoch] = min(unit.resets.get(payload.epoch, payload.reason), payload.reason)
            unit.votes = None
            self._refresh_final(payload.unit, unit)
        elif isinstance(payload, KeeperSet):
            self._keeper_sets.setdefault(payload.view, {})[fact.id] = fact
        elif isinstance(payload, Cancel):
            self._cancels[fact.id] = payload

    def _index_work(self, author: PeerId, payload: Leases | Commits | Reveals | Failures) -> None:
        if isinstance(payload, Leases):
            for lease in payload.items:
                holder = (lease.epoch, peer_id_from_key(lease.worker))
                self._touch(lease.unit).leased.setdefault(holder, set()).add(author)
        elif isinstance(payload, Commits):
            for commit in payload.items:
                unit = self._touch(commit.unit)
                unit.votes = None
                unit.commits.setdefault((commit.epoch, author), set()).add(commit.commit)
        elif isinstance(payload, Reveals):
            for reveal in payload.items:
                unit = self._touch(reveal.unit)
                unit.votes = None
                opening = (reveal.result_hash, reveal.nonce)
                unit.openings.setdefault((reveal.epoch, author), set()).add(opening)
        else:
            for failure in payload.items:
                known = self._touch(failure.unit).failures
                key = (failure.epoch, author)
                stated = (failure.code, failure.text)
                known[key] = min(known.get(key, stated), stated)

    def _touch(self, unit: int) -> UnitFacts:
        found = self._units.get(unit)
        if found is None:
            found = self._units[unit] = UnitFacts()
        return found

    def _refresh_final(self, index: int, unit: UnitFacts) -> None:
        if unit.verdicts.get(unit.epoch):
            self.final_units.add(index)
        else:
            self.final_units.discard(index)

    # --- what follows from it -----------------------------------------------------------------------------

    @property
    def cancel(self) -> Cancel | None:
        """The submitter's statement that it wants no further work, if one counts."""
        standing = [
            (cancel.failed, fact_id, cancel)
            for fact_id, cancel in self._cancels.items()
            if not cancel.failed or cancel.restarts >= self.restarts
        ]
        return min(standing)[2] if standing else None

    @property
    def keeper_fact(self) -> Fact | None:
        """The statement that names the keepers of the newest view."""
        if not self._keeper_sets:
            return None
        newest = self._keeper_sets[max(self._keeper_sets)]
        return newest[min(newest)]

    @property
    def keeper_set(self) -> KeeperSet | None:
        """The keepers of the newest view."""
        fact = self.keeper_fact
        return fact.payload if fact is not None and isinstance(fact.payload, KeeperSet) else None

    def is_keeper(self, peer: PeerId) -> bool:
        """``peer`` keeps the job in the newest view."""
        keepers = self.keeper_set
        return keepers is not None and key_from_peer_id(peer) in keepers.keys

    def epoch(self, unit: int) -> int:
        """The epoch that counts for a unit."""
        return self._units.get(unit, _NOTHING).epoch

    def touched_units(self) -> Iterator[int]:
        """Units about which anything was stated."""
        return iter(self._units)

    def leased(self, unit: int) -> frozenset[PeerId]:
        """Workers to which a keeper gave the unit in its epoch."""
        known = self._units.get(unit, _NOTHING)
        return frozenset(
            worker
            for (epoch, worker), keepers in known.leased.items()
            if epoch == known.epoch and any(self.is_keeper(keeper) for keeper in keepers)
        )

    def was_leased(self, unit: int, epoch: int, worker: PeerId) -> bool:
        """A keeper gave the unit to a worker in that epoch, whether or not it is the one that counts now."""
        keepers = self._units.get(unit, _NOTHING).leased.get((epoch, worker), ())
        return any(self.is_keeper(keeper) for keeper in keepers)

    def next_counter(self, keeper: PeerId) -> int:
        """A lease counter that a keeper has not used yet."""
        used = (
            item.counter
            for fact in self._facts.values()
            if fact.author == keeper and isinstance(fact.payload, Leases)
            for item in fact.payload.items
        )
        return max(used, default=-1) + 1

    def committed(self, unit: int) -> dict[PeerId, bytes]:
        """Binding commits of the unit's epoch, by worker."""
        known = self._units.get(unit, _NOTHING)
        return {
            worker: next(iter(commits))
            for (epoch, worker), commits in known.commits.items()
            if epoch == known.epoch and len(commits) == 1
        }

    def equivocators(self, unit: int) -> frozenset[PeerId]:
        """Workers that signed two different commits for the unit's epoch."""
        known = self._units.get(unit, _NOTHING)
        return frozenset(
            worker for (epoch, worker), commits in known.commits.items() if epoch == known.epoch and len(commits) > 1
        )

    def votes(self, unit: int) -> dict[PeerId, ResultHash]:
        """Result hashes that open their worker's binding commit."""
        known = self._units.get(unit)
        if known is None:
            return {}
        if known.votes is not None:
            return known.votes
        found: dict[PeerId, ResultHash] = {}
        for worker, commit in self.committed(unit).items():
            for result_hash, nonce in known.openings.get((known.epoch, worker), ()):
                if self.opens(unit, worker, commit, ResultHash(result_hash), nonce):
                    found[worker] = ResultHash(result_hash)
        known.votes = found
        return found

    def opens(self, unit: int, worker: PeerId, commit: bytes, result_hash: ResultHash, nonce: bytes) -> bool:
        """A hash and nonce open a worker's commit."""
        key = key_from_peer_id(worker)
        return commit == commitment(self.network, self.id, unit, self.epoch(unit), key, result_hash, nonce)

    def failures(self, unit: int) -> dict[PeerId, str]:
        """Failure codes of the unit's epoch, by worker."""
        known = self._units.get(unit, _NOTHING)
        return {worker: code for (epoch, worker), (code, _) in known.failures.items() if epoch == known.epoch}

    def all_failures(self, unit: int) -> list[Failed]:
        """Failures of all epochs, the latest epoch first."""
        known = self._units.get(unit, _NOTHING).failures
        stated = [Failed(epoch, worker, code, text) for (epoch, worker), (code, text) in known.items()]
        return sorted(stated, key=lambda failed: (-failed.epoch, failed.worker))

    def resets(self, unit: int) -> list[tuple[int, str]]:
        """Each epoch that was opened after the first, with the reason, the latest first."""
        return sorted(self._units.get(unit, _NOTHING).resets.items(), reverse=True)

    def verdict(self, unit: int) -> VerdictItem | None:
        """The verdict that makes the unit final, if there is one."""
        known = self._units.get(unit, _NOTHING)
        candidates = known.verdicts.get(known.epoch)
        return candidates[min(candidates)] if candidates else None

    def accepted_workers(self, unit: int) -> frozenset[PeerId]:
        """Everybody whose result is the final one, over all verdicts that agree with it."""
        return self._judged(unit, rejected=False)

    def rejected_workers(self, unit: int) -> frozenset[PeerId]:
        """Everybody whose result of the final unit was refused."""
        return self._judged(unit, rejected=True)

    def _judged(self, unit: int, *, rejected: bool) -> frozenset[PeerId]:
        final = self.verdict(unit)
        if final is None:
            return frozenset()
        agreeing = (v for v in self._units[unit].verdicts[final.epoch].values() if v.result_hash == final.result_hash)
        return frozenset(peer_id_from_key(k) for v in agreeing for k in (v.rejected if rejected else v.accepted))

    def conflicts(self) -> tuple[int, ...]:
        """Units with verdicts for two different results in one epoch: evidence against their signer."""
        return tuple(
            sorted(
                index
                for index, unit in self._units.items()
                if any(len({v.result_hash for v in vs.values()}) > 1 for vs in unit.verdicts.values())
            )
        )

    @property
    def finished(self) -> bool:
        """Every unit is final."""
        return len(self.final_units) == self.spec.units
