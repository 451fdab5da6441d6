"""Lines that several flows share: to the nanosecond as the closed form says, and no byte comes that was not sent."""

from collections.abc import Sequence

import pytest

from sparkle_sim.draws import draws
from sparkle_sim.kernel import SECOND, Kernel
from sparkle_sim.uplinks import Flow, Uplinks

UP, DOWN = 1e6, 5e6  # bytes per second
MB = 1_000_000


class Bench:
    """Lines, and when what came over them."""

    def __init__(self, up: float = UP, down: float = DOWN) -> None:
        self.kernel = Kernel()
        self.cut: dict[tuple[int, int], None] = {}
        self.factors: dict[int, float] = {}
        self.lines = Uplinks(
            self.kernel,
            up,
            down,
            lambda sender, receiver: (sender, receiver) not in self.cut,
            lambda peer: self.factors.get(peer, 1.0),
        )
        self.came: list[tuple[float, str, int]] = []
        self.gone: list[tuple[str, int, bool]] = []

    def send(self, name: str, sender: int, receiver: int, *sizes: int, bound: bool = False) -> Flow:
        marks: Sequence[int] = [sum(sizes[: end + 1]) for end in range(len(sizes))]
        return self.lines.start(
            sender,
            receiver,
            marks,
            lambda mark: self.came.append((self.kernel.now / SECOND, name, mark)),
            lambda peer, silently: self.gone.append((name, peer, silently)),
            bound=bound,
        )

    def run(self, until_s: float = 1000.0) -> list[tuple[float, str, int]]:
        self.kernel.run(int(until_s * SECOND))
        came, self.came = self.came, []
        return came


@pytest.mark.parametrize("count", [1, 2, 3, 7, 50])
def test_flows_of_one_size_over_one_uplink_all_end_when_the_last_byte_has_left(count: int) -> None:
    bench = Bench()
    for number in range(count):
        bench.send(str(number), 0, 1 + number, MB)
    came = bench.run()
    assert sorted(int(name) for _, name, _ in came) == [*range(count)]
    assert {round(at_s * SECOND) for at_s, _, _ in came} == {count * SECOND}


def test_flows_of_several_sizes_end_as_processor_sharing_says() -> None:
    """Of n sizes in order the k-th ends at the sum of the smaller ones and n - k + 1 times its own, over the line."""
    sizes = sorted(draws(1, "sizes").below(5 * MB) + 1 for _ in range(20))
    sizes = [size + number for number, size in enumerate(sizes)]
    bench = Bench()
    for number, size in enumerate(sizes):
        bench.send(str(number), 0, 1 + number, size)
    came = bench.run()
    assert [name for _, name, _ in came] == [str(number) for number in range(len(sizes))]
    for number, (at_s, _, _) in enumerate(came):
        bytes_before = sum(sizes[:number]) + (len(sizes) - number) * sizes[number]
        assert at_s == pytest.approx(bytes_before / UP, abs=1e-6)


def test_a_downlink_is_shared_as_well_and_the_smaller_part_counts() -> None:
    bench = Bench(up=1e6, down=1e6)
    bench.send("a", 1, 0, MB)
    bench.send("b", 2, 0, MB)
    bench.send("c", 2, 3, 2 * MB)  # half of 2's uplink, and all of it later
    assert sorted(bench.run()) == [(2.0, "a", 0), (2.0, "b", 0), (3.0, "c", 0)]


def test_who_comes_later_slows_the_others_down_and_who_leaves_lets_them_go_on() -> None:
    bench = Bench()
    bench.send("long", 0, 1, 3 * MB)
    bench.run(1.0)
    other = bench.send("given up", 0, 2, 10 * MB)
    assert bench.run(3.0) == []
    assert bench.lines.sent_of(other) == pytest.approx(MB)
    bench.lines.stop(other)
    assert bench.run() == [(4.0, "long", 0)]
    assert bench.lines.broken == MB
    assert not bench.lines.active


def test_marks_are_told_as_they_are_reached() -> None:
    bench = Bench()
    bench.send("a", 0, 1, MB, MB // 2, MB)
    assert bench.run(1.2) == [(1.0, "a", 0)]
    bench.send("b", 0, 2, MB // 2)  # both at half the speed from here on
    assert bench.run() == [(1.8, "a", 1), (2.2, "b", 0), (3.0, "a", 2)]


def test_what_stands_takes_nothing_from_others_and_goes_on_where_it_was() -> None:
    bench = Bench()
    bench.send("stalled", 0, 1, MB)
    bench.send("other", 0, 2, MB)
    bench.run(1.0)  # half of each
    bench.cut[0, 1] = None
    bench.lines.look(1)
    assert bench.run(5.0) == [(1.5, "other", 0)]
    del bench.cut[0, 1]
    bench.lines.look(1)
    assert bench.run() == [(5.5, "stalled", 0)]


def test_what_begins_while_nothing_gets_through_waits() -> None:
    bench = Bench()
    bench.cut[0, 1] = None
    bench.send("a", 0, 1, MB)
    bench.send("b", 0, 2, MB)
    assert bench.run(3.0) == [(1.0, "b", 0)]
    bench.cut.clear()
    bench.lines.look()
    assert bench.run() == [(4.0, "a", 0)]


def test_a_slower_line() -> None:
    bench = Bench()
    bench.send("a", 0, 1, 2 * MB)
    bench.run(1.0)
    bench.factors[0] = 4.0
    bench.lines.look(0)
    assert bench.run() == [(5.0, "a", 0)]


def test_all_that_concerns_a_peer_ends_with_it_and_the_other_ends_are_told() -> None:
    bench = Bench()
    bench.send("from", 0, 1, MB)
    bench.send("to", 2, 0, MB)
    bench.send("else", 2, 1, MB)
    bench.run(0.5)
    bench.lines.end(0, silently=True)
    assert sorted(bench.gone) == [("from", 0, True), ("to", 0, True)]
    assert bench.run() == [(1.25, "else", 0)]  # a quarter by then, and the whole line from there on


def test_a_connection_takes_with_it_what_was_on_its_way_over_it() -> None:
    bench = Bench()
    bench.send("message", 0, 1, MB, bound=True)
    bench.send("blob", 0, 1, MB)
    bench.run(1.0)
    bench.lines.hang_up(1, 0)
    assert bench.run() == [(1.5, "blob", 0)]


def test_no_byte_comes_that_was_not_sent_and_lines_are_never_faster_than_they_are() -> None:
    bench, random = Bench(), draws(7, "flows")
    flows: list[Flow] = []
    for number in range(300):
        bench.run(number * 0.05)
        bench.came.clear()
        sender, receiver = random.below(6), 6 + random.below(6)
        flows.append(bench.send(str(number), sender, receiver, 1 + random.below(MB), 1 + random.below(MB)))
        if random.random() < 0.2:
            bench.lines.stop(flows[random.below(len(flows))])
        if random.random() < 0.1:
            bench.cut[random.below(6), 6 + random.below(6)] = None
            bench.lines.look()
        if random.random() < 0.1:
            bench.cut.clear()
            bench.lines.look()
    bench.cut.clear()
    bench.lines.look()
    bench.run()
    lines = bench.lines
    whole = sum(flow.marks[flow.reached - 1] for flow in flows if flow.reached)
    assert sum(lines.sent.values()) == sum(lines.received.values()) == whole
    begun = sum(round(flow.sent) for flow in flows)
    assert begun == whole + lines.broken
    busy_s = bench.kernel.now / SECOND
    assert all(sent <= UP * busy_s for sent in lines.sent.values())
    assert not lines.active
    assert all(flow.over for flow in flows)
