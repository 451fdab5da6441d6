"""Where units are carried on: which files stay, which go, and how often a killed process is replaced."""

import os
from pathlib import Path

import pytest

from sparkle_p2p.node import checkpoints as rules
from sparkle_p2p.node.checkpoints import Begun, Checkpoints, Told
from sparkle_protocol.errors import ComputeError, ExecutorCrashed
from sparkle_protocol.ids import JobId

JOB = JobId(b"j" * 32)
KILLED = ExecutorCrashed("the worker process was killed")


class Unit:
    """A unit whose process writes a checkpoint and dies as often as is wanted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told: list[tuple[JobId, int, float]] = []
        self.checkpoints = Checkpoints(folder, lambda *said: self.told.append(said))
        self.begun = 0
        self.done: list[float] = []
        self.paths: list[Path | None] = []

    async def compute(
        self, *outcomes: Exception | None, number: int = 0, size: int = 1000, writes: bool = True
    ) -> None:
        left = list(outcomes)

        async def run(path: Path | None, begin: Begun, resumed: Told) -> None:
            self.paths.append(path)
            begin()
            process(path, left.pop(0), resumed)

        def process(path: Path | None, outcome: Exception | None, resumed: Told) -> None:
            if path is not None and path.exists():
                resumed(0.5)
            if path is not None and writes and outcome is not None:
                new = path.with_name(path.name + ".new")
                new.write_bytes(bytes(size))
                new.replace(path)
            if outcome is not None:
                raise outcome
            if path is not None:
                path.unlink(missing_ok=True)

        await self.checkpoints.compute(JOB, number, size, run, self.begins, self.done.append)
        assert not left

    def begins(self) -> None:
        self.begun += 1

    @property
    def files(self) -> list[str]:
        return sorted(path.name[64:] for path in self.folder.iterdir())


@pytest.fixture
def unit(tmp_path: Path) -> Unit:
    return Unit(tmp_path / "checkpoints")


async def test_a_killed_process_is_replaced_while_the_unit_gets_on(unit: Unit) -> None:
    await unit.compute(KILLED, KILLED, None)
    assert unit.told == [(JOB, 0, 0.5), (JOB, 0, 0.5)]
    assert unit.done == [0.5, 0.5]
    assert unit.begun == 1  # its time counts from the first
    assert unit.files == []


async def test_a_process_that_dies_without_getting_on_is_not_replaced(unit: Unit) -> None:
    with pytest.raises(ExecutorCrashed):
        await unit.compute(KILLED, writes=False)
    with pytest.raises(ExecutorCrashed):
        await unit.compute(*[KILLED] * rules.TRIES)


async def test_what_was_interrupted_goes_on_after_a_restart(unit: Unit, tmp_path: Path) -> None:
    with pytest.raises(ComputeError):
        await unit.compute(ComputeError("interrupted"))
    assert unit.files == ["-0"]
    again = Unit(tmp_path / "checkpoints")
    await again.compute(None)
    assert again.told == [(JOB, 0, 0.5)]


async def test_what_is_given_up_leaves_nothing(unit: Unit) -> None:
    with pytest.raises(ComputeError):
        await unit.compute(ComputeError("interrupted"))
    unit.checkpoints.give_up(JOB, 0)
    unit.checkpoints.give_up(JOB, 1)  # was never there
    assert unit.files == []


async def test_files_are_bounded_and_the_oldest_go(unit: Unit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "MAX_FILES", 4)
    for number in range(6):
        with pytest.raises(ComputeError):
            await unit.compute(ComputeError("interrupted"), number=number)
        os.utime(unit.paths[-1] or "", (0, rules.time.time() - 100 + number))
    assert unit.files == ["-2", "-3", "-4", "-5"]


async def test_their_size_is_bounded(unit: Unit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "MAX_BYTES", 10_000)
    await unit.compute(None, size=10_000)
    assert unit.paths == [None]
    for number in range(9):
        with pytest.raises(ComputeError):
            await unit.compute(ComputeError("interrupted"), number=number)
        os.utime(unit.paths[-1] or "", (0, rules.time.time() - 100 + number))
    assert sum(path.stat().st_size for path in unit.folder.iterdir()) <= 10_000


async def test_old_and_unfinished_ones_go(unit: Unit) -> None:
    for number in (0, 1):
        with pytest.raises(ComputeError):
            await unit.compute(ComputeError("interrupted"), number=number)
    (unit.folder / f"{JOB.hex()}-7.new").write_bytes(b"half")
    os.utime(unit.folder / f"{JOB.hex()}-0", (0, rules.time.time() - 2 * rules.MAX_AGE_S))
    await unit.compute(None, number=2)
    assert unit.files == ["-1"]


async def test_without_a_place_for_them_units_are_computed_all_the_same(unit: Unit) -> None:
    unit.folder.write_bytes(b"a file is in the way")
    await unit.compute(None)
    assert unit.paths == [None]
