"""``sparkle-sim compile``: a build changes how long a run takes, and nothing that happens in it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sparkle_protocol.errors import ConfigError
from sparkle_sim import compiled

SCENARIO = Path(__file__).parents[2] / "simulations" / "scenarios" / "calm.toml"
SMALL = ("sparkle_sim.draws", "sparkle_sim.kernel")  # what compiles within seconds


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(compiled.WANTED, raising=False)
    return tmp_path


def ran(folder: Path, **variables: str) -> dict[str, object]:
    """The manifest of a small run by the program that users call."""
    command = [
        *(sys.executable, "-c", "import sys; from sparkle_sim.cli.main import main; sys.exit(main())", "run"),
        *(str(SCENARIO), "--peers", "12", "--seconds", "40", "--set", "jobs.0.units=12", "--out", str(folder)),
    ]
    subprocess.run(command, check=True, env={**os.environ, **variables}, capture_output=True, timeout=120)
    manifest: dict[str, object] = json.loads((folder / "manifest.json").read_bytes())
    return manifest


@pytest.mark.timeout(600)
def test_a_build_is_used_from_then_on_and_runs_are_the_same_to_the_byte(cache: Path, tmp_path: Path) -> None:
    plain = ran(tmp_path / "plain")
    assert not plain["compiled"]
    built = compiled.build(lambda _: None, SMALL)
    assert built.parent == cache / "sparkle"
    assert {file.name.split(".")[0] for file in (built / "sparkle_sim").glob("*.so")} == {"draws", "kernel"}
    fast = ran(tmp_path / "fast")
    assert fast["compiled"]
    assert fast["trace_hash"] == plain["trace_hash"]
    assert not ran(tmp_path / "forbidden", SPARKLE_SIM_COMPILED="no")["compiled"]


def test_a_build_of_other_sources_is_not_used(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = compiled.folder(os.environ)
    file = cache / "package" / "one.py"
    file.parent.mkdir()
    file.write_text("A = 1\n")
    monkeypatch.setattr(compiled, "PACKAGES", (*compiled.PACKAGES, file.parent))
    more = compiled.folder(os.environ)
    file.write_text("A = 2\n")
    assert len({before, more, compiled.folder(os.environ)}) == 3


def test_without_a_compiler_one_sentence_says_what_to_install(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(ConfigError, match="C compiler"):
        compiled.build(lambda _: None)
    assert not list((cache / "sparkle").glob("*")) if (cache / "sparkle").exists() else True


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="XDG_CACHE_HOME"):
        compiled.build(lambda _: None)
