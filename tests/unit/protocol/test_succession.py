"""Who keeps a job when keepers go: whom its submitter and its keepers propose, name and endorse, and when."""

from random import Random

import pytest

from sparkle_protocol import effects as fx
from sparkle_protocol import facts as f
from sparkle_protocol import messages as m
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import JobId, hash_result
from sparkle_protocol.work.lease import SECOND_NS
from sparkle_protocol.work.placement import Candidate, choose_keepers, threshold
from sparkle_protocol.work.submitter import Submitter
from tests.unit.protocol.kept_jobs import ME, OTHERS, LoneKeeper, peer
from tests.unit.protocol.owners import KEEPERS, Owner
from tests.unit.protocol.test_keeping import CODEC, RIGHT, WRONG, check_form, spec

ALICE = peer(1)
GUESTS = [peer(600 + n) for n in range(5)]

GONE_S = 180  # a keeper that went is replaced by then, if there is somebody


def nearest(owner: Owner, guests: list[Identity]) -> Identity:
    (first,) = choose_keepers(owner.id, [Candidate(one.peer_id, ()) for one in guests], 1)
    return next(one for one in guests if one.peer_id == first)


# --- newcomers --------------------------------------------------------------------------------------------------


def test_keepers_compare_at_once_when_the_submitter_is_away() -> None:
    keeper, job, _ = keeper_in_a_set_of_eight()
    sent = [effect for effect in keeper.sent if isinstance(effect, fx.Send)]
    compared = {one.peer for one in sent if one.message == m.Compare(job, keeper.job(job).state.tally.sums())}
    assert compared >= {one.peer_id for one in KEEPERS[:6]}


def test_a_newcomer_is_proposed_once_it_has_everything() -> None:
    owner = Owner(8)
    guest = GUESTS[0]
    owner.leave(KEEPERS[7])
    owner.come(guest)
    owner.incomplete.add(guest.peer_id)
    owner.wait(GONE_S)
    assert owner.sent[guest.peer_id, "Push"]
    assert len(owner.sets) == 1
    owner.incomplete.clear()
    owner.wait(30)
    assert owner.sets[-1].view == 1
    assert guest.public_key in owner.sets[-1].keys
    assert KEEPERS[7].public_key not in owner.sets[-1].keys


def test_a_newcomer_may_fetch_what_it_lacks() -> None:
    owner = Owner(8)
    owner.leave(KEEPERS[7])
    owner.come(GUESTS[0])
    owner.incomplete.add(GUESTS[0].peer_id)
    owner.wait(140)
    reply = owner.core.handle(
        fx.Requested(5, GUESTS[0].peer_id, m.Compare(owner.id, owner.job.state.tally.sums())), owner.now
    )
    assert any(isinstance(effect, fx.Reply) and isinstance(effect.message, m.CompareReply) for effect in reply)


@pytest.mark.parametrize("how", ["refuses", "is silent"])
def test_a_peer_that_takes_nothing_is_passed_over(how: str) -> None:
    owner = Owner(8)
    owner.leave(KEEPERS[7])
    first = nearest(owner, GUESTS)
    owner.answers[first.peer_id] = lambda _peer, message: (
        m.Refusal("quota", "full") if how == "refuses" and isinstance(message, m.Push) else None
    )
    owner.incomplete.add(first.peer_id)
    owner.come(*GUESTS)
    owner.wait(GONE_S if how == "refuses" else 2 * GONE_S)
    assert any(one.public_key in owner.sets[-1].keys for one in GUESTS if one is not first)


def test_a_peer_that_refused_is_invited_again_later() -> None:
    owner = Owner(1)
    guest = GUESTS[0].peer_id
    full = m.Refusal("quota", "full")
    owner.answers[guest] = lambda _peer, message: full if isinstance(message, m.Push) else None
    owner.come(GUESTS[0])
    owner.wait(GONE_S)
    assert owner.sent[guest, "Push"] == 1
    owner.answers.clear()
    owner.wait(200)
    assert GUESTS[0].public_key in owner.sets[-1].keys


def test_nobody_is_invited_any_more_when_the_job_is_over() -> None:
    owner = Owner(8)
    guest = GUESTS[0].peer_id
    owner.leave(KEEPERS[7])
    owner.come(GUESTS[0])
    owner.incomplete.add(guest)
    owner.wait(140)
    assert owner.core._invitations.of(owner.id) == (guest,)
    owner.perform(owner.core.cancel(owner.id, "enough", owner.now))
    assert not owner.core._invitations.of(owner.id)
    before = owner.sent.copy()
    owner.wait(300)
    assert owner.sent[guest, "Push"] == before[guest, "Push"]
    assert owner.sent[guest, "Beat"] == before[guest, "Beat"]


def test_a_keeper_waits_for_the_set_that_names_it_while_it_is_given_the_job() -> None:
    keeper = LoneKeeper()
    fact = CODEC.seal(ALICE, spec(64))
    named = CODEC.seal(ALICE, f.KeeperSet(fact.job, 0, [one.public_key for one in OTHERS[:4]], 3))
    keeper.ask(OTHERS[0], m.Push(fact.job, [fact.raw, named.raw]))
    for _ in range(30):
        keeper.pass_time(10 * SECOND_NS)
        keeper.ask(OTHERS[0], m.Beat([m.JobBeat(fact.job, b"\0" * 8, True)]))
    assert fact.job in keeper.core.kept
    keeper.pass_time(120 * SECOND_NS)
    assert fact.job not in keeper.core.kept


# --- refusals ---------------------------------------------------------------------------------------------------


def test_a_refusal_is_not_for_ever() -> None:
    owner = Owner(4)
    one = KEEPERS[0].peer_id
    owner.answers[one] = lambda _peer, message: (
        m.Refusal("banned", "too much") if isinstance(message, m.Push) else None
    )
    worker, before = peer(10), owner.sent[one, "Push"]
    owner.ask(worker, m.LeaseRequest(1, ["square@1"], []))
    owner.wait(20)
    asked = owner.sent[one, "Push"]
    assert asked == before + 1
    owner.wait(30)
    assert owner.sent[one, "Push"] == asked  # left alone
    owner.answers.clear()
    owner.wait(60)
    owner.ask(peer(11), m.LeaseRequest(1, ["square@1"], []))
    owner.wait(10)
    assert owner.sent[one, "Push"] > asked
    assert len(owner.told("keeper_refused")) == 1


def test_a_result_that_is_stated_again_in_a_new_view_was_computed_once() -> None:
    owner = Owner(0, units=4)
    workers = [peer(10), peer(11)]

    def commit(worker: Identity) -> None:
        epoch = owner.job.state.epoch(0)
        sealed = f.commitment("test", owner.id, 0, epoch, worker.public_key, hash_result(RIGHT), b"n" * 16)
        fact = CODEC.seal(worker, f.Commits(owner.id, [f.CommitItem(0, epoch, sealed)]))
        owner.ask(worker, m.Report(owner.id, [fact.raw], [], []))

    for worker in workers:
        owner.ask(worker, m.LeaseRequest(4, ["square@1"], []))
    commit(workers[0])
    assert owner.job.replicas == 1
    before = owner.view
    owner.come(KEEPERS[0])
    owner.wait(60)
    assert owner.view > before
    commit(workers[0])
    assert owner.job.replicas == 1
    commit(workers[1])
    assert owner.job.replicas == 2
    assert len(owner.job.state.committed(0)) == 2


@pytest.mark.parametrize(("over", "told"), [(True, 0), (False, 1)])
def test_that_a_keeper_let_go_is_told_only_while_the_job_goes_on(over: bool, told: int) -> None:
    owner = Owner(2)
    one = KEEPERS[0].peer_id
    owner.answers[one] = lambda peer, message: (
        m.Refusal("released", "it is over") if isinstance(message, m.Push) else owner.answer(peer, message)
    )
    pushed = owner.sent[one, "Push"]
    if over:
        owner.perform(owner.core.cancel(owner.id, "enough", owner.now))
    owner.core._pass_on(owner.job, owner.facts[-1:], ME.peer_id)  # as what ended the job, a moment later
    owner.wait(20)
    assert owner.sent[one, "Push"] > pushed
    assert len(owner.told("keeper_refused")) == told


def test_a_keeper_that_always_lost_the_job_is_not_told_it_without_end() -> None:
    owner = Owner(4)
    one = KEEPERS[0].peer_id
    owner.answers[one] = lambda _peer, message: (
        m.Refusal("unknown_job", "?") if isinstance(message, m.Push) else owner.answer(one, message)
    )
    owner.ask(peer(10), m.LeaseRequest(1, ["square@1"], []))
    before = owner.sent[one, "Push"]
    owner.wait(600)
    assert owner.sent[one, "Push"] - before < 12


# --- competing sets ---------------------------------------------------------------------------------------------


def test_a_submitter_makes_no_proposal_beside_another() -> None:
    owner = Owner(8)
    owner.leave(KEEPERS[7])
    owner.wait(100)
    owner.come(*GUESTS)
    owner.wait(15)
    proposal = owner.successor(KEEPERS[0], KEEPERS[7], GUESTS[0])
    owner.push(KEEPERS[0], proposal)
    owner.endorse(proposal, *KEEPERS[:2])
    owner.wait(45)
    assert len(owner.sets) == 2  # the first one, and that proposal
    owner.endorse(proposal, *KEEPERS[2:6])
    assert owner.view == 1
    assert owner.told("keepers_changed")[-1].fields["reason"] == "agreed"


def test_keepers_that_agreed_to_different_sets_are_freed_by_the_submitter_at_once() -> None:
    owner = Owner(8)
    owner.leave(KEEPERS[7])
    owner.wait(60)
    first, second = (owner.successor(KEEPERS[6], KEEPERS[7], guest) for guest in GUESTS[:2])
    owner.push(KEEPERS[6], first, second)
    owner.endorse(first, *KEEPERS[:3])
    owner.endorse(second, *KEEPERS[3:6])
    owner.wait(7)
    assert owner.view == f.VIEWS_PER_GENERATION
    assert set(owner.sets[-1].keys) >= {one.public_key for one in KEEPERS[:7]}


def test_keepers_that_agree_to_one_set_too_slowly_are_freed_later() -> None:
    owner = Owner(8)
    owner.leave(KEEPERS[7])
    owner.wait(60)
    first = owner.successor(KEEPERS[0], KEEPERS[7], GUESTS[0])
    owner.push(KEEPERS[0], first)
    owner.endorse(first, *KEEPERS[:3])  # the other four still see the one that would go
    owner.wait(30)
    assert owner.view == 0
    owner.wait(60)
    assert owner.view == f.VIEWS_PER_GENERATION


def keeper_in_a_set_of_eight() -> tuple[LoneKeeper, JobId, f.Fact]:
    """A keeper whose submitter is away, as is the last of the others."""
    keeper = LoneKeeper()
    fact = CODEC.seal(ALICE, spec(64))
    keys = [ME.public_key, *(one.public_key for one in KEEPERS[:7])]
    named = CODEC.seal(ALICE, f.KeeperSet(fact.job, 0, keys, 6))
    keeper.ask(ALICE, m.Push(fact.job, [fact.raw, named.raw]))
    for _ in range(8):
        keeper.pass_time(5 * SECOND_NS)
        for one in KEEPERS[:6]:
            keeper.ask(one, m.Beat([]))
    there = {one.peer_id for one in KEEPERS[:6]}
    for one in [one for one in keeper.sent if isinstance(one, fx.Send) and isinstance(one.message, m.Compare)]:
        if one.peer in there:
            reply = m.CompareReply(fact.job, b"", b"")
            keeper.perform(keeper.core.handle(fx.Replied(one.tag, one.peer, reply), keeper.now))
    return keeper, fact.job, named


def follow(named: f.Fact, author: Identity, guest: Identity) -> f.Fact:
    first = named.payload
    assert isinstance(first, f.KeeperSet)
    keys = [*first.keys[:-1], guest.public_key]
    return CODEC.seal(author, f.KeeperSet(named.job, 1, keys, 6, bytes(named.id)))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_two_sets_every_keeper_endorses_the_same(order: tuple[int, int]) -> None:
    """In whichever order they come; and it passes them on first."""
    keeper, job, named = keeper_in_a_set_of_eight()
    sets = [follow(named, KEEPERS[0], guest) for guest in GUESTS[:2]]
    keeper.sent.clear()
    for place in order:
        keeper.ask(KEEPERS[0], m.Push(job, [sets[place].raw]))
    state = keeper.job(job).state
    assert not any(state.endorsers(one.id) for one in sets)
    pushed = [e for e in keeper.sent if isinstance(e, fx.Send) and isinstance(e.message, m.Push)]
    assert {raw for e in pushed for raw in e.message.facts} >= {sets[order[0]].raw}  # type: ignore[union-attr]
    keeper.pass_time(10 * SECOND_NS)
    lower = min(sets, key=lambda one: one.id)
    assert [ME.peer_id in state.endorsers(one.id) for one in sets] == [one is lower for one in sets]


def test_a_set_that_others_endorsed_comes_first() -> None:
    keeper, job, named = keeper_in_a_set_of_eight()
    lower, higher = sorted((follow(named, KEEPERS[0], guest) for guest in GUESTS[:2]), key=lambda one: one.id)
    agreed = CODEC.seal(KEEPERS[1], f.Endorsements(job, [bytes(higher.id)]))
    keeper.ask(KEEPERS[0], m.Push(job, [lower.raw, higher.raw, agreed.raw]))
    keeper.pass_time(10 * SECOND_NS)
    assert ME.peer_id in keeper.job(job).state.endorsers(higher.id)


# --- keepers that are two-faced ---------------------------------------------------------------------------------


def both_results(job: JobId, liar: Identity) -> list[f.Fact]:
    """What proves it."""
    items = [f.VerdictItem(0, 0, hash_result(result), [ALICE.public_key], []) for result in (RIGHT, WRONG)]
    return [CODEC.seal(liar, f.Verdicts(job, [item])) for item in items]


def test_others_take_the_place_of_three_that_are_two_faced_at_once() -> None:
    owner = Owner(8)
    owner.come(*GUESTS)
    for liar in KEEPERS[:3]:
        owner.push(liar, *both_results(owner.id, liar))
    owner.wait(25)
    chosen = set(owner.sets[-1].keys)
    assert owner.view == f.VIEWS_PER_GENERATION
    assert chosen >= {one.public_key for one in KEEPERS[3:]}
    assert not chosen & {one.public_key for one in KEEPERS[:3]}
    assert len(chosen) == 8
    owner.leave(*KEEPERS[3:6])  # and they are not asked again, whoever goes
    owner.wait(200)
    assert not set(owner.sets[-1].keys) & {one.public_key for one in KEEPERS[:3]}


def test_without_anybody_else_the_honest_go_on() -> None:
    owner = Owner(8)
    for liar in KEEPERS[:3]:
        owner.push(liar, *both_results(owner.id, liar))
    owner.wait(25)
    assert set(owner.sets[-1].keys) == {one.public_key for one in KEEPERS[3:]}


def test_a_lone_liar_is_replaced_by_agreement_without_waiting_until_it_goes() -> None:
    owner = Owner(8)
    owner.come(GUESTS[0])
    owner.push(KEEPERS[2], *both_results(owner.id, KEEPERS[2]))
    owner.wait(15)
    assert owner.sets[-1].view == 1
    assert KEEPERS[2].public_key not in owner.sets[-1].keys
    assert GUESTS[0].public_key in owner.sets[-1].keys


def test_what_a_liar_proposes_holds_up_no_other_proposal() -> None:
    owner = Owner(8)
    owner.come(GUESTS[0])
    owner.push(KEEPERS[2], *both_results(owner.id, KEEPERS[2]))
    owner.push(KEEPERS[2], owner.successor(KEEPERS[2], KEEPERS[4], GUESTS[1]))  # of one that is there
    owner.wait(15)
    assert owner.sets[-1].view == 1
    assert {KEEPERS[2].public_key, GUESTS[1].public_key}.isdisjoint(owner.sets[-1].keys)


@pytest.mark.parametrize("proven", [True, False])
def test_a_keeper_endorses_that_one_goes_that_is_two_faced_and_nobody_else_who_is_there(proven: bool) -> None:
    keeper, job, named = keeper_in_a_set_of_eight()
    first = named.payload
    assert isinstance(first, f.KeeperSet)
    keys = [key for key in first.keys if key != KEEPERS[0].public_key] + [GUESTS[0].public_key]
    without = CODEC.seal(KEEPERS[1], f.KeeperSet(job, 1, keys, 6, bytes(named.id)))
    if proven:
        keeper.ask(KEEPERS[0], m.Push(job, [fact.raw for fact in both_results(job, KEEPERS[0])]))
    keeper.ask(KEEPERS[1], m.Push(job, [without.raw]))
    keeper.pass_time(10 * SECOND_NS)
    for one in KEEPERS[:6]:
        keeper.ask(one, m.Beat([]))
    keeper.pass_time(10 * SECOND_NS)
    assert (ME.peer_id in keeper.job(job).state.endorsers(without.id)) is proven


# --- the submitter's own word -----------------------------------------------------------------------------------


def test_a_submitter_without_a_connection_names_no_keepers() -> None:
    owner = Owner(8)
    owner.leave(*KEEPERS)
    owner.wait(1200)
    assert len(owner.sets) == 1
    owner.come(KEEPERS[0])  # the others are on their way
    owner.wait(40)
    assert len(owner.sets) == 1
    owner.come(*KEEPERS[1:])
    owner.wait(300)
    assert len(owner.sets) == 1


def test_a_submitter_that_only_one_keeper_came_back_to_names_that_and_itself() -> None:
    owner = Owner(8)
    owner.leave(*KEEPERS)
    owner.wait(120)
    owner.come(KEEPERS[0])
    owner.wait(90)
    assert owner.sets[-1].view == f.VIEWS_PER_GENERATION
    assert set(owner.sets[-1].keys) == {ME.public_key, KEEPERS[0].public_key}


@pytest.mark.parametrize(("others", "alone"), [(3, True), (4, False)])
def test_only_a_job_of_few_peers_is_ever_kept_by_its_submitter_alone(others: int, alone: bool) -> None:
    owner = Owner(others)
    assert len(owner.sets[-1].keys) == 4
    owner.leave(*KEEPERS[:others])
    owner.wait(200)
    assert len(owner.sets) == 1
    owner.wait(200)
    assert (owner.sets[-1].keys == [ME.public_key]) is alone


def test_keepers_lost_while_others_are_there_are_made_up_for_soon() -> None:
    """One of five was killed, one hangs: 25 s until that is noticed, and ten."""
    owner = Owner(5)
    owner.wait(10)
    owner.leave(KEEPERS[0])
    del owner.there[KEEPERS[1].peer_id]
    owner.wait(45)
    assert set(owner.sets[-1].keys) == {ME.public_key, *(one.public_key for one in KEEPERS[2:5])}
    assert {one.fields["peer"] for one in owner.told("keeper_away")} == {one.peer_id for one in KEEPERS[:2]}
    assert not owner.told("keeper_back")  # who is no keeper any more did not come back


def test_after_many_agreed_sets_the_submitter_names_the_keepers_itself() -> None:
    """Else what proves to workers who keeps the job would not fit a message."""
    owner = Owner(8)
    for number in range(20):
        view = owner.job.state.view
        assert view is not None
        if view.number >= f.VIEWS_PER_GENERATION:
            break
        keys = [*view.keys[1:], peer(2000 + number).public_key]
        payload = f.KeeperSet(owner.id, view.number + 1, keys, threshold(8), bytes(view.fact.id))
        members = [one for one in [*KEEPERS, *(peer(2000 + n) for n in range(number))] if view.holds(one.peer_id)]
        proposal = CODEC.seal(members[0], payload)
        owner.there |= {one.peer_id: one for one in members}
        owner.push(members[0], proposal)
        owner.endorse(proposal, *members[:6])
        owner.wait(6)
    assert owner.view == f.VIEWS_PER_GENERATION
    assert len(owner.job.state.view_facts()) == 1
    assert owner.told("keepers_changed")[-1].fields["reason"] == "renewed"


# --- what is left behind ----------------------------------------------------------------------------------------


def test_nothing_is_remembered_of_jobs_that_are_not_kept_any_more() -> None:
    keeper = LoneKeeper()
    for _ in range(20):
        job, _ = keeper.offer(ALICE, 4, away=False)
        keeper.pass_time(15 * SECOND_NS)
        keeper.ask(ALICE, m.Release(job))
    core = keeper.core
    assert not core.kept
    left = (core._cares, core._allowance._jobs, core._dismissed_ns, core._fetching, core._spans, core._held_until)
    assert not any(left)


def test_restarts_do_not_prolong_how_long_a_job_is_kept() -> None:
    keeper = LoneKeeper()
    job, _ = keeper.offer(ALICE, 4)
    facts = [one.fact for one in keeper.disk if isinstance(one, fx.StoreFact)]
    total_s = keeper.job(job).state.spec.deadlines.total_s
    life_s = total_s + 72 * 3600
    for age_s, kept in ((life_s - 3600, True), (life_s + 1, False)):
        again = Submitter(ME, CODEC, Random(2), check_form)
        again.restore(facts[0], facts[1:], 0, age_ns=age_s * SECOND_NS)
        for second in range(0, 120, 5):
            again.handle(fx.Tick(), second * SECOND_NS)
        assert (job in again.kept) is kept
