"""A job of which nobody shows what pays for it: its worker takes nothing more of it."""

from sparkle_protocol import effects as fx
from sparkle_protocol import messages as m
from sparkle_protocol.ids import JobId
from sparkle_protocol.work.worker import UNPAID_NS
from tests.unit.protocol.kept_jobs import CODEC, LoneKeeper, peer
from tests.unit.protocol.scripted_keepers import SUBMITTER, Scene


def unwanted(s: Scene) -> list[bytes]:
    """What the last request for work leaves out."""
    asked = s.sends(SUBMITTER, m.LeaseRequest)[-1].message
    assert isinstance(asked, m.LeaseRequest)
    return asked.unwanted


def test_what_was_not_computed_goes_back_and_what_was_is_told() -> None:
    s = Scene(SUBMITTER)
    s.give(SUBMITTER, 0)
    s.compute(0)
    tag, _, _ = s.report(SUBMITTER)
    s.hear(SUBMITTER, tag)
    s.give(SUBMITTER, 1)
    assert s.states() == {0: "committed", 1: "running"}
    s.tell(fx.JobUnfunded(s.job))
    assert s.states() == {0: "committed"}
    assert [one.event for one in s.took(fx.Notify)].count("job_unfunded") == 1
    s.wait(5)
    assert {back.unit for report in s.reports for back in report.returned} == {1}


def test_keepers_are_told_and_what_they_give_all_the_same_goes_back() -> None:
    s = Scene(SUBMITTER)
    s.give(SUBMITTER, 0)
    s.tell(fx.JobUnfunded(s.job))
    tag, _, _ = s.report(SUBMITTER)
    s.hear(SUBMITTER, tag)
    s.effects.clear()
    s.offer(SUBMITTER)
    assert unwanted(s) == [s.job]
    s.give(SUBMITTER, 5)
    assert 5 not in s.states()
    s.wait(5)
    assert 5 in {back.unit for report in s.reports for back in report.returned}


def test_it_is_taken_again_when_it_was_not_missed_for_a_while() -> None:
    s = Scene(SUBMITTER)
    s.give(SUBMITTER, 0)
    s.tell(fx.JobUnfunded(s.job))
    s.wait(UNPAID_NS / 2e9)
    s.tell(fx.JobUnfunded(s.job))
    s.wait(UNPAID_NS / 2e9 + 60)
    s.give(SUBMITTER)
    s.effects.clear()
    s.wait(70)
    assert unwanted(s) == [s.job]
    s.wait(UNPAID_NS / 1e9)
    s.give(SUBMITTER)
    s.effects.clear()
    s.wait(70)
    assert unwanted(s) == []


def test_of_more_than_a_request_can_name_the_latest_are_left_out() -> None:
    s = Scene(SUBMITTER)
    jobs = [JobId(bytes([n]) * 32) for n in range(m.MAX_UNWANTED + 3)]
    for job in jobs:
        s.tell(fx.JobUnfunded(job))
    s.offer(SUBMITTER)
    assert unwanted(s) == jobs[3:]


def test_a_keeper_gives_others_and_says_that_there_is_nothing_if_there_are_none() -> None:
    keeper = LoneKeeper()
    job, _ = keeper.offer(peer(1), 100)
    request = m.LeaseRequest(8, ["square@1"], [], unwanted=[job])
    reply = keeper.ask(peer(2), request)
    assert isinstance(reply, m.LeaseReply)
    assert (reply.leases, reply.open_jobs) == ([], 0)
    other, _ = keeper.offer(peer(1), 100)
    reply = keeper.ask(peer(2), request)
    assert isinstance(reply, m.LeaseReply)
    assert {CODEC.open(raw).job for raw in reply.leases} == {other}
