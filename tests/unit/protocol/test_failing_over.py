"""A worker whose job has several keepers: whom it tells, what it proves, and what it carries into another view."""

import pytest

from sparkle_protocol import effects as fx
from sparkle_protocol import facts as f
from sparkle_protocol import messages as m
from sparkle_protocol.work.failover import order_of
from tests.unit.protocol.scripted_keepers import (
    NAMES,
    OTHERS,
    SUBMITTER,
    Scene,
    commits_in,
    leases_in,
)

A, B, C, STRANGER = OTHERS[:4]


def scene(*units: int, giver: object = SUBMITTER, slots: int = 1) -> Scene:
    made = Scene(SUBMITTER, A, B, slots=slots)
    made.up(SUBMITTER, A, B)
    made.give(giver, *(units or (0, 1)))  # type: ignore[arg-type]
    return made


def test_units_of_one_job_are_reported_to_the_keepers_that_gave_them() -> None:
    s = scene(0, slots=2)
    s.give(A, 40)
    s.compute(0)
    s.compute(40)
    _, to_submitter, _ = s.report(SUBMITTER)
    _, to_a, _ = s.report(A)
    assert [item.unit for item in commits_in(to_submitter)] == [0]
    assert [item.unit for item in commits_in(to_a)] == [40]
    assert not leases_in(to_a)


def test_a_keeper_whose_connection_is_gone_is_replaced_within_seconds() -> None:
    s = scene()
    s.compute(0)
    tag, before, _ = s.report(SUBMITTER)
    s.hear(SUBMITTER, tag)
    s.down(SUBMITTER)
    s.wait(4.9)
    assert s.held[0] == (0, "committed", SUBMITTER.peer_id)
    s.wait(0.2)
    first, second = (NAMES[peer] for peer in order_of(s.agent.jobs[s.job], 0)[1:])
    assert s.held[0][2] == first.peer_id
    assert not s.sends(second, m.Report)
    _, facts, report = s.report(first)
    assert commits_in(facts) == commits_in(before)
    assert leases_in(facts)[0].author == SUBMITTER.peer_id  # the proof, ahead of what rests on it
    assert facts[0] == leases_in(facts)[0]
    assert not report.running or {beat.unit for beat in report.running} == {1}
    s.wait(60)


def test_a_keeper_that_says_nothing_is_replaced_after_two_heartbeats() -> None:
    s = scene()
    s.compute(0)
    s.report(SUBMITTER)  # and no answer
    s.wait(19)
    assert s.held[0][2] == SUBMITTER.peer_id
    s.wait(2)
    (keeper,) = {NAMES[peer] for _, _, peer in s.held.values()}
    assert keeper in (A, B)
    _, facts, _ = s.report(keeper)
    assert [item.unit for item in commits_in(facts)] == [0]


def test_reports_that_fail_for_two_heartbeats_go_elsewhere_too() -> None:
    s = scene()
    s.compute(0)
    s.wait(18, lost=[SUBMITTER])
    assert s.held[0][2] == SUBMITTER.peer_id
    s.wait(3, lost=[SUBMITTER])
    assert s.held[0][2] != SUBMITTER.peer_id


def test_the_next_keeper_hears_at_once_of_what_runs() -> None:
    s = scene(0, 1)
    s.down(SUBMITTER)
    s.wait(6)
    keeper = next(k for k in (A, B) if s.held[0][2] == k.peer_id)
    _, facts, report = s.report(keeper)
    assert [beat.unit for beat in report.running] == [0, 1]
    assert leases_in(facts) == facts


def test_a_proof_is_shown_once_to_each_keeper() -> None:
    s = scene(0, 1)
    s.down(SUBMITTER)
    s.wait(6)
    keeper = next(k for k in (A, B) if s.held[0][2] == k.peer_id)
    tag, facts, _ = s.report(keeper)
    assert len(leases_in(facts)) == 1
    s.hear(keeper, tag)
    s.compute(0)
    s.wait(3)
    _, facts, _ = s.report(keeper)
    assert commits_in(facts)
    assert not leases_in(facts)


def test_a_refused_proof_is_shown_again_when_the_answer_was_lost() -> None:
    s = scene(0)
    s.compute(0)
    s.report(SUBMITTER)
    s.down(SUBMITTER)
    s.wait(6)
    keeper = next(k for k in (A, B) if s.held[0][2] == k.peer_id)
    tag, first, _ = s.report(keeper)
    s.tell(fx.SendFailed(tag, keeper.peer_id, "lost"))
    s.wait(5)
    _, again, _ = s.report(keeper)
    assert again == first


def test_nothing_moves_while_nobody_else_answers_and_nobody_is_pestered() -> None:
    s = scene()
    s.compute(0)
    s.down(SUBMITTER, A, B)
    lost = s.wait(3600, lost=[SUBMITTER, A, B])
    assert s.held[0] == (0, "committing", SUBMITTER.peer_id)
    assert 40 < lost < 200  # reports and requests for work: each about once a minute
    s.up(B)
    _, facts, _ = s.report(B)
    assert [item.unit for item in commits_in(facts)] == [0]


def test_how_often_silent_keepers_are_tried_is_bounded() -> None:
    s = scene(0)
    s.compute(0)
    attempts = 0
    for _ in range(360):
        s.wait(10)
        for keeper in (SUBMITTER, A, B):
            for send in s.sends(keeper, m.Report):
                attempts += 1
                s.effects.remove(send)
                s.tell(fx.SendFailed(send.tag, keeper.peer_id, "lost"))
    assert s.states() == {0: "committing"}
    assert 20 < attempts < 400  # an hour of silence: one attempt in ten seconds at most


def test_an_unknown_job_at_one_keeper_is_told_to_the_others() -> None:
    s = scene(0)
    s.compute(0)
    tag, before, _ = s.report(SUBMITTER)
    s.refuse(SUBMITTER, tag, "unknown_job")
    keeper = next(k for k in (A, B) if s.held[0][2] == k.peer_id)
    tag, facts, _ = s.report(keeper)
    assert commits_in(facts) == commits_in(before)
    assert s.disk.commits
    s.refuse(keeper, tag, "unknown_job")
    last = B if keeper is A else A
    tag, _, _ = s.report(last)
    s.refuse(last, tag, "unknown_job")
    assert not s.held
    assert not s.disk.commits
    assert not s.disk.leases()
    assert not s.agent.jobs


def test_nothing_is_left_on_disk_when_the_last_word_about_a_job_is_refused() -> None:
    s = scene(0, 1)
    s.compute(0)
    tag, _, _ = s.report(SUBMITTER)
    s.hear(SUBMITTER, tag, settled=[m.Settled(0, 0, True)])
    s.perform(s.agent.stop(s.now))
    tag, _, report = s.report(SUBMITTER)
    assert report.returned == [m.UnitEpoch(1, 0)]
    assert s.disk.commits  # that it may go is written together with something else
    s.refuse(SUBMITTER, tag, "unknown_job")
    assert s.agent.drained
    assert not s.disk.commits
    assert not s.disk.leases()


def test_failures_to_compute_follow_to_the_next_keeper_with_their_proof() -> None:
    s = scene(0)
    s.tell(fx.ComputeFailed(s.job, 0, 0, "kernel", "bad", True))
    tag, _, _ = s.report(SUBMITTER)
    s.refuse(SUBMITTER, tag, "unknown_job")
    (keeper,) = [k for k in (A, B) if s.sends(k, m.Report)]
    _, facts, _ = s.report(keeper)
    assert leases_in(facts)
    assert isinstance(facts[-1].payload, f.Failures)


def test_units_not_begun_are_dropped_once_their_lease_is_over() -> None:
    s = scene(0, 1)
    s.now += 40 * 10**9
    s.down(SUBMITTER)
    s.wait(6, lost=[SUBMITTER])
    assert set(s.held) == {0}


def test_whichever_keeper_asks_is_shown_the_result() -> None:
    s = scene(0, giver=A)
    s.compute(0)
    tag, _, _ = s.report(A)
    s.hear(A, tag)
    s.notice(SUBMITTER, reveal=[m.UnitEpoch(0, 0)])
    tag, facts, report = s.report(SUBMITTER)
    assert report.results == [b"result"]
    assert leases_in(facts)[0].author == A.peer_id
    s.hear(SUBMITTER, tag, settled=[m.Settled(0, 0, True)])
    assert not s.held
    assert s.agent.units_verified == 1


def test_strangers_are_shown_nothing_and_settle_nothing() -> None:
    s = scene(0)
    s.compute(0)
    tag, _, _ = s.report(SUBMITTER)
    s.hear(SUBMITTER, tag)
    for news in ({"reveal": [m.UnitEpoch(0, 0)]}, {"drop": [m.UnitEpoch(0, 0)]}, {"ended": True}):
        s.notice(STRANGER, **news)
    assert s.states() == {0: "committed"}
    assert not s.sends(STRANGER, m.Report)


def test_one_keeper_ends_what_it_gave_and_the_submitter_ends_everything() -> None:
    s = scene(0, 1, slots=4)
    s.give(A, 40, 41)
    s.notice(A, ended=True)
    assert set(s.held) == {0, 1}
    s.took(fx.StopCompute)
    s.give(B, 50)
    s.notice(SUBMITTER, ended=True)
    assert not s.held
    assert len(s.took(fx.StopCompute)) == 3


def test_a_cancelled_job_stops_computing_with_the_next_answer() -> None:
    s = scene(0, 1)
    s.wait(10)
    tag, _, report = s.report(SUBMITTER)
    assert [beat.unit for beat in report.running] == [0, 1]
    s.hear(SUBMITTER, tag, ended=True)
    assert s.took(fx.StopCompute) == [fx.StopCompute(s.job, 0, 0)]
    assert not s.held


# --- restarts ---------------------------------------------------------------------------------------------


def test_after_a_restart_the_commit_is_proven_to_another_keeper() -> None:
    s = scene(0, giver=A)
    s.compute(0)
    _, before, _ = s.report(A)
    s.restart()
    assert s.held == {0: (0, "committing", A.peer_id)}
    s.up(SUBMITTER)
    s.wait(25, lost=[A])
    _, facts, _ = s.report(SUBMITTER)
    assert commits_in(facts) == commits_in(before)
    assert leases_in(facts)[0].author == A.peer_id


def test_leases_are_on_disk_only_while_a_commit_rests_on_them() -> None:
    s = scene(0, 1)
    s.compute(0)
    tag, _, _ = s.report(SUBMITTER)
    assert len(s.disk.leases()) == 1
    s.hear(SUBMITTER, tag, settled=[m.Settled(0, 0, True)])
    s.compute(1)
    assert len(s.disk.leases()) == 1
    tag, _, _ = s.report(SUBMITTER)
    s.hear(SUBMITTER, tag, settled=[m.Settled(1, 0, True)])
    s.wait(20)
    assert not s.disk.leases()
    assert not s.disk.commits


# --- another view -----------------------------------------------------------------------------------------

NEXT = f.epoch_of(f.VIEWS_PER_GENERATION, 0)


def carry(s: Scene, giver: object, *units: int, sender: object = None) -> None:
    """The submitter signed a new set, and a keeper of it carries units over."""
    s.views = [s.set_of([B, C], f.VIEWS_PER_GENERATION)]
    lease = s.lease(giver, *units, epoch=NEXT)  # type: ignore[arg-type]
    s.notice(sender or giver, views=[s.views[0].raw], leases=[lease.raw])  # type: ignore[arg-type]


def test_what_runs_goes_on_in_the_new_epoch() -> None:
    s = scene(0, 1)
    s.took(fx.Compute)
    carry(s, B, 0, 1)
    assert s.held == {0: (NEXT, "running", B.peer_id), 1: (NEXT, "queued", B.peer_id)}
    assert not s.took(fx.StopCompute)
    assert not s.took(fx.Compute)
    s.compute(0)  # the executor knows the unit by its first name
    _, facts, _ = s.report(B)
    assert [(item.unit, item.epoch) for item in commits_in(facts)] == [(0, NEXT)]
    assert not leases_in(facts)
    (compute,) = s.took(fx.Compute)
    assert isinstance(compute, fx.Compute)
    assert (compute.unit, compute.epoch) == (1, NEXT)


def test_a_dropped_unit_is_stopped_under_the_name_that_the_executor_knows() -> None:
    s = scene(0)
    carry(s, B, 0)
    s.notice(B, drop=[m.UnitEpoch(0, NEXT)])
    assert s.took(fx.StopCompute) == [fx.StopCompute(s.job, 0, 0)]


@pytest.mark.parametrize("asked", [False, True])
def test_a_result_gets_a_commit_of_its_new_epoch(asked: bool) -> None:
    s = scene(0)
    s.compute(0)
    tag, before, _ = s.report(SUBMITTER)
    s.hear(SUBMITTER, tag, reveal=[m.UnitEpoch(0, 0)] if asked else [])
    s.effects.clear()
    carry(s, B, 0)
    (persist,) = [e for e in s.effects if isinstance(e, fx.Persist)]
    kinds = [type(record) for record in persist.records]
    assert fx.DropCommit(s.job, 0, 0) in persist.records
    assert fx.StoreCommit in kinds
    assert set(s.disk.commits) == {(s.job, 0, NEXT)}
    _, facts, _ = s.report(B)
    (new,), (old,) = commits_in(facts), commits_in(before)
    assert new.epoch == NEXT
    assert new.commit != old.commit
    s.restart()
    assert s.held == {0: (NEXT, "committing", B.peer_id)}


def test_the_news_may_come_with_the_answer_to_the_commit_itself() -> None:
    s = scene(0)
    s.compute(0)
    tag, _, _ = s.report(SUBMITTER)
    s.views = [s.set_of([B, C], f.VIEWS_PER_GENERATION)]
    lease = s.lease(SUBMITTER, 0, epoch=NEXT)
    s.hear(SUBMITTER, tag, views=[s.views[0].raw], leases=[lease.raw])
    assert s.held == {0: (NEXT, "committing", SUBMITTER.peer_id)}
    _, facts, _ = s.report(SUBMITTER)
    assert commits_in(facts)[0].epoch == NEXT


def test_a_unit_that_we_do_not_hold_is_not_taken_up() -> None:
    s = scene(0)
    carry(s, B, 0, 5)
    assert set(s.held) == {0}


@pytest.mark.parametrize("giver", [A, STRANGER])
def test_only_keepers_of_the_new_view_carry_units_over(giver: object) -> None:
    s = scene(0, giver=A)
    carry(s, giver, 0, sender=A)
    assert s.held[0][0] == 0
    (violation,) = s.took(fx.Violation)
    assert isinstance(violation, fx.Violation)
    assert violation.peer == A.peer_id


def test_a_lease_in_a_view_that_was_not_shown_goes_back_and_the_view_is_asked_for() -> None:
    s = scene(0)
    s.views = [s.set_of([A, B, C], f.VIEWS_PER_GENERATION)]
    s.offer(A)
    (asked,) = s.sends(A, m.LeaseRequest)
    assert isinstance(asked.message, m.LeaseRequest)
    assert asked.message.known_jobs == [s.job]
    s.give(A, 7, epoch=NEXT, show=False)
    assert set(s.held) == {0}
    _, _, report = s.report(A)
    assert report.returned == [m.UnitEpoch(7, NEXT)]
    assert not s.took(fx.Violation)
    s.offer(A)
    (asked,) = s.sends(A, m.LeaseRequest)
    assert isinstance(asked.message, m.LeaseRequest)
    assert asked.message.known_jobs == []
    s.give(A, 7, epoch=NEXT)
    assert s.held[7] == (NEXT, "queued", A.peer_id)


def test_the_same_commit_is_stated_however_often_a_unit_is_leased_to_us() -> None:
    s = scene(0)
    s.compute(0)
    tag, before, _ = s.report(SUBMITTER)
    s.hear(SUBMITTER, tag, drop=[m.UnitEpoch(0, 0)])
    assert not s.held
    s.give(SUBMITTER, 0)
    s.compute(0)
    tag, again, _ = s.report(SUBMITTER)
    assert commits_in(again) == commits_in(before)
    s.hear(SUBMITTER, tag, drop=[m.UnitEpoch(0, 0)])
    s.give(SUBMITTER, 0)
    s.compute(0, result=b"another")  # two different commits would be proof of cheating
    _, facts, report = s.report(SUBMITTER)
    assert not commits_in(facts)
    assert report.returned == [m.UnitEpoch(0, 0)]


def test_the_worker_names_its_device() -> None:
    s = Scene(SUBMITTER, device="cpu/x86_64")
    s.offer(SUBMITTER)
    (asked,) = s.sends(SUBMITTER, m.LeaseRequest)
    assert isinstance(asked.message, m.LeaseRequest)
    assert asked.message.device == "cpu/x86_64"
