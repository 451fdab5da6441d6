"""What all tests share: a home of their own, repeatable Hypothesis runs, how to reproduce a failure."""

import os
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parent.parent
IN_CI = bool(os.environ.get("CI"))

# In CI the same examples every time, so that a red run is about the change. Developers draw new ones.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
hypothesis.settings.register_profile("dev", deadline=None, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if IN_CI else "dev"))

# A shell starts background jobs with SIGINT ignored, and children inherit that: no test could interrupt anything.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _no_test_touches_the_users_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A command that a test starts without ``--home`` lands here, never in ``~/.sparkle``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARKLE_HOME", str(tmp_path_factory.mktemp("default-home")))
        yield


@pytest.fixture
def sparkle_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh home directory for this test alone, also set as ``SPARKLE_HOME``."""
    home = tmp_path / "home"
    monkeypatch.setenv("SPARKLE_HOME", str(home))
    return home


def reproduce(test_id: str) -> str:
    """The command that runs one test again."""
    return f"python3 run.py test {shlex.quote(test_id)}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Adds the command to every failure's report."""
    report: pytest.TestReport = yield  # type: ignore[assignment]
    refuse_unlisted_skip(report)
    if report.failed:
        report.sections.append(("reproduce with", reproduce(item.nodeid)))
    return report  # type: ignore[return-value]


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Iterator[None]:
    """The same for a whole file that is skipped."""
    report: pytest.CollectReport = yield  # type: ignore[assignment]
    refuse_unlisted_skip(report)
    return report  # type: ignore[return-value]


def refuse_unlisted_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """In CI a test that did not run, or was expected to fail, has failed unless ``tests/skips.txt`` lists it."""
    if not IN_CI or not report.skipped or is_excused(report.nodeid):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else getattr(report, "wasxfail", "")
    report.outcome = "failed"  # and so counted as one in the closing line
    report.longrepr = f"{reason}\nSkipped but not listed: make it run, or add it with its reason to tests/skips.txt."
    vars(report).pop("wasxfail", None)


def is_excused(test_id: str) -> bool:
    """Whether the list holds a test, or its file, or all of its cases."""
    lines = (ROOT / "tests/skips.txt").read_text().splitlines()
    entries = [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]
    return any(test_id == entry or test_id.startswith((f"{entry}[", f"{entry}::")) for entry in entries)
