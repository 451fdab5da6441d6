"""``sparkle-sim validate``: the simulator keeps published laws, and says the same each time."""

import argparse
import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sparkle_protocol.errors import ConfigError, NotFound
from sparkle_sim.cli import validate
from sparkle_sim.laws import plots
from sparkle_sim.laws.report import BEGIN, END
from sparkle_sim.laws.run import LAWS

QUICKEST = ("adaptive", "queueing")


def command(*arguments: str) -> int:
    """Run it as the program does."""
    parser = argparse.ArgumentParser()
    validate.add_parser(parser.add_subparsers())
    parsed = parser.parse_args(["validate", *arguments])
    return int(parsed.command(parsed))


@pytest.mark.timeout(300)
def test_every_law_holds(capsys: pytest.CaptureFixture[str]) -> None:
    code = command("--quick")
    printed = capsys.readouterr().out
    assert code == 0, printed
    assert printed.endswith(f"{len(LAWS)} of {len(LAWS)} laws hold\n")
    assert {law.name for law in LAWS} <= set(printed.split())


PRINT_FIGURES = """
from sparkle_sim.laws.run import validate
from sparkle_sim.laws import voting
polls = voting.independent(5, 2, 0.2, 60)
print(polls.wrong, polls.right, polls.world.kernel.now, polls.world.trace.hash)
for outcome in validate(["adaptive", "kademlia"], True, seed=5):
    print([point.ours for point in outcome.points])
"""


@pytest.mark.timeout(180)
def test_the_same_seed_gives_the_same_figures_in_another_process() -> None:
    printed = [
        subprocess.run(
            [sys.executable, "-c", PRINT_FIGURES], env={**os.environ, "PYTHONHASHSEED": number},
            capture_output=True, text=True, check=True, timeout=120,
        ).stdout
        for number in ("1", "2")
    ]  # fmt: skip
    assert printed[0] == printed[1]
    assert printed[0].count("Interval") > 10


def test_figures_and_plots_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(*QUICKEST, "--quick", "--json", "--out", str(tmp_path / "new")) == 0
    laws = json.loads(capsys.readouterr().out)
    assert [law["law"] for law in laws] == list(QUICKEST)
    with (tmp_path / "new" / "laws.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(len(law["figures"]) for law in laws)
    assert {row["verdict"] for row in rows} == {"holds"}
    for name in QUICKEST:
        assert (tmp_path / "new" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_there_are_figures_and_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert command("adaptive", "--quick", "--out", str(tmp_path)) == 0
    assert plots.LACKING in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["laws.csv"]


def test_a_law_that_fails_ends_with_1(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from sparkle_sim.laws import adaptive

    monkeypatch.setattr(adaptive, "overhead", lambda jobs: 1.0)
    assert command("adaptive", "--quick") == 1
    assert "0 of 1 laws hold; not: adaptive" in capsys.readouterr().out


def test_laws_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--list") == 0
    printed = capsys.readouterr().out
    assert all(law.formula in printed and law.source in printed for law in LAWS)


def test_mistakes_get_one_sentence_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no law 'gravity'"):
        command("gravity")
    (tmp_path / "file").write_text("no markers")
    with pytest.raises(ConfigError, match="nothing can be written to"):
        command("--out", str(tmp_path / "file" / "below"))
    with pytest.raises(ConfigError, match="lacks"):
        command("--publish", str(tmp_path / "file"))
    with pytest.raises(NotFound, match="there is no page"):
        command("--publish", str(tmp_path / "none.md"))
    with pytest.raises(ConfigError, match="needs all laws in full"):
        command("adaptive", "--publish", str(tmp_path / "file"))


def test_the_page_in_the_documents_has_every_law_as_the_program_describes_it() -> None:
    page = (Path(__file__).parents[2] / "docs" / "explanation" / "validation.md").read_text()
    assert BEGIN in page
    assert END in page
    for law in LAWS:
        assert f"`{law.formula}`" in page
        assert law.source in page
        assert law.experiment in page
        assert law.criterion in page
