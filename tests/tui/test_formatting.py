import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkle_tui import formatting as fmt


@given(st.text(max_size=80), st.integers(0, 60))
def test_shortened_and_padded_text_keeps_its_width(text: str, width: int) -> None:
    text = fmt.clean(text)
    assert fmt.cells(fmt.shorten(text, width)) <= width
    assert fmt.cells(fmt.pad(text, width)) == width


@given(st.text(max_size=200), st.integers(2, 40), st.integers(1, 4))
def test_wrapped_text_fits_and_loses_no_words(text: str, width: int, lines: int) -> None:
    text = fmt.clean(text)
    rows = fmt.wrap(text, width)
    assert all(fmt.cells(row) <= width for row in rows)
    assert "".join(rows).replace(" ", "") == text.replace(" ", "")
    assert len(fmt.wrap(text, width, lines=lines)) <= lines


@given(st.text(max_size=200))
def test_clean_text_is_one_printable_line(text: str) -> None:
    assert fmt.clean(text).isprintable()
    assert fmt.clean(fmt.clean(text)) == fmt.clean(text)


def test_clean_keeps_letters_of_every_script_and_drops_what_moves_the_cursor() -> None:
    assert fmt.clean("Zoe\u0308 漢字 [b]") == "Zoë 漢字 [b]"
    assert fmt.clean("a\x1b[2Jb") == "a\ufffd[2Jb"
    assert fmt.clean("\u202egnp.exe\r\nnext") == "gnp.exe  next"
    assert len(fmt.clean("x" * 10**6)) <= 2000


@pytest.mark.parametrize(
    ("seconds", "running", "spoken"),
    [
        (0, "0 s", "0 s"),
        (59, "59 s", "59 s"),
        (185, "3:05", "3 min"),
        (8043, "2 h 14", "2 h"),
        (1e6, "11 d", "12 days"),
        (-5, "0 s", "0 s"),
    ],
)
def test_durations(seconds: float, running: str, spoken: str) -> None:
    assert (fmt.clock_time(seconds), fmt.roughly(seconds)) == (running, spoken)


def test_numbers_as_people_read_them() -> None:
    assert fmt.number(1234567) == "1 234 567"
    assert [fmt.tally(value) for value in (9999, 12_345, 3_400_000)] == ["9999", "12k", "3.4M"]
    assert fmt.credit(12_359_999) == "12.35"
    assert fmt.credit(-12_359_999) == "-12.35"
    assert [fmt.credit(micro) for micro in (0, 72, -4_536, 9_000, 10_000)] == [
        "0.00", "0.000072", "-0.004536", "0.009", "0.01",
    ]  # fmt: skip
    assert fmt.size(131_000_000) == "131 MB"
    assert [fmt.latency(value) for value in (None, 0.42, 12.4, 1300)] == ["–", "0.4 ms", "12 ms", "1.3 s"]


@given(st.floats(-1, 2), st.integers(0, 40))
def test_a_bar_has_its_width_and_differs_in_shape(share: float, width: int) -> None:
    done, left = fmt.bar(share, width)
    assert len(done + left) == width
    assert not set(done) & set(left)


def test_a_sparkline_shows_the_newest_at_the_right() -> None:
    assert fmt.sparkline([0, 50, 100], 4) == [" ▁▄█"]
    assert fmt.sparkline([0, 50, 100], 2, rows=2) == [" █", "██"]
    assert fmt.sparkline([], 3) == ["   "]
