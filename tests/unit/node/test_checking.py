"""Checks: a verdict when there is one, and nobody accused when this node could not tell."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparkle_p2p.blobs.sealing import JobCipher, input_label, result_label
from sparkle_p2p.network_key import NetworkKey
from sparkle_p2p.node import checking
from sparkle_p2p.node.checking import Checking
from sparkle_protocol.blobs.limits import CHECK_TRIES
from sparkle_protocol.blobs.tree import BlobId
from sparkle_protocol.effects import CheckUnit, UnitChecked
from sparkle_protocol.errors import ComputeError, ExecutorCrashed, TransportError
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import JobId
from tests.unit.node.blob_bench import BlobBench, product_spec

ME, WORKER = Identity.generate(), Identity.generate().peer_id
JOB = JobId(b"j" * 32)
MB = 1 << 20
KEY, SALT = NetworkKey(bytes(32)), b"salt"


class FakeChecker:
    """Answers as it is told, and notes the seeds."""

    def __init__(self, *answers: str | Exception) -> None:
        self.answers = list(answers)
        self.seeds: list[bytes] = []

    async def check(
        self, _kernel: str, _version: int, _unit: Mapping[str, Any], inputs: Sequence[Path], result: Path, seed: bytes
    ) -> str:
        assert all(path.exists() for path in (*inputs, result))
        self.seeds.append(seed)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def stop(self) -> None: ...


class Bench(BlobBench):
    """A node's checks without the node."""

    def __init__(self, folder: Path, *answers: str | Exception) -> None:
        super().__init__(folder)
        self.checker = FakeChecker(*answers)
        self.told: asyncio.Queue[UnitChecked] = asyncio.Queue()
        self.passed: list[BlobId] = []
        a, b = (np.eye(8, dtype=np.float32) for _ in "ab")
        self.inputs = (self.store.put_array(a), self.store.put_array(b))
        self.result = self.store.put_array(a)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Checking]:
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            yield Checking(
                self.plane,
                lambda: self.checker,
                self.told.put_nowait,
                group,
                lambda _job, blob: self.passed.append(blob),
            )

    async def verdict(self, result: bytes | None = None, salt: bytes = b"") -> UnitChecked:
        async with self.running() as checks:
            given = self.result if result is None else result
            checks.start(CheckUnit(JOB, 0, 0, WORKER, given, product_spec(self.inputs, salt=salt), (WORKER,)))
            return await self.told.get()

    def sealed(self, label: bytes, key: NetworkKey = KEY, salt: bytes = SALT) -> BlobId:
        """A matrix as a sealed blob."""
        plain = np.eye(8, dtype=np.float32).tobytes()
        return self.store.put_pieces(JobCipher(key, salt).seal(label, len(plain), [plain]))

    def seal(self) -> None:
        """From now on the job is sealed, and this node has the key."""
        self.plane.network_key = KEY
        self.inputs = (self.sealed(input_label(0)), self.sealed(input_label(1)))


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "pause_s", lambda _attempt: 0.0)


@pytest.fixture
def bench(tmp_path: Path) -> Callable[..., Bench]:
    return lambda *answers: Bench(tmp_path, *answers)


async def test_a_right_result_is_kept_before_it_is_told(bench: Callable[..., Bench]) -> None:
    one = bench("")
    assert (await one.verdict()).passed is True
    assert one.passed == [one.result]


async def test_a_wrong_result_is_told_with_what_is_wrong(bench: Callable[..., Bench]) -> None:
    one = bench("element (1, 2) is off by 3")
    answer = await one.verdict()
    assert (answer.passed, answer.text) == (False, "element (1, 2) is off by 3")
    assert not one.passed


async def test_a_result_of_another_size_is_wrong_without_being_fetched(bench: Callable[..., Bench]) -> None:
    one = bench()
    answer = await one.verdict(one.store.put_bytes(bytes(100)))
    assert answer.passed is False
    assert "float32 8 x 8" in answer.text
    assert not one.checker.seeds


async def test_a_result_that_nobody_gives_accuses_nobody(bench: Callable[..., Bench]) -> None:
    answer = await bench().verdict(bytes(32))
    assert answer.passed is None
    assert "nobody has it" in answer.text


async def test_failures_of_this_node_are_tried_again_with_another_seed(bench: Callable[..., Bench]) -> None:
    one = bench(ExecutorCrashed("killed"), ComputeError("no memory"), "")
    one.bulk.failures[one.inputs[0]] = [TransportError("for now")]
    assert (await one.verdict()).passed is True
    assert len(set(one.checker.seeds)) == 3
    assert {len(seed) for seed in one.checker.seeds} == {32}


async def test_a_node_that_cannot_check_says_so(bench: Callable[..., Bench]) -> None:
    one = bench(*(ComputeError("no memory") for _ in range(CHECK_TRIES)))
    answer = await one.verdict()
    assert (answer.passed, answer.text) == (None, "no memory")


async def test_inputs_of_another_size_are_not_the_workers_fault(bench: Callable[..., Bench]) -> None:
    one = bench()
    one.inputs = (one.store.put_bytes(bytes(100)), one.inputs[1])
    assert (await one.verdict()).passed is None


async def test_a_sealed_result_is_checked_on_plain_files(bench: Callable[..., Bench], tmp_path: Path) -> None:
    one = bench("")
    one.seal()
    answer = await one.verdict(one.sealed(result_label(0)), SALT)
    assert (answer.passed, answer.text) == (True, "")
    assert not list((tmp_path / "blobs").glob(".new-*"))


async def test_a_sealed_result_that_does_not_open_is_wrong(bench: Callable[..., Bench]) -> None:
    """As that of another unit, of another job, under another key, or not sealed at all."""
    one = bench()
    one.seal()
    for blob in (
        one.sealed(result_label(1)),
        one.sealed(input_label(0)),
        one.sealed(result_label(0), salt=b"another"),
        one.sealed(result_label(0), NetworkKey.generate()),
        one.store.put_bytes(bytes(8 * 8 * 4 + 16)),
    ):
        answer = await one.verdict(blob, SALT)
        assert answer.passed is False
        assert "does not open" in answer.text
    plain = await one.verdict(one.result, SALT)
    assert (plain.passed, "float32 8 x 8" in plain.text) == (False, True)


async def test_sealed_inputs_that_do_not_open_are_not_the_workers_fault(bench: Callable[..., Bench]) -> None:
    one = bench()
    one.seal()
    one.inputs = one.inputs[::-1]
    answer = await one.verdict(one.sealed(result_label(0)), SALT)
    assert answer.passed is None
    assert "inputs of the job cannot be opened" in answer.text
    one.plane.network_key = None
    answer = await one.verdict(one.sealed(result_label(0)), SALT)
    assert (answer.passed, "no network key" in answer.text) == (None, True)
