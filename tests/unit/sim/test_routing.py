"""Lookups of simulated peers find what Kademlia promises, and fail as the production node's do."""

from math import log2

import pytest

from sparkle_sim.kernel import SECOND
from sparkle_sim.lookups import RoutingParameters
from sparkle_sim.network import Conditions
from tests.unit.sim.wired import Wired

QUIET = RoutingParameters(refresh_s=0.0, hanging=0.0, primed_gone=0.0)


def recall(world: Wired, lookups: int, peers: list[int]) -> float:
    """Share of the eight nearest that lookups of different peers find."""
    hits = 0
    for number in range(lookups):
        key = b"key %d" % number
        found = world.closest(peers[number * 17 % len(peers)], key)
        hits += len(set(found) & set(world.nearest(key, peers)))
    return hits / (8 * lookups)


def test_lookups_find_the_nearest() -> None:
    world = Wired(1000, routing=QUIET)
    assert recall(world, 60, list(range(1000))) >= 0.995


def test_answers_are_in_the_order_of_distance_and_without_those_who_are_gone() -> None:
    world = Wired(100, routing=QUIET)
    found = world.closest(5, b"key", 20)
    assert found == world.nearest(b"key", found, 20)
    for peer in found[:3]:
        world.stop(peer)
    there = [peer for peer in range(100) if world.up[peer]]
    again = world.closest(there[0], b"key", 20)
    assert not set(again) & set(found[:3])
    assert len(set(again[:8]) & set(world.nearest(b"key", there))) >= 7


def test_recall_stays_high_when_questions_hang_and_are_lost() -> None:
    """What production measured: 0.9 to 1.0 of the eight nearest."""
    world = Wired(400, conditions=Conditions(loss=0.01), routing=RoutingParameters(refresh_s=0.0, hanging=0.02))
    share = recall(world, 60, list(range(400)))
    assert 0.85 <= share < 1.0


def test_a_lookup_through_peers_that_hang_ends_in_time() -> None:
    world = Wired(200, routing=RoutingParameters(refresh_s=0.0, hanging=1.0))
    world.network.dial(3, 4, lambda _: None)
    world.run(1.0)
    answers: list[tuple[int, list[int]]] = []
    began = world.kernel.now
    world.routing.closest(3, b"key", 8, lambda found: answers.append((world.kernel.now - began, found)))
    world.run(30.0)
    [(took_ns, found)] = answers
    assert took_ns <= 5 * SECOND
    assert 3 in found, "at least it finds itself"
    assert 4 in found, "and whom it is connected with"


def test_a_question_that_would_be_answered_too_late_costs_nobody_anything() -> None:
    world = Wired(50, routing=QUIET)
    asker = (world.nearest(b"key", range(50), 1)[0] + 1) % 50
    world.closest(asker, b"another")  # fills the table
    world.network.threads.take(asker, 60 * SECOND)  # what its thread has to do before
    before = [world.network.threads.wait_ns(peer) for peer in range(50)]
    assert asker in world.closest(asker, b"key"), "at least it finds itself"
    assert all(world.network.threads.wait_ns(peer) <= before[peer] for peer in range(50))


def test_who_does_not_answer_is_left_out_for_a_minute() -> None:
    world = Wired(50, routing=QUIET)
    gone = world.nearest(b"key", range(50), 1)[0]
    asker = (gone + 1) % 50
    world.closest(asker, b"another")  # fills the table
    world.stop(gone, silently=True)
    assert gone not in world.closest(asker, b"key")
    lookups = world.routing.lookups
    assert lookups.is_banished(asker, gone)
    world.start(gone)
    assert gone not in world.closest(asker, b"key"), "it is back, but left out"
    world.run(60.0)
    assert not lookups.is_banished(asker, gone)


def test_a_question_to_who_is_suspended_holds_a_lookup_up_until_the_time_out() -> None:
    world = Wired(50, routing=QUIET)
    asker = (world.nearest(b"key", range(50), 1)[0] + 1) % 50
    hung = next(peer for peer in world.nearest(b"key", range(50)) if peer != asker)
    answers: list[tuple[int, list[int]]] = []
    world.network.suspend(hung)
    world.routing.closest(asker, b"key", 8, lambda found: answers.append((world.kernel.now, found)))
    world.run(6.0)
    [(took_ns, found)] = answers
    assert QUIET.query_s * SECOND <= took_ns <= QUIET.lookup_s * SECOND
    assert hung not in found
    assert world.routing.lookups.is_banished(asker, hung)


def test_a_connection_ends_a_banishment() -> None:
    world = Wired(10, routing=QUIET)
    world.routing.lookups.banish(1, 2)
    world.network.dial(2, 1, lambda _: None)
    world.run(1.0)
    assert not world.routing.lookups.is_banished(1, 2)
    assert 2 in world.routing.tables.known(1)


def test_tables_fill_from_connections_and_lookups() -> None:
    world = Wired(100, routing=RoutingParameters(refresh_s=0.0, hanging=0.0, primed=False))
    assert world.closest(0, b"key") == [0]
    world.connect(3)
    for peer in range(100):
        world.closest(peer, world.ids[peer].encode())  # as a node does that looks around
    assert sum(len(world.routing.tables.known(peer)) for peer in range(100)) / 100 > 30
    assert recall(world, 30, list(range(100))) >= 0.95


def test_buckets_keep_to_their_size_and_the_connected_replace_the_gone() -> None:
    rules = RoutingParameters(refresh_s=0.0, hanging=0.0, bucket_size=4, primed=False)
    world = Wired(200, routing=rules)
    tables = world.routing.tables
    tables.hear(0, range(1, 200))
    known = tables.known(0)
    assert 4 <= len(known) <= 4 * log2(200) + 8
    farthest = [peer for peer in range(200) if (tables.places[peer] ^ tables.places[0]) >> 63]
    oldest = next(peer for peer in known if peer in farthest)
    newcomer = next(peer for peer in farthest if peer not in known)
    world.network.dial(0, newcomer, lambda _: None)
    world.run(2.0)
    assert newcomer not in tables.known(0), "the oldest still answers"
    world.network.hang_up(0, newcomer)
    world.run(1.0)
    world.stop(oldest)
    world.network.dial(0, newcomer, lambda _: None)
    world.run(2.0)
    assert newcomer in tables.known(0)
    assert oldest not in tables.known(0)


def test_a_new_process_begins_with_an_empty_table() -> None:
    world = Wired(50, routing=QUIET)
    world.closest(7, b"key")
    assert len(world.routing.tables.known(7)) > 20
    world.stop(7)
    world.start(7)
    assert world.routing.tables.known(7) == []


@pytest.mark.parametrize(("size", "slope"), [(1, 0.499), (8, 0.228), (20, 0.176)])
def test_hops_grow_as_published(size: int, slope: float) -> None:
    """c·log2 N with the constants of Cai and Devroye 2013, who go from table to table as here."""
    means = []
    for bits in (8, 12):
        count = 1 << bits
        world = Wired(count, routing=RoutingParameters(refresh_s=0.0, bucket_size=size, primed_gone=0.0))
        hops = 0
        walks = 1200
        for _ in range(walks):
            at, target = world.random.below(count), world.random.below(count)
            place = world.routing.tables.places[target]
            while at != target:
                at = world.routing.tables.nearest(at, place, 1)[0]
                hops += 1
        means.append(hops / walks)
    assert (means[1] - means[0]) / 4 == pytest.approx(slope, abs=0.05)


def test_providers_are_found_until_their_records_expire() -> None:
    world = Wired(300, routing=QUIET)
    for provider in (3, 44, 99):
        world.routing.provide(provider, b"work")
    world.run(6.0)
    assert sorted(world.providers(250, b"work")) == [3, 44, 99]
    assert world.providers(3, b"nothing") == []
    world.run(600.0)
    world.routing.provide(44, b"work")  # the others have stopped to say so
    world.run(320.0)
    assert world.providers(250, b"work") == [44]
    world.run(600.0)
    assert world.providers(120, b"work") == []


def test_records_outlive_some_of_those_who_keep_them() -> None:
    world = Wired(300, routing=QUIET)
    world.routing.provide(3, b"work")
    world.run(6.0)
    keepers = [peer for peer in range(300) if peer != 3 and world.routing.recorded(peer, b"work")]
    assert 15 <= len(keepers) <= 20
    for peer in keepers[::2]:
        world.stop(peer, silently=True)
    asker = next(peer for peer in range(300) if world.up[peer] and peer not in keepers and peer != 3)
    assert world.providers(asker, b"work") == [3]


def test_of_many_providers_as_many_are_kept_and_told_as_is_said() -> None:
    world = Wired(100, routing=QUIET)
    for provider in range(40):
        world.routing.provide(provider, b"work")
    world.run(6.0)
    assert max(len(world.routing.recorded(peer, b"work")) for peer in range(100)) <= 20
    assert len(world.providers(77, b"work")) == 8


def test_a_process_that_ends_gets_no_answers() -> None:
    world = Wired(50, routing=QUIET)
    answers: list[list[int]] = []
    world.routing.closest(1, b"key", 8, answers.append)
    world.routing.providers(1, b"key", answers.append)
    world.routing.provide(1, b"key")
    world.stop(1)
    world.start(1)
    world.run(20.0)
    assert answers == []


def test_more_lookups_than_allowed_are_answered_from_the_table() -> None:
    world = Wired(100, routing=RoutingParameters(refresh_s=0.0, hanging=0.0, max_lookups=3))
    answers: list[list[int]] = []
    for number in range(10):
        world.routing.closest(1, b"%d" % number, 8, answers.append)
    queries = world.routing.lookups.queries
    world.run(0.0)
    assert len(answers) == 7
    assert queries == 3 * 10
    world.run(10.0)
    assert len(answers) == 10
    assert all(len(found) == 8 for found in answers)


def test_kept_links_are_those_of_the_library() -> None:
    world = Wired(100, routing=RoutingParameters(refresh_s=0.0, hanging=0.0, kept_links=15))
    world.closest(1, b"key")
    assert 10 <= len(world.network.links[1]) <= 25
    other = Wired(100, routing=QUIET)
    other.closest(1, b"key")
    assert not other.network.links[1]


def test_refreshing_finds_who_came_later() -> None:
    world = Wired(60, routing=RoutingParameters(refresh_s=100.0, hanging=0.0, primed=False))
    world.connect(2)
    world.run(400.0)
    assert min(len(world.routing.tables.known(peer)) for peer in range(60)) >= 30
