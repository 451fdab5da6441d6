"""When a class of devices is to blame, when the unit is, and how a class gets another chance."""

from math import comb

import pytest

from sparkle_protocol.ids import PeerId
from sparkle_protocol.work.exclusion import (
    FIRST_PROBATION_NS,
    MAX_CLASSES,
    MAX_PROBATION_NS,
    MAX_SEEN,
    NO_CLASS,
    PRESENT_NS,
    Exclusion,
    fisher,
)

GPU, CPU, ARM = "opencl/nvidia", "cpu/x86_64", "cpu/aarch64"


def worker(name: str) -> PeerId:
    return PeerId(name)


def three_fail(book: Exclusion, class_: str = GPU, code: str = "crash", first: int = 0) -> None:
    for n in range(3):
        book.failed(worker(f"{class_} {n}"), class_, first + n, code, 0)


def excluded() -> Exclusion:
    book = Exclusion()
    three_fail(book)
    book.succeeded(worker("c"), CPU, 1, 0)
    return book


def test_a_class_that_fails_where_another_succeeds_is_excluded_and_says_why() -> None:
    assert excluded().excluded(GPU, 1) == (
        "3 devices of class opencl/nvidia failed on 3 units (crash) and none succeeded, while others computed"
        " 1 of these units"
    )
    assert excluded().excluded(CPU, 1) is None


def test_failures_with_different_codes_are_no_cluster() -> None:
    book = Exclusion()
    for n, code in enumerate(("crash", "memory", "time")):
        book.failed(worker(str(n)), GPU, n, code, 0)
    book.succeeded(worker("c"), CPU, 1, 0)
    assert book.excluded(GPU, 1) is None


def test_one_broken_machine_is_no_class() -> None:
    book = Exclusion()
    for unit in range(50):
        book.failed(worker("broken"), GPU, unit, "crash", 0)
    book.succeeded(worker("c"), CPU, 1, 0)
    assert book.excluded(GPU, 1) is None


def test_success_elsewhere_counts_only_on_the_units_that_failed() -> None:
    book = Exclusion()
    three_fail(book)
    book.succeeded(worker("c"), CPU, 99, 0)
    assert book.excluded(GPU, 1) is None


def test_without_another_class_it_is_the_units_fault() -> None:
    book = Exclusion()
    three_fail(book)
    assert book.excluded(GPU, 1) is None
    assert book.blames_unit({worker(str(n)): (GPU, "crash") for n in range(3)}, 1)


def test_a_class_is_not_excluded_when_the_others_fail_as_well() -> None:
    book = Exclusion()
    three_fail(book)
    three_fail(book, CPU, first=10)
    book.succeeded(worker("c"), CPU, 1, 0)
    assert book.excluded(GPU, 1) is None  # 3 of 3 against 3 of 4 is no difference


def test_a_machine_that_failed_once_and_works_counts_as_working() -> None:
    book = Exclusion()
    three_fail(book)
    for n in range(2):
        book.failed(worker(f"c{n}"), CPU, 20, "crash", 0)
        book.succeeded(worker(f"c{n}"), CPU, 1, 0)
    assert book.excluded(GPU, 1)


def test_evidence_that_crumbles_ends_it_too() -> None:
    book = excluded()
    three_fail(book, CPU, first=10)
    assert book.excluded(GPU, 1) is None
    assert book.next_trial_ns() is None  # it needs none


def test_a_success_of_the_class_ends_it() -> None:
    book = excluded()
    book.succeeded(worker("late"), GPU, 7, 5)
    assert book.excluded(GPU, 6) is None
    three_fail(book, first=20)
    assert book.excluded(GPU, 7) is None


def test_probation_comes_ever_more_rarely() -> None:
    book = excluded()
    now, pauses = 0, []
    for _ in range(8):
        due = book.next_trial_ns()
        assert due is not None
        assert book.excluded(GPU, due - 1)
        assert not book.on_trial(GPU, due - 1)
        assert book.excluded(GPU, due) is None
        assert book.on_trial(GPU, due)
        pauses.append(due - now)
        now = due
        book.tried(GPU, now)
        book.failed(worker("again"), GPU, 3, "crash", now)
        assert book.excluded(GPU, now)
    assert pauses[:3] == [FIRST_PROBATION_NS, 2 * FIRST_PROBATION_NS, 4 * FIRST_PROBATION_NS]
    assert pauses[-1] == MAX_PROBATION_NS
    assert not book.on_trial(CPU, now)


def test_failures_of_an_excluded_class_say_nothing_about_a_unit() -> None:
    book = excluded()
    failures = {worker(str(n)): (GPU, "crash") for n in range(5)}
    assert not book.blames_unit(failures, 1)
    assert book.counted(failures) == {}
    mixed = failures | {worker(f"c{n}"): (CPU, "crash") for n in range(2)}
    assert not book.blames_unit(mixed, 1)
    assert book.blames_unit(mixed | {worker("c2"): (CPU, "crash")}, 1)


def test_a_unit_waits_for_another_class_before_it_is_blamed() -> None:
    book = Exclusion()
    book.seen(CPU, 0)
    failures = {worker(str(n)): (GPU, "crash") for n in range(3)}
    for name, (class_, code) in failures.items():
        book.failed(name, class_, 5, code, 0)
    assert not book.blames_unit(failures, 1)
    assert book.avoids(GPU, failures, 1)
    assert not book.avoids(CPU, failures, 1)
    both = failures | {worker("c"): (CPU, "crash")}
    book.failed(worker("c"), CPU, 5, "crash", 1)
    assert book.blames_unit(both, 2)
    assert not book.avoids(GPU, both, 2)


def test_a_unit_does_not_wait_for_a_class_that_left() -> None:
    book = Exclusion()
    book.seen(CPU, 0)
    three_fail(book)
    failures = {worker(str(n)): (GPU, "crash") for n in range(3)}
    assert not book.blames_unit(failures, PRESENT_NS - 1)
    assert book.blames_unit(failures, PRESENT_NS)
    assert not book.avoids(GPU, failures, PRESENT_NS)


def test_a_unit_does_not_wait_for_an_excluded_class() -> None:
    book = excluded()
    late = 2 * PRESENT_NS
    book.seen(GPU, late)
    failures = {worker(str(n)): (ARM, "kernel") for n in range(3)}
    for name, (class_, code) in failures.items():
        book.failed(name, class_, 5, code, late)
    assert book.blames_unit(failures, late)


def test_a_class_that_has_proven_itself_may_blame_a_unit() -> None:
    book = Exclusion()
    book.seen(CPU, 0)
    book.succeeded(worker("good"), GPU, 1, 0)
    three_fail(book)
    assert book.blames_unit({worker(str(n)): (GPU, "crash") for n in range(3)}, 1)


def test_different_failures_do_not_blame_a_unit() -> None:
    book = Exclusion()
    assert not book.blames_unit({worker(c): (CPU, c) for c in ("crash", "memory", "time")}, 0)
    assert not book.blames_unit({}, 0)


def test_who_names_no_class_is_never_excluded_and_counts() -> None:
    book = Exclusion()
    book.seen(CPU, 0)
    three_fail(book, NO_CLASS)
    book.succeeded(worker("c"), CPU, 1, 0)
    assert book.excluded(NO_CLASS, 1) is None
    failures = {worker(str(n)): (NO_CLASS, "crash") for n in range(3)}
    assert book.blames_unit(failures, 1)
    assert not book.avoids(NO_CLASS, failures, 1)


def test_invented_classes_fill_no_memory() -> None:
    book = Exclusion()
    for n in range(1000):
        book.seen(f"made up {n}", n)
        book.failed(worker(str(n)), GPU, n, "crash", n)
        book.failed(worker(str(n)), f"made up {n % 5}", n, "crash", n)
    assert len(book._classes) == MAX_CLASSES
    kept = [failing for known in book._classes.values() for failing in known.failing.values()]
    assert all(len(failing.workers) <= MAX_SEEN and len(failing.units) <= MAX_SEEN for failing in kept)
    assert book.blames_unit({worker(str(n)): ("yet another", "crash") for n in range(3)}, 2000)


@pytest.mark.parametrize(("table", "chance"), [((3, 0, 0, 1), 1 / 4), ((3, 0, 0, 3), 1 / 20), ((3, 0, 3, 1), 4 / 7)])
def test_fisher(table: tuple[int, int, int, int], chance: float) -> None:
    assert fisher(*table) == pytest.approx(chance)


def test_fisher_is_the_hypergeometric_tail() -> None:
    assert fisher(5, 2, 1, 6) == pytest.approx((comb(7, 5) * comb(7, 1) + comb(7, 6) * comb(7, 0)) / comb(14, 6))
