"""Reconciliation of any two sets, with an honest partner and with any other."""

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkle_ledger import reconcile as rec
from sparkle_protocol.codec import decode, encode
from sparkle_protocol.errors import RemoteProtocolError

SALT = b"\7" * 32
LIMIT = 64 << 10


def ids(rng: Random, count: int) -> list[bytes]:
    return [rng.randbytes(32) for _ in range(count)]


def crowded(rng: Random, count: int) -> list[bytes]:
    """Ids that differ in their last bytes only: what somebody would make who wants to deepen the search."""
    return [bytes(28) + number.to_bytes(4, "big") for number in rng.sample(range(count * 2), count)]


def run(mine: rec.IdSet, theirs: rec.IdSet, salt: bytes = SALT) -> tuple[rec.Session, int]:
    """A session through real messages, and its bytes in both directions."""
    session, size = rec.Session(mine, salt), 0
    while (request := session.request()) is not None:
        asked = encode(request)
        reply = encode(rec.answer(theirs, decode(asked, rec.CompareIds, max_bytes=LIMIT)))
        session.take(decode(reply, rec.IdsCompared, max_bytes=LIMIT))
        size += len(asked) + len(reply)
    return session, size


@given(
    seed=st.integers(0, 2**32),
    common=st.integers(0, 3000),
    mine=st.integers(0, 300),
    theirs=st.integers(0, 300),
    make=st.sampled_from([ids, crowded]),
)
def test_any_two_sets_find_what_each_lacks(seed: int, common: int, mine: int, theirs: int, make) -> None:  # type: ignore[no-untyped-def]
    every = make(Random(seed), common + mine + theirs)
    shared, only_mine, only_theirs = every[:common], every[common : common + mine], every[common + mine :]
    session, _ = run(rec.IdSet(shared + only_mine), rec.IdSet(shared + only_theirs))
    assert sorted(session.wanted) == sorted(only_theirs)
    assert sorted(session.extra) == sorted(only_mine)
    assert session.complete


@given(seed=st.integers(0, 2**32), count=st.integers(0, 500), later=st.integers(0, 500))
def test_a_set_grows_like_one_made_at_once(seed: int, count: int, later: int) -> None:
    every = ids(Random(seed), count + later)
    grown = rec.IdSet(every[:count])
    assert len(grown) == count
    for id_ in every[count:] + every[:3]:
        grown.add(id_)
    assert all(id_ in grown for id_ in every)
    assert bytes(32) not in grown
    assert grown.between(0, len(grown)) == b"".join(sorted(every))


def test_ten_differences_of_a_hundred_thousand_cost_little() -> None:
    rng = Random(1)
    shared = ids(rng, 100_000)
    mine, theirs = ids(rng, 5), ids(rng, 5)
    session, size = run(rec.IdSet(shared + mine), rec.IdSet(shared + theirs))
    assert sorted(session.wanted) == sorted(theirs)
    assert session.requests <= 4
    assert size < 20_000  # all ids: 3.2 MB


def test_equal_sets_cost_one_short_request() -> None:
    every = ids(Random(2), 20_000)
    session, size = run(rec.IdSet(every), rec.IdSet(every))
    assert (session.requests, session.wanted, session.extra) == (1, [], [])
    assert size < 100


def test_traffic_grows_with_the_difference_and_not_with_the_sets() -> None:
    rng = Random(3)
    sizes = {}
    for count in (4_000, 64_000):
        shared = ids(rng, count)
        for differing in (1, 16):
            sizes[count, differing] = run(rec.IdSet(shared), rec.IdSet(shared + ids(rng, differing)))[1]
    assert sizes[64_000, 1] < 2 * sizes[4_000, 1]
    assert sizes[64_000, 16] < 20 * sizes[64_000, 1]


def test_a_newcomer_gets_everything_at_hardly_more_than_its_size() -> None:
    every = ids(Random(4), 30_000)
    session, size = run(rec.IdSet(), rec.IdSet(every))
    assert sorted(session.wanted) == sorted(every)
    assert size < 1.8 * 32 * len(every)
    session, size = run(rec.IdSet(every), rec.IdSet())
    assert len(session.extra) == 30_000
    assert size < 100


def test_more_than_one_session_takes_is_got_in_several() -> None:
    every = ids(Random(5), rec.MAX_FOUND + 20_000)
    mine, theirs, sessions = rec.IdSet(), rec.IdSet(every), 0
    while len(mine) < len(every):
        session, _ = run(mine, theirs, bytes([sessions]) * 32)
        assert session.complete == (sessions == 1)
        for id_ in session.wanted:
            mine.add(id_)
        sessions += 1
    assert sessions == 2
    session, _ = run(theirs, rec.IdSet())
    assert len(session.extra) == rec.MAX_FOUND
    assert not session.complete


def test_a_set_that_grows_meanwhile_still_ends() -> None:
    rng = Random(6)
    mine, theirs = rec.IdSet(ids(rng, 5_000)), rec.IdSet(ids(rng, 5_000))
    session = rec.Session(mine, SALT)
    while (request := session.request()) is not None:
        session.take(rec.answer(theirs, request))
        for one in (mine, theirs):
            for id_ in ids(rng, 20):
                one.add(id_)
    assert session.complete
    assert set(session.wanted) <= {theirs.at(rank) for rank in range(len(theirs))}


# --- partners that lie ------------------------------------------------------------------------------------

bounds = st.binary(max_size=32)
parts = st.builds(rec.Part, bounds, st.integers(0, 5), st.binary(max_size=16))
answers = st.one_of(
    st.builds(rec.Same),
    st.builds(rec.Listed, st.binary(max_size=100)),
    st.builds(lambda ids: rec.Listed(b"".join(sorted(ids))), st.sets(st.binary(min_size=32, max_size=32))),
    st.builds(rec.Split, st.lists(parts, min_size=2, max_size=4)),
)


@given(said=st.lists(st.lists(answers, min_size=1, max_size=3), max_size=5))
def test_whatever_a_partner_says_is_refused_or_taken(said: list[list[rec.Same | rec.Listed | rec.Split]]) -> None:
    mine = rec.IdSet(ids(Random(7), 100))
    session = rec.Session(mine, SALT)
    for answered in said:
        if session.request() is None:
            break
        try:
            session.take(rec.IdsCompared(answered))
        except RemoteProtocolError:
            break
    assert all(id_ in mine for id_ in session.extra)
    assert not any(id_ in mine for id_ in session.wanted)


def cut(asked: rec.Asked, rng: Random) -> rec.Split:
    """As many parts as are allowed, and none of them what it should be."""
    low = int.from_bytes(asked.lower.ljust(32, b"\0"), "big")
    high = int.from_bytes(asked.upper.ljust(32, b"\0"), "big") if asked.upper else 1 << 256
    uppers = [(low + (high - low) * step // rec.PARTS).to_bytes(32, "big") for step in range(1, rec.PARTS)]
    return rec.Split([rec.Part(upper, 1 << 40, rng.randbytes(16)) for upper in [*uppers, asked.upper]])


def test_a_partner_that_cuts_forever_is_found_out_within_bounds() -> None:
    rng = Random(8)
    session, most = rec.Session(rec.IdSet(ids(rng, 1000)), SALT), 0
    found_out = ""
    while not found_out and (request := session.request()) is not None:
        try:
            session.take(rec.IdsCompared([cut(asked, rng) for asked in request.ranges]))
        except RemoteProtocolError as error:
            found_out = str(error)
        most = max(most, session.waiting)
    assert "more often" in found_out
    assert session.requests <= 2 * rec.MAX_DEPTH
    assert most <= (rec.MAX_DEPTH + 1) * rec.MAX_ASKED * (rec.PARTS + 1)


def test_a_partner_that_invents_ids_ends_with_a_bounded_list() -> None:
    rng = Random(9)
    session, depths = rec.Session(rec.IdSet(), SALT), {(b"", b""): 0}
    while (request := session.request()) is not None:
        said: list[rec.Same | rec.Listed | rec.Split] = []
        for asked in request.ranges:
            depth, split = depths[asked.lower, asked.upper], cut(asked, rng)
            if depth < 5:
                lower = asked.lower
                for part in split.parts:
                    depths[lower, part.upper] = depth + 1
                    lower = part.upper
                said.append(split)
            else:
                low = asked.lower.ljust(32, b"\0")
                said.append(rec.Listed(b"".join(low[:30] + n.to_bytes(2, "big") for n in range(rec.LISTED))))
        session.take(rec.IdsCompared(said))
    assert not session.complete
    assert len(session.wanted) <= rec.MAX_FOUND + rec.MAX_ASKED * rec.LISTED
    assert session.requests <= rec.MAX_REQUESTS


def test_a_partner_that_denies_everything_learns_of_a_bounded_part() -> None:
    mine = rec.IdSet(ids(Random(10), 3_000))
    session = rec.Session(mine, SALT)
    session.request()
    session.take(rec.IdsCompared([rec.Split([rec.Part(b"\x80", 0, b""), rec.Part(b"", 0, b"")])]))
    assert session.request() is None
    assert len(session.extra) == 3_000


@pytest.mark.parametrize(
    "ranges",
    [
        [rec.Asked(b"b", b"a")],
        [rec.Asked(b"b", b"b")],
        [rec.Asked(b"", b""), rec.Asked(b"a", b"b")],
        [rec.Asked(b"a", b"c"), rec.Asked(b"b", b"d")],
        [rec.Asked(b"c", b"d"), rec.Asked(b"a", b"b")],
    ],
)
def test_a_request_that_would_cost_more_than_one_pass_is_refused(ranges: list[rec.Asked]) -> None:
    with pytest.raises(RemoteProtocolError):
        rec.answer(rec.IdSet(ids(Random(11), 100)), rec.CompareIds(SALT, ranges))


def test_replies_keep_to_the_size_of_a_message() -> None:
    held = rec.IdSet(crowded(Random(12), 50_000))
    edges = sorted({held.at(rank) for rank in range(0, 50_000, 190)})[: rec.MAX_ASKED + 1]
    ranges = [rec.Asked(a, b, b"\0" * 16) for a, b in pairwise(edges)]
    request = rec.CompareIds(SALT, ranges)
    assert len(encode(request)) <= LIMIT
    reply = rec.answer(held, request)
    assert 1 <= len(reply.answers) < len(ranges)
    assert len(encode(reply)) <= LIMIT
