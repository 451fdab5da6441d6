"""Every signed fact that any peer ever made durable, and what these facts together prove.

It repeats on purpose, and in the simplest way, what ``sparkle_protocol.work.state`` works out: an error there must
not hide itself from the checkers.
"""

from collections.abc import Iterable

from sparkle_protocol import facts as kinds
from sparkle_protocol.effects import Record, Reply, Send, StoreFact
from sparkle_protocol.errors import RemoteProtocolError
from sparkle_protocol.facts import NO_RANGE, SEAL_UNITS, Fact, JobSpec, KeeperSet, commitment, view_of
from sparkle_protocol.ids import FactId, JobId, PeerId, key_from_peer_id, peer_id_from_key
from sparkle_sim.peer import Peer
from sparkle_sim.world import World

DECIDING = 4  # keepers; fewer leave everything to the submitter
UnitEpoch = tuple[int, int]


class JobEvidence:
    """Of one job."""

    def __init__(self, job: JobId, network: str) -> None:
        self.job = job
        self.spec: JobSpec | None = None
        self.submitter = PeerId("")
        self.sets: dict[FactId, tuple[PeerId, KeeperSet]] = {}
        self.given: dict[UnitEpoch, dict[bytes, list[FactId]]] = {}  # results, and the verdicts that say so
        self.cancelled = False
        self.count = 0  # of facts
        self._network = network
        self._authors: dict[FactId, PeerId] = {}  # of verdicts
        self._endorsers: dict[tuple[FactId, int], set[PeerId]] = {}
        self._items: dict[FactId, list[UnitEpoch]] = {}  # of verdicts
        self._named: dict[FactId, dict[UnitEpoch, list[bytes]]] = {}  # whose results they accept
        self._commits: dict[tuple[int, int, PeerId], set[bytes]] = {}
        self._openings: dict[UnitEpoch, dict[PeerId, set[tuple[bytes, bytes]]]] = {}

    def add(self, fact: Fact) -> Iterable[UnitEpoch]:
        """Take a fact in; returns units of which it says that a result is right."""
        payload = fact.payload
        self.count += 1
        if isinstance(payload, kinds.JobSpec):
            self.spec, self.submitter = payload, fact.author
        elif isinstance(payload, kinds.KeeperSet):
            self.sets[fact.id] = fact.author, payload
        elif isinstance(payload, kinds.Commits):
            for commit in payload.items:
                self._commits.setdefault((commit.unit, commit.epoch, fact.author), set()).add(commit.commit)
        elif isinstance(payload, kinds.Reveals):
            for shown in payload.items:
                openings = self._openings.setdefault((shown.unit, shown.epoch), {})
                openings.setdefault(fact.author, set()).add((shown.result_hash, shown.nonce))
        elif isinstance(payload, kinds.Cancel):
            self.cancelled = self.cancelled or not payload.failed
        elif isinstance(payload, kinds.Verdicts):
            self._authors[fact.id] = fact.author
            self._items[fact.id] = [(item.unit, item.epoch) for item in payload.items]
            self._named[fact.id] = {(item.unit, item.epoch): item.accepted for item in payload.items}
            for item in payload.items:
                self.given.setdefault((item.unit, item.epoch), {}).setdefault(item.result_hash, []).append(fact.id)
            return self._items[fact.id]
        elif isinstance(payload, kinds.Endorsements):
            for one in payload.facts:
                self._endorsers.setdefault((FactId(one), payload.range), set()).add(fact.author)
            return [place for one in payload.facts for place in self._items.get(FactId(one), ())]
        return ()

    def keepers(self, view: int) -> tuple[PeerId, ...]:
        """Who keeps the job in a view; nobody if no set counts in it."""
        chosen = self._counting(view)
        return () if chosen is None else tuple(map(peer_id_from_key, self.sets[chosen][1].keys))

    def newest(self) -> int | None:
        """The number of the newest view that counts."""
        numbers = sorted({payload.view for _, payload in self.sets.values()}, reverse=True)
        return next((number for number in numbers if self._counting(number) is not None), None)

    def _counting(self, view: int) -> FactId | None:
        here = sorted(name for name, (_, payload) in self.sets.items() if payload.view == view)
        return next((name for name in here if self._is_valid(name)), None)

    def _is_valid(self, name: FactId) -> bool:
        author, payload = self.sets[name]
        if payload.view % kinds.VIEWS_PER_GENERATION == 0:
            return author == self.submitter
        before = self._counting(payload.view - 1)
        if before is None or before != payload.previous:
            return False
        keepers = tuple(map(peer_id_from_key, self.sets[before][1].keys))
        words = self._endorsers.get((name, NO_RANGE), set())
        return len(keepers) >= DECIDING and 4 * len(words.intersection(keepers)) >= 3 * len(keepers)

    def supporters(self, unit: int, epoch: int, result: bytes) -> set[PeerId]:
        """Who may judge the unit in this epoch and signed for a result."""
        found: set[PeerId] = set()
        for name in self.given.get((unit, epoch), {}).get(result, ()):
            found.add(self._authors[name])
            found |= self._endorsers.get((name, unit // SEAL_UNITS), set())
        return found.intersection((*self.keepers(view_of(epoch)), self.submitter))

    def certified(self, unit: int, epoch: int, result: bytes) -> bool:
        """Three quarters of the view's keepers signed for a result; where they are few, the submitter did."""
        keepers, by = self.keepers(view_of(epoch)), self.supporters(unit, epoch, result)
        if len(keepers) < DECIDING:
            return bool(keepers) and self.submitter in by
        return 4 * len(by.intersection(keepers)) >= 3 * len(keepers)

    def accepted(self, unit: int, epoch: int) -> dict[bytes, bool]:
        """Keys of the workers whose result was accepted, and whether the keepers that decide all name them.

        Else the submitter names them, and that the result is right follows from words of whoever: it may be that
        nobody knows all of them.
        """
        keepers, found = set(self.keepers(view_of(epoch))), dict[bytes, bool]()
        for result, names in self.given.get((unit, epoch), {}).items():
            certified = self.certified(unit, epoch, result)
            said: dict[bytes, set[PeerId]] = {}
            for name in names:
                words = {self._authors[name], *self._endorsers.get((name, unit // SEAL_UNITS), ())}
                for key in self._named[name][unit, epoch]:
                    said.setdefault(key, set()).update(words)
            for key, by in said.items():
                many = len(keepers) >= DECIDING
                sure = 4 * len(by & keepers) >= 3 * len(keepers) if many else self.submitter in by
                if sure or (certified and self.submitter in by):
                    found[key] = sure or found.get(key, False)
        return found

    def voters(self, unit: int, epoch: int, result: bytes) -> set[PeerId]:
        """Workers that committed to one result only, this one, and opened that."""
        found: set[PeerId] = set()
        for worker, openings in self._openings.get((unit, epoch), {}).items():
            commits = self._commits.get((unit, epoch, worker), set())
            key = key_from_peer_id(worker)
            for name, nonce in openings if len(commits) == 1 else ():
                place = (self._network, self.job, unit, epoch, key)
                if name == result and commitment(*place, result, nonce) in commits:  # type: ignore[arg-type]
                    found.add(worker)
        return found


class Evidence:
    """Of all jobs. A ``Listener`` of the world.

    ``unsigned`` names facts that were stored and that nobody signed, with who stored them.
    """

    def __init__(self, world: World) -> None:
        self.jobs: dict[JobId, JobEvidence] = {}
        self.unsigned: list[tuple[int, str]] = []
        self.disputed: dict[tuple[JobId, UnitEpoch], None] = {}  # where two results were stated, and more was said
        self._codec = world.codec
        self._known: set[FactId] = set()

    def said(self, peer: Peer, effect: Send | Reply) -> None:
        """What is only said proves nothing yet."""

    def wrote(self, peer: Peer, record: Record) -> None:
        """A fact is on a peer's disk."""
        if not isinstance(record, StoreFact) or record.fact.id in self._known:
            return
        fact = record.fact
        try:
            opened = self._codec.open(fact.raw)
        except RemoteProtocolError as error:
            self.unsigned.append(
                (peer.number, f"a stored {type(fact.payload).__name__} is refused by others: {error}")
            )
            return
        if (opened.id, opened.author, opened.payload) != (fact.id, fact.author, fact.payload):
            self.unsigned.append((peer.number, f"a stored {type(fact.payload).__name__} says what nobody signed"))
            return
        self._known.add(fact.id)
        job = self.jobs.get(fact.job)
        if job is None:
            job = self.jobs[fact.job] = JobEvidence(fact.job, self._codec.network)
        for place in job.add(fact):
            if len(job.given[place]) > 1:
                self.disputed[fact.job, place] = None

    def knows(self, fact: FactId) -> bool:
        """Somebody made this fact durable."""
        return fact in self._known
