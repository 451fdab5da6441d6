"""``sparkle credit`` against a node that answers: rows that add up, a chart, a plot, and who is asked for."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparkle_p2p.balance_chart import chart
from sparkle_p2p.cli.credit import lines
from sparkle_p2p.cli.main import main
from sparkle_protocol.work.price import exactly

FAKE_NODE = Path(__file__).parents[2] / "web" / "fake_node.py"
BLOCKS = " ▁▂▃▄▅▆▇█"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("fake-node")
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, str(FAKE_NODE), str(path)], stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield path
        process.kill()


@pytest.fixture
def document(home: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    assert main(["credit", "--json", "--home", str(home)]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_json_has_the_documented_sums_exactly(document: dict[str, int]) -> None:
    assert {"balance_micro", "held_micro", "earned_micro", "spent_micro"} <= set(document)
    assert document["earned_micro"] - document["spent_micro"] - document["held_micro"] == document["balance_micro"]
    assert document["earned_micro"] == 2**70 + 1_750_000


def test_people_see_sums_a_chart_partners_escrows_pending_entries_and_forks(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["credit", "--home", str(home)]) == 0
    shown = capsys.readouterr().out
    rows = shown.splitlines()
    assert rows[0] == "1.500000 credits, 1.5 hours of a laptop core"
    assert "  balance                  1.500000  earned - spent - held" in rows
    assert "  earned    1180591620717413.053424" in rows
    assert any(row.startswith("  pending ") and "0.001144" in row for row in rows)
    assert any("…Dc298L3" in row or "Dc298L3" in row for row in rows)
    assert "  0a0a0a0a0a0a   0.250000  0.100000    0.050000  yes" in rows
    assert "  entry 11: work of 0.001144 for job 0b0b0b0b0b0b: �[2J (pending:hold)" in rows
    assert any("efefefefefef" in row and "at entry 7, 2023-11-1" in row for row in rows)
    assert "\x1b" not in shown
    drawn = [row for row in rows if "│" in row]
    assert len(drawn) == 8
    assert "1.500000 │" in drawn[0]
    assert "-0.400000 │▁" in drawn[-1]


def test_a_plot_is_written_as_the_ending_says(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    for ending, start in (("svg", b"<?xml"), ("png", b"\x89PNG")):
        target = tmp_path / f"balance.{ending}"
        assert main(["credit", "--home", str(home), "--plot", str(target)]) == 0
        assert target.read_bytes().startswith(start)
        assert f"wrote {target}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "says"),
    [("balance.gif", "is written as .svg or .png"), ("nowhere/balance.svg", "does not exist; make it first")],
)
def test_a_plot_that_cannot_be_is_refused_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, says: str
) -> None:
    assert main(["credit", "--home", str(tmp_path), "--plot", str(tmp_path / name)]) == 2
    assert says in capsys.readouterr().err


def test_without_matplotlib_one_sentence_names_it(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["credit", "--home", str(home), "--plot", str(tmp_path / "x.svg")]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "plots need matplotlib, of the extra 'sim'" in said.err
    assert len(said.err.splitlines()) == 1


def test_other_accounts_can_be_asked_for_and_strangers_are_not_found(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["credit", "ab" * 32, "--home", str(home)]) == 0
    assert "(…" in capsys.readouterr().out.splitlines()[1]
    assert main(["credit", "nobody", "--home", str(home)]) == 1
    assert "no entry of an account called 'nobody'" in capsys.readouterr().err


def test_without_a_node_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["credit", "--home", str(tmp_path)]) == 4
    assert "no node is running" in capsys.readouterr().err


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_the_chart_fits_the_terminal(document: dict[str, object], width: int) -> None:
    assert all(len(row) <= width for row in lines(document, width) if "│" in row)


def test_a_chart_is_exact_for_any_integers() -> None:
    drawn = chart([(0, -(2**80)), (50, 2**80), (100, 0)], 10, 2)
    assert drawn is not None
    assert (drawn.top_micro, drawn.bottom_micro) == (2**80, -(2**80))
    assert [len(row) for row in drawn.rows] == [10, 10]
    assert drawn.rows[1][0] == "▁", "the lowest still has a mark"
    assert drawn.rows[0][5] == "█"
    assert chart([(0, 1)], 10, 2) is None
    flat = chart([(0, 7), (9, 7)], 4, 2)
    assert flat is not None
    assert len(set(flat.rows[1])) == 1
    at_once = chart([(5, 1), (5, 2)], 4, 1)
    assert at_once is not None
    assert at_once.bottom_micro == 2, "what is over at the same moment was never seen"


@pytest.mark.parametrize(
    ("micro", "told"),
    [(0, "0.000000"), (-1, "-0.000001"), (12_354_321, "12.354321"), (-(10**30), f"-{10**24}.000000")],
)
def test_amounts_are_told_to_the_last_digit(micro: int, told: str) -> None:
    assert exactly(micro) == told
