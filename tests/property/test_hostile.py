"""Hostile bytes only ever raise RemoteProtocolError; hostile messages never raise and never touch others' units."""

from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkle_protocol import effects as fx
from sparkle_protocol import facts as f
from sparkle_protocol import messages as m
from sparkle_protocol.errors import RemoteProtocolError
from sparkle_protocol.membership import Membership
from sparkle_protocol.work.submitter import Submitter
from sparkle_protocol.work.worker import WorkerAgent
from tests.property.facts_of_a_job import (
    CODEC,
    JOB,
    NET,
    PEOPLE,
    SPEC,
    SUBMITTER,
    WORKERS,
    facts,
    hashes,
    junk,
    units,
)

DECODERS: list[Callable[[bytes], object]] = [m.decode_request, m.decode_reply, m.decode_announcement, CODEC.open]
HOSTILE, HONEST, ANOTHER = WORKERS
KEEPERS = CODEC.seal(SUBMITTER, f.KeeperSet(JOB, 0, [SUBMITTER.public_key], 1))
BOTH = CODEC.seal(SUBMITTER, f.KeeperSet(JOB, 0, [SUBMITTER.public_key, HOSTILE.public_key], 1))
trees = st.recursive(
    junk, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)

raw_facts = facts.map(lambda fact: fact.raw)
views = st.lists(raw_facts | st.just(KEEPERS.raw), max_size=3)
job_ids = st.sampled_from([JOB, b"x" * 32])
unit_epochs = st.builds(m.UnitEpoch, units, st.integers(0, 1))
beats = st.builds(m.Heartbeat, st.integers(0, 5), st.integers(0, 1), st.floats(0, 1))
reports = st.builds(
    m.Report,
    st.sampled_from([JOB, b"x" * 32]),
    st.lists(raw_facts | st.binary(max_size=50), max_size=4),
    st.lists(st.sampled_from([b"one", b"two", b"three"]), max_size=3),
    st.lists(beats, max_size=4),
    st.lists(unit_epochs, max_size=3),
)
requests = st.one_of(
    reports,
    st.builds(m.LeaseRequest, st.integers(1, 64), st.lists(st.sampled_from(["square@1", "cube@1"]), max_size=2)),
    st.builds(m.Offer, st.just(["square@1"])),
    st.builds(m.PeersRequest, st.integers(0, 2**64 - 1)),
    st.builds(
        m.Notice,
        st.sampled_from([JOB, b"x" * 32]),
        st.lists(unit_epochs, max_size=3),
        st.lists(unit_epochs, max_size=3),
        st.lists(st.builds(m.Settled, units, st.integers(0, 1), st.booleans()), max_size=3),
        st.booleans(),
        views,
        st.lists(raw_facts, max_size=2),
    ),
)
results = st.lists(st.sampled_from([b"one", b"two", b"three"]), max_size=3)
sums = st.binary(min_size=8, max_size=8)
job_beats = st.lists(st.builds(m.JobBeat, job_ids, sums, st.booleans()), max_size=3)


def pushes(raw: st.SearchStrategy[bytes]) -> st.SearchStrategy[m.Push]:
    return st.builds(m.Push, job_ids, st.lists(raw | st.just(SPEC.raw) | st.binary(max_size=50), max_size=5), results)


questions = st.one_of(
    st.builds(m.Beat, job_beats),
    st.builds(m.Compare, job_ids, sums.map(lambda one: [one] * 256)),
    st.builds(m.Fetch, job_ids, st.binary(max_size=40), st.lists(hashes, max_size=3)),
    st.builds(m.Release, job_ids),
)
keeper_requests = st.one_of(pushes(raw_facts), questions)
own_words = facts.map(lambda fact: CODEC.seal(HOSTILE, fact.payload).raw)  # what HOSTILE itself can sign
keeper_replies = st.one_of(
    st.builds(m.PushReply, job_ids, st.lists(raw_facts, max_size=4)),
    st.builds(m.BeatReply, job_beats),
    st.builds(m.CompareReply, job_ids, st.binary(max_size=256), st.binary(max_size=64)),
    st.builds(m.FetchReply, job_ids, st.lists(raw_facts | st.binary(max_size=9), max_size=4), results),
)
replies = st.one_of(
    st.builds(
        m.LeaseReply,
        st.lists(st.builds(m.JobFacts, raw_facts | st.just(SPEC.raw), views), max_size=2),
        st.lists(raw_facts, max_size=3),
        st.integers(0, 86_400_000),
        st.integers(0, 5),
    ),
    st.builds(
        m.ReportReply,
        st.just(JOB),
        st.lists(unit_epochs),
        st.just([]),
        st.just([]),
        st.booleans(),
        views,
        st.lists(raw_facts, max_size=2),
    ),
    st.builds(m.PeersReply, st.lists(st.builds(m.PeerRecord, st.binary(min_size=32, max_size=32), st.lists(
        st.text(min_size=8, max_size=30), max_size=2)), max_size=3), st.integers(0, 2**64 - 1)),
    st.builds(m.Ok),
    st.builds(m.Refusal, st.sampled_from(["busy", "protocol", "?"]), st.just("no")),
)  # fmt: skip
messages = st.one_of(requests, keeper_requests, replies, keeper_replies).map(m.encode_message)


def only_refuses(data: bytes) -> None:
    for decode in DECODERS:
        with suppress(RemoteProtocolError):
            decode(data)


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_random_bytes(data: bytes) -> None:
    only_refuses(data)


@settings(max_examples=150)
@given(trees, st.integers(0, 30))
def test_well_formed_values_of_any_shape(tree: Any, kind: int) -> None:
    only_refuses(msgpack.packb(tree))
    only_refuses(msgpack.packb([kind, *(tree if isinstance(tree, list) else [tree])]))


@settings(max_examples=300)
@given(st.one_of(messages, raw_facts), st.data())
def test_mutated_messages(valid: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(valid)))
    flipped = bytes(byte ^ data.draw(st.integers(1, 255)) for byte in valid[place : place + 1])
    kind = data.draw(st.sampled_from(["cut", "flip", "insert", "append"]))
    changed = {
        "cut": valid[:place],
        "flip": valid[:place] + flipped + valid[place + 1 :],
        "insert": valid[:place] + data.draw(st.binary(min_size=1, max_size=4)) + valid[place:],
        "append": valid + b"\xc0",
    }[kind]  # fmt: skip
    only_refuses(changed)


@settings(max_examples=100)
@given(facts, st.data())
def test_no_bit_of_a_fact_can_be_changed(fact: f.Fact, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(fact.raw) - 1))
    changed = bytearray(fact.raw)
    changed[place] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(RemoteProtocolError):
        CODEC.open(bytes(changed))


@given(facts)
def test_facts_of_another_network_or_signer_are_refused(fact: f.Fact) -> None:
    with pytest.raises(RemoteProtocolError, match="network"):
        f.FactCodec("other").open(fact.raw)
    body, signature = msgpack.unpackb(fact.raw)
    version, kind, net, author, payload = msgpack.unpackb(body)
    other = next(person for person in PEOPLE if person.public_key != author)
    forged = msgpack.packb([msgpack.packb([version, kind, net, other.public_key, payload]), signature])
    with pytest.raises(RemoteProtocolError, match="signature"):
        CODEC.open(forged)
    for wrong in ([2, kind, net, author, payload], [version, kind % 9 + 1, net, author, payload]):
        signer = next(person for person in PEOPLE if person.public_key == author)
        resigned = msgpack.packb([msgpack.packb(wrong), signer.sign(f.DOMAIN + msgpack.packb(wrong))])
        with pytest.raises(RemoteProtocolError):
            CODEC.open(resigned)


def a_submitter(keepers: f.Fact = KEEPERS) -> Submitter:
    """With a job of which HONEST holds unit 0, ANOTHER has committed to it, and HOSTILE holds some unit as well."""
    core = Submitter(SUBMITTER, CODEC, Random(1), lambda spec, unit, result: None)
    core.restore(SPEC, [keepers], 0)
    for token, worker in enumerate((HONEST, ANOTHER, HOSTILE)):
        core.handle(fx.Requested(token, worker.peer_id, m.LeaseRequest(1, ["square@1"], [])), 0)
    commit = f.commitment(NET, JOB, 0, 0, ANOTHER.public_key, f.ResultHash(f.digest(b"one")), b"\1" * 16)
    stated = CODEC.seal(ANOTHER, f.Commits(JOB, [f.CommitItem(0, 0, commit)]))
    core.handle(fx.Requested(9, ANOTHER.peer_id, m.Report(JOB, [stated.raw], [], [])), 0)
    return core


def belongings(core: Submitter) -> object:
    """What the honest workers have there."""
    job = core.jobs[JOB]
    return [
        (unit, worker, worker in job.leases.known(unit).leases, job.state.committed(unit).get(worker))
        for unit in range(job.state.spec.units)
        for worker in (HONEST.peer_id, ANOTHER.peer_id)
    ]


@settings(max_examples=100)
@given(st.lists(st.one_of(requests, pushes(own_words), questions), max_size=4), st.sampled_from([KEEPERS, BOTH]))
def test_a_hostile_peer_gets_answers_and_changes_nothing_of_others(asked: list[m.Request], keepers: f.Fact) -> None:
    """Nor does it when it is a keeper of the job itself."""
    core = a_submitter(keepers)
    before = belongings(core)
    for token, message in enumerate(asked, 100):
        event = fx.Requested(token, HOSTILE.peer_id, m.decode_request(m.encode_message(message)))
        effects = core.handle(event, token)
        if not isinstance(message, m.Offer | m.Notice | m.PeersRequest):
            (answer,) = [e for e in effects if isinstance(e, fx.Reply)]
            m.decode_reply(m.encode_message(answer.message))
        core.handle(fx.Tick(), token)
        due = core.next_deadline()
        assert due is None or due > token
    assert belongings(core) == before
    assert len(core.jobs[JOB].state) < 40


@settings(max_examples=200)
@given(st.lists(st.one_of(requests, keeper_requests, replies, keeper_replies), max_size=8))
def test_a_hostile_keeper_breaks_no_worker(said: list[Any]) -> None:
    core = WorkerAgent(HONEST, CODEC, Random(1), ["square@1"])
    offer = fx.Requested(1, HOSTILE.peer_id, m.Offer(["square@1"]))
    effects = core.handle(offer, 1)
    now = 2
    for message in said:
        asked = [e for e in effects if isinstance(e, fx.Send)]
        if isinstance(message, m.LeaseReply | m.ReportReply | m.PeersReply | m.Ok | m.Refusal):
            effects = core.handle(fx.Replied(asked[0].tag if asked else now, HOSTILE.peer_id, message), now)
        else:
            effects = core.handle(fx.Requested(now, HOSTILE.peer_id, message), now)
        now += 1_000_000_000
        effects += core.handle(fx.Tick(), now)
        due = core.next_deadline()
        assert due is None or due > now
    assert len(core.held) <= 2
    assert len(core.jobs) <= 1


@settings(max_examples=200)
@given(st.lists(st.one_of(requests, keeper_requests, replies, keeper_replies), max_size=8))
def test_hostile_messages_break_no_membership(said: list[Any]) -> None:
    core = Membership(HONEST.peer_id, Random(1), lambda: 0)
    now = 0
    core.handle(fx.PeerUp(HOSTILE.peer_id, ("/ip4/1.2.3.4/tcp/1",)), now)
    for message in said:
        now += 100_000_000_000
        sends = [e for e in core.handle(fx.Tick(), now) if isinstance(e, fx.Send)]
        tag = sends[0].tag if sends else 1
        core.handle(fx.Replied(tag, HOSTILE.peer_id, message), now)
        core.handle(fx.Requested(tag, HOSTILE.peer_id, message), now)
        due = core.next_deadline()
        assert due is None or due > now


@settings(max_examples=100)
@given(st.binary(max_size=100) | messages)
def test_hostile_gossip_breaks_no_worker(payload: bytes) -> None:
    core = WorkerAgent(HONEST, CODEC, Random(1), ["square@1"])
    core.handle(fx.Gossiped(m.jobs_topic(NET), HOSTILE.peer_id, payload), 0)


def test_a_keeper_that_gives_more_than_asked_for_is_refused() -> None:
    core = WorkerAgent(HONEST, CODEC, Random(1), ["square@1"])
    effects = core.handle(fx.Requested(1, SUBMITTER.peer_id, m.Offer(["square@1"])), 1)
    (ask,) = [e for e in effects if isinstance(e, fx.Send)]
    items = [f.LeaseItem(n, n, 0, HONEST.public_key, 30_000) for n in range(3)]
    leases = CODEC.seal(SUBMITTER, f.Leases(JOB, items))
    reply = m.LeaseReply([m.JobFacts(SPEC.raw, [KEEPERS.raw])], [leases.raw], 0, 1)
    effects = core.handle(fx.Replied(ask.tag, SUBMITTER.peer_id, reply), 2)
    assert fx.Violation(SUBMITTER.peer_id, "more leases than were asked for") in effects
    assert not core.held
    assert not core.jobs
