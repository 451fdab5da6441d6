"""How much a keeper keeps for others: what counts, what is refused, and what happens while there is no room."""

from random import Random

import pytest

from sparkle_protocol import effects as fx
from sparkle_protocol import facts as f
from sparkle_protocol import messages as m
from sparkle_protocol.ids import PeerId, hash_result
from sparkle_protocol.work import allowance
from sparkle_protocol.work.allowance import MAX_UNKNOWN, SPARE_BYTES
from sparkle_protocol.work.co_keeping import FULL
from sparkle_protocol.work.lease import SECOND_NS
from sparkle_protocol.work.presence import BEAT_NS
from sparkle_protocol.work.quota import PER_NETWORK, Bounds, Quota
from sparkle_protocol.work.submitter import Submitter
from tests.unit.protocol.kept_jobs import ME, OTHERS, LoneKeeper, peer
from tests.unit.protocol.test_keeping import CODEC, RIGHT, WRONG, check_form, spec

ALICE, BOB = peer(1), peer(2)
WORKERS = [peer(10 + n) for n in range(10)]
LARGE = Bounds(jobs=100, units=1 << 20, fact_bytes=1 << 30, result_bytes=1 << 30)


def bounded(**few: int) -> Quota:
    fields = {"jobs": 100, "units": 1 << 20, "fact_bytes": 1 << 30, "result_bytes": 1 << 30, **few}
    return Quota(Bounds(**fields), LARGE, LARGE)


def test_every_fact_and_result_counts_once_however_often_it_comes() -> None:
    keeper = LoneKeeper()
    job, _ = keeper.offer(ALICE, 4, quorum=2)
    for worker in WORKERS[:2]:
        keeper.lease(worker, 1)
    for worker in WORKERS[:2]:
        keeper.commit(worker, job, 0)
    for worker in WORKERS[:2]:
        keeper.show(worker, job, 0)
        keeper.show(worker, job, 0)
    usage = keeper.core.quota.of_submitter(ALICE.peer_id)
    facts = [one.fact.raw for one in keeper.disk if isinstance(one, fx.StoreFact)]
    results = [one.result for one in keeper.disk if isinstance(one, fx.StoreResult)]
    assert results == [RIGHT]
    assert usage.result_bytes == len(RIGHT)
    assert keeper.core.quota._jobs[job].fact_bytes == sum(map(len, facts))


def test_what_another_keeper_pushes_again_or_what_means_nothing_does_not_count() -> None:
    keeper = LoneKeeper()
    job, _ = keeper.offer(ALICE, 4)
    before = keeper.core.quota._jobs[job].fact_bytes
    lease = f.Leases(job, [f.LeaseItem(0, 0, 0, WORKERS[0].public_key, 60_000)])
    of_a_keeper, of_nobody = CODEC.seal(OTHERS[0], lease), CODEC.seal(WORKERS[5], lease)
    for fact in (of_a_keeper, of_a_keeper, of_nobody):
        keeper.ask(OTHERS[0], m.Push(job, [fact.raw], [b"a result that nobody asked for"]))
    assert keeper.core.quota._jobs[job].fact_bytes == before + len(of_a_keeper.raw)
    assert keeper.core.quota.total.result_bytes == 0


def test_own_jobs_are_never_counted() -> None:
    keeper = LoneKeeper()
    keeper.perform(keeper.core.submit(spec(1000), 0)[1])
    assert len(keeper.core.quota) == 0
    assert keeper.core.quota.total.fact_bytes == 0


def test_after_a_restart_what_is_on_disk_counts() -> None:
    keeper = LoneKeeper()
    job, _ = keeper.offer(ALICE, 4)
    keeper.lease(WORKERS[0], 1)
    keeper.commit(WORKERS[0], job, 0)
    keeper.show(WORKERS[0], job, 0)
    kept = keeper.core.quota._jobs[job]
    facts = [one.fact for one in keeper.disk if isinstance(one, fx.StoreFact)]
    again = Submitter(ME, CODEC, Random(2), check_form)
    again.restore(facts[0], facts[1:], 0, [hash_result(RIGHT)], len(RIGHT))
    assert again.quota._jobs[job].fact_bytes == kept.fact_bytes
    assert again.quota.total.result_bytes == len(RIGHT)


def test_a_job_that_was_let_go_is_not_taken_up_again_though_our_worker_needs_its_facts() -> None:
    """The simulator found released jobs that came back with a restart, without their results, and spread."""
    keeper = LoneKeeper()
    job, _ = keeper.offer(ALICE, 4)
    for worker in WORKERS[:2]:
        keeper.lease(worker, 1)
        keeper.commit(worker, job, 0)
    for worker in WORKERS[:2]:
        keeper.show(worker, job, 0)
    verdict = f.VerdictItem(0, keeper.job(job).state.epoch(0), hash_result(RIGHT), [WORKERS[0].public_key], [])
    facts = [one.fact for one in keeper.disk if isinstance(one, fx.StoreFact)]
    facts.append(CODEC.seal(ME, f.Verdicts(job, [verdict])))
    again = Submitter(ME, CODEC, Random(2), check_form)
    effects = again.restore(facts[0], facts[1:], 0)
    assert effects == (fx.Persist((fx.DropJob(job),)),)
    assert not again.kept
    assert len(again.quota) == 0
    kept = Submitter(ME, CODEC, Random(2), check_form)
    kept.restore(facts[0], facts[1:], 0, [hash_result(RIGHT)], len(RIGHT))
    assert list(kept.kept) == [job]


def test_a_job_for_whose_results_there_is_no_room_gets_no_more_leases_until_there_is() -> None:
    keeper = LoneKeeper()
    keeper.core.quota = bounded(result_bytes=8)
    first, _ = keeper.offer(ALICE, 10)
    second, _ = keeper.offer(ALICE, 10)
    other, _ = keeper.offer(BOB, 10)
    given = [(worker, unit) for worker in WORKERS[:4] for job, unit in keeper.lease(worker, 1) if job == first]
    for (worker, unit), result in zip(given, (RIGHT, WRONG), strict=True):
        keeper.compute(worker, first, unit, result)
    assert keeper.core.quota.over(first)
    assert keeper.job(first).leases.spans == ()
    keeper.pass_time(2 * BEAT_NS)
    assert {job for job, _ in keeper.lease(WORKERS[7], 16)} == {other}
    keeper.ask(ALICE, m.Release(first))
    keeper.pass_time(90 * SECOND_NS)
    assert {job for job, _ in keeper.lease(WORKERS[8], 16)} == {other, second}


@pytest.mark.parametrize("ends", [True, False])
def test_a_full_keeper_still_hears_that_the_job_is_over(ends: bool) -> None:
    keeper = LoneKeeper()
    keeper.core.quota = bounded(result_bytes=8)
    job, _ = keeper.offer(ALICE, 10)
    keeper.core.quota.grow(job, result_bytes=9)
    stated = f.Cancel(job, "no more") if ends else f.Leases(
        job, [f.LeaseItem(0, 0, 0, WORKERS[0].public_key, 60_000)]
    )  # fmt: skip
    reply = keeper.ask(ALICE, m.Push(job, [CODEC.seal(ALICE if ends else OTHERS[0], stated).raw]))
    if ends:
        assert keeper.job(job).outcome == "cancelled"
    else:
        assert isinstance(reply, m.Refusal)
        assert reply.code == FULL


def test_a_full_keeper_takes_few_facts_about_who_keeps_the_job() -> None:
    keeper = LoneKeeper()
    job, _ = keeper.offer(ALICE, 4)
    keeper.core.quota.grow(job, fact_bytes=100_000_000)
    before = keeper.core.quota._jobs[job].fact_bytes
    names = [[Random(place * 8 + n).randbytes(32) for n in range(8)] for place in range(2000)]
    for place in range(0, 2000, 100):
        sets = [CODEC.seal(ALICE, f.Endorsements(job, few)) for few in names[place : place + 100]]
        last = keeper.ask(ALICE, m.Push(job, [fact.raw for fact in sets]))
    assert isinstance(last, m.Refusal)
    assert last.code == FULL
    assert keeper.core.quota._jobs[job].fact_bytes - before <= SPARE_BYTES
    verdicts = CODEC.seal(ALICE, f.Endorsements(job, names[0], 0))
    assert isinstance(keeper.ask(ALICE, m.Push(job, [verdicts.raw])), m.Refusal)


def test_what_somebody_endorsed_and_nobody_knows_is_bounded() -> None:
    keeper = LoneKeeper()
    job, _ = keeper.offer(ALICE, 4)
    for place in range(20):
        named = [Random(place * 1024 + n).randbytes(32) for n in range(1024)]
        keeper.ask(ALICE, m.Push(job, [CODEC.seal(ALICE, f.Endorsements(job, named, 0)).raw]))
    kept = [fact for fact in keeper.job(job).state.facts() if isinstance(fact.payload, f.Endorsements)]
    assert len(kept) == MAX_UNKNOWN // 1024


def test_sets_and_cancels_of_a_submitter_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowance, "MAX_ALL_SETS", 20)
    monkeypatch.setattr(allowance, "MAX_CANCELS", 20)
    keeper = LoneKeeper()
    job, _ = keeper.offer(ALICE, 4)
    keys = [ME.public_key, *(other.public_key for other in OTHERS[:3])]
    for number in range(1, 100):
        named = CODEC.seal(ALICE, f.KeeperSet(job, f.VIEWS_PER_GENERATION * number, keys, 3))
        ended = CODEC.seal(ALICE, f.Cancel(job, str(number)))
        keeper.ask(ALICE, m.Push(job, [named.raw, ended.raw]))
    facts = list(keeper.job(job).state.facts())
    assert sum(isinstance(fact.payload, f.KeeperSet) for fact in facts) == 20
    assert sum(isinstance(fact.payload, f.Cancel) for fact in facts) == 20


def test_forwarded_jobs_count_for_the_network_of_whoever_brings_them() -> None:
    keeper, spy = LoneKeeper(), peer(5)
    keeper.perform(keeper.core.handle(fx.PeerUp(spy.peer_id, ("/ip4/8.8.8.8/tcp/1",)), 0))
    taken = 0
    for number in range(2 * PER_NETWORK.jobs):
        unseen = peer(2000 + number)
        fact = CODEC.seal(unseen, spec(1000))
        named = CODEC.seal(unseen, f.KeeperSet(fact.job, 0, [spy.public_key, ME.public_key], 1))
        taken += isinstance(keeper.ask(spy, m.Push(fact.job, [fact.raw, named.raw])), m.PushReply)
    assert taken == PER_NETWORK.jobs


@pytest.mark.parametrize("agreed", [True, False])
def test_a_job_is_taken_from_a_keeper_that_the_keepers_agreed_on(agreed: bool) -> None:
    keeper, later = LoneKeeper(), peer(5)
    fact = CODEC.seal(ALICE, spec(10))
    first = CODEC.seal(ALICE, f.KeeperSet(fact.job, 0, [one.public_key for one in OTHERS[:4]], 3))
    keys = [later.public_key, *(one.public_key for one in OTHERS[:3])]
    second = CODEC.seal(OTHERS[0], f.KeeperSet(fact.job, 1, keys, 3, bytes(first.id)))
    words = [CODEC.seal(one, f.Endorsements(fact.job, [bytes(second.id)])) for one in OTHERS[: 3 if agreed else 2]]
    reply = keeper.ask(later, m.Push(fact.job, [one.raw for one in (fact, first, second, *words)]))
    assert isinstance(reply, m.PushReply) is agreed


def test_a_submitter_that_is_refused_asks_the_next_peer() -> None:
    core = Submitter(ALICE, CODEC, Random(1), check_form)
    peers = {WORKERS[n].peer_id: n for n in range(10)}
    for one in peers:
        core.handle(fx.PeerUp(one, ("/ip4/127.0.0.1/udp/1/quic-v1",)), 0)
    job, effects = core.submit(spec(100), 0)
    asked: list[PeerId] = []
    named: list[f.KeeperSet] = []
    queue = [*effects, *core.handle(fx.FoundPeers(_tag(effects), tuple(peers)), 0)]
    while queue:
        effect = queue.pop(0)
        if not isinstance(effect, fx.Send) or not isinstance(effect.message, m.Push):
            continue
        payloads = [CODEC.open(raw).payload for raw in effect.message.facts]
        named += [one for one in payloads if isinstance(one, f.KeeperSet)]
        refuses = peers[effect.peer] in (0, 1)
        answer: m.Reply = m.Refusal("quota", "full") if refuses else m.PushReply(job, [])
        asked.append(effect.peer)
        queue += core.handle(fx.Replied(effect.tag, effect.peer, answer), 0)
    assert set(asked) == set(peers)
    keepers = {one for one, n in peers.items() if n > 1}
    assert set(named[0].keys) == {w.public_key for w in WORKERS if w.peer_id in keepers}


def test_keepers_are_told_what_came_up_before_they_were_named() -> None:
    core = Submitter(ALICE, CODEC, Random(1), check_form)
    peers = [one.peer_id for one in WORKERS[:4]]
    for one in peers:
        core.handle(fx.PeerUp(one, ()), 0)
    job, effects = core.submit(spec(100), 0)
    asks = [effect for effect in effects if isinstance(effect, fx.Send) and isinstance(effect.message, m.Push)]
    reply = core.handle(fx.Requested(1, BOB.peer_id, m.LeaseRequest(8, ["square@1"], [], "")), 0)
    (lease,) = (one.message.leases[0] for one in reply if isinstance(one, fx.Reply))
    answers = [
        effect for ask in asks for effect in core.handle(fx.Replied(ask.tag, ask.peer, m.PushReply(job, [])), 0)
    ]
    told = {one.peer for one in answers if isinstance(one, fx.Send) and lease in getattr(one.message, "facts", ())}
    assert told == set(peers)


def _tag(effects: fx.Effects) -> int:
    return next(effect.tag for effect in effects if isinstance(effect, fx.FindPeers))
