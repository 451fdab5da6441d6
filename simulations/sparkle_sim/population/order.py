"""What is due when, and what waits in line: for millions of numbered things, without an object for any of them."""

from collections import deque
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int32]
Times = NDArray[np.float64]

NONE = np.empty(0, np.int32)
EPOCH_STEPS = 64  # sorted ahead; one look through all things for as many steps


class Calendar:
    """When each of ``count`` things is due, at most one time each.

    Steps are taken in order. A thing's time is exact; only that it is noticed waits for the end of its step. What
    is due within the next ``EPOCH_STEPS`` steps lies in buckets, everything later in ``due`` alone, so that a thing
    takes 12 bytes however far ahead it is planned.
    """

    def __init__(self, count: int, step_s: float) -> None:
        self.due: Times = np.full(count, np.inf)
        self._step_s = step_s
        self._near: list[list[Index]] = [[] for _ in range(EPOCH_STEPS)]
        self._end = 0  # first step that has no bucket yet
        self._now = -1
        self._place: Index = np.zeros(count, np.int32)

    def plan(self, things: Index, when_s: Times) -> None:
        """They are due then, and not when it was said before; what is over already is noticed in the next step."""
        self.due[things] = when_s
        self._file(things[when_s < self._end * self._step_s])

    def forget(self, things: Index) -> None:
        """They are not due any more."""
        self.due[things] = np.inf

    def take(self, step: int) -> tuple[Index, Times]:
        """Those due by the end of this step, with their times; none of them is due any more."""
        self._now = step - 1
        if step >= self._end:
            self._end = step + EPOCH_STEPS
            self._file(np.flatnonzero(self.due < self._end * self._step_s).astype(np.int32))
        self._now = step
        bucket = self._near[step % EPOCH_STEPS]
        if not bucket:
            return NONE, np.empty(0)
        self._near[step % EPOCH_STEPS] = []
        things = bucket[0] if len(bucket) == 1 else np.concatenate(bucket)
        things = things[self.due[things] / self._step_s < step + 1]  # rounded as in ``_file``
        places = np.arange(len(things), dtype=np.int32)
        self._place[things] = places
        things = things[self._place[things] == places]  # who was planned twice stands here twice
        when_s = self.due[things]
        self.due[things] = np.inf
        return things, when_s

    def _file(self, things: Index) -> None:
        """Put into buckets what is due before ``_end``."""
        if not len(things):
            return
        steps = np.maximum((self.due[things] / self._step_s).astype(np.int64), self._now + 1)
        inside = steps < self._end
        if not inside.all():  # it is over, and the next step begins another epoch, which will look for it
            things, steps = things[inside], steps[inside]
        for part, step in grouped(things, steps):
            self._near[step % EPOCH_STEPS].append(part)


def grouped(things: Index, keys: NDArray[np.int64]) -> Iterator[tuple[Index, int]]:
    """The things of each key, ascending; those of one key keep their order."""
    if not len(things):
        return
    least = int(keys.min())
    ahead = (keys - least).astype(np.int16) if int(keys.max()) - least < 1 << 15 else keys
    order = np.argsort(ahead, kind="stable")  # 16 bits are sorted by radix
    things, keys = things[order], keys[order]
    cuts = [0, *(np.flatnonzero(np.diff(keys)) + 1).tolist(), len(keys)]
    for start, stop in pairwise(cuts):
        yield things[start:stop], int(keys[start])


def distinct(things: Index, place: Index) -> Iterator[NDArray[np.intp]]:
    """Positions in passes: within one no thing occurs twice, so that arrays can be changed by fancy indexing.

    Args:
        things: numbers of rows.
        place: scratch, one for each row there is.
    """
    left = np.arange(len(things))
    while len(left):
        rows = things[left][::-1]
        place[rows] = left[::-1]  # of several the first one stays
        first = place[things[left]] == left
        yield left[first]
        left = left[~first]


class Line:
    """Who waits, first come first served. Grows with what is put in; whoever puts in bounds it."""

    def __init__(self) -> None:
        self._parts: deque[Index] = deque()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def join(self, things: Index) -> None:
        """They come last."""
        if len(things):
            self._parts.append(things)
            self._count += len(things)

    def rejoin(self, things: Index) -> None:
        """They come first again."""
        if len(things):
            self._parts.appendleft(things)
            self._count += len(things)

    def take(self, most: int) -> Index:
        """Up to so many, from the front."""
        taken: list[Index] = []
        while most > 0 and self._parts:
            part = self._parts.popleft()
            if len(part) > most:
                self._parts.appendleft(part[most:])
                part = part[:most]
            taken.append(part)
            most -= len(part)
            self._count -= len(part)
        return np.concatenate(taken) if taken else NONE


class Later:
    """Things that come in some later step."""

    def __init__(self, step_s: float) -> None:
        self._step_s = step_s
        self._by_step: dict[int, list[Index]] = {}

    def add(self, things: Index, when_s: Times, now: int) -> None:
        """They come when this time is over, after the present step."""
        steps = np.maximum((when_s / self._step_s).astype(np.int64), now + 1)
        for part, step in grouped(things, steps):
            self._by_step.setdefault(step, []).append(part)

    def take(self, step: int) -> Index:
        """Those of a step."""
        parts = self._by_step.pop(step, None)
        return NONE if parts is None else np.concatenate(parts)
