"""How far this node trusts each worker: what it saw of it, per device and verification class.

- A *pass* is a result that was compared with another one, by somebody who counts, and found equal. Results that were
  believed without a comparison count for nothing by themselves.
- A worker's answers *count* once it has sixty passes. Until then they are always compared with one that counts, and
  only a small share of units is given to newcomers for that: those first who have the most passes.
- Each pass adds to the worker's *capital*: the reference work of the unit, divided by the probability with which it
  was compared. So capital is about the work done since the worker was last proven wrong, as far as chance tells.
- The more capital, the fewer audits (``audit_rate``), but more for units that are long beside it: trust that was
  earned on trifles buys none for them.
- What is seen as a keeper of others' jobs counts as far as somebody confirmed it who counts here, and a few passes
  for each of these submitters: nobody can vouch for a peer alone.
- Being proven wrong ends all of it. Keys are free, so it is no use to be stricter than with a stranger.
- Peers named as trusted by the owner of the node are audited at the floor, and are heard about others
  (``vouching.py``), until one of their results is proven wrong. Then they are strangers like others, until they are
  named anew: the owner is told, as it is for people to ask people.
"""

from collections import deque
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from math import ceil
from typing import Literal, NamedTuple

from sparkle_protocol.ids import PeerId
from sparkle_protocol.trust.parameters import TRUST_RULES, TrustRules
from sparkle_protocol.trust.vouching import Whom, Words
from sparkle_protocol.trust_messages import MAX_KNOWN

MAX_STANDINGS = 1 << 16  # of those that do not count the one that was heard of the longest ago goes first
MAX_SUBMITTERS = 32  # whose contributions to one standing are told apart; further ones contribute nothing
NAMED_PASSES = 10_000  # what being named by the owner is worth


Source = Literal["named", "known", "vouched", "newcomer"]


class Key(NamedTuple):
    """Whose results are judged apart from others: a peer may have one device that computes wrongly."""

    peer: PeerId
    device: str
    verification: str


@dataclass(slots=True)
class Standing:
    """What a worker has shown since it was last proven wrong."""

    passes: int = 0
    capital: float = 0.0  # reference flops
    failures: int = 0  # how often it was proven wrong, ever
    by_submitter: dict[PeerId, int] = field(default_factory=dict)  # passes in jobs of others


NOTHING_KNOWN = Standing()


def disowned_key(peer: PeerId) -> Key:
    """Under what is kept that a named peer was proven wrong since it was named."""
    return Key(peer, "", "")


class TrustBook:
    """The standings that one node keeps, of all workers it has seen."""

    def __init__(self, trusted_keys: Iterable[PeerId] = (), rules: TrustRules = TRUST_RULES) -> None:
        self.rules = rules
        self._trusted = frozenset(trusted_keys)
        self.named = self._trusted  # without those that were proven wrong since
        self.words = Words()
        self.version = 0  # grows when somebody comes to count, or counts no more
        self._told: set[PeerId] = set()  # named ones that their owner was warned of
        self._proven: set[PeerId] = set()  # proven wrong here, ever
        self._standings: dict[Key, Standing] = {}  # the one that changed the longest ago first
        self._fresh: dict[Key, None] = {}
        self._vetted: deque[bool] = deque(maxlen=rules.vetting_memory)  # the latest answers of newcomers

    def __len__(self) -> int:
        return len(self._standings)

    def of(self, key: Key) -> Standing:
        """What is known of a worker, to be read."""
        if key.peer in self.named:
            return Standing(NAMED_PASSES, NAMED_PASSES * self.rules.longest_unit_flops)
        return self._standings.get(key, NOTHING_KNOWN)

    def about(self, peer: PeerId) -> list[tuple[Key, Standing]]:
        """All standings of a peer, sorted."""
        found = [(key, one) for key, one in self._standings.items() if key.peer == peer and key.verification]
        return sorted(found, key=lambda one: one[0])

    def latest(self) -> Iterator[tuple[Key, Standing]]:
        """All standings, the one that changed last first."""
        return ((key, one) for key, one in reversed(self._standings.items()) if key.verification)

    def counts(self, key: Key) -> bool:
        """The worker's answers count."""
        return self.of(key).passes >= self.rules.passes_to_count or self.is_vouched(key.peer, key.verification)

    def source(self, key: Key) -> Source:
        """Where it comes from that a worker's answers count, if they do."""
        if key.peer in self.named:
            return "named"
        if self.of(key).passes >= self.rules.passes_to_count:
            return "known"
        return "vouched" if self.is_vouched(key.peer, key.verification) else "newcomer"

    # --- what others say ----------------------------------------------------------------------------------

    def vouch(self, voucher: PeerId, whom: Iterable[Whom]) -> bool:
        """A peer says whom it knows; only the word of those whom the owner named has weight. True if that is news."""
        if voucher not in self.named or not self.words.hear(voucher, whom):
            return False
        self.version += 1
        return True

    def is_vouched(self, peer: PeerId, verification: str) -> bool:
        """A named peer vouches for this one, and nothing that was seen here says otherwise."""
        return self.words.speaks_for(peer, verification) and peer not in self._proven

    def vouched(self) -> set[PeerId]:
        """Everybody whom named peers vouch for, and of whom nothing wrong is known."""
        return self.words.peers() - self._proven

    def only_vouched(self, seen: Container[Whom]) -> list[Whom]:
        """Who is vouched for and not among these, sorted."""
        return [one for one in self.words.all() if one not in seen and one[0] not in self._proven]

    def seen(self) -> list[Whom]:
        """Those whose answers count for what was seen here, the ones with the most capital first."""
        best: dict[Whom, float] = {}
        for key, standing in self.latest():
            if standing.passes >= self.rules.passes_to_count:
                whom = (key.peer, key.verification)
                best[whom] = max(standing.capital, best.get(whom, 0.0))
        return sorted(best, key=lambda whom: (-best[whom], whom))[:MAX_KNOWN]

    # --- whom to ask --------------------------------------------------------------------------------------

    def audit_rate(self, key: Key, unit_flops: float, floor: float) -> float:
        """The probability with which a result of the worker is compared with another one.

        Args:
            key: whose.
            unit_flops: reference work of the unit.
            floor: what the rate is at least.
        """
        work = self.rules.discount * self.work_of(unit_flops)
        return max(floor, work / (work + self.of(key).capital))

    def work_of(self, unit_flops: float) -> float:
        """What a unit counts for; where nothing is said of its work, as an ordinary one."""
        return min(unit_flops or self.rules.longest_unit_flops, self.rules.longest_unit_flops)

    def credibility(self, key: Key) -> float:
        """The probability that the worker's next result is right (Sarmenta 2001: 1 - f/k after k spot-checks)."""
        return self.credibility_after(self.of(key).passes)

    def credibility_after(self, passes: int) -> float:
        """The same after so many passes."""
        return min(self.rules.most_credible, 1.0 - self.rules.prior_wrong / (1 + passes))

    def knows_enough(self, verification: str) -> bool:
        """So many peers' answers count that nobody else's need."""
        known, needed = self.known_and_needed(verification)
        return known >= needed

    def known_and_needed(self, verification: str) -> tuple[int, int]:
        """How many peers' answers count, and how many would have to for nobody else's to be needed."""
        vouched = (peer for peer in self.words.of_class(verification) if peer not in self._proven)
        known = {*self.named, *vouched}
        candidates = set(known)
        for key, standing in self._standings.items():
            if key.verification == verification and standing.passes >= self.rules.candidate_passes:
                candidates.add(key.peer)
                if standing.passes >= self.rules.passes_to_count:
                    known.add(key.peer)
        return len(known), max(self.rules.enough_known, ceil(self.rules.known_share * len(candidates)))

    def vetting_share(self) -> float:
        """How many newcomers' answers are wanted for each unit of known workers."""
        right = sum(self._vetted) / len(self._vetted) if self._vetted else 1.0
        return max(self.rules.least_vetting_share, self.rules.vetting_share * right)

    def vetted(self, *, right: bool) -> None:
        """A newcomer's answer was compared."""
        self._vetted.append(right)

    def counting(self, verification: str, unit_flops: float, floor: float) -> dict[PeerId, float]:
        """Everybody whose answers count, with their audit rates, those with the lowest first."""
        others = sorted({*self.named, *self.words.of_class(verification)})
        keys = [*self._standings, *(Key(peer, "", verification) for peer in others)]
        rates: dict[PeerId, float] = {}
        for key in keys:
            if key.verification == verification and self.counts(key):
                rate = self.audit_rate(key, unit_flops, floor)
                rates[key.peer] = min(rate, rates.get(key.peer, rate))
        return dict(sorted(rates.items(), key=lambda one: (one[1], one[0])))

    def passed(self, key: Key, unit_flops: float, rate: float = 1.0, submitter: PeerId | None = None) -> None:
        """A result of the worker was compared and found right.

        Args:
            key: whose.
            unit_flops: reference work of the unit.
            rate: the probability with which it came to be compared.
            submitter: of the job, unless it was our own.
        """
        standing = self._write(key)
        if submitter is not None and not self._contributes(standing, submitter):
            return
        standing.passes += 1
        standing.capital += self.work_of(unit_flops) / rate
        if standing.passes in (self.rules.candidate_passes, self.rules.passes_to_count):
            self.version += 1

    def _contributes(self, standing: Standing, submitter: PeerId) -> bool:
        given = standing.by_submitter.get(submitter, 0)
        if given == 0 and len(standing.by_submitter) >= MAX_SUBMITTERS:
            return False
        if given >= self.rules.passes_from_one_submitter:
            return False
        standing.by_submitter[submitter] = given + 1
        return True

    def failed(self, key: Key) -> None:
        """The worker was proven wrong: it begins again, with whatever device and for every class of kernels."""
        self._write(key).failures += 1
        self._proven.add(key.peer)
        if key.peer in self.named:
            self._disown(key.peer)
        for other, standing in self._standings.items():
            if other.peer == key.peer:
                standing.passes, standing.capital = 0, 0.0
                standing.by_submitter.clear()
                self._fresh[other] = None
        self.version += 1

    def _disown(self, peer: PeerId) -> None:
        self.named -= {peer}
        self.words.hear(peer, ())
        self._write(disowned_key(peer)).failures += 1

    def disowned(self) -> list[PeerId]:
        """Named peers that were proven wrong since they were named."""
        return sorted(self._trusted - self.named)

    def take_disowned(self) -> list[PeerId]:
        """Those of them that were not told of in this life."""
        fresh = [peer for peer in self.disowned() if peer not in self._told] if self.named != self._trusted else []
        self._told.update(fresh)
        return fresh

    def restore(self, key: Key, standing: Standing) -> None:
        """Take up what was stored; who is named no more may be named anew, and nothing stands against it then."""
        if not key.verification and key.peer not in self._trusted:
            standing = Standing()
            self._fresh[key] = None
        elif not key.verification and standing.failures:
            self.named -= {key.peer}
        if standing.failures:
            self._proven.add(key.peer)
        self._standings[key] = standing
        self.version += 1

    def take_fresh(self) -> list[tuple[Key, Standing]]:
        """Standings that changed since the last call, to be stored."""
        fresh, self._fresh = self._fresh, {}
        return [(key, self._standings[key]) for key in fresh if key in self._standings]

    def _write(self, key: Key) -> Standing:
        standing = self._standings.pop(key, None) or Standing()
        self._standings[key] = standing
        self._fresh[key] = None
        if len(self._standings) > MAX_STANDINGS:
            counts = self.rules.passes_to_count
            dispensable = (other for other, one in self._standings.items() if one.passes < counts)
            del self._standings[next(dispensable, next(iter(self._standings)))]
        return standing
