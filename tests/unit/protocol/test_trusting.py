"""A job under the trust policy at its submitter: whose answers count, what is audited, and what waits for that."""

import msgspec
import pytest

from sparkle_protocol import facts as f
from sparkle_protocol.errors import RemoteProtocolError
from sparkle_protocol.identity import Identity
from sparkle_protocol.trust.coin import audit_secret, commitment_to
from sparkle_protocol.trust.opened import skipped
from sparkle_protocol.trust.standing import Key, Standing, TrustBook
from sparkle_protocol.work.lease import SECOND_NS
from sparkle_protocol.work.submitter import Submitter
from tests.unit.protocol.test_keeping import CODEC, ME, RIGHT, WRONG, Keeper, asked, spec

V, W, X, Y, Z, N1, N2 = (Identity.from_private_bytes(bytes([n]) * 32) for n in range(60, 67))
SENIOR = 10**7  # passes of those who are hardly audited any more


def book(*known: Identity, passes: int = SENIOR) -> TrustBook:
    found = TrustBook()
    for worker in known:
        found.restore(key(worker), Standing(passes, passes * found.work_of(0.0)))
    return found


def key(worker: Identity) -> Key:
    return Key(worker.peer_id, "", "exact")


class TrustingKeeper(Keeper):
    """A submitter that knows some workers from earlier jobs."""

    def __init__(
        self,
        units: int,
        known: TrustBook,
        permille: int = 1,
        max_replicas: int = 8,
        level: str = "final",
        quorum: int = 2,
        **changes: bytes,
    ) -> None:
        policy = f.Policy(level, quorum, max_replicas, permille)
        self._known = known
        super().__init__(msgspec.structs.replace(spec(units, policy=policy), **changes))

    @property
    def core(self) -> Submitter:
        return self._core

    @core.setter
    def core(self, core: Submitter) -> None:
        self._core = core
        core.believe(self._known)

    def take(self, worker: Identity, want: int) -> list[int]:
        """So many units, in as many requests as that takes."""
        found: list[int] = []
        while len(found) < want and (given := self.lease(worker, want - len(found))):
            found += given
        return found

    def compute(self, worker: Identity, *units: int, result: bytes = RIGHT) -> None:
        """Commit to units, and show those that are asked for."""
        reply = self.commit(worker, result, *units)
        for unit in asked(reply):
            self.reveal(worker, result, unit)

    def show_asked(self, worker: Identity, result: bytes = RIGHT) -> None:
        for notice in self.told.pop(worker.peer_id, []):
            for wanted in notice.reveal:
                self.reveal(worker, result, wanted.unit)

    def final(self) -> set[int]:
        return {unit for unit in range(self.job.state.spec.units) if self.job.state.final(unit) is not None}


def audit_of(keeper: TrustingKeeper, worker: Identity, unit: int) -> list[Identity]:
    """Who may do it, the first first."""
    trust = keeper.job.trust
    assert trust is not None
    audit = trust.audits.of(unit)
    assert audit is not None
    assert audit.worker == worker.peer_id
    turn = trust.turns.of(unit)
    assert turn is not None
    return [one for name in turn.order for one in (V, W, X, Y, Z) if one.peer_id == name]


def there(keeper: TrustingKeeper, *workers: Identity) -> None:
    """They have asked for work before there was any for them."""
    for worker in workers:
        keeper.job.saw(worker.peer_id, keeper.now, works=False)
    keeper.pass_time(SECOND_NS)


def test_the_answer_of_one_known_worker_is_enough() -> None:
    keeper = TrustingKeeper(4, book(V, W))
    keeper.compute(V, *keeper.take(V, 4))
    assert keeper.final() == {0, 1, 2, 3}
    assert keeper.job.replicas == 4


def test_an_audited_answer_wants_a_second_one() -> None:
    keeper = TrustingKeeper(1, book(V, W), permille=1000)
    keeper.compute(V, *keeper.lease(V))
    assert keeper.final() == set()
    assert keeper.lease(N1) == []  # newcomers audit nobody
    assert keeper.lease(W) == [0]
    keeper.compute(W, 0)
    assert keeper.final() == {0}
    assert keeper.core.trust.of(key(V)).passes == SENIOR + 1


def test_a_failed_audit_is_settled_by_others_and_ends_the_liars_standing() -> None:
    keeper = TrustingKeeper(1, book(V, W, X, Y, Z), permille=1000)
    keeper.compute(V, *keeper.lease(V), result=WRONG)
    for worker in (W, X, Y, Z):
        keeper.pass_time(10 * SECOND_NS)
        assert keeper.final() == set()
        assert not keeper.job.rejected
        assert keeper.lease(worker) == [0]
        keeper.compute(worker, 0)
    assert keeper.final() == {0}
    assert keeper.job.rejected == {V.peer_id}
    assert keeper.core.trust.of(key(V)) == Standing(0, 0.0, 1)


def test_a_senior_liar_convicts_nobody_alone() -> None:
    keeper = TrustingKeeper(1, book(V, W, X, Y, Z), permille=1000)
    keeper.compute(V, *keeper.lease(V))
    keeper.pass_time(10 * SECOND_NS)
    keeper.lease(W)
    keeper.compute(W, 0, result=WRONG)
    for worker in (X, Y, Z):
        assert not keeper.job.rejected
        assert keeper.lease(worker) == [0]
        keeper.compute(worker, 0)
    assert keeper.job.rejected == {W.peer_id}


def test_what_is_believed_while_an_audit_is_open_waits_for_it() -> None:
    keeper = TrustingKeeper(40, book(V, W, X, Y, Z), permille=100)
    done: list[int] = []
    while not any(keeper.job.trust.audits.of(unit) for unit in done) and len(done) < 40:  # type: ignore[union-attr]
        done += (given := keeper.lease(V))
        keeper.compute(V, *given)
    (audited,) = set(done) - keeper.final()
    held = keeper.lease(V)
    keeper.compute(V, *held)
    assert not keeper.final() & {audited, *held}
    keeper.pass_time(10 * SECOND_NS)
    assert keeper.lease(W, 1) == [audited]
    keeper.compute(W, audited)
    assert keeper.final() == {*done, *held}


def test_what_waited_is_computed_again_when_the_audit_failed() -> None:
    keeper = TrustingKeeper(2, book(V, W, X, Y, Z), permille=1000)
    keeper.compute(V, *keeper.take(V, 2), result=WRONG)
    for worker in (W, X, Y, Z):
        keeper.pass_time(10 * SECOND_NS)
        for unit in keeper.take(worker, 2):
            keeper.compute(worker, unit)
    assert keeper.final() == {0, 1}
    assert all(keeper.job.state.verdict(unit).result_hash != b"" for unit in (0, 1))  # type: ignore[union-attr]
    assert V.peer_id not in keeper.job.state.accepted_workers(0) | keeper.job.state.accepted_workers(1)


def test_an_audit_is_for_those_who_were_drawn_for_it() -> None:
    keeper = TrustingKeeper(1, book(V, W, X, Y, Z), permille=1000)
    there(keeper, W, X, Y, Z)
    keeper.compute(V, *keeper.lease(V))
    first, second, *_ = audit_of(keeper, V, 0)
    assert keeper.lease(second) == []
    keeper.pass_time(2 * SECOND_NS)
    assert keeper.lease(second) == [0]
    assert first != second


def test_newcomers_do_not_count_but_are_compared() -> None:
    keeper = TrustingKeeper(2, book(V, W))
    there(keeper, V, W, N1, N2)
    assert keeper.lease(N1) == [0]
    assert keeper.lease(N2) == [1]  # a unit takes one newcomer
    keeper.commit(N1, RIGHT, 0)
    keeper.commit(N2, RIGHT, 1)
    assert keeper.final() == set()
    assert sorted(keeper.take(V, 2)) == [0, 1]
    keeper.compute(V, 0, 1)
    assert keeper.final() == set()
    keeper.show_asked(N1)
    keeper.show_asked(N2)
    assert keeper.final() == {0, 1}
    assert keeper.core.trust.of(key(N1)).passes == 1


def test_a_newcomer_is_known_after_sixty_comparisons() -> None:
    known = book(V, W)
    known.restore(key(N1), Standing(58, 58.0))
    keeper = TrustingKeeper(3, known)
    there(keeper, V, W, N1)
    for unit, counts in enumerate((False, True)):
        assert keeper.lease(N1, 1) == [unit]
        assert keeper.lease(V, 1) == [unit]
        keeper.commit(N1, RIGHT, unit)
        keeper.compute(V, unit)
        keeper.show_asked(N1)
        assert keeper.core.trust.counts(key(N1)) is counts
    keeper.compute(N1, *keeper.lease(N1, 1))
    assert 2 in keeper.final() or keeper.job.trust.audits.of(2)  # type: ignore[union-attr]


def test_newcomers_are_compared_in_turn_and_a_few_at_a_time() -> None:
    known = book(V, W)
    known.restore(key(N2), Standing(5, 5.0))
    keeper = TrustingKeeper(100, known)
    strangers = [Identity.from_private_bytes(bytes([n]) * 32) for n in range(100, 110)]
    there(keeper, V, W, N1, N2, *strangers)
    given = {worker.peer_id: keeper.take(worker, 8) for worker in (N2, N1, *strangers)}
    assert given[N2.peer_id]
    assert sum(1 for units in given.values() if units) <= 2  # as many as there are known workers
    assert sum(map(len, given.values())) == 4
    keeper.compute(V, *keeper.take(V, 60))
    assert len(keeper.take(N2, 8)) < 8


def test_liars_among_newcomers_make_for_fewer_comparisons() -> None:
    trust = book(V, W)
    assert trust.vetting_share() == trust.rules.vetting_share
    for _ in range(200):
        trust.vetted(right=False)
    assert trust.vetting_share() == trust.rules.least_vetting_share


def test_a_known_worker_is_not_outdone_by_a_newcomer_that_differs() -> None:
    keeper = TrustingKeeper(1, book(V, W, X))
    there(keeper, V, W, X, N1)
    assert keeper.lease(N1) == keeper.lease(V) == [0]
    keeper.commit(N1, WRONG, 0)
    keeper.compute(V, 0)
    keeper.show_asked(N1, WRONG)
    if keeper.final():
        return  # it came too late to matter
    assert keeper.lease(W) == [0]
    keeper.compute(W, 0)
    assert keeper.final() == {0}
    assert keeper.job.rejected == {N1.peer_id}


def test_any_number_of_newcomers_that_agree_accept_nothing() -> None:
    keeper = TrustingKeeper(1, book(V, W))
    strangers = [Identity.from_private_bytes(bytes([n]) * 32) for n in range(100, 110)]
    there(keeper, V, W, *strangers)
    taken = [stranger for stranger in strangers if keeper.lease(stranger)]
    assert len(taken) == 1


def test_with_fewer_than_two_known_peers_two_that_agree_are_enough() -> None:
    keeper = TrustingKeeper(1, book(V))
    assert keeper.lease(N1) == keeper.lease(N2) == [0]
    keeper.commit(N1, RIGHT, 0)
    keeper.compute(N2, 0)
    keeper.show_asked(N1)
    assert keeper.final() == {0}
    assert keeper.core.trust.of(key(N1)).passes == 1


def test_known_peers_that_do_not_come_hold_up_a_job_for_a_minute() -> None:
    keeper = TrustingKeeper(1, book(V, W))
    there(keeper, N1, N2)
    (first, second) = (N1, N2) if keeper.lease(N1) == [0] else (N2, N1)
    assert first is N1 or keeper.lease(N2) == [0]
    assert keeper.lease(second) == []
    keeper.commit(first, RIGHT, 0)
    for _ in range(70):
        keeper.pass_time(SECOND_NS)
    assert keeper.lease(second) == [0]
    keeper.compute(second, 0)
    keeper.show_asked(first)
    assert keeper.final() == {0}


def test_the_only_known_worker_is_audited_by_whoever_is_there() -> None:
    keeper = TrustingKeeper(1, book(V, W), permille=1000)
    keeper.compute(V, *keeper.lease(V))
    assert keeper.lease(N1) == []
    for _ in range(70):
        keeper.pass_time(SECOND_NS)
    assert keeper.lease(N1) == [0]
    keeper.compute(N1, 0)
    assert keeper.final() == {0}


def test_a_restart_draws_the_same_audits() -> None:
    keeper = TrustingKeeper(40, book(V, W), permille=200)
    keeper.compute(V, *keeper.take(V, 8))
    before, trust = keeper.final(), keeper.job.trust
    assert trust is not None
    assert before
    assert before != set(range(8))
    keeper.restart()
    assert keeper.final() >= before
    keeper.pass_time(10 * SECOND_NS)
    for unit in keeper.take(W, 40):
        keeper.compute(W, unit)
    assert keeper.final() >= set(range(8))


def test_a_critical_job_believes_nobody() -> None:
    keeper = TrustingKeeper(1, book(V, W, X), level="critical", quorum=3)
    keeper.compute(V, *keeper.lease(V))
    assert keeper.final() == set()
    assert keeper.lease(W) == keeper.lease(X) == [0]


def test_our_own_worker_needs_no_audit() -> None:
    keeper = TrustingKeeper(1, book(V, W), permille=1000)
    keeper.compute(ME, *keeper.lease(ME))
    assert keeper.final() == {0}


def test_the_secret_is_opened_at_the_end_and_shows_audits_that_were_skipped() -> None:
    nonce = b"\0" * 16
    committed = commitment_to(audit_secret(ME, nonce))
    keeper = TrustingKeeper(8, book(V, W), permille=500, audit_commitment=committed)
    keeper.compute(V, *keeper.take(V, 8))
    keeper.pass_time(10 * SECOND_NS)
    assert keeper.job.state.standings.secret is None
    for unit in keeper.take(W, 8):
        keeper.compute(W, unit)
    assert keeper.job.outcome == "done"
    assert keeper.job.state.standings.secret == audit_secret(ME, nonce)
    assert skipped(keeper.job.state) == []
    with pytest.raises(RemoteProtocolError):
        keeper.job.state.add(CODEC.seal(ME, f.AuditSecret(keeper.id, b"x" * 32)))


def test_a_submitter_that_audits_less_than_it_says_is_found_out() -> None:
    committed = commitment_to(audit_secret(ME, b"\0" * 16))
    keeper = TrustingKeeper(16, book(V, W), permille=500, audit_commitment=committed)
    assert keeper.job.trust is not None
    keeper.job.trust.judges.audit_rate = lambda _worker: 1e-9  # type: ignore[method-assign]
    while given := keeper.take(V, 8):
        keeper.compute(V, *given)
    assert keeper.job.outcome == "done"
    assert 1 < len(skipped(keeper.job.state)) < 15


def test_a_node_that_knows_nobody_behaves_as_before() -> None:
    plain, trusting = Keeper(spec()), TrustingKeeper(1, book())
    for keeper in (plain, trusting):
        keeper.agree(V, W)
        assert keeper.job.state.final(0) is not None
