"""Keepers that decide under the trust policy while the submitter is away: whom they believe, and who wants audits."""

import pytest

from sparkle_protocol import facts as f
from sparkle_protocol import messages as m
from sparkle_protocol.errors import RemoteProtocolError
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import JobId, hash_result
from sparkle_protocol.trust.coin import Coin, audit_secret, commitment_to
from sparkle_protocol.work.lease import SECOND_NS
from sparkle_protocol.work.state import JobState
from tests.unit.protocol.kept_jobs import ME, OTHERS, LoneKeeper, peer
from tests.unit.protocol.test_keeping import CODEC, RIGHT

OWNER = OTHERS[4]
K1, K2, K3 = OTHERS[:3]
V, W, X = peer(60), peer(61), peer(62)


class TrustingKeepers(LoneKeeper):
    """One of four keepers of a job whose submitter believes V, W and X, and is away."""

    def __init__(self, *, permille: int = 50, units: int = 1, known: tuple[Identity, ...] = (V, W, X)) -> None:
        super().__init__()
        self.id, _ = self.offer(OWNER, units, away=False, policy=f.Policy(audit_permille=50))
        items = sorted((f.StandingItem(one.public_key, permille) for one in known), key=lambda one: one.worker)
        self.push(OWNER, f.Standings(self.id, 0, items))
        self.pass_time(60 * SECOND_NS)

    def offer(
        self, submitter: Identity, units: int, *, away: bool = True, **changes: object
    ) -> tuple[JobId, m.Reply]:
        policy = changes.pop("policy")
        assert isinstance(policy, f.Policy)
        spec = f.JobSpec(
            "square", 1, {}, units, "exact", policy, f.Resources(), f.Deadlines(), b"\0" * 32, b"\1" * 16, 0
        )
        fact = CODEC.seal(submitter, spec)
        keys = [one.public_key for one in (ME, K1, K2, K3)]
        named = CODEC.seal(submitter, f.KeeperSet(fact.job, 0, keys, 3))
        return fact.job, self.ask(submitter, m.Push(fact.job, [fact.raw, named.raw]))

    def push(self, author: Identity, *payloads: f.Payload, results: tuple[bytes, ...] = ()) -> None:
        raws = [CODEC.seal(author, payload).raw for payload in payloads]
        self.ask(author, m.Push(self.id, raws, list(results)))

    def call(self, keeper: Identity, *units: int) -> None:
        self.push(keeper, f.AuditCalls(self.id, [f.CallItem(unit, 0) for unit in units]))

    def stated(self, kind: type) -> list[object]:
        return [
            one.payload
            for one in self.job(self.id).state.facts()
            if type(one.payload) is kind and one.author == ME.peer_id
        ]


def serve_all(keeper: TrustingKeepers) -> None:
    keeper.job(keeper.id).set_duty(((0, keeper.job(keeper.id).state.spec.units),), leads=True, now_ns=keeper.now)


def test_a_single_answer_of_a_known_worker_is_accepted_after_a_moment() -> None:
    keeper = TrustingKeepers(permille=1)
    assert keeper.lease(V) == [(keeper.id, 0)]
    keeper.compute(V, keeper.id, 0)
    assert not keeper.stated(f.Verdicts)
    keeper.pass_time(2 * SECOND_NS)
    assert keeper.stated(f.Verdicts)


def test_another_keepers_call_has_the_answer_compared() -> None:
    keeper = TrustingKeepers(permille=1)
    keeper.lease(V)
    keeper.compute(V, keeper.id, 0)
    keeper.call(K1, 0)
    keeper.pass_time(2 * SECOND_NS)
    assert not keeper.stated(f.Verdicts)
    keeper.pass_time(10 * SECOND_NS)
    assert keeper.lease(W) == [(keeper.id, 0)]
    keeper.compute(W, keeper.id, 0)
    assert keeper.stated(f.Verdicts)


def test_a_keeper_that_calls_for_everything_is_not_heard() -> None:
    keeper = TrustingKeepers(permille=1, units=64)
    keeper.call(K1, *range(17))
    state = keeper.job(keeper.id).state
    assert not state.callers(0)
    keeper.call(K2, *range(16))
    assert state.callers(0) == [K2.peer_id]


def test_those_who_are_audited_half_of_the_time_always_are() -> None:
    keeper = TrustingKeepers(permille=500)
    keeper.lease(V)
    keeper.compute(V, keeper.id, 0)
    keeper.pass_time(5 * SECOND_NS)
    assert not keeper.stated(f.Verdicts)
    assert not keeper.stated(f.AuditCalls)  # nobody need say so


def test_without_a_statement_two_must_agree() -> None:
    keeper = TrustingKeepers(known=())
    assert keeper.lease(V) == keeper.lease(W) == [(keeper.id, 0)]
    keeper.compute(V, keeper.id, 0)
    keeper.pass_time(5 * SECOND_NS)
    assert not keeper.stated(f.Verdicts)
    keeper.compute(W, keeper.id, 0)
    keeper.show(V, keeper.id, 0)
    assert keeper.stated(f.Verdicts)


def test_the_latest_statement_counts_in_whatever_order_they_come() -> None:
    keeper = TrustingKeepers()
    first = f.Standings(keeper.id, 1, [f.StandingItem(V.public_key, 100)])
    second = f.Standings(keeper.id, 2, [f.StandingItem(W.public_key, 200)])
    for order in ((first, second), (second, first)):
        state = JobState(keeper.job(keeper.id).state.spec_fact, "test")
        state.merge(CODEC.seal(OWNER, one) for one in order)
        assert state.standings.permille(V.peer_id) is None
        assert state.standings.permille(W.peer_id) == 200


def test_only_the_submitter_states_standings_and_only_keepers_call() -> None:
    keeper = TrustingKeepers()
    state = keeper.job(keeper.id).state
    with pytest.raises(RemoteProtocolError):
        state.add(CODEC.seal(K1, f.Standings(keeper.id, 9, [])))
    state.add(CODEC.seal(V, f.AuditCalls(keeper.id, [f.CallItem(0, 0)])))
    assert not state.callers(0)


def test_draws_follow_from_the_secret_and_are_as_frequent_as_they_should_be() -> None:
    job = JobId(hash_result(b"job"))
    coin = Coin(audit_secret(ME, b"n" * 16), job)
    drawn = sum(coin.is_audited(unit, RIGHT, 0.05) for unit in range(20_000))
    assert 900 < drawn < 1100  # 1000, standard deviation 31
    again = Coin(audit_secret(ME, b"n" * 16), job)
    assert all(again.is_audited(u, RIGHT, 0.05) == coin.is_audited(u, RIGHT, 0.05) for u in range(1000))
    other = Coin(audit_secret(ME, b"m" * 16), job)
    assert any(other.is_audited(u, RIGHT, 0.05) != coin.is_audited(u, RIGHT, 0.05) for u in range(1000))
    assert commitment_to(audit_secret(ME, b"n" * 16)) != audit_secret(ME, b"n" * 16)
