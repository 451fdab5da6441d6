"""Whose jobs go first at a node, by its ledger; and which work it takes for paid."""

import pytest
from msgspec.structs import replace

from sparkle_ledger.agent.events import Over
from sparkle_ledger.genesis import GenesisRecord
from sparkle_p2p.node import weighing
from sparkle_p2p.node.results import make_spec
from sparkle_p2p.node.weighing import PricedRules, Weighing
from sparkle_p2p.view import SubmitRequest
from sparkle_protocol.facts import Resources
from sparkle_protocol.ids import PeerId
from tests.unit.ledger.agents import UNITS, World, finished, settled_world
from tests.unit.ledger.ledgers import NET, person

SECOND = 1_000_000_000


def earning_world() -> tuple[World, Weighing, PeerId, dict[PeerId, str]]:
    """A submitter for whom three nodes worked, who all wait at it now, and a stranger with them."""
    world, job, (submitter, *workers), keepers = settled_world(1, 0.0, 0.0)
    finished(world, job, workers, keepers)
    world.run(300)
    submitter.hear(Over(next(iter(keepers[0].kept.values()))))  # it knows by now who is to be paid
    assert sum(1 for _ in submitter.agent.book.settled(job.id)) == 2 * UNITS
    stranger = person(77).peer_id
    waiting = {worker.peer: f"net {number}" for number, worker in enumerate(workers)}
    waiting[stranger] = "net 9"
    return world, Weighing(GenesisRecord(NET), submitter.who, False, lambda: waiting), stranger, waiting


def test_who_worked_for_this_node_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    world, weights, stranger, waiting = earning_world()
    monkeypatch.setattr(weights.weights, "_rule", weighing.OPEN.__class__(unit_micro=100, least_micro=10))
    agent = world.members[next(iter(world.members))].agent
    assert [weights.weigh(peer) for peer in waiting] == [1.0] * 4  # nothing is known yet
    weights.look(agent, 1, SECOND)
    assert weights.weigh(stranger) == 0
    assert all(weights.weigh(peer) > 1 for peer in waiting if peer != stranger)


def test_who_worked_for_a_founder_goes_first_at_a_node_that_nobody_worked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, _, stranger, waiting = earning_world()
    submitter, *_ = world.members.values()
    for founders, expected in (((), 1.0), ((submitter.peer,), 0.0)):
        newcomer = Weighing(GenesisRecord(NET, trusted=founders), person(78), False, lambda: waiting)
        monkeypatch.setattr(newcomer.weights, "_rule", weighing.OPEN.__class__(unit_micro=100, least_micro=10))
        newcomer.look(submitter.agent, 1, SECOND)
        assert newcomer.weigh(stranger) == expected
        assert all((newcomer.weigh(peer) > 1) == bool(founders) for peer in waiting if peer != stranger)


def test_a_large_book_is_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weighing, "ACCOUNTS_READ", 1)
    world, weights, stranger, _ = earning_world()
    monkeypatch.setattr(weights.weights, "_rule", weighing.OPEN.__class__(unit_micro=100, least_micro=10))
    agent = world.members[next(iter(world.members))].agent
    for look in range(20):
        weights.look(agent, 1, look * 10 * SECOND)
    assert weights.weigh(stranger) == 0


def test_work_is_paid_by_what_it_is_worth_and_not_by_what_is_declared() -> None:
    rules = PricedRules()
    spec = make_spec(SubmitRequest("prime_count", {"stop": 10**12}), person(1))
    assert rules.pays(spec)
    assert not rules.pays(replace(spec, price_micro=spec.price_micro - 1))
    assert not rules.pays(replace(spec, price_micro=1, resources=Resources()))
    assert not rules.pays(make_spec(SubmitRequest("prime_count", {"stop": 10**12}, free=True), person(1)))
    assert rules.pays(replace(spec, kernel="of_others", price_micro=1, resources=Resources()))  # cannot be told here
    assert rules.pays(replace(spec, params={"stop": -1}, price_micro=1, resources=Resources()))  # nobody computes it
