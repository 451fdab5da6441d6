"""A range is certain when enough keepers of a set state one root, whatever the others say and in any order."""

from random import Random

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkle_protocol.codec import decode, encode
from sparkle_protocol.errors import RemoteProtocolError
from sparkle_protocol.facts import MAX_FACT_BYTES, MAX_RANGES, SEAL_UNITS, SealItem, Seals
from sparkle_protocol.ids import peer_id_from_key
from sparkle_protocol.work.seal_votes import MAX_VOTERS, ROOTS_PER_KEEPER, SealVotes

JOB = b"j" * 32
KEYS = [bytes([number]) * 32 for number in range(8)]
ROOTS = [bytes([number]) * 32 for number in range(100, 100 + ROOTS_PER_KEEPER + 3)]
UNITS = 3 * SEAL_UNITS - 1
words = st.tuples(
    st.sampled_from(KEYS), st.lists(st.builds(SealItem, st.integers(0, 2), st.sampled_from(ROOTS)), max_size=4)
)


def counted(said: list[tuple[bytes, list[SealItem]]]) -> SealVotes:
    votes = SealVotes(UNITS)
    for key, items in said:
        votes.add(peer_id_from_key(key), Seals(JOB, items))
    return votes


def one(index: int, root: bytes) -> list[SealItem]:
    return [SealItem(index, root)]


def test_threshold_keepers_with_one_root_make_it_certain() -> None:
    votes = counted([(key, one(1, ROOTS[0])) for key in KEYS[:5]])
    assert votes.certified(1, KEYS, 6) is None
    assert votes.add(peer_id_from_key(KEYS[5]), Seals(JOB, one(1, ROOTS[0]))) == [1]
    assert votes.add(peer_id_from_key(KEYS[5]), Seals(JOB, one(1, ROOTS[0]))) == []
    assert votes.certified(1, KEYS, 6) == ROOTS[0]
    assert votes.certified(0, KEYS, 6) is None
    assert votes.certified(1, KEYS[1:], 6) is None  # a view without one of them
    assert votes.keepers(1, ROOTS[0]) == KEYS[:6]


def test_three_of_eight_liars_decide_nothing() -> None:
    votes = counted([*((key, one(0, ROOTS[0])) for key in KEYS[:3]), *((key, one(0, ROOTS[1])) for key in KEYS[3:])])
    assert votes.certified(0, KEYS, 6) is None
    assert votes.certified(0, KEYS, 5) == ROOTS[1]


def test_under_four_keepers_the_submitter_decides() -> None:
    votes = counted([(KEYS[0], one(0, ROOTS[0])), (KEYS[1], one(0, ROOTS[1]))])
    assert votes.certified(0, [KEYS[1]], 1) == ROOTS[1]


def test_nobody_certifies_nothing() -> None:
    votes = counted([(KEYS[0], one(0, ROOTS[0]))])
    assert votes.certified(0, [], 0) is None
    assert votes.certified(0, KEYS[1:], 0) is None


def test_a_keeper_may_learn_of_a_late_worker_and_state_another_root() -> None:
    early, late = ROOTS[1], ROOTS[0]
    votes = counted([*((key, one(0, early)) for key in KEYS), *((key, one(0, late)) for key in KEYS[:6])])
    assert votes.certified(0, KEYS, 6) == early  # more keepers hold it
    votes = counted([*((key, one(0, early)) for key in KEYS), *((key, one(0, late)) for key in KEYS)])
    assert votes.certified(0, KEYS, 6) == late  # as many: the lowest, so that all agree


@given(st.lists(words, max_size=25), st.integers(0, 1000))
def test_the_order_does_not_matter(said: list[tuple[bytes, list[SealItem]]], seed: int) -> None:
    shuffled = list(said)
    Random(seed).shuffle(shuffled)
    one, other = counted(said), counted(shuffled + said)
    for index in range(3):
        for root in ROOTS:
            assert one.keepers(index, root) == other.keepers(index, root)
        for threshold in (1, 3, 6):
            assert one.certified(index, KEYS, threshold) == other.certified(index, KEYS, threshold)
        for key in KEYS:
            assert sum(key in one.keepers(index, root) for root in ROOTS) <= ROOTS_PER_KEEPER


def test_a_range_beyond_the_job_is_refused_with_all_that_stands_beside_it() -> None:
    votes = SealVotes(UNITS)
    with pytest.raises(RemoteProtocolError):
        votes.add(peer_id_from_key(KEYS[0]), Seals(JOB, [*one(0, ROOTS[0]), *one(3, ROOTS[0])]))
    assert votes.certified(0, KEYS, 1) is None


def test_strangers_are_not_heard_without_end() -> None:
    strangers = [bytes([number, 1]) * 16 for number in range(MAX_VOTERS)]
    votes = counted([(key, one(0, ROOTS[0])) for key in strangers])
    assert votes.add(peer_id_from_key(KEYS[0]), Seals(JOB, one(0, ROOTS[1]))) == []
    assert votes.certified(0, [KEYS[0]], 1) is None
    assert votes.certified(0, strangers, MAX_VOTERS) == ROOTS[0]
    votes.forget(0)
    assert votes.certified(0, strangers, 1) is None


@pytest.mark.parametrize(
    "fields",
    [
        [JOB, []],
        [JOB, [[MAX_RANGES, ROOTS[0]]]],
        [JOB, [[-1, ROOTS[0]]]],
        [JOB, [[0, ROOTS[0][:-1]]]],
        [JOB, [[0, ROOTS[0]]] * (MAX_RANGES + 1)],
        [JOB[:-1], [[0, ROOTS[0]]]],
    ],
)
def test_malformed_certificates_are_refused(fields: list[object]) -> None:
    with pytest.raises(RemoteProtocolError):
        decode(msgpack.packb([21, *fields]), Seals)


def test_a_certificate_of_the_largest_job_is_one_fact() -> None:
    raw = encode(Seals(JOB, [SealItem(index, ROOTS[0]) for index in range(MAX_RANGES)]))
    assert len(raw) < MAX_FACT_BYTES
    assert len(decode(raw, Seals).items) == MAX_RANGES
    assert msgpack.unpackb(raw)[:2] == [21, JOB]
