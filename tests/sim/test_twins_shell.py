"""The real shell and the simulator come to the same facts when the same happens to them.

Both run with the same Ed25519 keys and the same kernel, and the simulator is asked for the very jobs that the shell
has signed. What must be equal, and what may differ and why, stands in ``twins/said.py``.
"""

from pathlib import Path

import pytest

from sparkle_protocol.identity import Identity
from tests.sim.twins.by_kernel import KernelTwin
from tests.sim.twins.by_shell import ShellTwin
from tests.sim.twins.said import Left, said
from tests.sim.twins.script import Act, Job, Machine, Script, starts

WORKER, IDLE, LIAR = Machine(), Machine(works=False), Machine(lies=True)
FIVE = starts(5)

SCRIPTS = {
    "one-job": Script(
        (IDLE, IDLE, WORKER, WORKER, WORKER),
        {"a": Job(10_000, 12, "critical")},
        (*FIVE, Act(4.0, "submit", 0, "a")),
        length_s=60.0,
        everybody=True,
    ),
    "several-submitters": Script(
        (WORKER, WORKER, WORKER, IDLE, IDLE),
        {"a": Job(10_000, 10, "critical"), "b": Job(20_000, 6, "critical"), "c": Job(30_000, 8, "critical")},
        (*FIVE, Act(4.0, "submit", 3, "a"), Act(4.5, "submit", 4, "b"), Act(6.0, "submit", 0, "c")),
        length_s=120.0,
        everybody=True,
    ),
    "liar": Script(
        (IDLE, WORKER, WORKER, WORKER, LIAR, WORKER),
        {"a": Job(10_000, 20, "critical")},
        (*starts(6), Act(4.0, "submit", 0, "a")),
        length_s=120.0,
    ),
    "cancelled": Script(
        (IDLE, IDLE, WORKER, WORKER, WORKER),
        {"a": Job(10_000, 200, "critical"), "b": Job(20_000, 4, "critical")},
        (*FIVE, Act(4.0, "submit", 0, "b"), Act(4.1, "submit", 1, "a"), Act(6.1, "cancel", 1, "a")),
        length_s=120.0,
    ),
    "submitter-restarts": Script(
        (IDLE, IDLE, WORKER, WORKER, WORKER, IDLE),
        {"a": Job(10_000, 16, "critical")},
        (*starts(6), Act(4.0, "submit", 1, "a"), Act(9.3, "kill", 1), Act(15.0, "start", 1)),
        length_s=150.0,
        everybody=True,
    ),
    "keeper-lost": Script(
        (IDLE, WORKER, WORKER, WORKER, IDLE, IDLE, IDLE),
        {"a": Job(10_000, 30, "critical")},
        (*starts(7), Act(4.0, "submit", 0, "a"), Act(9.3, "kill", 5)),
        length_s=180.0,
        everybody=True,
    ),
    "dead-letters": Script(
        (IDLE, IDLE, WORKER, WORKER, WORKER),
        {"a": Job(10_000, 10, "critical", broken=(2, 7))},
        (*FIVE, Act(4.0, "submit", 0, "a"), Act(60.0, "requeue", 0, "a")),
        length_s=150.0,
        everybody=True,
    ),
}


def twins(script: Script, directory: Path, seed: int = 1) -> tuple[dict, dict]:
    """What the shell's run and the simulator's come to."""
    identities = [Identity.from_private_bytes(bytes([seed, number + 1]) * 16) for number in range(len(script.machines))]
    shell = ShellTwin(script, identities, directory, seed)
    left: Left = shell.run()
    kernel = KernelTwin(script, identities, shell.specs, seed).run()
    return said(script, identities, left), said(script, identities, kernel)


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_shell_and_the_simulator_come_to_the_same_facts(name: str, tmp_path: Path) -> None:
    by_shell, by_kernel = twins(SCRIPTS[name], tmp_path)
    assert by_kernel == by_shell
