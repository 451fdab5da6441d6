"""``sparkle-sim policies``: what it prints and writes, and how it ends."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sparkle_protocol.errors import ConfigError, NotFound
from sparkle_sim.cli import policies
from sparkle_sim.cli.parser import parse
from sparkle_sim.population import policy_plots
from sparkle_sim.population.policy_report import BEGIN, END
from sparkle_sim.population.trust_policies import Cell, cells, find, play


def command(*arguments: str) -> int:
    """Run it as the program does."""
    parsed = parse(["policies", *arguments])
    return int(parsed.command(parsed))


def test_the_policies_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--list") == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("capital", "BOINC", "2 of 3", "windows"))


@pytest.mark.timeout(300)
def test_a_quick_table_says_whether_the_bars_are_kept(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policies, "QUICK_UNITS", 60)
    code = command("capital", "2 of 3", "--quick", "--seeds", "2", "--json", "--workers", "2")
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert code == (0 if all(bar["kept"] for bar in found["bars"]) else 1)  # so few units say nothing else
    assert {cell["policy"] for cell in found["cells"]} == {"capital", "2 of 3"}
    assert {cell["share"] for cell in found["cells"]} == {0.0, 0.05, 0.2}
    assert [bar["bar"]["share"] for bar in found["bars"]] == [0.05, 0.2]
    assert found["waits_units"]["capital"]["p99"] <= 1.01
    assert "of 88 cells" in printed.err


def test_what_was_played_is_kept_when_somebody_stops_it() -> None:
    some = list(cells(find(["2 of 3"]), [0.05]))
    playing = policies.Playing(some, 1, 2, 20)
    pool = ThreadPoolExecutor(1)
    playing.run(pool, lambda: bool(playing.results()), lambda: None)
    pool.shutdown(wait=True, cancel_futures=True)
    assert 0 < len(playing.results()) < len(some)
    assert list(playing.results()) == [cell for cell in some if cell in playing.results()]
    assert playing.progress_text().startswith(f"{len(playing.results())} of {len(some)} cells")


def test_a_page_without_a_place_for_the_tables_is_refused_before_anything_is_played(tmp_path: Path) -> None:
    page = tmp_path / "policies.md"
    with pytest.raises(NotFound, match="there is no page"):
        command("--publish", str(page))
    page.write_text("# Nothing\n")
    with pytest.raises(ConfigError, match="cannot take the tables"):
        command("--publish", str(page))
    page.write_text(f"{BEGIN}\n{END}\n")
    with pytest.raises(ConfigError, match="all policies in full"):
        command("--publish", str(page), "--quick")


def test_the_plot_is_the_same_each_time(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    trials = find(["capital", "2 of 3"])
    found = {
        cell: play(cell, 1, 2, 40, most=30)
        for trial in trials
        for cell in (Cell(trial, "gang", share) for share in (0.05, 0.2))
    }
    for name in ("one.svg", "two.svg"):
        policy_plots.draw(found, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
