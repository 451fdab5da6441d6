"""A set of units behaves like a set of numbers, and answers quickly about stretches of them."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkle_protocol.errors import LocalProtocolError
from sparkle_protocol.facts import MAX_UNITS
from sparkle_protocol.work.unit_set import UnitSet

sizes = st.integers(0, 200)
steps = st.lists(st.tuples(st.sampled_from(["add", "discard", "add_all", "clear"]), st.integers(), st.integers()))


@given(sizes, steps)
def test_it_does_what_a_set_does(units: int, changes: list[tuple[str, int, int]]) -> None:
    found, model = UnitSet(units), set[int]()
    for change, a, b in changes:
        low, high = sorted((a % (units + 1), b % (units + 1)))
        if change == "add" and low < units:
            found.add(low)
            model.add(low)
        elif change == "discard":
            found.discard(a)
            model.discard(a)
        elif change == "add_all":
            found.add_all(low, high)
            model.update(range(low, high))
        elif change == "clear":
            found.clear()
            model.clear()
        assert len(found) == len(model)
        assert bool(found) == bool(model)
        assert found == model
        assert model == found
        assert list(found) == sorted(model)
        assert [unit in found for unit in range(-9, units + 9)] == [unit in model for unit in range(-9, units + 9)]


@given(st.sets(st.integers(0, 99)), st.booleans(), st.integers(-5, 105), st.integers(-5, 105))
def test_it_knows_about_stretches(members: set[int], inverse: bool, start: int, stop: int) -> None:
    members = set(range(100)) - members if inverse else members
    found = UnitSet(100, members)
    stretch = range(max(0, start), min(stop, 100))
    assert found.count(start, stop) == len(members & set(stretch))
    missing = min(set(stretch) - members, default=None)
    assert found.first_missing(start, stop) == missing
    assert found.complete(start, stop) == (missing is None)


@given(st.sets(st.integers(0, 99)), st.sets(st.integers(0, 99)))
def test_it_combines_with_other_sets(a: set[int], b: set[int]) -> None:
    one, other = UnitSet(100, a), UnitSet(300, b)
    assert (one == other) == (a == b)
    assert (one == UnitSet(100, b)) == (a == b)
    assert one & other == a & b
    assert one | b == a | b
    assert one - b == a - b
    assert (one <= other) == (a <= b)
    one |= other
    assert one == a | b
    assert isinstance(one, UnitSet)


@pytest.mark.parametrize("unit", [-1, 10, 15, 1 << 40])
def test_units_beyond_the_job_are_refused(unit: int) -> None:
    found = UnitSet(10, [3])
    with pytest.raises(LocalProtocolError):
        found.add(unit)
    with pytest.raises(LocalProtocolError):
        found.add_all(3, unit + 1)
    found.discard(unit)
    assert unit not in found
    assert found == {3}


def test_a_set_may_change_while_one_looks_at_it() -> None:
    found = UnitSet(100, [1, 50, 99])
    seen = []
    for unit in found:
        seen.append(unit)
        found.discard(unit)
        if unit == 1:
            found.add(60)
            found.add_all(70, 72)
    assert seen == [1, 50, 60, 70, 71, 99]
    assert not found
    found.add_all(0, 100)
    with pytest.raises(TypeError):
        hash(found)
    for unit in found:
        if unit == 10:
            found.clear()
        assert unit <= 15  # what was looked at already may still come


def test_the_largest_job_takes_a_bit_for_each_unit() -> None:
    found = UnitSet(MAX_UNITS)
    found.add_all(0, MAX_UNITS)
    assert found.complete(0, MAX_UNITS)
    assert sys.getsizeof(found) + sys.getsizeof(found._bits) < MAX_UNITS // 8 + 1000
    found.discard(MAX_UNITS - 1)
    assert found.first_missing(0, MAX_UNITS) == MAX_UNITS - 1
