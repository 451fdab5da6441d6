"""Who is to be paid by the signed facts of a job, and who is not whatever somebody claims."""

from random import Random

import pytest

from sparkle_ledger.evidence import Execution, JobRecord
from sparkle_ledger.proofs import encode_proof, prefixes
from sparkle_protocol import facts as f
from sparkle_protocol.errors import LocalProtocolError, RemoteProtocolError
from sparkle_protocol.ledger_messages import PREFIX_BYTES
from sparkle_protocol.work.placement import threshold
from sparkle_protocol.work.state import JobState
from tests.unit.ledger.ledgers import (
    FACTS,
    KEEPERS,
    NET,
    PRICE,
    Author,
    Job,
    book,
    person,
    proof_of,
    proven,
    sealed_job,
    seals,
)

PAYER, WORKER, OTHER, THIRD = (person(n) for n in range(1, 5))
STRANGERS = [person(600 + n) for n in range(4)]
NEXT = f.VIEWS_PER_GENERATION


def test_what_the_submitter_accepts_is_accepted_where_it_decides_alone() -> None:
    job = Job(PAYER)
    record = job.record(job.accepted([WORKER], [0]))
    assert record.accepted(0, 0) == {WORKER.public_key}
    assert (record.executions, record.owed_micro, record.complete) == (1, PRICE, False)
    assert job.record(job.accepted([WORKER, OTHER])).complete


def test_the_threshold_of_the_keepers_accepts() -> None:
    job = Job(PAYER, keepers=KEEPERS)
    verdict = job.verdict([WORKER], [0, 1])
    for enough in range(4):
        record = job.record(job.view, verdict, job.words(verdict, KEEPERS[1 : 1 + enough]))
        assert (record.executions == 2) == (1 + enough >= 3)
        assert record.complete == (1 + enough >= 3)


def test_keys_outside_the_view_certify_nothing() -> None:
    job = Job(PAYER, keepers=KEEPERS)
    theirs = job.verdict([OTHER], [0], by=STRANGERS[0])
    true = job.verdict([WORKER], [0])
    by_strangers = [theirs, *job.words(theirs, STRANGERS[1:]), *job.words(true, STRANGERS)]
    assert job.record(job.view, true, by_strangers).executions == 0
    own_view = FACTS.seal(STRANGERS[0], f.KeeperSet(job.id, 0, [one.public_key for one in STRANGERS], 3))
    assert job.record(own_view, by_strangers).executions == 0


def test_a_keeper_that_lies_about_who_voted_adds_nobody() -> None:
    """It names a friend beside the worker: only what enough keepers say of a worker counts."""
    job = Job(PAYER, keepers=KEEPERS)
    lie = job.verdict([WORKER, OTHER], [0], by=KEEPERS[3])
    record = job.record(job.accepted([WORKER], [0]), lie)
    assert record.accepted(0, 0) == {WORKER.public_key}
    record.add_all(job.words(lie, KEEPERS[:1]))
    assert record.accepted(0, 0) == {WORKER.public_key}
    record.add_all(job.words(lie, KEEPERS[1:2]))  # three of four lie
    assert record.accepted(0, 0) == {WORKER.public_key, OTHER.public_key}


def test_words_on_another_range_do_not_count() -> None:
    job = Job(PAYER, 2000, keepers=KEEPERS)
    verdict = job.verdict([WORKER], [1500])
    assert job.record(job.view, verdict, job.words(verdict, KEEPERS[1:])).executions == 0
    right = [FACTS.seal(one, f.Endorsements(job.id, [bytes(verdict.id)], 1)) for one in KEEPERS[1:]]
    assert job.record(job.view, verdict, right).accepted(1500, 0) == {WORKER.public_key}


def test_the_submitters_own_key_neither_earns_nor_pays() -> None:
    job = Job(PAYER)
    record = job.record(job.accepted([PAYER, WORKER]))
    assert record.accepted(0, 0) == {WORKER.public_key}
    assert job.record(job.accepted([PAYER])).complete
    assert job.record(job.accepted([PAYER])).owed_micro == 0


def test_what_was_accepted_stays_accepted_after_a_reset() -> None:
    """The submitter cannot take a result and deny the pay."""
    job = Job(PAYER, keepers=KEEPERS)
    record = job.record(job.accepted([WORKER], [0]), FACTS.seal(PAYER, f.Reset(job.id, 0, 1, "again")))
    assert record.accepted(0, 0) == {WORKER.public_key}
    record.add_all(job.accepted([OTHER], [0], epoch=1))
    assert record.payable(0) == {(0, WORKER.public_key), (1, OTHER.public_key)}


def test_an_epoch_after_a_reset_that_nobody_stated_does_not_count() -> None:
    job = Job(PAYER, keepers=KEEPERS)
    assert job.record(job.accepted([WORKER], [0], epoch=1)).executions == 0


def test_a_second_keeper_set_for_one_view_takes_nothing_back() -> None:
    job = Job(PAYER, keepers=KEEPERS)
    facts = job.accepted([WORKER])
    for n in range(8):  # some have a lower id, some a higher one
        keys = [person(700 + 4 * n + m).public_key for m in range(4)]
        record = job.record(facts, FACTS.seal(PAYER, f.KeeperSet(job.id, 0, keys, 3)))
        assert record.executions == 2


def test_a_later_view_is_agreed_by_the_one_before() -> None:
    job = Job(PAYER, keepers=KEEPERS)
    keys = [one.public_key for one in STRANGERS]
    view = FACTS.seal(KEEPERS[0], f.KeeperSet(job.id, 1, keys, 3, bytes(job.view.id)))
    verdict = job.verdict([WORKER], [0], by=STRANGERS[0], epoch=f.epoch_of(1, 0))
    theirs = [verdict, *job.words(verdict, STRANGERS[1:])]
    agreed = [FACTS.seal(one, f.Endorsements(job.id, [bytes(view.id)])) for one in KEEPERS]
    assert job.record(job.view, view, theirs, agreed[:2]).executions == 0
    assert job.record(job.view, view, theirs, agreed[:3]).executions == 1


def test_no_more_of_a_unit_than_the_spec_agrees_to_and_the_earlier_epochs_first() -> None:
    job = Job(PAYER, keepers=KEEPERS, replicas=2)
    later = FACTS.seal(PAYER, f.KeeperSet(job.id, NEXT, [one.public_key for one in KEEPERS], 3))
    many = [person(20 + n) for n in range(6)]
    record = job.record(job.accepted([WORKER], [0]), later, job.accepted(many, [0], epoch=f.epoch_of(NEXT, 0)))
    assert len(record.payable(0)) == 2
    assert (0, WORKER.public_key) in record.payable(0)
    assert record.owed_micro <= record.cover_micro


def test_a_cancelled_job_is_over() -> None:
    job = Job(PAYER)
    assert job.record(job.cancel()).over
    assert not job.record(job.cancel()).complete
    with pytest.raises(RemoteProtocolError):
        job.record().add(FACTS.seal(OTHER, f.Cancel(job.id, "not mine")))


def test_a_sealed_record_counts_once_enough_keepers_state_its_root() -> None:
    job, ranges = sealed_job(PAYER, (WORKER, OTHER))
    for count in range(5):
        record = job.record(job.view, seals(job, ranges, KEEPERS[:count]))
        assert [record.add_sealed(one) for one in ranges] == [count >= 3] * 2
        assert record.executions == (3000 if count >= 3 else 0)
        assert record.complete == (count >= 3)
    assert job.record(job.view, seals(job, ranges, STRANGERS)).add_sealed(ranges[0]) is False
    assert record.add_sealed(ranges[0]) is False  # known
    assert record.accepted(1400, 0) == {WORKER.public_key, OTHER.public_key}


def test_a_record_of_a_range_that_the_job_lacks_is_refused() -> None:
    job, ranges = sealed_job(PAYER, [WORKER])
    small = Job(PAYER, 3)
    with pytest.raises(RemoteProtocolError):
        small.record().add_sealed(ranges[0])
    assert job.record().executions == 0


def test_a_state_with_sealed_ranges_proves_what_its_facts_did() -> None:
    job, ranges = sealed_job(PAYER, (WORKER, OTHER))
    state = JobState(job.spec, NET)
    state.merge([job.view, *seals(job, ranges, KEEPERS)])
    for one in ranges:
        state.seal(one)
    record = JobRecord.of(state)
    assert record.executions == 3000
    again = proven(proof_of(record))
    assert (again.executions, again.complete) == (3000, True)
    part = proven(proof_of(record, [1]))
    assert part.executions == 2 * (1500 - 1024)


def test_sealed_records_rest_on_what_was_not_shown_as_it_is_known() -> None:
    job, ranges = sealed_job(PAYER, (WORKER, OTHER))
    whole, known = job.record(job.view, seals(job, ranges, KEEPERS)), job.record(job.view)
    assert all(whole.add_sealed(one) for one in ranges)
    proof = encode_proof(whole, [0, 1], {prefixes(known, [0, 1])[:PREFIX_BYTES]})
    assert proven(proof).executions == 0  # who decides is not in it
    record = proven(proof, known=known.counting())
    assert (record.executions, record.complete) == (3000, True)


def test_a_state_and_its_record_say_the_same_of_who_was_accepted() -> None:
    job = Job(PAYER, keepers=KEEPERS)
    state = JobState(job.spec, NET)
    state.merge(job.accepted([WORKER, OTHER], [0]))
    record = JobRecord.of(state)
    assert state.accepted_workers(0) == {WORKER.peer_id, OTHER.peer_id}
    assert record.accepted(0, 0) == {WORKER.public_key, OTHER.public_key}
    assert list(record.all_payable()) == sorted(Execution(0, 0, one.public_key) for one in (WORKER, OTHER))


def test_the_order_of_facts_does_not_matter() -> None:
    job = Job(PAYER, keepers=KEEPERS)
    reset = FACTS.seal(PAYER, f.Reset(job.id, 1, 1, "again"))
    facts = [*job.accepted([WORKER]), *job.accepted([OTHER], [1], epoch=1), reset]
    said = set()
    for seed in range(20):
        shuffled = list(facts)
        Random(seed).shuffle(shuffled)
        record = JobRecord(job.spec, NET)
        for one in shuffled:
            record.add(one)
            assert record.executions >= 0  # fills what is remembered
        said.add((tuple(record.all_payable()), record.complete))
    assert len(said) == 1
    assert len(said.pop()[0]) == 3


def test_a_proof_survives_the_wire_without_the_noise() -> None:
    job = Job(PAYER, keepers=KEEPERS)
    noise = [job.verdict([person(900 + n)], [0], by=STRANGERS[0]) for n in range(50)]
    record = job.record(noise, job.accepted([WORKER]), job.words(noise[0], STRANGERS))
    raw = proof_of(record)
    again = proven(raw)
    assert list(again.all_payable()) == list(record.all_payable())
    assert len(raw) < 5000
    empty = job.record()
    assert empty.merge(record)
    assert not empty.merge(record)
    assert list(empty.all_payable()) == list(record.all_payable())
    assert len(list(empty.counting())) == 6


def test_a_proof_that_is_forged_or_of_another_network_or_job_is_refused() -> None:
    job = Job(PAYER, keepers=KEEPERS)
    raw = proof_of(job.record(job.accepted([WORKER])))
    for at in range(0, len(raw), 7):
        with pytest.raises(RemoteProtocolError):
            proven(raw[:at] + bytes([raw[at] ^ 0x55]) + raw[at + 1 :])
    with pytest.raises(RemoteProtocolError):
        proven(raw, f.FactCodec("other"))
    with pytest.raises(RemoteProtocolError):
        job.record().add(Job(PAYER, nonce=5).view)
    with pytest.raises(LocalProtocolError):
        job.record().merge(Job(PAYER, nonce=5).record())
    with pytest.raises(LocalProtocolError):
        JobRecord(job.view, NET)


def test_evidence_of_another_network_is_not_taken() -> None:
    job = Job(PAYER)
    with pytest.raises(LocalProtocolError):
        book().add_record(JobRecord(job.spec, "other"))


def test_certificates_that_prove_nothing_book_nothing() -> None:
    payer, worker, job = Author(PAYER), Author(WORKER), Job(PAYER, keepers=KEEPERS)
    payer.hold(job)
    work = worker.work(job, 0, 1)
    found = book(payer, worker)
    verdict = job.verdict([WORKER], [0, 1])
    for facts in ([], job.words(verdict, KEEPERS[1:2]), job.words(verdict, STRANGERS)):
        found.add_record(job.record(job.view, verdict, facts))
        assert found.outcome(work.id) is not None
        assert found.outcome(work.id).code == "pending:not_accepted"  # type: ignore[union-attr]
    found.add_record(job.record(job.accepted([WORKER])))
    assert found.account(worker.account).balance_micro == 20


def test_thresholds_are_those_of_the_job() -> None:
    job = Job(PAYER, keepers=KEEPERS)
    keys = [one.public_key for one in KEEPERS]
    assert threshold(4) == 3
    with pytest.raises(RemoteProtocolError):
        job.record().add(FACTS.seal(PAYER, f.KeeperSet(job.id, 0, keys, 1)))
