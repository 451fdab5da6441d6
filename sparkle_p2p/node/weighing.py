"""Whose jobs go first here, by what the ledger says: keeps the weights of the fair queue up to date.

Nothing of it is computed when a worker asks for units: ``look`` is called every few seconds, reads a bounded part of
the book, and computes weights anew when somebody waits and something has changed.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import islice

from sparkle_ledger.agent.core import LedgerAgent
from sparkle_ledger.entries import AccountId, account_of
from sparkle_ledger.flow import AMONG_FRIENDS, OPEN, CreditGraph, Weights
from sparkle_ledger.genesis import GenesisRecord
from sparkle_p2p.node.results import needed
from sparkle_protocol.errors import ConfigError
from sparkle_protocol.facts import JobSpec, Resources, Signer
from sparkle_protocol.ids import PeerId, key_from_peer_id
from sparkle_protocol.work.price import is_paid
from sparkle_protocol.work.rules import Rules
from sparkle_worker.kernels.registry import ARRAY_KERNELS, KERNELS

ACCOUNTS_READ = 512  # of one look: a few milliseconds
SETTLE_EVERY_NS = 5_000_000_000


class Weighing:
    """Weights of submitters at one node.

    Args:
        genesis: the record of the network, whose founders this node trusts.
        signer: this node's identity.
        among_friends: the network is private, so that nobody is left to the lottery lane for want of credit.
        waiting: submitters with units to be handed out here, each with its network.
    """

    def __init__(
        self,
        genesis: GenesisRecord,
        signer: Signer,
        among_friends: bool,
        waiting: Callable[[], Mapping[PeerId, str]],
    ) -> None:
        net = genesis.network
        graph = CreditGraph(account_of(net, signer.public_key), genesis.vouched)
        rule = AMONG_FRIENDS if among_friends else OPEN
        self.weights = Weights(graph, lambda peer: account_of(net, key_from_peer_id(peer)), rule)
        self._waiting = waiting
        self._unread: Iterator[AccountId] = iter(())  # accounts still to be read of the book as it is by now
        self._forked: set[AccountId] = set()
        self._read_at = 0
        self._settled_ns: int | None = None

    def weigh(self, submitter: PeerId) -> float:
        """The weight of a submitter as of the last look."""
        return self.weights.weigh(submitter)

    def look(self, agent: LedgerAgent, changes: int, now_ns: int) -> None:
        """Follow the book, of which so many changes were kept."""
        self._read(agent, changes)
        if self._settled_ns is None or now_ns - self._settled_ns >= SETTLE_EVERY_NS:
            waiting = self._waiting()
            if waiting:
                self._settled_ns = now_ns
                self.weights.settle(waiting)

    def _read(self, agent: LedgerAgent, changes: int) -> None:
        part = list(islice(self._unread, ACCOUNTS_READ))
        if not part and self._read_at != changes:
            self._read_at = changes
            self._unread = iter(list(agent.book.accounts()))
            part = list(islice(self._unread, ACCOUNTS_READ))
        for account in part:
            if agent.forked(account) is not None:
                self._forked.add(account)
            self.weights.learn(
                {(AccountId(one.account), account): one.earned_micro for one in agent.book.pair_totals(account)}
            )
        if part:
            self.weights.bar(self._forked)


class PricedRules(Rules):
    """The decisions of a node that knows what work is worth."""

    def pays(self, spec: JobSpec) -> bool:
        """Whether a job offers the reference price, by our own reckoning where its kernel is known here."""
        return is_paid(spec.price_micro, _needed(spec))


def _needed(spec: JobSpec) -> Resources:
    """What a unit needs; what its submitter declares where we cannot tell."""
    kernel = {**KERNELS, **ARRAY_KERNELS}.get(spec.kernel)
    if not spec.price_micro or kernel is None or kernel.version != spec.kernel_version:
        return spec.resources
    try:
        params = kernel.validate(spec.params)
        if spec.units <= kernel.max_units(params):
            return needed(kernel, params, spec.units)
    except ConfigError:  # nobody here computes it
        pass
    return spec.resources
