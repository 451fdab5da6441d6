"""Each kind of fault does what it says, to whom it says, and ends."""

import pytest

from sparkle_protocol.errors import ConfigError
from sparkle_sim import faults
from sparkle_sim.engine import Run, build_world
from sparkle_sim.guard import no_outside
from sparkle_sim.kernel import SECOND
from sparkle_sim.network import DIAL_LIMIT_S
from sparkle_sim.scenario import Fault, JobPlan, Peers, Region, Scenario, Wires
from sparkle_sim.trace import Entry, Trace
from sparkle_sim.world import World


def scene(*wrong: Fault, peers: int = 6, regions: list[Region] | None = None) -> Scenario:
    wires = Wires(regions=regions or [Region("here", 1.0)], jitter=0.0)
    jobs = [JobPlan(at_s=5.0, units=6, unit_s=4.0)]
    return Scenario(
        "faults", seconds=300.0, until_done=False, peers=Peers(peers, 1.0), wires=wires, jobs=jobs, faults=[*wrong]
    )


def begun(scenario: Scenario, trace: Trace | None = None, seed: int = 1) -> Run:
    return Run(scenario, seed, trace=trace)


def up(world: World) -> list[int]:
    return [peer.number for peer in world.peers if peer.life is not None]


def until(run: Run, at_s: float) -> World:
    run.world.kernel.run(int(at_s * SECOND))
    return run.world


def test_who_is_killed_comes_back_with_its_disk() -> None:
    run = begun(scene(Fault("kill", 8.0, 2.0, peers=[0, 3])))
    world = until(run, 8.5)
    assert up(world) == [1, 2, 4, 5]
    there = dict(world.peers[0].disk.jobs)
    assert there
    until(run, 10.5)
    assert up(world) == [0, 1, 2, 3, 4, 5]
    assert world.peers[0].submitter.jobs.keys() == there.keys()
    assert not world.peers[3].lost


def test_who_is_killed_for_good_or_loses_its_disk_stays_away() -> None:
    world = until(begun(scene(Fault("kill", 8.0, peers=[3]), Fault("lose-disk", 9.0, 1.0, peers=[4]))), 100.0)
    assert up(world) == [0, 1, 2, 5]
    assert world.peers[3].lost
    assert world.peers[4].lost
    assert not world.peers[4].disk.jobs


def test_a_peer_is_gone_until_the_last_fault_that_killed_it_is_over() -> None:
    run = begun(scene(Fault("kill", 8.0, 2.0, peers=[3]), Fault("kill", 9.0, 3.0, peers=[3])))
    assert 3 not in up(until(run, 10.5))
    assert 3 in up(until(run, 12.5))


def test_a_fault_before_somebody_came_does_nothing() -> None:
    world = until(begun(scene(Fault("kill", 0.0, 0.1, peers=[5]))), 3.0)
    assert up(world) == [0, 1, 2, 3, 4, 5]
    assert world.peers[5].lives == 1


def test_a_frozen_peer_does_nothing_keeps_its_connections_and_goes_on_with_what_waited() -> None:
    entries: list[Entry] = []
    run = begun(scene(Fault("freeze", 7.0, 12.0, peers=[3])), Trace(entries.append))
    world = until(run, 18.9)
    passive = {"freeze", "down"}
    did = [one.what for one in entries if one.peer == 3 and one.at_ns > 7.0 * SECOND and one.what not in passive]
    assert not did
    assert world.network.links[3]
    dialled: list[bool] = []
    stranger = next(number for number in range(6) if number != 3)
    world.network.links[stranger].pop(3, None)
    world.network.dial(stranger, 3, dialled.append)
    until(run, 18.95)
    assert not dialled  # somebody's system answers, but no handshake ends
    until(run, 19.5)
    assert any(one.peer == 3 and one.what.startswith("reply") for one in entries if one.at_ns > 19.0 * SECOND)
    until(run, 18.9 + DIAL_LIMIT_S + 1.0)
    assert dialled == [False]
    assert run.advance(300.0)
    assert set(run.outcomes.values()) == {"job_done"}


def test_what_is_computed_stands_still_while_its_node_is_frozen() -> None:
    """A unit takes its own time and that of the freeze."""

    def first_computed(*wrong: Fault) -> float:
        entries: list[Entry] = []
        until(begun(scene(*wrong), Trace(entries.append)), 60.0)
        return next(one.at_ns for one in entries if one.peer == 3 and one.what == "computed") / SECOND

    usual_s, late_s = first_computed(), first_computed(Fault("freeze", 6.5, 5.0, peers=[3]))
    assert late_s == pytest.approx(usual_s + 5.0, abs=0.1)


def test_a_partition_lets_nothing_through_in_either_direction_and_one_way_in_one() -> None:
    world = until(
        begun(scene(Fault("partition", 5.0, 5.0, peers=[1, 2]), Fault("one-way", 20.0, 5.0, peers=[4]))), 7.0
    )
    carries = world.network.carries
    assert not carries(0, 1)
    assert not carries(1, 0)
    assert carries(1, 2)
    assert carries(0, 3)
    world.kernel.run(12 * SECOND)
    assert carries(0, 1)
    world.kernel.run(21 * SECOND)
    assert not carries(4, 0)
    assert carries(0, 4)


def test_a_fault_hits_all_of_a_region() -> None:
    regions = [Region("east", 0.5), Region("west", 0.5)]
    scenario = scene(Fault("partition", 5.0, 5.0, regions=["west"]), peers=20, regions=regions)
    world = build_world(scenario, 1)
    west = [number for number, place in enumerate(world.network.places) if place.region == 1]
    assert 0 < len(west) < 20
    assert faults.pinned(world, scenario).faults[0].peers == west


def test_factors_of_faults_that_overlap_multiply_and_go_again() -> None:
    run = begun(
        scene(
            Fault("slow", 2.0, 10.0, peers=[3], factor=2.0),
            Fault("slow", 3.0, 2.0, peers=[3], factor=5.0),
            Fault("slow-reader", 2.0, 3.0, peers=[3], factor=10.0),
            Fault("slow-link", 2.0, 3.0, peers=[3], factor=4.0),
        )
    )
    peer = run.world.peers[3]
    before = peer.machine
    world = until(run, 4.0)
    life = peer.life
    assert life is not None
    assert life.slots.flops_per_s == pytest.approx(before.flops_per_s / 10)
    assert peer.machine.event_ns == 10 * before.event_ns
    assert world.network.conditions.slower == {3: 4.0}
    until(run, 6.0)
    assert life.slots.flops_per_s == pytest.approx(before.flops_per_s / 2)
    assert not world.network.conditions.slower
    until(run, 13.0)
    assert peer.machine == before


def test_who_reads_nothing_is_given_up_until_the_last_stall_is_over() -> None:
    run = begun(scene(Fault("stall", 5.0, 60.0, peers=[2]), Fault("stall", 50.0, 50.0, peers=[2])))
    links = until(run, 4.9).network.links
    assert links[2]
    until(run, 85.0)
    assert not links[2]
    assert not any(2 in others for others in links)
    until(run, 200.0)
    assert links[2]


def test_the_others_hold_on_to_half_open_connections() -> None:
    run = begun(scene(Fault("half-open", 5.0, peers=[2])))
    seen: list[int] = []
    run.world.kernel.at(5 * SECOND + 1, lambda: seen.extend([len(run.world.network.links[2]), _believers(run.world)]))
    before = len(until(run, 4.9).network.links[2])
    until(run, 60.0)
    assert seen == [0, before]
    assert before > 0
    assert len(run.world.network.links[2]) == _believers(run.world) > 0


def _believers(world: World) -> int:
    """Who is connected with peer 2, as far as they know."""
    return sum(1 for others in world.network.links if 2 in others)


def test_a_skewed_clock_jumps_and_comes_back() -> None:
    run = begun(scene(Fault("skew", 5.0, 5.0, peers=[2], amount_s=-90.5)))
    peer = run.world.peers[2]
    skew_ms = peer.machine.skew_ms
    until(run, 6.0)
    assert peer.machine.skew_ms == skew_ms - 90_500
    until(run, 11.0)
    assert peer.machine.skew_ms == skew_ms


def test_a_share_is_drawn_among_all_but_the_submitters_and_taking_a_fault_out_changes_no_other() -> None:
    wrong = [
        Fault("kill", 5.0, 1.0, share=0.5),
        Fault("freeze", 5.0, 1.0, share=0.25),
        Fault("slow", 5.0, share=0.25),
    ]
    scenario = scene(*wrong, peers=21)
    world = build_world(scenario, 7)
    whole = faults.pinned(world, scenario).faults
    assert [len(fault.peers) for fault in whole] == [10, 5, 5]
    assert not any(0 in fault.peers for fault in whole)
    assert faults.pinned(world, scene(wrong[0], peers=21)).faults == whole[:1]
    assert faults.pinned(world, scene(*whole[1:], peers=21)).faults == whole[1:]


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (Fault("explode", 1.0, peers=[1]), "it can be one of kill, restore-ledger, lose-disk, freeze"),
        (Fault("kill", 1.0), "hits nobody"),
        (Fault("kill", 1.0, peers=[6]), "the last peer is 5"),
        (Fault("kill", 1.0, regions=["moon"]), "there are here"),
    ],
)
def test_a_fault_that_means_nothing_is_refused(fault: Fault, text: str) -> None:
    scenario = scene(Fault("kill", 1.0, peers=[1]), fault)
    with pytest.raises(ConfigError, match=text):
        faults.begin(build_world(scenario, 1), scenario)


def test_the_same_seed_gives_the_same_run_and_asks_nothing_outside() -> None:
    wrong = (
        Fault("kill", 6.0, 3.0, share=0.3),
        Fault("freeze", 7.0, 6.0, share=0.3),
        Fault("partition", 8.0, 9.0, share=0.3),
    )
    hashes = []
    for seed in (1, 1, 2):
        with no_outside():
            run = begun(scene(*wrong), seed=seed)
            until(run, 40.0)
        hashes.append(run.world.trace.hash)
    assert hashes[0] == hashes[1] != hashes[2]
