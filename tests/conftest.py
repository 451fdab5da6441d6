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
    if report.failed:
        report.sections.append(("reproduce with", reproduce(item.nodeid)))
    return report  # type: ignore[return-value]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI a skipped test that is not listed in ``tests/skips.txt`` fails the run."""
    if IN_CI and unlisted_skips(session.config) and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Names those skips, and what to do about them."""
    for test_id, reason in unlisted_skips(config) if IN_CI else ():
        terminalreporter.write_line(f"SKIPPED BUT NOT LISTED {test_id}: {reason}", red=True)
        terminalreporter.write_line("  make it run, or add it with its reason to tests/skips.txt")


def unlisted_skips(config: pytest.Config) -> list[tuple[str, str]]:
    """The tests that did not run although the list does not excuse them, with the reason that they gave."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    reports = [*reporter.stats.get("skipped", ()), *reporter.stats.get("xfailed", ())] if reporter else []
    excused = [line.split()[0] for line in (ROOT / "tests/skips.txt").read_text().splitlines() if is_entry(line)]

    def is_excused(test_id: str) -> bool:
        return any(test_id == entry or test_id.startswith((f"{entry}[", f"{entry}::")) for entry in excused)

    return [(r.nodeid, reason_of(r)) for r in reports if not is_excused(r.nodeid)]


def is_entry(line: str) -> bool:
    """Whether a line of the list is neither empty nor a comment."""
    return bool(line.strip()) and not line.startswith("#")


def reason_of(report: pytest.TestReport) -> str:
    """Why a test was skipped, as it said itself."""
    return report.longrepr[2] if isinstance(report.longrepr, tuple) else str(getattr(report, "wasxfail", ""))
