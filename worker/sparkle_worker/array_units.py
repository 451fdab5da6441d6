"""Units of array kernels in the worker process: what is mapped, computed, checked and refused."""

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sparkle_protocol.errors import ComputeError, ConfigError, SparkleError, VerificationError
from sparkle_worker.checkpoint import Checkpoint, owner_of
from sparkle_worker.checks.check import check
from sparkle_worker.files import MappedFiles, WrongSize
from sparkle_worker.kernels.arrays import ITEM_BYTES, MAX_ELEMENTS, ArrayKernel, ArrayType, Resumable
from sparkle_worker.kernels.base import Progress
from sparkle_worker.kernels.registry import get_array_kernel


class ArrayUnits:
    """Computes and checks units whose tiles and results are files.

    Args:
        kernels: by name.
        memory_mb: what a unit may take; larger ones are refused before anything is touched.
        checkpoint_s: least time between two checkpoints of a unit.
    """

    def __init__(self, kernels: Mapping[str, ArrayKernel], memory_mb: int, checkpoint_s: float) -> None:
        self._kernels = kernels
        self._memory_bytes = memory_mb * 2**20
        self._checkpoint_s = checkpoint_s
        self.files = MappedFiles(self._memory_bytes)
        self._last: tuple[Any, ...] = (None,) * 5  # kernel, unit, and what ``_described`` says of it

    def compute(
        self,
        progress: Progress,
        resumed: Callable[[float], None],
        name: str,
        version: int,
        unit: Mapping[str, Any],
        inputs: Sequence[bytes],
        result: bytes,
        checkpoint: bytes | None,
    ) -> None:
        """Fill the result file; go on from the checkpoint if it is this unit's, and tell ``resumed`` its share.

        Raises:
            SparkleError: the unit, a file or the kernel is not as it should be, or there is no room for the result.
            MemoryError: the unit needs more than it may take.
        """
        kernel = get_array_kernel(name, version, self._kernels)
        types, type_ = self._types(kernel, unit, inputs)
        arrays = self._tiles(kernel, inputs, types)
        saved = None
        if checkpoint is not None and isinstance(kernel, Resumable):
            owner = owner_of(name, version, unit, inputs)
            saved = Checkpoint(Path(os.fsdecode(checkpoint)), owner, self._checkpoint_s)
        with contextlib.ExitStack() as left:
            try:
                new = self.files.new_result(result, type_)
                target = left.enter_context(new).array if new is not None else self.files.result(result, type_)
            except ComputeError as error:
                raise ComputeError(f"the result of {name} {error}") from error
            if saved is not None and isinstance(kernel, Resumable):
                _resume(kernel, unit, arrays, target, progress, resumed, saved)
            else:
                kernel.compute_into(unit, arrays, target, progress)
            if new is not None:
                try:
                    new.write()
                except ComputeError as error:
                    raise ComputeError(f"the result of {name} {error}") from error
            if saved is not None:
                saved.remove()

    def check(
        self, name: str, version: int, unit: Mapping[str, Any], inputs: Sequence[bytes], result: bytes, seed: bytes
    ) -> str:
        """What is wrong with a result, in one sentence; empty if it is right.

        Raises:
            SparkleError: it cannot be checked.
            MemoryError: the check needs more than it may take.
        """
        kernel = get_array_kernel(name, version, self._kernels)
        types, type_ = self._types(kernel, unit, inputs)
        arrays = self._tiles(kernel, inputs, types)
        try:
            claimed = self.files.tile(result, type_)
        except WrongSize as error:
            return f"the result of {name} {error}"
        except ComputeError as error:
            raise ComputeError(f"the result of {name} {error}") from error
        try:
            check(kernel, unit, arrays, claimed, seed)
        except VerificationError as error:
            return str(error)
        return ""

    def make_room(self) -> None:
        """Let go of files until one more unit like the last fits: the end of a removed file takes the system a while.

        Called between two units, so that the next one need not wait for that.
        """
        _, _, types, _, needed = self._last
        if types is not None:
            self.files.make_room(len(types) + 1, needed)

    def _types(
        self, kernel: ArrayKernel, unit: Mapping[str, Any], inputs: Sequence[bytes]
    ) -> tuple[tuple[ArrayType, ...], ArrayType]:
        """Types of the unit's tiles and of its result, with room made for it; most units are like the one before."""
        if kernel is not self._last[0] or unit != self._last[1]:
            self._last = (kernel, unit, *_described(kernel, unit))
        _, _, types, type_, needed = self._last
        if len(types) != len(inputs):
            raise ComputeError(f"a unit of {kernel.name} has {len(types)} tiles, not {len(inputs)}")
        if needed > self._memory_bytes:
            raise MemoryError
        self.files.make_room(len(types) + 1, needed)
        return types, type_

    def _tiles(self, kernel: ArrayKernel, paths: Sequence[bytes], types: Sequence[ArrayType]) -> tuple[Any, ...]:
        arrays = []
        for path, type_ in zip(paths, types, strict=True):
            try:
                arrays.append(self.files.tile(path, type_))
            except ComputeError as error:
                raise ComputeError(f"tile {len(arrays)} of {kernel.name} {error}") from error
        return tuple(arrays)


def _described(kernel: ArrayKernel, unit: Mapping[str, Any]) -> tuple[tuple[ArrayType, ...], ArrayType, int]:
    """Types of the unit's tiles and of its result, and the memory that it needs.

    Raises:
        ConfigError: this is no unit of the kernel.
    """
    try:
        types, type_, needed = kernel.input_types(unit), kernel.result_type(unit), kernel.cost(unit).memory_bytes
    except SparkleError:
        raise
    except Exception as error:  # the unit may be anything; the kernel reads it as its own
        raise ConfigError(f"this is no unit of {kernel.name}: {type(error).__name__}: {error}") from error
    if not all(map(_is_possible, (*types, type_))):
        raise ConfigError(f"this is no unit of {kernel.name}: no arrays are that large or small")
    return types, type_, max(needed, type_.nbytes + sum(each.nbytes for each in types))


def _resume(
    kernel: Resumable,
    unit: Mapping[str, Any],
    arrays: tuple[Any, ...],
    out: Any,
    progress: Progress,
    resumed: Callable[[float], None],
    saved: Checkpoint,
) -> None:
    """Compute on from a checkpoint, from the beginning if the kernel cannot use it."""
    found = saved.load()
    share, state = found if found is not None else (0.0, None)
    told = state is None

    def took_it() -> None:
        nonlocal told
        if not told:  # a kernel that could not use it would have said so before
            told = True
            resumed(share)

    def went_on(done: float) -> None:
        nonlocal share
        took_it()
        share = done
        progress(done)

    def save(new: bytes) -> None:
        took_it()
        saved.save(share, new)

    try:
        kernel.resume_into(unit, arrays, out, went_on, state, save)
    except ConfigError:
        if state is None:
            raise
        share, told = 0.0, True
        kernel.resume_into(unit, arrays, out, went_on, None, save)


def _is_possible(type_: ArrayType) -> bool:
    """Whether there can be such an array."""
    whole = all(type(length) is int and 0 < length <= MAX_ELEMENTS for length in type_.shape)
    return whole and type_.size <= MAX_ELEMENTS and type_.dtype in ITEM_BYTES
