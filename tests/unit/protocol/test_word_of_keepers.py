"""What a keeper makes of other keepers' words, and how its own bind it, whatever comes late or in which order."""

from random import Random

import pytest

from sparkle_protocol import effects as fx
from sparkle_protocol import facts as f
from sparkle_protocol import messages as m
from sparkle_protocol.facts import SEAL_UNITS
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import JobId, PeerId, hash_result
from sparkle_protocol.work import kept_job
from sparkle_protocol.work.lease import SECOND_NS
from sparkle_protocol.work.leasing import job_facts
from sparkle_protocol.work.sealed import MAX_ACCEPTED, SealedRange, SealedUnit
from sparkle_protocol.work.state import JobState
from sparkle_protocol.work.submitter import Submitter
from tests.unit.protocol.kept_jobs import ME, OTHERS, LoneKeeper, peer
from tests.unit.protocol.owners import Owner
from tests.unit.protocol.test_keeping import CODEC, RIGHT, WRONG, A, B, Keeper, check_form, spec
from tests.unit.protocol.test_keeping import ME as OWNER

ALICE = peer(1)
WORKERS = [peer(10 + n) for n in range(6)]
KEEPERS = [ME, *OTHERS[:3]]
LATER = f.epoch_of(f.VIEWS_PER_GENERATION, 0)  # of the submitter's next view


def verdict(
    author: Identity,
    job: JobId,
    result: bytes = RIGHT,
    *,
    unit: int = 0,
    epoch: int = 0,
    accepted: tuple[Identity, ...] = tuple(WORKERS[:1]),
    rejected: tuple[Identity, ...] = (),
) -> f.Fact:
    keys = [[worker.public_key for worker in side] for side in (accepted, rejected)]
    return CODEC.seal(author, f.Verdicts(job, [f.VerdictItem(unit, epoch, hash_result(result), *keys)]))


def push(keeper: LoneKeeper, author: Identity, fact: f.Fact, *results: bytes) -> None:
    assert isinstance(keeper.ask(author, m.Push(fact.job, [fact.raw], list(results))), m.PushReply)


def name_keepers(keeper: LoneKeeper, job: JobId, view: int = f.VIEWS_PER_GENERATION) -> None:
    """The same peers keep the job in another view."""
    push(keeper, ALICE, CODEC.seal(ALICE, f.KeeperSet(job, view, [one.public_key for one in KEEPERS], 3)))


def restart(keeper: LoneKeeper, seed: int = 0) -> None:
    """It comes back with what is on its disk, read in some order."""
    facts = [one.fact for one in keeper.disk if isinstance(one, fx.StoreFact)]
    results = [one.result_hash for one in keeper.disk if isinstance(one, fx.StoreResult)]
    keeper.core = Submitter(ME, CODEC, Random(2), check_form)
    for first in [fact for fact in facts if isinstance(fact.payload, f.JobSpec)]:
        own = [fact for fact in facts if fact.job == first.job and fact.id != first.id]
        Random(seed).shuffle(own)
        keeper.perform(keeper.core.restore(first, own, keeper.now, results))


# --- its own word -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_a_restart_never_makes_a_keeper_sign_for_a_second_result(seed: int) -> None:
    keeper = LoneKeeper()
    job, _ = keeper.offer(ALICE, 4, away=False)
    push(keeper, ALICE, verdict(ALICE, job), RIGHT)
    name_keepers(keeper, job)
    push(keeper, ALICE, verdict(ALICE, job, epoch=LATER), RIGHT)
    restart(keeper, seed)
    assert [keeper.job(job).supports(0, epoch) for epoch in (0, LATER)] == [hash_result(RIGHT)] * 2
    push(keeper, ALICE, verdict(ALICE, job, WRONG, epoch=LATER), WRONG)
    signed = [result for result, by in keeper.job(job).state.support(0, LATER).items() if ME.peer_id in by]
    assert signed == [hash_result(RIGHT)]


@pytest.mark.parametrize("restarts", [False, True])
def test_who_was_outvoted_does_not_sign_for_the_other_result_as_well(restarts: bool) -> None:
    keeper = LoneKeeper()
    job, _ = keeper.offer(ALICE, 4, away=False)
    push(keeper, ALICE, verdict(ALICE, job, WRONG), WRONG)
    for other in OTHERS[:3]:
        push(keeper, other, verdict(other, job), RIGHT)
    assert keeper.job(job).state.final(0) == hash_result(RIGHT)
    if restarts:
        restart(keeper)
    push(keeper, ALICE, verdict(ALICE, job, accepted=(WORKERS[1],)), RIGHT)
    assert ME.peer_id not in keeper.job(job).state.two_faced


# --- who was wrong ------------------------------------------------------------------------------------------------


def test_one_keeper_cannot_have_workers_excluded() -> None:
    keeper = LoneKeeper()
    job, _ = keeper.offer(ALICE, 40)
    push(keeper, OTHERS[0], verdict(OTHERS[0], job, rejected=tuple(WORKERS[1:])), RIGHT)
    for other in OTHERS[1:3]:
        push(keeper, other, verdict(other, job), RIGHT)
    assert keeper.job(job).state.final(0) == hash_result(RIGHT)
    assert keeper.job(job).rejected == set()
    keeper.pass_time(60 * SECOND_NS)  # or the others would hand out the units
    assert all(keeper.lease(worker, 1) for worker in WORKERS[1:])
    restart(keeper)
    assert keeper.job(job).rejected == set()


def test_what_a_worker_itself_showed_has_it_excluded_even_if_it_comes_after_the_verdict() -> None:
    keeper = LoneKeeper()
    job, _ = keeper.offer(ALICE, 40, away=False, quorum=2)
    liar = WORKERS[3]
    key, wrong = liar.public_key, hash_result(WRONG)
    given = CODEC.seal(ALICE, f.Leases(job, [f.LeaseItem(0, 0, 0, key, 60_000)]))
    seal = f.commitment("test", job, 0, 0, key, wrong, b"n" * f.NONCE_BYTES)
    committed = CODEC.seal(liar, f.Commits(job, [f.CommitItem(0, 0, seal)]))
    showed = CODEC.seal(liar, f.Reveals(job, [f.RevealItem(0, 0, wrong, b"n" * f.NONCE_BYTES)]))
    push(keeper, ALICE, verdict(ALICE, job, accepted=tuple(WORKERS[:2]), rejected=(liar,)), RIGHT)
    assert ME.peer_id not in keeper.job(job).state.support(0, 0)[hash_result(RIGHT)]
    for fact in (given, committed):
        push(keeper, ALICE, fact)
    assert keeper.job(job).rejected == set()
    push(keeper, ALICE, showed)
    assert ME.peer_id in keeper.job(job).state.support(0, 0)[hash_result(RIGHT)]
    for other in OTHERS[:2]:
        push(keeper, other, verdict(other, job, accepted=tuple(WORKERS[:2])))
    assert keeper.job(job).rejected == {liar.peer_id}
    assert keeper.job(job).state.accepted_workers(0) == {worker.peer_id for worker in WORKERS[:2]}
    restart(keeper)
    assert keeper.job(job).rejected == {liar.peer_id}


# --- whose results were accepted ----------------------------------------------------------------------------------


def test_names_that_one_keeper_makes_up_are_credited_with_nothing() -> None:
    keeper = LoneKeeper()
    job, _ = keeper.offer(ALICE, SEAL_UNITS + 1)
    unit, phantoms = SEAL_UNITS, tuple(peer(1000 + n) for n in range(MAX_ACCEPTED + 1))
    for names in (phantoms[:MAX_ACCEPTED], phantoms[MAX_ACCEPTED:]):
        push(keeper, OTHERS[0], verdict(OTHERS[0], job, unit=unit, accepted=names), RIGHT)
    for other in OTHERS[:3]:
        push(keeper, other, verdict(other, job, unit=unit), RIGHT)
    assert keeper.job(job).state.final(unit) == hash_result(RIGHT)
    assert keeper.job(job).state.accepted_workers(unit) == {WORKERS[0].peer_id}
    assert [end.accepted for end in keeper.job(job).state.pack(1)] == [(WORKERS[0].peer_id,)]


def test_more_workers_than_a_record_can_name_stop_neither_a_node_nor_its_restart() -> None:
    keeper = LoneKeeper()
    job, _ = keeper.offer(ALICE, SEAL_UNITS + 1, away=False)
    unit, many = SEAL_UNITS, tuple(peer(1000 + n) for n in range(MAX_ACCEPTED + 1))
    for names in (many[1:], many[:1]):
        push(keeper, ALICE, verdict(ALICE, job, unit=unit, accepted=names), RIGHT)
    for other in OTHERS[:2]:
        push(keeper, other, verdict(other, job, unit=unit, accepted=many[:1]), RIGHT)
    for seed in range(2):
        assert len(keeper.job(job).state.accepted_workers(unit)) == len(many)
        (end,) = keeper.job(job).state.pack(1)
        assert end.accepted == tuple(sorted(worker.peer_id for worker in many)[:MAX_ACCEPTED])
        restart(keeper, seed)


def test_a_range_without_a_record_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparkle_protocol.work.sealed.MAX_RANGE_WORKERS", 1)
    keeper = LoneKeeper()
    job, _ = keeper.offer(ALICE, SEAL_UNITS + 1, away=False)
    push(keeper, ALICE, verdict(ALICE, job, unit=SEAL_UNITS, accepted=tuple(WORKERS[:2])), RIGHT)
    for other in OTHERS[:2]:
        push(keeper, other, verdict(other, job, unit=SEAL_UNITS), RIGHT)
    restart(keeper)
    keeper.pass_time(30 * SECOND_NS)
    assert keeper.job(job).state.final(SEAL_UNITS) == hash_result(RIGHT)
    assert len(keeper.job(job).state.sealed) == 0


# --- who keeps the job --------------------------------------------------------------------------------------------


def chain_of_sets(job: JobId, steps: int) -> list[f.Fact]:
    """Keeper sets of eight, each agreed on by seven of the one before."""
    people = [peer(200 + n) for n in range(8 + steps)]
    named = CODEC.seal(ALICE, f.KeeperSet(job, 0, [one.public_key for one in people[:8]], 6))
    found = [named]
    for view in range(1, steps + 1):
        keys = [one.public_key for one in people[view : view + 8]]
        named = CODEC.seal(people[view], f.KeeperSet(job, view, keys, 6, bytes(named.id)))
        words = [CODEC.seal(one, f.Endorsements(job, [bytes(named.id)])) for one in people[view : view + 7]]
        found += [named, *words]
    return found


def test_a_worker_can_be_shown_who_keeps_a_job_after_64_replacements() -> None:
    state = JobState(CODEC.seal(ALICE, spec(64)), "test")
    state.merge(chain_of_sets(state.id, 64))
    reply = m.decode_reply(m.encode_message(m.LeaseReply([job_facts(state)], [], 0, 1)))
    assert isinstance(reply, m.LeaseReply)
    learnt = JobState(state.spec_fact, "test")
    learnt.merge(CODEC.open(raw) for raw in reply.jobs[0].views)
    assert learnt.view is not None
    assert learnt.view.number == 64
    assert len(state.view_facts()) == 1 + 64 * 7


def test_of_a_chain_without_end_the_latest_sets_are_shown() -> None:
    state = JobState(CODEC.seal(ALICE, spec(64)), "test")
    facts = chain_of_sets(state.id, 80)
    state.merge(facts)
    shown = state.view_facts()
    assert len(shown) <= m.MAX_VIEW_FACTS
    assert m.encode_message(m.LeaseReply([job_facts(state)], [], 0, 1))
    knows_some = JobState(state.spec_fact, "test")
    knows_some.merge([*facts[: 1 + 8 * 20], *shown])
    assert knows_some.view is not None
    assert knows_some.view.number == 80


@pytest.mark.parametrize("seed", range(3))
def test_keeper_sets_are_learnt_in_any_order(seed: int) -> None:
    keeper = LoneKeeper()
    fact = CODEC.seal(ALICE, spec(64))
    sets = chain_of_sets(fact.job, 8)
    Random(seed).shuffle(sets)
    keeper.ask(ALICE, m.Push(fact.job, [fact.raw, *(one.raw for one in sets)]))
    view = keeper.job(fact.job).state.view
    assert view is not None
    assert view.number == 8


def test_a_flood_of_keeper_sets_ends_and_never_stops_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_job, "MAX_OWN_SETS", 20)
    keeper = LoneKeeper()
    job, _ = keeper.offer(ALICE, 4)
    state = keeper.job(job).state
    assert state.view is not None
    keys = [one.public_key for one in (ME, *OTHERS[:2], OTHERS[4])]
    push(keeper, OTHERS[0], CODEC.seal(OTHERS[0], f.KeeperSet(job, 1, keys, 3, bytes(state.view.fact.id))))
    for number in range(1, 40):
        name_keepers(keeper, job, number * f.VIEWS_PER_GENERATION)
    assert len(state.views) == 21
    for seed in range(3):
        restart(keeper, seed)
        assert {fact.id for fact in keeper.job(job).state.facts()} == {fact.id for fact in state.facts()}


# --- what is final ------------------------------------------------------------------------------------------------


def test_verdicts_in_epochs_that_do_not_exist_are_not_kept() -> None:
    keeper = LoneKeeper()
    job, _ = keeper.offer(ALICE, 4)
    state = keeper.job(job).state
    before = len(state)
    for epoch in (f.epoch_of(3, 0), f.epoch_of(0, 1)):
        push(keeper, OTHERS[0], verdict(OTHERS[0], job, epoch=epoch))
    assert len(state) == before
    name_keepers(keeper, job)
    push(keeper, OTHERS[0], verdict(OTHERS[0], job, epoch=LATER))
    assert len(state) == before + 2


def test_many_epochs_of_a_unit_cost_no_more_each_than_few(monkeypatch: pytest.MonkeyPatch) -> None:
    state = JobState(CODEC.seal(ALICE, spec(4)), "test")
    state.add(CODEC.seal(ALICE, f.KeeperSet(state.id, 0, [one.public_key for one in KEEPERS], 3)))
    looked: list[int] = []
    support = JobState.support
    monkeypatch.setattr(
        JobState, "support", lambda own, unit, epoch: looked.append(epoch) or support(own, unit, epoch)
    )
    for resets in range(50):
        state.add(verdict(OTHERS[0], state.id, epoch=f.epoch_of(7, resets)))
    assert looked == []
    state.add(verdict(OTHERS[0], state.id))
    assert looked == [0]


@pytest.mark.parametrize("seed", range(3))
def test_another_final_result_of_an_older_view_is_told_anew_and_its_bytes_are_wanted(seed: int) -> None:
    keeper = LoneKeeper()
    job, _ = keeper.offer(ALICE, 4)
    name_keepers(keeper, job)
    for other in OTHERS[:3]:
        push(keeper, other, verdict(other, job, epoch=LATER), RIGHT)
    assert len(keeper.told("unit_final")) == 1
    for other in OTHERS[:3]:
        push(keeper, other, verdict(other, job, WRONG))
    assert keeper.job(job).state.final(0) == hash_result(WRONG)
    assert len(keeper.told("unit_final")) == 2
    assert list(keeper.job(job).lacking) == [hash_result(WRONG)]
    restart(keeper, seed)
    assert keeper.job(job).state.final(0) == hash_result(WRONG)
    assert list(keeper.job(job).lacking) == [hash_result(WRONG)]


def test_the_answer_of_a_done_job_never_changes() -> None:
    keeper = Keeper(spec())
    keeper.agree(A, B)
    assert keeper.job.outcome == "done"
    lower = min((b"%05d" % n for n in range(100)), key=hash_result)
    assert hash_result(lower) < hash_result(RIGHT)  # of two in one epoch it would count
    assert keeper.job.learn([verdict(OWNER, keeper.id, lower)], [lower], keeper.now) == []
    assert keeper.job.state.final(0) == hash_result(RIGHT)
    keeper.restart()
    assert keeper.job.state.final(0) == hash_result(RIGHT)


def test_what_the_submitter_was_told_stands_also_after_a_restart() -> None:
    keeper = Keeper(spec(2))
    older, newer = (number * f.VIEWS_PER_GENERATION for number in (1, 2))
    for view in (older, newer):
        named = f.KeeperSet(keeper.id, view, [one.public_key for one in OTHERS[:4]], 3)
        fact = CODEC.seal(OWNER, named)
        keeper.disk.append(fact)
        keeper.job.learn([fact], [], keeper.now)
    rights = [verdict(one, keeper.id, epoch=f.epoch_of(newer, 0)) for one in OTHERS[:3]]
    wrongs = [verdict(one, keeper.id, WRONG, epoch=f.epoch_of(older, 0)) for one in OTHERS[:4]]
    words = [CODEC.seal(one, f.Endorsements(keeper.id, [bytes(wrongs[0].id)], 0)) for one in OTHERS[1:4]]
    for facts, result in ((rights, RIGHT), (wrongs, WRONG), (words, WRONG)):
        for fact in facts:
            keeper.ask(OTHERS[0], m.Push(keeper.id, [fact.raw], [result]))
    assert keeper.job.state.final(0) == hash_result(RIGHT)
    for seed in range(3):
        rest = keeper.disk[1:]
        Random(seed).shuffle(rest)
        keeper.disk[1:] = rest
        keeper.restart()
        assert keeper.job.state.final(0) == hash_result(RIGHT)


def test_no_record_of_a_range_changes_what_the_submitter_was_told() -> None:
    keeper = Keeper(spec(SEAL_UNITS + 1))
    unit, view = SEAL_UNITS, f.VIEWS_PER_GENERATION
    keeper.job.learn(
        [CODEC.seal(OWNER, f.KeeperSet(keeper.id, view, [one.public_key for one in OTHERS[:4]], 3))], [], keeper.now
    )
    for one in OTHERS[:3]:
        fact = verdict(one, keeper.id, unit=unit, epoch=LATER)
        keeper.ask(one, m.Push(keeper.id, [fact.raw], [RIGHT]))
    record = SealedRange.pack(unit, [SealedUnit(LATER, hash_result(WRONG), (WORKERS[0].peer_id,))])
    for one in OTHERS[:3]:
        fact = CODEC.seal(one, f.Seals(keeper.id, [f.SealItem(1, record.root)]))
        keeper.ask(one, m.Push(keeper.id, [fact.raw]))
    assert keeper.job.wanted == {1: record.root}
    assert not keeper.job.take_record(record.encode(), keeper.now)
    assert keeper.job.wanted == {}
    assert keeper.job.state.final(unit) == hash_result(RIGHT)


# --- results that are wanted --------------------------------------------------------------------------------------


@pytest.mark.parametrize("liar", [ALICE, OTHERS[0]])
def test_results_that_nothing_needs_any_more_are_not_asked_for(liar: Identity) -> None:
    keeper = LoneKeeper()
    job, _ = keeper.offer(ALICE, 8, away=liar is not ALICE)
    for unit in range(8):
        push(keeper, liar, verdict(liar, job, b"none%d" % unit, unit=unit))
    assert len(keeper.job(job).lacking) == (8 if liar is ALICE else 0)
    for unit in range(8):
        for other in OTHERS[:3]:
            push(keeper, other, verdict(other, job, unit=unit), RIGHT)
    assert len(keeper.job(job).state.final_units) == 8
    assert not keeper.job(job).lacking


# --- the view changes ---------------------------------------------------------------------------------------------


def test_the_first_answer_of_a_keeper_changes_nothing_for_those_at_work() -> None:
    core, now, job, unanswered = Submitter(ME, CODEC, Random(1), check_form), 0, None, None
    peers = [peer(700 + n) for n in range(4)]
    for one in peers:
        core.handle(fx.PeerUp(one.peer_id, ()), now)
    job, effects = core.submit(spec(4), now)
    queue = list(effects)
    while queue:
        effect = queue.pop(0)
        if isinstance(effect, fx.Send) and isinstance(effect.message, m.Push):
            if any(isinstance(CODEC.open(raw).payload, f.KeeperSet) for raw in effect.message.facts):
                unanswered = effect
            else:
                queue += core.handle(fx.Replied(effect.tag, effect.peer, m.PushReply(job, [])), now)
    assert unanswered is not None
    core.handle(fx.Requested(1, A.peer_id, m.LeaseRequest(1, ["square@1"], [])), now)
    seal = f.commitment("test", job, 0, 0, A.public_key, hash_result(RIGHT), b"n" * f.NONCE_BYTES)
    committed = CODEC.seal(A, f.Commits(job, [f.CommitItem(0, 0, seal)]))
    core.handle(fx.Requested(2, A.peer_id, m.Report(job, [committed.raw], [], [])), now)
    assert core.jobs[job].leases.holds(A.peer_id) == 0
    core.handle(fx.Replied(unanswered.tag, unanswered.peer, m.PushReply(job, [])), now)
    assert core.jobs[job].leases.holds(A.peer_id) == 0


def test_a_new_view_gives_each_holder_one_lease() -> None:
    keeper = LoneKeeper()
    job, _ = keeper.offer(ALICE, 4)
    ((_, unit),) = keeper.lease(WORKERS[0], 1)
    keeper.sent.clear()
    name_keepers(keeper, job)
    told = [one.message for one in keeper.sent if isinstance(one, fx.Send) and isinstance(one.message, m.Notice)]
    carried = [CODEC.open(raw).payload for notice in told for raw in notice.leases]
    items = [item for one in carried if isinstance(one, f.Leases) for item in one.items]
    assert [(item.unit, item.epoch) for item in items] == [(unit, LATER)]


def test_what_the_submitter_decides_upon_a_keepers_news_every_keeper_hears() -> None:
    """Whoever brought the news hears it in the answer, and tells nobody: it counts on the submitter for that."""
    owner = Owner(4, units=4)
    told: dict[str, list[f.Fact]] = {one.peer_id: [] for one in owner.there.values()}

    def answer(one: str, message: m.Request) -> m.Reply | None:
        told[one] += [CODEC.open(raw) for raw in message.facts] if isinstance(message, m.Push) else []
        return owner.answer(PeerId(one), message)

    owner.answers = dict.fromkeys(owner.there, answer)
    bringer, *others = owner.there.values()
    items = [f.LeaseItem(n, 0, 0, worker.public_key, 60_000) for n, worker in enumerate(WORKERS[:2])]
    news = [CODEC.seal(bringer, f.Leases(owner.id, items))]
    name, nonce = hash_result(RIGHT), bytes(f.NONCE_BYTES)
    for worker in WORKERS[:2]:
        seal = f.commitment(CODEC.network, owner.id, 0, 0, worker.public_key, name, nonce)
        news.append(CODEC.seal(worker, f.Commits(owner.id, [f.CommitItem(0, 0, seal)])))
        news.append(CODEC.seal(worker, f.Reveals(owner.id, [f.RevealItem(0, 0, name, nonce)])))
    owner.push(bringer, *news, results=[RIGHT])
    owner.wait(2)
    assert [fact for fact in owner.facts if isinstance(fact.payload, f.Verdicts)]
    for one in others:
        assert [fact.author for fact in told[one.peer_id] if isinstance(fact.payload, f.Verdicts)] == [owner.core.me]
