"""A whole job among device classes of which some are broken, in any order: the right ones are blamed, and it ends."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from sparkle_protocol.ids import PeerId
from sparkle_protocol.work.exclusion import PRESENT_NS, Exclusion, Failure

MINUTE_NS = 60 * 1_000_000_000


def play(
    classes: dict[str, int], broken: set[str], poison: set[int], units: int, seed: int
) -> tuple[set[int], set[int], Exclusion]:
    """Units done and units blamed when workers ask in random order, a minute apart."""
    rng, book = Random(seed), Exclusion()
    workers = [(PeerId(f"{class_} {n}"), class_) for class_, count in classes.items() for n in range(count)]
    failures: dict[int, dict[PeerId, Failure]] = {unit: {} for unit in range(units)}
    done: set[int] = set()
    blamed: set[int] = set()
    now = 0
    for _, class_ in workers:  # else the first ones to come fail before it is known that there are others
        book.seen(class_, now)
    for _ in range(400 * units):
        now += MINUTE_NS // 10
        name, class_ = rng.choice(workers)
        book.seen(class_, now)
        for unit in range(units):
            if unit not in done and book.blames_unit(failures[unit], now):
                blamed.add(unit)
        free = [
            unit
            for unit in range(units)
            if unit not in done | blamed
            and name not in failures[unit]
            and not book.avoids(class_, failures[unit], now)
        ]
        if len(done | blamed) == units:
            break
        if not free or book.excluded(class_, now) is not None:
            continue
        if book.on_trial(class_, now):
            book.tried(class_, now)
        unit = rng.choice(free)
        if unit in poison or class_ in broken:
            failures[unit][name] = (class_, "crash")
            book.failed(name, class_, unit, "crash", now)
        else:
            done.add(unit)
            book.succeeded(name, class_, unit, now)
    return done, blamed, book


counts = st.dictionaries(st.sampled_from("abcd"), st.integers(3, 6), min_size=1)


@settings(max_examples=40)
@given(counts, st.data(), st.integers(0, 1 << 32))
def test_what_can_be_computed_is_and_what_cannot_is_blamed(
    classes: dict[str, int], data: st.DataObject, seed: int
) -> None:
    broken = data.draw(st.sets(st.sampled_from(sorted(classes))))
    poison = data.draw(st.sets(st.integers(0, 9), max_size=3))
    done, blamed, _ = play(classes, broken, poison, 10, seed)
    assert done | blamed == set(range(10)), "a unit never ended"
    assert poison <= blamed
    if broken != set(classes):
        assert blamed == poison  # broken classes have no good unit blamed


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abc"), st.integers(0, 5), st.integers(0, 9)), max_size=80))
def test_only_classes_without_a_success_are_excluded(history: list[tuple[bool, str, int, int]]) -> None:
    book = Exclusion()
    good: set[str] = set()
    for now, (works, class_, worker, unit) in enumerate(history):
        if works:
            good.add(class_)
            book.succeeded(PeerId(f"{class_} {worker}"), class_, unit, now)
        else:
            book.failed(PeerId(f"{class_} {worker}"), class_, unit, "crash", now)
        for name in "abc":
            reason = book.excluded(name, now)
            assert reason is None or (name not in good and good)


@given(st.lists(st.sampled_from("abc"), min_size=3, max_size=9), st.integers(0, 10))
def test_every_unit_is_blamed_in_the_end(classes: list[str], others: int) -> None:
    """Three alike count at the latest when nobody of another class has come for a while."""
    book = Exclusion()
    for n in range(others):
        book.seen(f"other {n}", 0)
    failures: dict[PeerId, Failure] = {}
    for n, class_ in enumerate(classes):
        failures[PeerId(str(n))] = (class_, "kernel")
        book.failed(PeerId(str(n)), class_, 1, "kernel", 0)
    assert book.blames_unit(failures, PRESENT_NS)
