"""What an import really loads, seen from a fresh interpreter.

The import rules in ``pyproject.toml`` read the source; these tests see what other libraries drag in.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

NETWORK, SCREEN, WEB = {"libp2p", "trio"}, {"textual", "rich"}, {"aiohttp"}
COMPUTE, DISK = {"numpy", "pyopencl"}, {"sqlite3"}
EVERYTHING_HEAVY = NETWORK | SCREEN | WEB | COMPUTE | DISK

# module (a trailing ".*": and all modules below it) -> libraries that must not be loaded after its import
MUST_NOT_LOAD = {
    "sparkle_p2p": EVERYTHING_HEAVY,
    "sparkle_p2p.cli.main": EVERYTHING_HEAVY,  # `sparkle status` answers within three bare starts of Python
    "sparkle_p2p.cli.node": NETWORK | WEB | COMPUTE,  # the first screen does not wait for the network
    "sparkle_p2p.view": EVERYTHING_HEAVY,
    "sparkle_protocol.*": EVERYTHING_HEAVY,
    "sparkle_ledger.*": NETWORK | SCREEN | WEB | COMPUTE,
    "sparkle_worker.*": NETWORK | SCREEN | WEB | DISK | {"pyopencl"},
    "sparkle_worker.kernels.*": EVERYTHING_HEAVY,  # describing a kernel must not cost what running it does
    "sparkle_tui.*": NETWORK | WEB | COMPUTE | DISK,
    "sparkle_sim.*": NETWORK | SCREEN | WEB,
    "sparkle_p2p.api.words": EVERYTHING_HEAVY,  # the simulator has these two without the packages of a node
    "sparkle_p2p.runtime.program": EVERYTHING_HEAVY,
}

IMPORT_AND_LIST = """
import importlib, json, pkgutil, sys
name = sys.argv[1]
module = importlib.import_module(name.removesuffix(".*"))
if name.endswith(".*"):
    for found in pkgutil.walk_packages(module.__path__, module.__name__ + "."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""

IMPORT_EVERYTHING = """
import sparkle_p2p, sparkle_p2p.cli.main, sparkle_p2p.cli.node
import sparkle_protocol, sparkle_worker.kernels, sparkle_ledger, sparkle_tui, sparkle_sim
print(sparkle_p2p.__version__)
"""


def python(*arguments: str, folder: Path | None = None) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("module", MUST_NOT_LOAD)
def test_import_stays_light(module: str) -> None:
    loaded = MUST_NOT_LOAD[module] & set(json.loads(python("-c", IMPORT_AND_LIST, module)))
    assert not loaded, (
        f"importing {module} loads {sorted(loaded)}: import them inside the function that needs them; "
        f"'python -X importtime -c \"import {module.removesuffix('.*')}\"' shows who does"
    )


def test_a_users_own_modules_do_not_disturb_ours(tmp_path: Path) -> None:
    for name in ("worker", "protocol", "ledger", "tui", "simulations", "tests", "net", "node", "run"):
        (tmp_path / f"{name}.py").write_text(f"raise RuntimeError('Sparkle imported the user\\'s {name}.py')\n")
    script = tmp_path / "mine.py"
    script.write_text(IMPORT_EVERYTHING)
    assert python(str(script), folder=tmp_path).strip(), "import ours by their full names only"
