"""The repository's own files, as git sees them: committed ones and new ones that it does not ignore."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE_FOLDERS = ("protocol", "ledger", "worker", "sparkle_p2p", "tui", "simulations")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def files() -> list[Path]:
    """Every file of the repository that still exists, relative to its root."""
    git = ["git", "-c", "safe.directory=*"]  # CI may run as another user than the one who made the checkout
    listing = [*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
    return sorted(Path(name) for name in set(names.split("\0")) if name and (ROOT / name).is_file())


@pytest.fixture(scope="session")
def sources(files: list[Path]) -> list[Path]:
    """The Python files that the distribution is built from."""
    return [path for path in files if path.suffix == ".py" and path.parts[0] in SOURCE_FOLDERS]


@pytest.fixture(scope="session")
def tests(files: list[Path]) -> list[Path]:
    """The Python files under ``tests/``."""
    return [path for path in files if path.suffix == ".py" and path.parts[0] == "tests"]
