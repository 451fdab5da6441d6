"""Up to three of eight keepers lie, also in concert and with workers: nobody sees two finals, and the job ends right.

Three that withhold their word stop a job, for five are less than the threshold; it goes on when they repent, or when
the submitter sees that they are away. Two cannot stop it.
"""

from dataclasses import dataclass, replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sparkle_protocol.facts import Policy
from sparkle_protocol.ids import JobId, PeerId
from tests.property.test_keepers import (
    HOUR_S,
    MANY,
    Outage,
    Season,
    Split,
    certified,
    check_done,
    check_shown_stays,
    everything_said,
    is_done,
    publish,
    seasons,
)
from tests.property.traitors import TRICKS, Traitor
from tests.property.world import World, WorldNode

POLICY = Policy("critical", 3)  # two workers conspire: quorum must be above that


@dataclass(frozen=True)
class Plot:
    """Who lies, and how."""

    traitors: int = 3
    tricks: tuple[str, ...] = TRICKS
    conspirators: int = 2


def tricks(names: str) -> tuple[str, ...]:
    """In this order."""
    return tuple(names.split())


plots = st.builds(
    Plot,
    st.integers(1, 3),
    st.lists(st.sampled_from(TRICKS), min_size=1, unique=True).map(tuple),
    st.integers(0, 2),
)


def betray(season: Season, plot: Plot) -> tuple[World, WorldNode, JobId, list[Traitor]]:
    season = replace(season, loss=min(season.loss, 0.05))  # more, with floods of lies, only takes long
    world = World(season.seed, twice=season.twice, disk_s=season.disk_s)
    world.unit_s = season.unit_s
    submitter = world.add(works=False)
    nodes = [world.add(kind=Traitor) for _ in range(season.nodes + plot.conspirators - 1)]
    job = publish(world, submitter, season, POLICY)
    view = submitter.submitter.jobs[job].state.view
    assert view is not None
    traitors = [node for node in nodes if view.holds(node.id)][: plot.traitors]
    assert all(isinstance(node, Traitor) for node in traitors)
    for node in [node for node in nodes if node not in traitors][: plot.conspirators]:
        node.conspires = True
    friends = tuple(node for node in traitors if isinstance(node, Traitor))
    for friend in friends:
        friend.turn(job, plot.tricks, friends)
    return world, submitter, job, list(friends)


def check_honest(world: World, job: JobId, traitors: list[Traitor]) -> None:
    """No epoch has two finals, only wrong-doers are accused, and what was shown stays."""
    bad: set[PeerId] = {node.id for node in world.nodes if node in traitors or node.conspires}
    for (unit, epoch), results in certified(everything_said(world, job)).items():
        assert len(results) == 1, f"unit {unit} in epoch {epoch}"
    check_shown_stays(world, job)
    honest = [node for node in world.nodes if node.id not in bad]
    for node in honest:
        assert {peer for peer, _ in node.violations} <= bad, node.violations
        kept = node.submitter.job(job)
        assert kept is None or not (kept.rejected | kept.state.two_faced.keys()) - bad


def check_plot(season: Season, plot: Plot) -> None:
    world, submitter, job, traitors = betray(season, plot)
    stopped = plot.traitors == 3 and bool({"withhold", "sums", "garbage"} & set(plot.tricks))
    if stopped:
        world.run(lambda: is_done(submitter, job), seconds=400, events=MANY)
    else:
        assert world.run(lambda: is_done(submitter, job), seconds=2 * HOUR_S, events=MANY), "liars stopped the job"
    check_honest(world, job, traitors)
    for traitor in traitors:
        traitor.repent()
    assert world.run(lambda: is_done(submitter, job), seconds=2 * HOUR_S, events=MANY), "the job never ended"
    check_done(submitter, job)
    others = [node for node in world.nodes if node not in traitors and not node.conspires]
    assert world.run(
        lambda: all(job not in n.submitter.kept and not n.worker.held and not n.disk.commits for n in others),
        seconds=HOUR_S,
        events=MANY,
    ), "somebody holds something"
    check_honest(world, job, traitors)


@settings(max_examples=5)
@example(  # a keeper that had not heard of its successors gave its own worker units that went back at once, for ever
    Season(
        342,
        nodes=12,
        units=35,
        loss=0.05,
        twice=0.3,
        disk_s=0.0,
        outages=(
            Outage(40.4070937606219, 1, 50),
            Outage(28.796379699801083, 2, 3),
            Outage(1.1, 10, 0.05),
            Outage(51.87668264800267, 0, 140),
            Outage(48.92690692258933, 10, 50),
            Outage(56.269864010474016, 2, 140),
        ),
        splits=(Split(26.798845950301995, 40.0, 2, False), Split(23.494395515051504, 40.0, 93, True)),
    ),
    Plot(
        3,
        tricks("garbage sets leases sums withhold decree two_verdicts endorse release condemn"),
        1,
    ),
)
@example(  # guests had let the job go and were invited once more shortly before it ended
    Season(
        17780359,
        nodes=11,
        units=47,
        unit_s=0.3,
        disk_s=1.0,
        outages=(
            Outage(47.717909611174036, 10, 140),
            Outage(12.586333440835396, 6, 0.05),
            Outage(10.225669232736776, 11, 140),
            Outage(23.713629318647676, 8, 0.05),
            Outage(15.922541508908283, 6, 0.05),
        ),
        splits=(Split(57.41172197974577, 3.0, 50, True), Split(0.99999, 40.0, 37, False)),
    ),
    Plot(
        2,
        tricks("endorse sums garbage decree two_verdicts withhold sets leases release condemn"),
        0,
    ),
)
@given(seasons(0), plots)
def test_three_lying_keepers_of_eight_never_make_two_finals(season: Season, plot: Plot) -> None:
    check_plot(season, plot)


@pytest.mark.parametrize("trick", TRICKS)
def test_two_liars_cannot_stop_a_job(trick: str) -> None:
    check_plot(Season(5, units=12), Plot(2, (trick,)))


def test_who_signs_for_two_results_is_recorded() -> None:
    world, submitter, job, traitors = betray(Season(6, units=30), Plot(3, ("two_verdicts",), 0))
    assert world.run(lambda: is_done(submitter, job), seconds=HOUR_S, events=MANY)
    check_done(submitter, job)
    said = {str(one.fields["peer"]) for one in submitter.events if one.event == "keeper_two_faced"}
    assert said == {node.id for node in traitors}
    assert {peer for peer, _ in submitter.violations} == {node.id for node in traitors}
