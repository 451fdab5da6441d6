"""Whose jobs go first here: credit standing by what flowed to an account from this one (BarterCast's idea, 2009).

- An arc leads from each payer to each worker, as wide as all that the one paid the other for accepted work. What can
  flow from me to a submitter is work of its, or of those whom it helped, that I had the good of in the end.
- Accounts that pay each other widen only arcs among themselves. So whatever they do, *together* they get no more than
  the arcs are wide that lead to them from honest accounts. To each name the whole of it would be promised by a flow
  of its own; so those who wait at the same time share one flow (``max_flow.share``).
- Weight = 1 + log2(1 + flow / unit), at most 8, from a least flow on; below it the lottery lane. A logarithm favours
  who splits up: the least flow bounds by how much. All weights together never exceed
  ``WeightRule.most(what the arcs to them let through)``, however many names there are.
- Only ways of four arcs at most count, two from either end: what is looked at is what lies near me or near those who
  wait. In a network of 10 000 accounts that ten each have worked for, two arcs reach one per cent, four most.
- I have the good of nothing as long as nobody worked for me. Then, and whenever nobody who waits has any standing,
  all weigh the same, but submitters of one network share one weight: more names win nothing there. (The lottery lane
  alone would not do: it counts picks, and so favours whoever has large units.)

Weights are computed by ``Weights.settle``, when the book or the crowd has changed, and only looked up by ``weigh``.
"""

from collections.abc import Callable, Collection, Container, Iterable, Mapping
from dataclasses import dataclass
from heapq import nlargest
from itertools import islice
from math import log2

from sparkle_ledger.entries import AccountId
from sparkle_ledger.max_flow import FlowNetwork, share
from sparkle_protocol.ids import PeerId
from sparkle_protocol.work.fairness import EQUAL_WEIGHT
from sparkle_protocol.work.placement import LOCAL
from sparkle_protocol.work.price import CREDIT

Pair = tuple[AccountId, AccountId]  # payer, worker
PairTotals = Mapping[Pair, int]  # micro-credits for accepted work, ever

MOST_WEIGHT = 8.0
HOPS = 2  # from either end
MAX_ARCS = 1 << 17  # remembered: about 17 MB
MAX_WAITING = 1024  # twice the jobs that a keeper keeps
_STEPS = 2  # levels for each step of one in weight


@dataclass(frozen=True, slots=True)
class WeightRule:
    """How a flow of credit becomes a weight in the queue.

    Attributes:
        unit_micro: what makes a weight of 2.
        least_micro: the least flow that counts: six minutes of a laptop core.
        floor: what everybody weighs at least. Members of a private swarm know each other: 1 leaves none of them to
            the lottery lane. In an open network it is 0, since names cost nothing there.
    """

    unit_micro: int = CREDIT
    least_micro: int = CREDIT // 10
    floor: float = 0.0

    def weight(self, flow_micro: int) -> float:
        """The weight of a submitter to whom so much flows."""
        if flow_micro < self.least_micro or flow_micro <= 0:
            return self.floor
        return max(self.floor, min(MOST_WEIGHT, 1 + log2(1 + flow_micro / self.unit_micro)))

    def most(self, flow_micro: int) -> float:
        """The most that any number of names together weigh for what flows to all of them, if the floor is 0."""
        return self.weight(self.least_micro) * flow_micro / self.least_micro

    def levels(self) -> list[int]:
        """Flows at which weights are a step apart, from the least that counts to what nobody needs more than."""
        steps = range(1, int(MOST_WEIGHT - 1) * _STEPS + 1)
        flows = {int(self.unit_micro * (2 ** (step / _STEPS) - 1)) for step in steps}
        return sorted({self.least_micro, *(flow for flow in flows if flow > self.least_micro)})


OPEN = WeightRule()
AMONG_FRIENDS = WeightRule(floor=EQUAL_WEIGHT)


class CreditGraph:
    """Who paid whom how much for work, around one account.

    Args:
        me: the account from which credit flows.
        vouched: how much this account trusts others with though nothing is known of them: founders of the network.
        most_arcs: bound on memory.
    """

    def __init__(
        self, me: AccountId, vouched: Mapping[AccountId, int] | None = None, most_arcs: int = MAX_ARCS
    ) -> None:
        self.me = me
        self._vouched = {account: micro for account, micro in (vouched or {}).items() if micro > 0 and account != me}
        self._most_arcs = most_arcs
        self._to: dict[AccountId, dict[AccountId, int]] = {}  # payer -> worker -> micro
        self._from: dict[AccountId, dict[AccountId, None]] = {}  # worker -> payers
        self._arcs = 0

    def __len__(self) -> int:
        return self._arcs

    def set(self, payer: AccountId, worker: AccountId, micro: int) -> None:
        """``payer`` has paid ``worker`` so much in all. What flows back to me, or to oneself, counts for nobody."""
        if payer == worker or worker == self.me:
            return
        widths = self._to.setdefault(payer, {})
        if micro > 0:
            if worker not in widths:
                self._from.setdefault(worker, {})[payer] = None
                self._arcs += 1
            widths[worker] = micro
        elif worker in widths:
            self._cut(payer, worker)
        if not widths:
            self._to.pop(payer, None)
        if self._arcs > self._most_arcs:
            self._forget_far_ones()

    def _cut(self, payer: AccountId, worker: AccountId) -> None:
        del self._to[payer][worker]
        del self._from[worker][payer]
        if not self._from[worker]:
            del self._from[worker]
        self._arcs -= 1

    def _forget_far_ones(self) -> None:
        """Keep half of the arcs: those from me first, then from whoever is nearest, the widest of each.

        No account keeps more than a 64th, so that it takes many paid ones near me to have others forgotten.
        """
        room, old = self._most_arcs // 2, self._to

        def kept_of(payer: AccountId) -> Iterable[AccountId]:
            widths = old.get(payer, {})
            most = room if payer == self.me else max(1, room // 64)
            return nlargest(most, widths, key=lambda worker: (widths[worker], worker))

        self._to, self._from, self._arcs = {}, {}, 0
        for payer in _within([self.me, *self._vouched], kept_of, 2 * HOPS):
            for worker in islice(kept_of(payer), room - self._arcs):
                self._to.setdefault(payer, {})[worker] = old[payer][worker]
                self._from.setdefault(worker, {})[payer] = None
                self._arcs += 1

    def flows(
        self, ends: Iterable[AccountId], levels: list[int], barred: Container[AccountId] = frozenset()
    ) -> dict[AccountId, int]:
        """Micro-credits that flow from me to each of these accounts when all draw at once, up to the last level.

        Nothing flows to or through ``barred`` accounts.
        """
        sinks = [end for end in dict.fromkeys(ends) if end != self.me and end not in barred]
        arcs = self._arcs_near(sinks, barred)
        nodes = {self.me: 0}
        for arc in arcs:
            for account in arc:
                nodes.setdefault(account, len(nodes))
        reachable = [end for end in sinks if end in nodes]
        network = FlowNetwork(len(nodes))
        for (payer, worker), micro in sorted(arcs.items(), key=lambda arc: (-arc[1], arc[0])):
            network.add(nodes[payer], nodes[worker], micro)
        found = share(network, 0, [nodes[end] for end in reachable], levels, 2 * HOPS)
        return {**dict.fromkeys(sinks, 0), **dict(zip(reachable, found, strict=True))}

    def _arcs_near(self, sinks: list[AccountId], barred: Container[AccountId]) -> dict[Pair, int]:
        """Arcs that may lie on a way of ``2 * HOPS`` from me to one of the sinks."""

        def without(accounts: Iterable[AccountId]) -> Iterable[AccountId]:
            return (account for account in accounts if account not in barred)

        from_me = _within([self.me], lambda payer: without(self._widths(payer)), HOPS)
        to_sinks = _within(sinks, lambda worker: without(self._payers(worker)), HOPS)
        arcs: dict[Pair, int] = {}
        for payer, hops in from_me.items():
            if hops < HOPS:
                for worker, micro in self._widths(payer).items():
                    if worker in from_me and (worker in to_sinks or hops < HOPS - 1):
                        arcs[payer, worker] = micro
        for worker, hops in to_sinks.items():
            if hops < HOPS:
                for payer in self._payers(worker):
                    if payer in to_sinks and (payer in from_me or hops < HOPS - 1):
                        arcs[payer, worker] = self._widths(payer)[worker]
        return arcs

    def _widths(self, payer: AccountId) -> Mapping[AccountId, int]:
        paid = self._to.get(payer, {})
        if payer != self.me or not self._vouched:
            return paid
        return {who: paid.get(who, 0) + self._vouched.get(who, 0) for who in (*paid, *self._vouched)}

    def _payers(self, worker: AccountId) -> Collection[AccountId]:
        payers = self._from.get(worker, {})
        return {**payers, self.me: None} if worker in self._vouched else payers


def _within(
    starts: Iterable[AccountId], neighbours: Callable[[AccountId], Iterable[AccountId]], hops: int
) -> dict[AccountId, int]:
    """Accounts within so many steps, nearest first, each with its distance."""
    found = dict.fromkeys(starts, 0)
    front = list(found)
    for distance in range(1, hops + 1):
        reached: list[AccountId] = []
        for account in front:
            for neighbour in neighbours(account):
                if neighbour not in found:
                    found[neighbour] = distance
                    reached.append(neighbour)
        front = reached
    return found


@dataclass(frozen=True, slots=True)
class Standing:
    """What a submitter weighs here, and why. ``flow_micro`` is its part while these others wait too."""

    flow_micro: int
    weight: float


class Weights:
    """Weights of the submitters that wait at this node, for its fair queue. Our own jobs are not in that queue.

    Args:
        graph: who paid whom, around our own account.
        account_of: the account of a peer, None if it has none that is known.
        rule: of the network.
    """

    def __init__(
        self,
        graph: CreditGraph,
        account_of: Callable[[PeerId], AccountId | None],
        rule: WeightRule = OPEN,
    ) -> None:
        self._graph = graph
        self._account_of = account_of
        self._rule = rule
        self._levels = rule.levels()
        self._barred: frozenset[AccountId] = frozenset()
        self._waiting: dict[PeerId, str] = {}
        self._standings: dict[PeerId, Standing] = {}
        self._newcomer = EQUAL_WEIGHT  # what is given to whoever came since
        self._stale = True

    def learn(self, totals: PairTotals) -> None:
        """These sums of the book have changed, or are new."""
        for (payer, worker), micro in totals.items():
            self._graph.set(payer, worker, micro)
        self._stale = self._stale or bool(totals)

    def bar(self, accounts: Iterable[AccountId]) -> None:
        """Nothing flows to or through these accounts any more, and through all others again: who forked."""
        barred = frozenset(accounts)
        self._stale = self._stale or barred != self._barred
        self._barred = barred

    def settle(self, waiting: Mapping[PeerId, str]) -> bool:
        """Compute the weights of those who wait, each with its network; False when nothing has changed.

        Some milliseconds, so call it every few seconds at most. Who comes in between is a newcomer until then.
        """
        crowd = dict(islice(waiting.items(), MAX_WAITING))
        if not self._stale and crowd == self._waiting:
            return False
        self._stale, self._waiting = False, crowd
        flows = self._flows()
        weights = {peer: self._rule.weight(flow) for peer, flow in flows.items()}
        if any(weights.values()):
            self._newcomer = self._rule.floor
        else:
            weights, self._newcomer = _by_network(crowd), EQUAL_WEIGHT
        self._standings = {peer: Standing(flows[peer], weight) for peer, weight in weights.items()}
        return True

    def _flows(self) -> dict[PeerId, int]:
        accounts: dict[PeerId, AccountId] = {}
        names: dict[AccountId, int] = {}
        for peer in self._waiting:
            account = self._account_of(peer)
            if account is not None:
                accounts[peer] = account
                names[account] = names.get(account, 0) + 1
        flows = self._graph.flows(names, self._levels, self._barred)
        return {
            peer: flows.get(accounts[peer], 0) // names[accounts[peer]] if peer in accounts else 0
            for peer in self._waiting
        }

    def weigh(self, submitter: PeerId) -> float:
        """Its weight as of the last ``settle``: a ``fairness.Weigh``."""
        known = self._standings.get(submitter)
        return known.weight if known is not None else self._newcomer

    def standing(self, submitter: PeerId) -> Standing:
        """Its weight and what it rests on."""
        return self._standings.get(submitter, Standing(0, self._newcomer))


def _by_network(waiting: Mapping[PeerId, str]) -> dict[PeerId, float]:
    """Equal weights; submitters of one network share one. A local network is not one: its names have faces."""
    names: dict[str, int] = {}
    for network in waiting.values():
        names[network] = names.get(network, 0) + 1
    return {
        peer: EQUAL_WEIGHT if network == LOCAL else EQUAL_WEIGHT / names[network] for peer, network in waiting.items()
    }
