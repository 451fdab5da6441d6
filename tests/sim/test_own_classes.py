"""A researcher's own checker, adversary and policy, from a file beside the scenario."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sparkle_protocol.errors import ConfigError
from sparkle_sim import checkers
from sparkle_sim.checkers.credit import CreditChecker
from sparkle_sim.engine import Run
from sparkle_sim.reading import Override, read_scenario
from sparkle_sim.replaying import of_file
from sparkle_sim.running import run_scenario

SCENARIO = """
name = "small"
seconds = 300.0
[peers]
count = 8
arrive_s = 1.0
[[jobs]]
at_s = 3.0
units = 12
unit_s = 2.0
"""
OWN = '''
from sparkle_protocol.work.quorum import Decision
from sparkle_protocol.work.rules import Rules
from sparkle_sim.adversaries import Adversary
from sparkle_sim.checkers import Checker


class FirstUnit(Checker):
    """Finds that the first unit ends."""

    name = "first-unit"

    def heard(self, peer, effect):
        if effect.event == "unit_final" and effect.fields["unit"] == 0 and not self.findings:
            self.found(peer.number, "it has the first unit")

    def report(self):
        return {"seen": len(self.findings)}


class Idle(Adversary):
    kind = "idle"

    def behaviour(self):
        return self

    def result(self, spec, job, unit):
        return None


class Nameless(Checker):
    pass


class Four(Rules):
    def decide(self, policy, votes, trusted):
        usual = super().decide(policy, votes, trusted)
        return usual if usual.accepted else Decision(None, max(4, usual.wanted))


class Timid(Rules):
    def lease_ttl_ns(self, p95_ns):
        return 7_000_000_000

    def order(self, job, worker):
        return reversed([unit for unit in range(job.state.spec.units) if job.leases.serves(unit)])


NOTHING = 3
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "small.toml").write_text(SCENARIO)
    (tmp_path / "own.py").write_text(OWN)
    return tmp_path


def simulate(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "sparkle_sim.cli.main", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)


def test_a_checker_of_ones_own_is_at_work_beside_the_others(folder: Path) -> None:
    done = simulate(folder, "run", "small.toml", "--checker", "own.py:FirstUnit", "--out", "out")
    assert done.returncode == 1, done.stderr
    assert "it has the first unit (first-unit)" in done.stderr
    checks = json.loads((folder / "out" / "summary.json").read_text())["checks"]
    assert checks["first-unit"] == {"seen": 1}
    assert set(checks) == {
        *(kind.name for kind in checkers.KINDS if not issubclass(kind, CreditChecker)),
        "first-unit",
    }
    again = run_scenario(*of_file(folder / "out"))
    assert again.findings == json.loads((folder / "out" / "summary.json").read_text())["findings"]


def test_a_policy_changes_what_it_says_and_can_be_swept(folder: Path) -> None:
    done = simulate(
        folder, "sweep", "small.toml", "--seeds", "1", "--workers", "1", "--out", "out", "--json",
        "--set", "policy=production,own.py:Four",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    usual, four = json.loads(done.stdout)["runs"]
    assert usual["units_final"] == four["units_final"] == 12
    assert usual["replicas_per_unit"] <= 2 < 3 <= four["replicas_per_unit"]
    assert "\nown.py:Four," in (folder / "out" / "sweep.csv").read_text(), "as it was typed"


def test_order_and_leases_are_the_policys(folder: Path) -> None:
    override = Override("policy", f"{folder / 'own.py'}:Timid")
    run = Run(read_scenario(folder / "small.toml", [override]), 1)
    given: list[int] = []
    while not given:
        run.advance(run.now_s + 0.25)
        for job in run.plans:
            kept = run.world.peers[0].submitter.jobs[job]
            books = kept.leases.books
            given = sorted(unit for unit, book in books.items() if book.leases)
            assert {lease.ttl_ns for book in books.values() for lease in book.leases.values()} <= {7 * 10**9}
    assert given[-1] == 11, "the last unit is given first"
    assert 0 not in given


def test_an_adversary_of_ones_own_is_drawn_wherever_its_file_lies(folder: Path) -> None:
    (folder / "small.toml").write_text(SCENARIO + '[[adversaries]]\nkind = "own.py:Idle"\nshare = 0.5\n')
    (folder / "deep").mkdir()
    for name in ("small.toml", "own.py"):
        (folder / "deep" / name).write_text((folder / name).read_text())
    first, second = (run_scenario(read_scenario(one / "small.toml"), 1) for one in (folder, folder / "deep"))
    honest = run_scenario(read_scenario(folder / "small.toml", [Override("adversaries.0.share", 0.0)]), 1)
    assert first.manifest["trace_hash"] == second.manifest["trace_hash"] != honest.manifest["trace_hash"]


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("policy", "fifo", "policy must be 'production' or FILE.py:CLASS of your own, not 'fifo'"),
        ("policy", "none.py:Four", "none.py, and there is no such file"),
        ("policy", "own.py:Five", "but own.py has no class 'Five'"),
        ("policy", "own.py:NOTHING", "but own.py has no class 'NOTHING'"),
        ("policy", "own.py:Idle", "which is no Rules: derive it from sparkle_protocol.work.rules.Rules"),
        ("policy", "nowhere.at.all:Rules", "names the module nowhere.at.all, which cannot be found"),
        ("policy", "broken.py:Rules", "broken.py, which does not run: '(' was never closed (line 2)"),
        ("policy", "raises.py:Rules", "raises.py, which does not run: ZeroDivisionError: division by zero (line 3)"),
        ("checks.own", ["own.py:Nameless"], "which has no name; give the class name = '...'"),
        ("checks.own", ["own.py:Four"], "which is no Checker: derive it from sparkle_sim.checkers.Checker"),
    ],
)
def test_what_cannot_be_used_gets_one_sentence_with_its_key(
    folder: Path, monkeypatch: pytest.MonkeyPatch, key: str, value: object, sentence: str
) -> None:
    (folder / "broken.py").write_text("x = 1\nclass Rules(\n")
    (folder / "raises.py").write_text("\n\nx = 1 / 0\n")
    monkeypatch.chdir(folder)
    with pytest.raises(ConfigError) as refused:
        read_scenario(folder / "small.toml", [Override(key, value)])
    assert str(refused.value).startswith(f"--set: {key} ")
    assert sentence in str(refused.value)


def test_the_population_engine_has_no_use_for_them(folder: Path) -> None:
    overrides = [Override("engine", "population"), Override("policy", f"{folder / 'own.py'}:Four")]
    with pytest.raises(ConfigError, match="policy needs engine = 'full'"):
        read_scenario(folder / "small.toml", overrides)
