"""``sparkle why UNIT`` under the trust policy: whose answers count, what is audited, held, disputed, until when."""

from sparkle_p2p.node.forecast import Pace
from sparkle_p2p.node.why_unit import explain_unit
from sparkle_p2p.view import Explanation, Reason
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import short_peer
from sparkle_protocol.work.lease import SECOND_NS
from tests.unit.protocol.test_keeping import ME, WRONG
from tests.unit.protocol.test_trusting import N1, N2, SENIOR, TrustingKeeper, V, W, X, Y, Z, book, there


def why(keeper: TrustingKeeper, unit: int = 0) -> Explanation:
    return explain_unit(keeper.job, unit, Pace(), keeper.now)


def detail(told: Explanation, code: str) -> Reason:
    (found,) = [reason for reason in told.details if reason.code == code]
    return found


def codes(told: Explanation) -> set[str]:
    return {reason.code for reason in told.details}


def name(worker: Identity) -> str:
    return short_peer(worker.peer_id)


def test_where_nobody_is_known_voting_is_said_to_decide() -> None:
    keeper = TrustingKeeper(1, book(V))
    keeper.lease(N1)
    keeper.commit(N1, b"right", 0)
    told = why(keeper)
    voting = detail(told, "voting")
    assert voting.numbers == {"known": 1, "needed": 2}
    assert "2 distinct workers must agree" in voting.sentence
    assert detail(told, "newcomer").numbers["passes"] == 0


def test_a_newcomers_answer_leaves_a_unit_waiting_for_somebody_who_counts_and_until_when() -> None:
    keeper = TrustingKeeper(1, book(V, W))
    there(keeper, V, W, N1)
    keeper.lease(N1)
    keeper.commit(N1, b"right", 0)
    keeper.pass_time(SECOND_NS)
    keeper.pass_time(10 * SECOND_NS)
    told = why(keeper)
    assert "1 more answer of workers that count wanted" in told.headline.sentence
    waits = detail(told, "waits_counting")
    assert 49 <= float(waits.numbers["relaxes_in_s"] or 0) <= 60
    assert "everybody counts for it" in waits.sentence
    assert f"{name(N1)} is a newcomer with 0 comparisons passed" in detail(told, "newcomer").sentence
    for _ in range(60):
        keeper.pass_time(SECOND_NS)
    assert detail(why(keeper), "relaxed").numbers["theta"] == 0.9


def test_a_unit_that_nobody_known_took_says_that_everybody_counts() -> None:
    keeper = TrustingKeeper(1, book(V, W))
    there(keeper, V, W, N1)
    keeper.lease(N1)
    keeper.commit(N1, b"right", 0)
    for _ in range(70):
        there(keeper, V, W)  # they are there and take nothing
        keeper.pass_time(SECOND_NS)
    told = why(keeper)
    assert detail(told, "relaxed").numbers["theta"] == 0.9
    keeper.show_asked(N1)  # whose answer counts here, but is audited for certain
    told = why(keeper)
    assert detail(told, "audited").numbers["rate"] == 1.0
    assert "any worker" in detail(told, "waits_anybody").sentence


def test_an_audited_result_says_at_what_rate_and_who_may_audit_it_now() -> None:
    keeper = TrustingKeeper(1, book(V, W, X), permille=1000)
    there(keeper, W, X)
    keeper.commit(V, b"right", *keeper.lease(V))
    keeper.show_asked(V)
    keeper.reveal(V, b"right", 0)
    told = why(keeper)
    assert told.headline.sentence == "Answered, and being audited."
    audited = detail(told, "audited")
    assert (audited.numbers["peer"], audited.numbers["rate"]) == (V.peer_id, 1.0)
    assert (audited.numbers["drawn"], audited.numbers["may_now"]) == (2, 1)
    waits = detail(told, "waits_auditor")
    assert any(f"{name(one)} was drawn first" in waits.sentence for one in (W, X))
    assert detail(told, "counts_known").numbers["passes"] == SENIOR
    keeper.pass_time(SECOND_NS)
    assert "others in turn" in detail(why(keeper), "waits_auditor").sentence
    keeper.pass_time(5 * SECOND_NS)
    assert "audit by any worker that counts" in detail(why(keeper), "waits_counting").sentence


def test_a_held_result_names_the_audit_that_it_waits_for() -> None:
    keeper = TrustingKeeper(40, book(V, W, X, Y, Z), permille=100)
    trust, done = keeper.job.trust, []
    assert trust is not None
    while not len(trust.audits):
        done += (given := keeper.lease(V))
        keeper.compute(V, *given)
    (audited,) = trust.audits.units()
    (held,) = keeper.lease(V)
    keeper.compute(V, held)  # the secret of the job is always the same here: the coin spares this one
    told = why(keeper, held)
    assert "held back" in told.headline.sentence
    assert f"audit of {audited}," in detail(told, "waits_audit").sentence
    assert detail(told, "spared").numbers["held_by"] == 1
    final = next(unit for unit in done if unit != audited)
    assert "Believed without a second answer" in detail(why(keeper, final), "believed").sentence


def test_a_dispute_shows_how_probable_each_answer_is() -> None:
    keeper = TrustingKeeper(1, book(V, W, X, Y, Z), permille=1000)
    keeper.compute(V, *keeper.lease(V), result=WRONG)
    keeper.pass_time(10 * SECOND_NS)
    keeper.lease(W)
    keeper.compute(W, 0)
    keeper.pass_time(10 * SECOND_NS)
    disputes = [reason for reason in why(keeper).details if reason.code == "dispute"]
    assert len(disputes) == 2
    assert all(reason.numbers["theta"] == 0.999 and reason.numbers["counting"] == 1 for reason in disputes)
    assert sum(float(reason.numbers["credibility"] or 0) for reason in disputes) < 1
    for worker in (X, Y, Z):
        keeper.lease(worker)
        keeper.compute(worker, 0)
    told = why(keeper)
    assert "Compared: 4 workers" in detail(told, "compared").sentence


def test_our_own_answer_is_said_to_decide() -> None:
    keeper = TrustingKeeper(1, book(V, W), permille=1000)
    keeper.compute(ME, *keeper.lease(ME))
    assert {"accepted_own", "counts_own"} <= codes(why(keeper))


def test_two_newcomers_that_voted_are_told_as_compared() -> None:
    keeper = TrustingKeeper(1, book())
    keeper.agree(N1, N2)
    assert detail(why(keeper), "compared").numbers["workers"] == 2
