"""What the documents say of the simulator is so."""

import ast
import re
import sys
import tomllib
from pathlib import Path

from sparkle_sim import adversaries, faults
from sparkle_sim.cli.parser import build
from tests.unit.sim.scenario_tables import PAGE, with_tables

FOLDERS = ("protocol/sparkle_protocol", "ledger/sparkle_ledger", "simulations/sparkle_sim")
ROOT = Path(__file__).resolve().parents[3]


def test_the_tables_of_keys_are_those_of_the_types() -> None:
    page = PAGE.read_text()
    assert page == with_tables(page), "run 'python -m tests.unit.sim.scenario_tables'"


def test_every_flag_of_every_command_is_on_the_page() -> None:
    page, (parser, _) = PAGE.read_text(), build()
    flags = set(re.findall(r"--[a-z]+", page))
    for action in parser._subparsers._group_actions:  # type: ignore[union-attr]
        for name, command in action.choices.items():  # type: ignore[union-attr]
            assert f"sparkle-sim {name}" in page
            told = {flag for option in command._actions for flag in option.option_strings if flag.startswith("--")}
            assert told - {"--help"} <= flags, f"{name}: {told - flags}"


def test_every_kind_of_fault_and_adversary_is_on_the_page() -> None:
    page = PAGE.read_text()
    missing = [kind for kind in (*faults.KINDS, *adversaries.KINDS) if f"| `{kind}` |" not in page]
    assert not missing


def imported(where: str) -> set[str]:
    """What a file, or all files of a folder, import anywhere in them."""
    place, found = ROOT / where, set[str]()
    for path in [place] if place.is_file() else place.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module)
    return found


def test_the_small_set_of_packages_is_what_the_simulator_imports() -> None:
    """Its own lock leaves out what only a node needs; an import that it lacks would fail at a researcher's."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    group = project["dependency-groups"]["sim"]
    packages = {re.split(r"[<>=;\s]", line)[0] for line in group}
    of_modules = {"backports": "backports.zstd"}
    optional = {"distributed", "pyarrow"}
    found = {name for folder in FOLDERS for name in imported(folder)}
    of_a_node = {name for name in found if name.startswith("sparkle_p2p")}
    assert of_a_node == {"sparkle_p2p.api.words", "sparkle_p2p.runtime.program"}, "they must need no package"
    found |= {name for module in of_a_node for name in imported(f"{module.replace('.', '/')}.py")}
    found = {name.partition(".")[0] for name in found}
    ours = {"sparkle_protocol", "sparkle_ledger", "sparkle_sim", "sparkle_p2p", "compression", "__future__"}
    foreign = found - set(sys.stdlib_module_names) - ours - optional
    assert {of_modules.get(name, name) for name in foreign} <= packages
    all_ = [*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["sim"]]
    assert {line for line in group if line not in {one.partition("  #")[0] for one in all_}} == set(), "same bounds"
