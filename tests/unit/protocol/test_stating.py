"""How often a submitter tells the keepers of its job whom it believes."""

from sparkle_protocol import facts as f
from sparkle_protocol.trust.standing import Standing
from sparkle_protocol.work.lease import SECOND_NS
from sparkle_protocol.work.submitter import STATED_OFTEN
from tests.unit.protocol.owners import Owner
from tests.unit.protocol.test_keeping import spec
from tests.unit.protocol.test_trusting import SENIOR, V, W, X, book, key


def test_a_long_job_tells_whom_it_believes_ever_more_seldom() -> None:
    known = book(V, W)
    owner = Owner(6, job=spec(8, policy=f.Policy(audit_permille=50)), known=known)
    stated: list[int] = []
    for minute in range(4 * STATED_OFTEN):  # each time a worker is to be audited at another rate
        doubt = known.rules.discount * known.work_of(0.0)
        known.restore(key(X), Standing(SENIOR, doubt * (1 + minute % 7)))
        owner.now += 60 * SECOND_NS
        owner.wait(1)
        stated.append(sum(1 for fact in owner.facts if isinstance(fact.payload, f.Standings)))
    assert stated[0] >= 1
    assert stated[-1] <= 2.5 * STATED_OFTEN
    often, seldom = stated[STATED_OFTEN - 1] - stated[0], stated[-1] - stated[-STATED_OFTEN]
    assert often > STATED_OFTEN // 2, "nearly every minute: the rates are told in steps"
    assert often >= 2 * seldom > 0
