"""Other systems that we are measured against, in environments of their own (below ``.sparkle-env``).

Each is installed from its lock when it is needed first, by the uv that set-up uses, so that its dependencies never
constrain ours. ``dask_tasks.py``, ``ray_tasks.py`` and ``hivemind_requests.py`` run there and need nothing of ours.
"""

import functools
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.bench.processes import Child

ROOT = Path(__file__).resolve().parents[2]
INSTALL_LIMIT_S = 900.0
RUN_LIMIT_S = 300.0
REMEDY = "check the network and run 'python3 run.py bench' again"


class NotAvailable(Exception):
    """An alternative cannot be measured here; one sentence says why and what to do."""


@dataclass(frozen=True, slots=True)
class Environment:
    """What is installed together."""

    names: str  # for people
    home: Path
    lock: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.home / "bin" / "python"


TASKS = Environment("dask.distributed and Ray", ROOT / ".sparkle-env" / "bench", ROOT / "requirements" / "bench.txt")
HIVEMIND = Environment(
    "hivemind", ROOT / ".sparkle-env" / "bench-hivemind", ROOT / "requirements" / "bench-hivemind.txt"
)


def tasks_per_s(name: str, tasks: int, warm_up: int) -> float:
    """No-op tasks per second of ``dask`` or ``ray`` with three workers, in the steady state.

    Raises:
        NotAvailable: it could not be installed or does not run here.
    """
    _install(TASKS)
    program = Path(__file__).with_name(f"{name}_tasks.py")
    try:
        done = subprocess.run(
            [str(TASKS.python), str(program), str(tasks), str(warm_up)],
            capture_output=True, text=True, timeout=RUN_LIMIT_S, env=_environment(), check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise NotAvailable(f"{name} did not finish {tasks} tasks within {RUN_LIMIT_S:.0f} s") from None
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        raise NotAvailable(f"{name} does not run here ({said[-1][:200] if said else done.returncode})")
    return float(json.loads(done.stdout.splitlines()[-1])["tasks_per_s"])


def hivemind(role: str, log: Path) -> Child:
    """One end of hivemind's requests, ``serve`` or ``ask``. Raises NotAvailable: it could not be installed."""
    _install(HIVEMIND)
    return Child([HIVEMIND.python, Path(__file__).with_name("hivemind_requests.py"), role], log, _environment())


@functools.cache
def _install(wanted: Environment) -> None:
    """Have the environment hold exactly what its lock names; at once if it does."""
    lock, stamp = wanted.lock.read_text(), wanted.home / ".sparkle-stamp"
    if stamp.exists() and stamp.read_text() == lock and wanted.python.exists():
        return
    print(f"bench: installing {wanted.names} to compare with ...", file=sys.stderr, flush=True)
    uv = [sys.executable, str(ROOT / "run.py"), "uv"]
    for command in (
        [*uv, "venv", "--quiet", "--clear", "--no-project", "--python", sys.executable, str(wanted.home)],
        [*uv, "pip", "sync", "--quiet", "--python", str(wanted.python), str(wanted.lock)],
    ):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_LIMIT_S, check=False)
        except subprocess.TimeoutExpired:
            raise NotAvailable(f"installing it took over {INSTALL_LIMIT_S:.0f} s; {REMEDY}") from None
        if done.returncode != 0:
            said = done.stderr.strip().splitlines()
            raise NotAvailable(f"could not be installed ({said[-1][:200] if said else 'uv failed'}); {REMEDY}")
    stamp.write_text(lock)


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return {**kept, "RAY_USAGE_STATS_ENABLED": "0"}  # tells nobody that it runs
