"""Sealed ranges say what was sealed, in little memory, and take no nonsense from the wire."""

import tracemalloc
from collections import Counter
from random import Random

import msgpack
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkle_protocol.errors import LocalProtocolError, RemoteProtocolError
from sparkle_protocol.facts import MAX_UNITS, SEAL_UNITS
from sparkle_protocol.ids import PeerId, ResultHash, key_from_peer_id, peer_id_from_key
from sparkle_protocol.messages import MAX_SEAL_BYTES
from sparkle_protocol.work.sealed import (
    MAX_ACCEPTED,
    MAX_RANGE_WORKERS,
    SealedJob,
    SealedRange,
    SealedUnit,
    leaf,
    range_count,
    range_of,
    range_units,
)
from sparkle_protocol.work.unit_set import UnitSet


def people(count: int, seed: int = 1) -> list[PeerId]:
    draw = Random(seed)
    return sorted(peer_id_from_key(draw.randbytes(32)) for _ in range(count))


def ended(count: int, workers: list[PeerId], seed: int = 1, epochs: tuple[int, ...] = (0,)) -> list[SealedUnit]:
    """Units that two of the workers (or the only one) had accepted."""
    draw = Random(seed)
    agreeing = min(2, len(workers))
    return [
        SealedUnit(draw.choice(epochs), ResultHash(draw.randbytes(32)), tuple(sorted(draw.sample(workers, agreeing))))
        for _ in range(count)
    ]


PEOPLE = people(6)
SOME_UNITS = st.builds(
    SealedUnit,
    st.sampled_from([0, 1, 4096, 2**32 - 1]),
    st.binary(min_size=32, max_size=32).map(ResultHash),
    st.sets(st.sampled_from(PEOPLE), min_size=1).map(lambda names: tuple(sorted(names))),
)
SOME_RANGES = st.builds(
    SealedRange.pack,
    st.integers(0, MAX_UNITS // SEAL_UNITS - 1).map(lambda index: index * SEAL_UNITS),
    st.lists(SOME_UNITS, min_size=1, max_size=6),
)


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=20))
def test_peer_ids_sort_like_the_keys_inside_them(keys: list[bytes]) -> None:
    assert sorted(map(peer_id_from_key, keys)) == list(map(peer_id_from_key, sorted(keys)))


@given(st.lists(SOME_UNITS, min_size=1, max_size=12), st.integers(0, 3))
def test_a_range_says_what_was_packed_and_survives_the_wire(items: list[SealedUnit], index: int) -> None:
    packed = SealedRange.pack(index * SEAL_UNITS, items)
    read = SealedRange.decode(packed.encode())
    assert read == packed
    assert read.encode() == packed.encode()
    for sealed in (packed, read):
        assert list(sealed) == items
        assert (sealed.index, sealed.count) == (index, len(items))
        assert sealed.accepted_by() == Counter(name for item in items for name in item.accepted)
        for unit, item in enumerate(items, sealed.first):
            assert unit in sealed
            assert sealed.unit(unit) == item
            assert (sealed.epoch(unit), sealed.result_hash(unit)) == (item.epoch, item.result_hash)
        for stranger in (sealed.first - 1, sealed.first + len(items)):
            assert stranger not in sealed
            with pytest.raises(LocalProtocolError):
                sealed.unit(stranger)


@given(st.lists(SOME_UNITS, min_size=1, max_size=5), st.lists(SOME_UNITS, min_size=1, max_size=5))
def test_a_root_names_the_contents(a: list[SealedUnit], b: list[SealedUnit]) -> None:
    one, other = SealedRange.pack(0, a), SealedRange.pack(0, b)
    assert (one.root == other.root) == (a == b)
    assert SealedRange.pack(SEAL_UNITS, a).root != one.root


@pytest.mark.parametrize("workers", [1, 2, 256, 257, 700])
def test_few_and_many_workers(workers: int) -> None:
    names = people(workers)
    items = ended(SEAL_UNITS, names, epochs=(0, 1, 4097))
    items[-1] = SealedUnit(1, ResultHash(bytes(32)), tuple(names[:MAX_ACCEPTED]))
    sealed = SealedRange.decode(SealedRange.pack(0, items).encode())
    assert list(sealed) == items
    assert [sealed.unit(unit) for unit in range(SEAL_UNITS)] == items
    assert sealed.workers == tuple(sorted({name for item in items for name in item.accepted}))


def test_the_largest_possible_record_fits_into_a_message() -> None:
    names = people(MAX_RANGE_WORKERS)
    items = [
        SealedUnit(
            unit, ResultHash(bytes(32)), tuple(sorted(names[(unit * 16 + at) % len(names)] for at in range(64)))
        )
        for unit in range(SEAL_UNITS)
    ]
    raw = SealedRange.pack(0, items).encode()
    assert len(raw) < MAX_SEAL_BYTES
    assert list(SealedRange.decode(raw)) == items


@pytest.mark.parametrize(
    ("first", "items"),
    [
        (0, []),
        (1, ended(1, PEOPLE)),
        (-SEAL_UNITS, ended(1, PEOPLE)),
        (MAX_UNITS, ended(1, PEOPLE)),
        (0, ended(SEAL_UNITS + 1, PEOPLE)),
        (0, [SealedUnit(-1, ResultHash(bytes(32)), (PEOPLE[0],))]),
        (0, [SealedUnit(1 << 32, ResultHash(bytes(32)), (PEOPLE[0],))]),
        (0, [SealedUnit(0, ResultHash(bytes(31)), (PEOPLE[0],))]),
        (0, [SealedUnit(0, ResultHash(bytes(32)), ())]),
        (0, [SealedUnit(0, ResultHash(bytes(32)), (PEOPLE[1], PEOPLE[0]))]),
        (0, [SealedUnit(0, ResultHash(bytes(32)), (PEOPLE[0], PEOPLE[0]))]),
        (0, [SealedUnit(0, ResultHash(bytes(32)), tuple(people(MAX_ACCEPTED + 1)))]),
    ],
)
def test_nonsense_is_not_packed(first: int, items: list[SealedUnit]) -> None:
    with pytest.raises(LocalProtocolError):
        SealedRange.pack(first, items)


# --- the wire ------------------------------------------------------------------------------------------------

KEYS = [key_from_peer_id(name) for name in PEOPLE]
GOOD = [1, SEAL_UNITS, KEYS[0] + KEYS[1], bytes(4), b"h" * 64, b"\x02\x01", b"\x00\x01\x01"]


def changed(field: int, value: object) -> bytes:
    packed: bytes = msgpack.packb([*GOOD[:field], value, *GOOD[field + 1 :]])
    return packed


def test_a_record_written_from_the_specification_is_understood() -> None:
    """With msgpack and BLAKE3 alone."""
    sealed = SealedRange.decode(msgpack.packb(GOOD))
    assert list(sealed) == [
        SealedUnit(0, ResultHash(b"h" * 32), (PEOPLE[0], PEOPLE[1])),
        SealedUnit(0, ResultHash(b"h" * 32), (PEOPLE[1],)),
    ]
    one = (1024).to_bytes(4, "big") + bytes(4) + b"h" * 32 + KEYS[0] + KEYS[1]
    two = (1025).to_bytes(4, "big") + bytes(4) + b"h" * 32 + KEYS[1]
    assert leaf(1025, 0, b"h" * 32, KEYS[1:2]) == two
    left, right = blake3(b"\x00" + one).digest(), blake3(b"\x00" + two).digest()
    assert sealed.root == blake3(b"\x01" + left + right).digest()
    newer = SealedRange.decode(msgpack.packb([*GOOD, "a field of the future"]))
    assert newer == sealed


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x00" * 10,
        b"\xc4" * (MAX_SEAL_BYTES + 1),
        msgpack.packb(GOOD[:-1]),
        msgpack.packb(GOOD) + b"\x00",
        changed(0, 2),  # a version of the future
        changed(0, None),
        changed(1, 1),  # no first unit of a range
        changed(1, -1024),
        changed(1, MAX_UNITS),
        changed(2, b""),  # nobody
        changed(2, KEYS[0] + KEYS[1][:-1]),
        changed(2, KEYS[1] + KEYS[0]),  # in the wrong order
        changed(2, KEYS[0] + KEYS[0]),
        changed(2, KEYS[0] + KEYS[1] + KEYS[2]),  # one too many
        changed(2, KEYS[0]),  # one too few
        changed(3, b""),
        changed(3, bytes(5)),
        changed(3, bytes(8)),  # twice the same epoch
        changed(4, b"h" * 63),
        changed(4, b""),
        changed(5, b""),
        changed(5, b"\x02\x00"),  # accepted from nobody
        changed(5, b"\x02\x02"),
        changed(5, b"\x41\x01"),
        changed(6, b"\x01\x00\x01"),  # in the wrong order
        changed(6, b"\x00\x00\x01"),
        changed(6, b"\x00\x02\x01"),  # beyond the table
        changed(6, b"\x00\x01"),
        msgpack.packb([1, 0, KEYS[0], bytes(4), b"h" * 32 * 1025, b"\x01" * 1025, bytes(1025)]),  # too long
        msgpack.packb([1, 0, b"", bytes(4), b"", b"", b""]),
    ],
)
def test_nonsense_from_the_wire_is_refused(raw: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        SealedRange.decode(raw)


@settings(max_examples=300)
@given(SOME_RANGES, st.data())
def test_a_changed_record_is_refused_or_has_another_root(sealed: SealedRange, data: st.DataObject) -> None:
    raw = bytearray(sealed.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    try:
        read = SealedRange.decode(bytes(raw))
    except RemoteProtocolError:
        return
    assert (read.root == sealed.root) == (read.encode() == sealed.encode())
    assert SealedRange.decode(read.encode()) == read


@given(st.binary(max_size=400))
def test_any_bytes_are_refused_or_understood(raw: bytes) -> None:
    try:
        SealedRange.decode(raw)
    except RemoteProtocolError:
        return


# --- a job ---------------------------------------------------------------------------------------------------


def test_the_ranges_of_a_job() -> None:
    assert [range_count(units) for units in (1, 1024, 1025, MAX_UNITS)] == [1, 1, 2, 1024]
    assert range_units(1, 1030) == range(1024, 1030)
    assert not range_units(2, 1030)
    assert (range_of(1023), range_of(1024)) == (0, 1)


def test_a_job_knows_its_sealed_units() -> None:
    job = SealedJob(2500)
    last, first = ended(452, PEOPLE[:3], seed=2), ended(1024, PEOPLE, seed=3)
    assert job.add(SealedRange.decode(SealedRange.pack(2048, last).encode()))
    assert job.add(SealedRange.pack(0, first))
    assert (len(job), [one.index for one in job.ranges()]) == (1476, [0, 2])
    assert [unit in job for unit in (-1, 0, 1023, 1024, 2047, 2048, 2499, 2500, 4000)] == [
        False, True, True, False, False, True, True, False, False,
    ]  # fmt: skip
    assert job.get(5) == first[5]
    assert job.get(2499) == last[-1]
    assert [job.get(unit) for unit in (-1, 1024, 2500, 9999)] == [None] * 4
    assert job.result_hash(7) == first[7].result_hash
    assert job.result_hash(1024) is None
    ends = [*enumerate(first), *enumerate(last, 2048)]
    assert list(job.result_hashes()) == [(unit, item.result_hash) for unit, item in ends]
    assert job.accepted_by == Counter(name for _, item in ends for name in item.accepted)
    assert job.add(SealedRange.pack(1024, ended(1024, PEOPLE)))
    assert len(job) == 2500


def test_what_is_sealed_does_not_change() -> None:
    job = SealedJob(2)
    first = ended(2, PEOPLE, seed=1)
    assert job.add(SealedRange.pack(0, first))
    assert not job.add(SealedRange.pack(0, first))
    assert not job.add(SealedRange.pack(0, ended(2, PEOPLE, seed=2)))
    assert job.get(0) == first[0]
    assert job.accepted_by.total() == 4


@pytest.mark.parametrize(("first", "count"), [(0, 1023), (1024, 475), (1024, 477), (2048, 1)])
def test_ranges_of_another_job_are_refused(first: int, count: int) -> None:
    job = SealedJob(1500)
    with pytest.raises(RemoteProtocolError):
        job.add(SealedRange.pack(first, ended(count, PEOPLE)))
    assert len(job) == 0


def record_of(first: int, draw: Random, keys: list[bytes]) -> bytes:
    """A full range, accepted from pairs of these many workers, as it lies on disk."""
    pairs = [(unit % 256, 256 + unit % (len(keys) - 256)) for unit in range(SEAL_UNITS)]
    places = b"".join(place.to_bytes(2, "big") for pair in pairs for place in pair)
    hashes, table = draw.randbytes(32 * SEAL_UNITS), b"".join(sorted(keys))
    packed: bytes = msgpack.packb([1, first, table, bytes(4), hashes, b"\x02" * SEAL_UNITS, places])
    return packed


def test_the_largest_job_fits_into_56_megabytes() -> None:
    """A sixteenth of 2²⁰ units, by 1000 workers, 300 of them in each range: at most a sixteenth of 56 MB in all."""
    units, draw = MAX_UNITS // 16, Random(5)
    keys = [key_from_peer_id(name) for name in people(1000)]
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        final, handed_out, job = UnitSet(units), UnitSet(units), SealedJob(units)
        for first in range(0, units, SEAL_UNITS):
            sealed = SealedRange.decode(record_of(first, draw, draw.sample(keys, 300)))
            assert job.add(sealed)
            assert job.range_at(sealed.index) is not None
            assert len(sealed.root) == 32
            for found in (final, handed_out):
                found.add_all(first, first + SEAL_UNITS)
        del sealed
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(job) == units
    assert len(final) == len(handed_out) == units
    assert taken < 56_000_000 // 16
