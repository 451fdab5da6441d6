"""Other systems' no-op tasks per second, in an environment of their own (``.sparkle-env/bench``).

It is installed from ``requirements/bench.txt`` when it is needed first, by the uv that set-up uses, so that their
dependencies never constrain ours. ``dask_tasks.py`` and ``ray_tasks.py`` run in it and need nothing of ours.
"""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / ".sparkle-env" / "bench"
PYTHON = HOME / "bin" / "python"
LOCK = ROOT / "requirements" / "bench.txt"
STAMP = HOME / ".sparkle-stamp"
INSTALL_LIMIT_S = 900.0
RUN_LIMIT_S = 300.0
REMEDY = "check the network and run 'python3 run.py bench' again"


class NotAvailable(Exception):
    """An alternative cannot be measured here; one sentence says why and what to do."""


def tasks_per_s(name: str, tasks: int, warm_up: int) -> float:
    """No-op tasks per second of ``dask`` or ``ray`` with three workers, in the steady state.

    Raises:
        NotAvailable: it could not be installed or does not run here.
    """
    _install()
    program = Path(__file__).with_name(f"{name}_tasks.py")
    try:
        done = subprocess.run(
            [str(PYTHON), str(program), str(tasks), str(warm_up)],
            capture_output=True, text=True, timeout=RUN_LIMIT_S, env=_environment(), check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise NotAvailable(f"{name} did not finish {tasks} tasks within {RUN_LIMIT_S:.0f} s") from None
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        raise NotAvailable(f"{name} does not run here ({said[-1][:200] if said else done.returncode})")
    return float(json.loads(done.stdout.splitlines()[-1])["tasks_per_s"])


@functools.cache
def _install() -> None:
    """Have the environment hold exactly what the lock names; at once if it does."""
    wanted = LOCK.read_text()
    if STAMP.exists() and STAMP.read_text() == wanted and PYTHON.exists():
        return
    print("bench: installing dask.distributed and Ray to compare with ...", file=sys.stderr, flush=True)
    uv = [sys.executable, str(ROOT / "run.py"), "uv"]
    for command in (
        [*uv, "venv", "--quiet", "--clear", "--no-project", "--python", sys.executable, str(HOME)],
        [*uv, "pip", "sync", "--quiet", "--python", str(PYTHON), str(LOCK)],
    ):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_LIMIT_S, check=False)
        except subprocess.TimeoutExpired:
            raise NotAvailable(f"installing it took over {INSTALL_LIMIT_S:.0f} s; {REMEDY}") from None
        if done.returncode != 0:
            said = done.stderr.strip().splitlines()
            raise NotAvailable(f"could not be installed ({said[-1][:200] if said else 'uv failed'}); {REMEDY}")
    STAMP.write_text(wanted)


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return {**kept, "RAY_USAGE_STATS_ENABLED": "0"}  # tells nobody that it runs
