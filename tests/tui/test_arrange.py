from hypothesis import given
from hypothesis import strategies as st

from sparkle_tui.arrange import Geometry, arrange

NAMES = ("units", "jobs", "peers", "log")
COUNTS = st.fixed_dictionaries({name: st.integers(0, 60) for name in NAMES[:3]})


@given(st.integers(20, 250), st.integers(6, 100), COUNTS, st.booleans(), st.sampled_from([None, *NAMES]))
def test_sections_fill_the_room_and_none_is_cut(
    width: int, height: int, counts: dict[str, int], alone: bool, focus: str | None
) -> None:
    geometry = Geometry(width, height)
    available = max(0, height - 8)
    heights = arrange(geometry, counts, available, alone=alone, focus=focus)
    assert set(heights) == set(NAMES)
    if geometry.wide:
        assert max(heights["units"] + heights["jobs"], heights["peers"]) + heights["log"] <= available
    else:
        assert sum(heights.values()) in (0, available)
        assert all(rows == 0 or rows > geometry.chrome for rows in heights.values())


def test_a_small_terminal_shows_something_of_everything() -> None:
    counts = {"units": 4, "jobs": 2, "peers": 9}
    heights = arrange(Geometry(50, 18), counts, 11, alone=False, focus=None)
    assert heights == {"units": 3, "jobs": 3, "peers": 3, "log": 2}


def test_the_focused_section_is_served_first() -> None:
    counts = {"units": 4, "jobs": 2, "peers": 9}
    heights = arrange(Geometry(50, 18), counts, 11, alone=False, focus="peers")
    assert heights == {"units": 2, "jobs": 2, "peers": 5, "log": 2}


def test_who_is_alone_reads_what_to_do_before_anything_else() -> None:
    heights = arrange(Geometry(50, 18), {"units": 3, "jobs": 1, "peers": 7}, 11, alone=True, focus=None)
    assert heights["peers"] == 8
