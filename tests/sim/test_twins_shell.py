"""The real shell and the simulator come to the same facts when the same happens to them.

Both run with the same Ed25519 keys and the same kernel, and the simulator is asked for the very jobs that the shell
has signed. What must be equal, and what may differ and why, stands in ``twins/said.py``.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sparkle_protocol.identity import Identity
from tests.sim.twins.by_kernel import KernelTwin
from tests.sim.twins.by_shell import ShellTwin
from tests.sim.twins.said import said
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
    "keeper-killed-and-replaced": Script(
        (IDLE, WORKER, WORKER, WORKER, IDLE, IDLE, IDLE, IDLE),
        {"a": Job(10_000, 3, "critical")},
        (*starts(7), Act(4.0, "submit", 0, "a"), Act(6.0, "start", 7), Act(9.3, "kill", 5)),
        length_s=400.0,
        unit_s=90.0,  # one unit ends well before the keeper is replaced, and one begins well after that
    ),
    "dead-letters": Script(
        (IDLE, IDLE, WORKER, WORKER, WORKER),
        {"a": Job(10_000, 10, "critical", broken=(2, 7))},
        (*FIVE, Act(4.0, "submit", 0, "a"), Act(60.0, "requeue", 0, "a")),
        length_s=150.0,
        everybody=True,
    ),
}


OUTCOMES = {"cancelled": {"a": "cancelled", "b": "done"}, "dead-letters": {"a": "failed"}}


def twins(
    script: Script, directory: Path, seed: int = 1, other: Script | None = None
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """What the shell's run and the simulator's come to; ``other``: what the simulator runs instead."""
    keys = [bytes([seed, number + 1]) * 16 for number in range(len(script.machines))]
    identities = [Identity.from_private_bytes(key) for key in keys]
    shell = ShellTwin(script, identities, directory, seed)
    left = shell.run()
    kernel = KernelTwin(other or script, identities, shell.specs, seed).run()
    return said(script, identities, left), said(script, identities, kernel)


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_shell_and_the_simulator_come_to_the_same_facts(name: str, tmp_path: Path) -> None:
    script = SCRIPTS[name]
    by_shell, by_kernel = twins(script, tmp_path)
    assert by_kernel == by_shell
    for job, plan in script.jobs.items():
        outcome = OUTCOMES.get(name, {}).get(job, "done")
        assert by_shell[job]["outcome"] == outcome
        if outcome == "done":
            assert [unit["result"] for unit in by_shell[job]["units"]] == [right.hex() for right in plan.answer]


def test_what_the_scripts_are_about_did_happen(tmp_path: Path) -> None:
    """Else two runs in which nothing happens would agree as well."""
    found = {}
    for name in ("liar", "keeper-killed-and-replaced", "dead-letters"):
        (tmp_path / name).mkdir()
        found[name] = twins(SCRIPTS[name], tmp_path / name)[1]["a"]
    assert found["liar"]["rejected"] == [4]
    assert [view[0] for view in found["keeper-killed-and-replaced"]["keepers"]] == [0, 1]
    assert [view[1] for view in found["keeper-killed-and-replaced"]["keepers"]] == [
        [1, 2, 3, 4, 5, 6],
        [1, 2, 3, 4, 6, 7],
    ]
    epochs = [unit["epoch"] for unit in found["keeper-killed-and-replaced"]["units"]]
    assert epochs[0] == 0
    assert epochs[-1] > 0
    assert sorted(found["dead-letters"]["dead"]) == [2, 7]
    assert {failure[1] for failure in found["dead-letters"]["failures"]} == {0, 1}  # before and after the requeue


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"machines": (IDLE, IDLE, LIAR, LIAR, LIAR)}, "units"),
        ({"machines": (IDLE, IDLE, WORKER, WORKER, LIAR)}, "work"),
        ({"acts": (*FIVE[:4], Act(4.0, "submit", 0, "a"))}, "keepers"),
        ({"acts": (*FIVE, Act(4.0, "submit", 0, "a"), Act(5.0, "cancel", 0, "a"))}, "orders"),
        ({"jobs": {"a": Job(1_000, 4, "critical", broken=(2,))}}, "failures"),
    ],
)
def test_a_difference_shows(change: dict[str, Any], where: str, tmp_path: Path) -> None:
    script = Script(
        (IDLE, IDLE, WORKER, WORKER, WORKER),
        {"a": Job(1_000, 4, "critical")},
        (*FIVE, Act(4.0, "submit", 0, "a")),
        length_s=30.0,
        everybody=True,
    )
    by_shell, by_kernel = twins(script, tmp_path, other=replace(script, **change))
    assert by_kernel["a"]["spec"] == by_shell["a"]["spec"]
    assert by_kernel["a"][where] != by_shell["a"][where]
