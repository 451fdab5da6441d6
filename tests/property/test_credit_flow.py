"""Credit standing, whatever accounts do: no names gain more together than was paid to them by others."""

from collections.abc import Iterable, Mapping
from itertools import chain, combinations
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from sparkle_ledger.entries import AccountId
from sparkle_ledger.flow import CreditGraph, Pair, WeightRule, Weights
from sparkle_ledger.max_flow import FlowNetwork, share
from sparkle_protocol.ids import PeerId

ME = AccountId(b"me")
NEAR = [ME, *(AccountId(b"h%d" % n) for n in range(4))]  # five in all: no way among them is longer than four arcs
SYBILS = [AccountId(b"s%d" % n) for n in range(8)]
HUGE = 1 << 60
RULE = WeightRule(unit_micro=100, least_micro=10)

Arcs = dict[Pair, int]


def arcs_among(starts: list[AccountId], ends: list[AccountId], most: int = 300) -> st.SearchStrategy[Arcs]:
    pairs = st.tuples(st.sampled_from(starts), st.sampled_from(ends)).filter(lambda pair: pair[0] != pair[1])
    return st.dictionaries(pairs, st.integers(1, most), max_size=14)


def graph_of(arcs: Mapping[Pair, int]) -> CreditGraph:
    graph = CreditGraph(ME)
    for (payer, worker), micro in arcs.items():
        graph.set(payer, worker, micro)
    return graph


def subsets(of: Iterable[AccountId]) -> Iterable[frozenset[AccountId]]:
    names = list(of)
    return map(frozenset, chain.from_iterable(combinations(names, size) for size in range(len(names) + 1)))


def least_cut(arcs: Mapping[Pair, int], ends: frozenset[AccountId]) -> int:
    """By trying every side that the source can be on."""
    others = [account for account in NEAR if account != ME and account not in ends]
    return min(
        sum(micro for (start, end), micro in arcs.items() if start in side | {ME} and end not in side | {ME})
        for side in subsets(others)
    )


honest = arcs_among(NEAR, NEAR)
some_ends = st.sets(st.sampled_from(NEAR[1:]), min_size=1)


@given(honest, some_ends)
def test_what_flows_is_what_the_narrowest_cuts_let_through(arcs: Arcs, ends: set[AccountId]) -> None:
    flows = graph_of(arcs).flows(sorted(ends), [*range(20, 400, 20), HUGE])
    for part in subsets(ends):
        if part:
            assert sum(flows[end] for end in part) <= least_cut(arcs, part)
    assert sum(flows.values()) == least_cut(arcs, frozenset(ends))
    for end in ends:
        assert graph_of(arcs).flows([end], [HUGE]) == {end: least_cut(arcs, frozenset([end]))}


@given(honest, arcs_among(SYBILS, SYBILS, HUGE), arcs_among(SYBILS, NEAR, HUGE), arcs_among(NEAR, SYBILS))
def test_sybils_that_pay_each_other_share_what_others_paid_them(
    arcs: Arcs, among: Arcs, back: Arcs, cut: Arcs
) -> None:
    width = sum(cut.values())
    flows = graph_of({**among, **back, **cut, **arcs}).flows([*SYBILS, *NEAR[1:]], RULE.levels())
    assert sum(flows[sybil] for sybil in SYBILS) <= width
    assert sum(RULE.weight(flows[sybil]) for sybil in SYBILS) <= RULE.most(width) + 1e-9
    for sybil in SYBILS:  # alone it shares with nobody, and gets no more
        assert graph_of({**among, **back, **cut, **arcs}).flows([sybil], [HUGE])[sybil] <= width


@given(honest, arcs_among(SYBILS, SYBILS, HUGE), arcs_among(SYBILS, NEAR, HUGE), arcs_among(NEAR, SYBILS))
def test_sybils_take_no_more_from_the_others_than_was_paid_to_them(
    arcs: Arcs, among: Arcs, back: Arcs, cut: Arcs
) -> None:
    others, levels = NEAR[1:], [*range(20, 400, 20), HUGE]
    before = sum(graph_of(arcs).flows(others, levels).values())
    after = graph_of({**among, **back, **cut, **arcs}).flows([*others, *SYBILS], levels)
    assert sum(after[account] for account in others) >= before - sum(cut.values())


@given(st.integers(1, 2000), st.integers(2, 12))
def test_a_crowd_behind_one_friend_shares_what_the_friend_gave_me(width: int, crowd: int) -> None:
    names = SYBILS[:crowd] if crowd <= len(SYBILS) else [AccountId(b"c%d" % n) for n in range(crowd)]
    friend, levels = NEAR[1], RULE.levels()
    graph = graph_of({(ME, friend): width, **{(friend, name): HUGE for name in names}})
    flows = list(graph.flows(names, levels).values())
    assert sum(flows) == min(width, crowd * levels[-1])
    if sum(flows) >= crowd * levels[0]:
        weights = [RULE.weight(flow) for flow in flows]
        assert max(weights) - min(weights) <= 0.51


@given(honest, st.randoms(use_true_random=False))
def test_the_order_in_which_payments_become_known_does_not_matter(arcs: Arcs, rng: Random) -> None:
    shuffled = list(arcs.items())
    rng.shuffle(shuffled)
    first = graph_of(arcs).flows(NEAR, RULE.levels())
    graph = graph_of(dict.fromkeys(reversed(arcs), 7))  # replaced below
    for (payer, worker), micro in shuffled:
        graph.set(payer, worker, micro)
    assert graph.flows(NEAR, RULE.levels()) == first


@given(honest, st.data())
def test_more_work_never_lowers_what_flows_to_who_did_it(arcs: Arcs, data: st.DataObject) -> None:
    payer, worker = data.draw(st.permutations(NEAR))[:2]
    more = {**arcs, (payer, worker): arcs.get((payer, worker), 0) + data.draw(st.integers(1, 500))}
    if worker != ME:
        assert graph_of(more).flows([worker], [HUGE])[worker] >= graph_of(arcs).flows([worker], [HUGE])[worker]


@given(honest, some_ends, st.integers(0, 60))
def test_with_too_little_time_too_little_flows_and_never_too_much(
    arcs: Arcs, ends: set[AccountId], steps: int
) -> None:
    network = FlowNetwork(len(NEAR), steps)
    for (payer, worker), micro in arcs.items():
        network.add(NEAR.index(payer), NEAR.index(worker), micro)
    found = dict(
        zip(sorted(ends), share(network, 0, [NEAR.index(end) for end in sorted(ends)], [50, HUGE]), strict=True)
    )
    for part in subsets(ends):
        if part:
            assert 0 <= sum(found[end] for end in part) <= least_cut(arcs, part)


@settings(max_examples=50)
@given(honest, arcs_among(SYBILS, SYBILS, HUGE), arcs_among(NEAR, SYBILS), st.integers(0, 8))
def test_in_the_queue_too_names_weigh_no_more_than_what_was_paid_to_them(
    arcs: Arcs, among: Arcs, cut: Arcs, waiting: int
) -> None:
    """``Weights`` as a keeper uses it: as long as anybody has a standing, a crowd of names has only its own."""
    friend = PeerId("friend")
    weights = Weights(graph_of(arcs), lambda peer: AccountId(peer.encode()), RULE)
    weights.learn({**among, **cut, (ME, AccountId(b"friend")): 500})
    names = [PeerId(name.decode()) for name in SYBILS[:waiting]]
    crowd = dict.fromkeys([friend, *names], "net")
    assert weights.settle(crowd)
    assert not weights.settle(crowd)
    assert weights.weigh(friend) == RULE.weight(500)
    assert sum(weights.weigh(name) for name in names) <= RULE.most(sum(cut.values())) + 1e-9
