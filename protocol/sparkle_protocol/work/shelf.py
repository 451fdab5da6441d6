"""What a worker keeps on disk, so that after a restart it states the same commits again.

- Beside each commit stands the lease that it rests on, because another keeper may want to see it; a lease is dropped
  with the last commit that needs it. Leases of this node's own keeper are that keeper's to store.
- A unit that was carried into another epoch trades its old commit for the new one in one record batch.
- ``Pledges`` makes sure that no unit gets two different commits in one epoch, which would be proof of cheating: the
  nonce is a function of unit and epoch, so the same result gives the same commit however often the unit is leased to
  us, and a different result of a unit committed to lately is not stated.
"""

from collections import Counter
from collections.abc import Iterable

from sparkle_protocol.effects import DropCommit, DropCommits, DropFact, Record, StoreCommit, StoreFact
from sparkle_protocol.facts import NONCE_BYTES, Fact, Leases, Signer, commitment, lot_of
from sparkle_protocol.ids import FactId, JobId, PeerId, digest, hash_result, key_from_peer_id
from sparkle_protocol.work.held import Held, UnitKey
from sparkle_protocol.work.state import JobState

NONCE_DOMAIN = b"sparkle/nonce/1\x00"
Stored = tuple[int, FactId]  # a fact's lot and id
MAX_PLEDGES = 8192  # eight times what can be in hand


class Pledges:
    """Our commitments."""

    def __init__(self, signer: Signer, network: str) -> None:
        self._network = network
        self._key = signer.public_key
        self._secret = digest(signer.sign(NONCE_DOMAIN))  # nobody else can make it, and a restart finds it again
        self._stated: dict[UnitKey, bytes] = {}

    def nonce(self, key: UnitKey) -> bytes:
        """The nonce of a unit in an epoch; it says nothing about those of others."""
        job, unit, epoch = key
        name = self._network.encode()
        place = unit.to_bytes(4, "big") + epoch.to_bytes(4, "big")
        return digest(self._secret, job, place, name)[:NONCE_BYTES]

    def commit(self, key: UnitKey, held: Held) -> bytes | None:
        """The commitment to a result in hand; None when another one was stated for this unit and epoch."""
        held.nonce = held.nonce or self.nonce(key)
        found = commitment(self._network, *key, self._key, hash_result(held.result), held.nonce)
        if self._stated.pop(key, found) != found:
            return None
        self._stated[key] = found  # the latest last
        if len(self._stated) > MAX_PLEDGES:
            del self._stated[next(iter(self._stated))]
        return found


class Shelf:
    """Records of what was put on disk, and of what may go."""

    def __init__(self, me: PeerId) -> None:
        self._me = me
        self._facts: dict[JobId, set[FactId]] = {}  # spec and keepers, by job of which anything is on disk
        self._commits: dict[UnitKey, Stored | None] = {}  # by the lease that each rests on
        self._leases: dict[JobId, Counter[Stored]] = {}
        self.gone: list[Record] = []  # what need be kept no longer; it goes with the next Persist

    def let_go(self, held: Held) -> None:
        """A unit is not in our hands any more."""
        if held.stored_as is not None:
            self.gone += self.drop(held.stored_as)

    def store(self, state: JobState, commits: Iterable[tuple[UnitKey, Held]]) -> list[Record]:
        """What a restart needs to state these commits again."""
        stored = self._facts.setdefault(state.id, set())
        facts = {fact.id: fact for fact in (state.spec_fact, *state.view_facts()) if fact.id not in stored}
        stored |= facts.keys()
        records: list[Record] = []
        before: list[UnitKey] = []
        for key, held in commits:
            if held.lease is not None and held.lease.author != self._me and key not in self._commits:
                facts[held.lease.id] = held.lease  # else the lease that its commit came with is proof enough
            if held.stored_as is not None and held.stored_as != key:
                before.append(held.stored_as)
            self.stored(key, held)
            records.append(StoreCommit(*key, held.nonce, held.result))
        for key in before:  # last: a lease that another of these commits rests on stays
            records += self.drop(key)
        return [*map(StoreFact, facts.values()), *records]

    def stored(self, key: UnitKey, held: Held) -> None:
        """The commit of a unit is on disk, from now or from an earlier life."""
        held.stored_as = key
        self._facts.setdefault(key[0], set())
        if key not in self._commits:
            foreign = held.lease is not None and held.lease.author != self._me
            lease = (lot_of(held.lease.payload), held.lease.id) if held.lease is not None and foreign else None
            self._commits[key] = lease
            if lease is not None:
                self._leases.setdefault(key[0], Counter())[lease] += 1

    def drop(self, key: UnitKey) -> list[Record]:
        """A commit is not needed any more."""
        records: list[Record] = [DropCommit(*key)]
        lease = self._commits.pop(key, None)
        if lease is not None:
            leases = self._leases[key[0]]
            leases[lease] -= 1
            if not leases[lease]:
                del leases[lease]
                records.append(DropFact(key[0], *lease))
        return records

    def keep_only(self, job: JobId, leases: Iterable[Fact], stored: Iterable[Fact]) -> None:
        """Of the leases of ours on disk, those that prove nothing more than these need not stay there."""
        useful = {lease.id for lease in leases}
        mine = key_from_peer_id(self._me)
        for fact in stored:
            payload = fact.payload
            if type(payload) is not Leases or fact.id in useful or fact.author == self._me:
                continue
            if any(item.worker == mine for item in payload.items):
                self.gone.append(DropFact(job, lot_of(payload), fact.id))

    def drop_job(self, job: JobId) -> list[Record]:
        """None of a job's commits is needed any more; nothing when none is on disk."""
        if self._facts.pop(job, None) is None:
            return []
        for key in [key for key in self._commits if key[0] == job]:
            del self._commits[key]
        return [DropCommits(job), *(DropFact(job, *lease) for lease in self._leases.pop(job, ()))]
