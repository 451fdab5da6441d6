"""The bookkeeping of ``run.py bench``: what passes, what is written, what a partial run keeps."""

import json

import pytest

from tests.bench.page import BEGIN, END, with_figures
from tests.bench.rows import Row, as_json, better, from_json, median_row, merge, missed, percentile, quartiles, table


def test_a_value_is_held_against_its_bar():
    assert Row("memory", 150.0, "MB", bar=150).ok
    assert Row("memory", 150.1, "MB", bar=150).verdict == "MISS"
    assert Row("memory", 110.0, "MB", bar=150, stretch=110).verdict == "pass+"
    assert Row("memory", 111.0, "MB", bar=150, stretch=110).verdict == "pass"


def test_a_row_that_only_informs_never_fails():
    row = Row("rpc", 1e9, "ms", baseline=1.0)
    assert row.ok is None
    assert missed([row]) == []


def test_a_ratio_is_judged_whatever_the_value():
    slow_machine = Row("status", 900.0, "ms", baseline=450.0, bar=3, stretch=2, judged="ratio")
    assert slow_machine.verdict == "pass+"
    slow_program = Row("status", 31.0, "ms", baseline=10.0, bar=3, stretch=2, judged="ratio")
    assert missed([slow_machine, slow_program]) == ["status"]


def test_a_ratio_needs_something_to_compare_with():
    with pytest.raises(ValueError, match="nothing to compare with"):
        Row("status", 31.0, "ms", bar=3, judged="ratio")


def test_of_some_things_more_is_better():
    fast = Row("noop_units", 750.0, "units/s", 700.0, 1, judged="ratio", at_least=True)
    slow = Row("noop_units", 650.0, "units/s", 700.0, 1, judged="ratio", at_least=True)
    assert missed([fast, slow]) == ["noop_units"]
    assert fast.verdict == "pass"
    assert Row("noop_units", 750.0, "units/s", 300.0, 1, 2, judged="ratio", at_least=True).verdict == "pass+"
    assert [row.value for row in better([fast], [slow])] == [750.0]
    assert "≥ 1×" in table([fast])


def test_a_bar_is_missed_while_there_is_nothing_to_compare_with():
    lacking = {"against": "dask", "lacking": "not installed"}
    row = median_row("noop_units", "units/s", [700.0], bar=1, judged="ratio", at_least=True, **lacking)
    assert missed([row]) == ["noop_units"]
    assert "dask (not installed)" in table([row])
    (document,) = json.loads(as_json([row]))
    assert (document["value"], document["ratio"], document["lacking"]) == (700.0, None, "not installed")


def test_one_outlier_moves_neither_median_nor_spread():
    row = median_row("status", "ms", [10, 11, 12, 13, 5000], [5, 5, 6, 6, 900])
    assert (row.value, row.baseline, row.ratio, row.repeated) == (12, 6, 2, 5)
    assert row.spread == (11, 13)
    assert row.least == 10


def test_of_few_repetitions_all_are_the_spread():
    assert quartiles([3.0, 1.0]) == (1.0, 3.0)


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.0, 1)])
def test_percentiles_are_values_that_occurred(share, expected):
    assert percentile([float(value) for value in range(100, 0, -1)], share) == expected


def test_of_two_attempts_the_better_of_each_figure_counts():
    first = [Row("cpu", 2.0, "%", bar=1), Row("memory", 90.0, "MB", bar=150), Row("rpc", 1.0, "ms")]
    second = [Row("cpu", 0.5, "%", bar=1), Row("memory", 99.0, "MB", bar=150), Row("rpc", 2.0, "ms")]
    chosen = better(first, second)
    assert [(row.name, row.value) for row in chosen] == [("cpu", 0.5), ("memory", 90.0), ("rpc", 2.0)]
    assert {row.attempts for row in better(chosen, second)} == {3}


def test_the_file_has_what_others_read():
    (document,) = json.loads(as_json([Row("status", 33.333333, "ms", 22.0, 3, 2, "ratio").under(1.234)]))
    kept = {key: document[key] for key in ("name", "value", "unit", "baseline", "ratio", "bar", "ok", "load")}
    expected = {"value": 33.33, "unit": "ms", "baseline": 22.0, "ratio": 1.515, "bar": 3, "ok": True, "load": 1.23}
    assert kept == {"name": "status", **expected}


def test_a_partial_run_replaces_its_own_rows_only():
    first = as_json([Row("status", 1, "ms"), Row("rpc", 2, "ms")])
    then = merge(first, as_json([Row("new", 4, "ms"), Row("status", 3, "ms")]))
    assert [(row["name"], row["value"]) for row in json.loads(then)] == [("status", 3), ("rpc", 2), ("new", 4)]


def test_rows_are_read_back_as_they_were_written():
    rows = [
        median_row("status", "ms", [30.0, 40.0], [10.0], bar=3, stretch=2, judged="ratio", against="python").under(
            1, "2026-01-02"
        ),
        median_row("ray", "units/s", [7.0], stretch=2, judged="ratio", at_least=True, lacking="not installed"),
    ]
    assert from_json(as_json(rows)) == rows


@pytest.mark.parametrize("damaged", ["", "{}", "[1]", "null", '[{"name": "rpc"}]'])
def test_figures_of_another_version_are_refused(damaged):
    with pytest.raises(ValueError, match=r"figures of this version|Expecting value"):
        from_json(damaged)


def test_the_page_gets_the_table_in_its_place_and_nothing_else_changes():
    page = f"before\n{BEGIN}\nold figures\n{END}\nafter\n"
    rows = [Row("rpc", 2, "ms", measured="2026-01-02"), Row("status", 3, "ms", measured="2026-01-04")]
    new = with_figures(page, rows, "2 cores")
    assert new.startswith(f"before\n{BEGIN}\n")
    assert new.endswith(f"{END}\nafter\n")
    assert "old figures" not in new
    assert "2 cores, measured 2026-01-02 to 2026-01-04." in new
    assert table(rows) in new
    assert with_figures(new, rows, "2 cores") == new


def test_a_page_without_a_place_is_refused():
    with pytest.raises(ValueError, match="lacks"):
        with_figures("no place", [], "2 cores")


@pytest.mark.parametrize("damaged", ["", "[{", "{}", "[1]", "null"])
def test_a_damaged_file_is_replaced(damaged):
    new = as_json([Row("rpc", 3, "ms")])
    assert json.loads(merge(damaged, new)) == json.loads(new)


def test_the_table_marks_a_miss_and_names_the_alternative():
    row = Row("status", 40.0, "ms", 10.0, 3, 2, "ratio", against="python -c pass")
    line = table([row]).splitlines()[-1]
    for cell in ("status", "40", "10", "4×", "≤ 3×", "≤ 2×", "MISS", "python -c pass"):
        assert cell in line
