"""Connections between simulated peers: how they are made, and how their ends learn that they are gone."""

import pytest

from sparkle_sim.costs import DIAL, DIAL_WORK, REFUSED
from sparkle_sim.kernel import MS, SECOND, Kernel
from sparkle_sim.network import (
    DIAL_LIMIT_S,
    MESSAGE_NS,
    NAT,
    PUBLIC,
    SILENCE_S,
    SYMMETRIC,
    Conditions,
    Network,
    Place,
)


class Bench:
    """Peers that write down what they notice."""

    def __init__(self, places: list[Place], conditions: Conditions | None = None) -> None:
        self.kernel = Kernel()
        self.down: set[int] = set()
        self.seen: list[tuple[float, int, str, int]] = []
        self.dialled: list[bool] = []
        self.network = Network(self.kernel, self, places, conditions or Conditions(jitter=0.0), seed=1)

    def is_up(self, peer: int) -> bool:
        return peer not in self.down

    def link_up(self, peer: int, other: int) -> None:
        self.seen.append((self.kernel.now / SECOND, peer, "up", other))

    def link_down(self, peer: int, other: int) -> None:
        self.seen.append((self.kernel.now / SECOND, peer, "down", other))

    def dial(self, peer: int, other: int) -> bool:
        self.network.dial(peer, other, self.dialled.append)
        self.run(30)
        return self.dialled.pop()

    def run(self, seconds: float) -> list[tuple[float, int, str, int]]:
        self.kernel.run(self.kernel.now + int(seconds * SECOND))
        seen, self.seen = self.seen, []
        return seen


def test_a_connection_takes_four_round_trips_and_what_it_costs_and_both_ends_learn_of_it() -> None:
    bench = Bench([Place(0), Place(1)], Conditions([[10, 50], [50, 10]], jitter=0.0))
    bench.network.dial(0, 1, bench.dialled.append)
    up = bench.run(1)
    assert [what for _, *what in up] == [[0, "up", 1], [1, "up", 0]]
    assert 0.2 + DIAL.median_ms / 2000 < up[0][0] == up[1][0] < 0.2 + DIAL.median_ms / 500
    assert bench.dialled == [True]
    assert bench.network.connected(0, 1)
    bench.network.dial(1, 0, bench.dialled.append)
    assert bench.run(1) == []  # it is there already
    assert bench.dialled == [True, True]


def test_who_is_not_there_cannot_be_dialled() -> None:
    bench = Bench([Place(), Place()])
    bench.down.add(1)
    assert not bench.dial(0, 1)


def test_who_dials_many_at_once_waits_for_its_own_thread() -> None:
    bench = Bench([Place()] * 21)
    for other in range(1, 21):
        bench.network.dial(0, other, bench.dialled.append)
    times = [at for at, peer, *_ in bench.run(10) if peer == 0]
    assert len(times) == 20
    assert times[-1] - times[0] > 15 * DIAL_WORK.median_ms / 1000


def test_a_dial_fails_at_once_where_a_process_is_gone_and_by_the_time_out_where_a_machine_is() -> None:
    bench = Bench([Place(), Place(), Place()])
    for peer in (1, 2):
        bench.down.add(peer)
        bench.network.leave(peer, silently=peer == 2)
    took: dict[int, float] = {}
    for peer in (1, 2):
        bench.network.dial(0, peer, lambda _, peer=peer: took.update({peer: bench.kernel.now / SECOND}))
    bench.run(30)
    assert 0.02 < took[1] < 0.02 + 10 * REFUSED.median_ms / 1000
    assert took[2] == DIAL_LIMIT_S
    bench.down.clear()
    assert bench.dial(0, 2), "it is back"


def test_a_connection_to_a_suspended_process_is_given_up_and_it_learns_of_that_when_it_goes_on() -> None:
    bench = Bench([Place(), Place()])
    assert bench.dial(0, 1)
    bench.run(1)
    bench.network.suspend(1)
    assert bench.run(SILENCE_S[0] - 1) == []
    assert [what for _, *what in bench.run(SILENCE_S[1])] == [[0, "down", 1]]
    bench.network.resume(1)
    assert [what for _, *what in bench.run(1)] == [[1, "down", 0]]


def test_a_connection_outlives_a_short_suspension() -> None:
    bench = Bench([Place(), Place()])
    assert bench.dial(0, 1)
    bench.run(1)
    bench.network.suspend(1)
    bench.run(SILENCE_S[0] - 1)
    bench.network.resume(1)
    assert bench.run(2 * SILENCE_S[1]) == []
    assert bench.network.connected(0, 1)


def test_the_other_end_of_a_killed_process_is_told_at_once_and_of_a_vanished_machine_later() -> None:
    bench = Bench([Place(), Place(), Place()])
    assert bench.dial(0, 1)
    assert bench.dial(0, 2)
    bench.run(1)
    bench.down.add(1)
    bench.network.leave(1, silently=False)
    assert [what for _, *what in bench.run(1)] == [[0, "down", 1]]
    bench.down.add(2)
    bench.network.leave(2, silently=True)
    assert bench.run(SILENCE_S[0] - 0.1) == []
    assert [what for _, *what in bench.run(SILENCE_S[1])] == [[0, "down", 2]]


def test_a_new_life_is_not_told_of_connections_of_the_one_before() -> None:
    bench = Bench([Place(), Place()])
    assert bench.dial(0, 1)
    bench.network.leave(1, silently=True)
    bench.network.hang_up(0, 1)
    assert bench.dial(1, 0)
    bench.run(1)
    assert bench.run(60) == []
    assert bench.network.connected(0, 1)


def test_who_vanished_and_is_back_keeps_its_new_connection() -> None:
    """The other end had not noticed that the old one was gone; when that runs out, the new one stands."""
    bench = Bench([Place(), Place()])
    assert bench.dial(0, 1)
    bench.network.leave(1, silently=True)
    bench.run(1)
    bench.network.dial(1, 0, bench.dialled.append)
    assert [what for _, *what in bench.run(1)] == [[1, "up", 0]]
    assert bench.run(2 * SILENCE_S[1]) == []
    assert bench.network.connected(0, 1)
    assert bench.network.connected(1, 0)


def test_a_partition_breaks_connections_and_keeps_new_ones_from_being_made() -> None:
    bench = Bench([Place(), Place(), Place()])
    assert bench.dial(0, 1)
    assert bench.dial(0, 2)
    bench.run(1)
    bench.network.block("storm", lambda sender, receiver: (sender == 1) != (receiver == 1))
    assert not bench.network.carries(0, 1)
    assert bench.network.carries(0, 2)
    assert sorted(what for _, *what in bench.run(SILENCE_S[1])) == [[0, "down", 1], [1, "down", 0]]
    assert not bench.dial(1, 0)
    bench.network.unblock("storm")
    assert bench.dial(1, 0)


def test_a_connection_outlives_a_short_partition() -> None:
    bench = Bench([Place(), Place()])
    assert bench.dial(0, 1)
    bench.network.block("blink", lambda _sender, _receiver: True)
    bench.run(SILENCE_S[0] - 1)
    bench.network.unblock("blink")
    assert [what for _, *what in bench.run(120)] == []


def test_only_two_peers_behind_nats_may_need_a_relay() -> None:
    places = [Place(0, PUBLIC), Place(0, NAT), Place(0, SYMMETRIC), Place(0, SYMMETRIC)]
    bench = Bench(places)
    for peer, other in ((0, 1), (1, 0), (0, 2), (2, 0), (2, 3)):
        bench.network.hang_up(peer, other)
        bench.run(1)
        assert bench.dial(peer, other)
        assert bench.network.is_relayed(peer, other) == (0 not in (peer, other))
    assert bench.network.delay_ns(2, 3) == 2 * bench.network.delay_ns(0, 1) == 20 * MS


def test_loss_is_a_share_of_what_is_sent_and_spares_what_a_node_says_to_itself() -> None:
    bench = Bench([Place(), Place()], Conditions(loss=0.3))
    lost = sum(not bench.network.carries(0, 1) for _ in range(4000))
    assert 1100 < lost < 1300
    assert all(bench.network.carries(0, 0) for _ in range(100))


def test_a_large_message_takes_as_long_as_the_line_says_and_a_small_one_only_the_way() -> None:
    bench = Bench([Place(), Place()], Conditions(((20.0,),), jitter=0.0, upload_mbps=8.0))
    came: list[tuple[float, int]] = []
    for size in (100, 1_000_000, 500_000):
        bench.network.send(0, 1, lambda raw: came.append((bench.kernel.now / SECOND, len(raw))), bytes(size))
    bench.run(5)
    ways = 0.01 + MESSAGE_NS / SECOND  # half a round trip, and what it costs the threads of both ends
    assert came == [(pytest.approx(ways + one), size) for one, size in ((0.0, 100), (1.0, 500_000), (1.5, 1_000_000))]


def test_a_message_on_its_way_is_lost_with_its_connection() -> None:
    bench = Bench([Place(), Place()])
    assert bench.dial(0, 1)
    came: list[bytes] = []
    bench.network.send(0, 1, came.append, bytes(1_000_000))
    bench.network.hang_up(0, 1)
    bench.run(30)
    assert came == []


def test_who_reads_nothing_still_speaks_and_both_ends_give_the_connection_up() -> None:
    bench = Bench([Place(), Place()])
    assert bench.dial(0, 1)
    bench.run(1)
    came: list[str] = []
    bench.network.stall(1, "test")
    bench.network.send(1, 0, lambda: came.append("from it"))
    bench.network.send(0, 1, lambda: came.append("to it"))
    bench.run(5)
    assert came == ["from it"]
    assert not bench.dial(1, 0) or bench.network.connected(1, 0)
    assert sorted(what for _, *what in bench.run(60)) == [[0, "down", 1], [1, "down", 0]]
    assert not bench.dial(0, 1)
    bench.network.read_on(1, "test")
    bench.run(1)
    assert came == ["from it", "to it"]
    assert bench.dial(0, 1)


def test_a_short_stall_breaks_nothing() -> None:
    bench = Bench([Place(), Place()])
    assert bench.dial(0, 1)
    bench.network.stall(1, "test")
    bench.run(SILENCE_S[0] - 1)
    bench.network.read_on(1, "test")
    assert [what for _, *what in bench.run(120)] == []


def test_the_end_that_knows_nothing_of_it_finds_a_half_open_connection_by_using_it() -> None:
    bench = Bench([Place(), Place()])
    assert bench.dial(0, 1)
    bench.run(1)
    bench.network.forget_links(1)
    assert [what for _, *what in bench.run(1)] == [[1, "down", 0]]
    assert bench.network.connected(0, 1)
    came: list[str] = []
    bench.network.send(0, 1, lambda: came.append("lost"))
    assert [what for _, *what in bench.run(1)] == [[0, "down", 1]]
    assert came == []


def test_a_half_open_connection_is_noticed_by_its_silence_or_made_whole_by_a_new_one() -> None:
    bench = Bench([Place(), Place(), Place()])
    assert bench.dial(0, 1)
    assert bench.dial(2, 1)
    bench.run(1)
    bench.network.forget_links(1)
    bench.run(1)
    assert bench.dial(1, 2)
    told = [what for _, *what in bench.run(60)]
    assert [0, "down", 1] in told
    assert [2, "down", 1] not in told
    came: list[str] = []
    bench.network.send(2, 1, lambda: came.append("over the new one"))
    bench.run(1)
    assert came == ["over the new one"]
