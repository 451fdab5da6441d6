"""The order in which a simulated node performs effects: as ``sparkle_p2p.node.lanes``, on virtual time.

A core's batches are performed in order. What stands after a ``Persist`` waits until that is on disk, and so does
every later batch of this core. One transaction is under way at a time; what comes meanwhile goes into the next one.
"""

from collections.abc import Callable, Sequence

from sparkle_protocol import effects as fx
from sparkle_sim.disk import Disk
from sparkle_sim.draws import Draws
from sparkle_sim.kernel import SECOND, Kernel

_Step = tuple[Sequence[fx.Effect], int]  # and the transaction that it waits for; 0: none


class Lanes:
    """Effects that wait for the disk.

    Args:
        kernel: the clock.
        disk: where records go.
        random: how long a transaction takes, and what becomes of one that a crash interrupts.
        perform: performs one effect of a core.
        sync_s: shortest and longest time of a transaction.
    """

    __slots__ = (
        "_buffer", "_disk", "_draws", "_kernel", "_lanes", "_perform", "_sync_s", "_writing", "_written", "waiting",
    )  # fmt: skip

    def __init__(
        self,
        kernel: Kernel,
        disk: Disk,
        random: Draws,
        perform: Callable[[int, fx.Effect], None],
        cores: int,
        sync_s: tuple[float, float],
    ) -> None:
        self._kernel = kernel
        self._disk = disk
        self._draws = random
        self._perform = perform
        self._sync_s = sync_s
        self._lanes: list[list[_Step]] = [[] for _ in range(cores)]  # short ones
        self._buffer: list[fx.Record] = []  # for the next transaction
        self._writing: list[fx.Record] | None = None
        self._written = 0  # transactions that are done
        self.waiting = False  # the next transaction is wanted

    def perform(self, core: int, effects: fx.Effects) -> None:
        """Perform a batch; what has to wait for the disk follows."""
        start, transaction = 0, 0
        for position, effect in enumerate(effects):
            if isinstance(effect, fx.Persist):
                if position > start:
                    self._advance(core, effects[start:position], transaction)
                start = position + 1
                transaction = self._write(effect.records)
        if start < len(effects) or transaction:
            self._advance(core, effects[start:], transaction)

    def _advance(self, core: int, effects: Sequence[fx.Effect], transaction: int) -> None:
        lane = self._lanes[core]
        if lane or transaction:
            lane.append((effects, transaction))
            return
        for effect in effects:
            self._perform(core, effect)

    def _write(self, records: Sequence[fx.Record]) -> int:
        """The transaction that has these and everything before; 0 if there is nothing to wait for."""
        if not records and self._writing is None:
            return 0
        self._buffer += records
        if self._writing is not None:
            self.waiting = self.waiting or bool(records)
            return self._written + (2 if self.waiting else 1)
        self._begin()
        return self._written + 1

    def _begin(self) -> None:
        self._writing, self._buffer, self.waiting = self._buffer, [], False
        self._kernel.after(int(self._draws.uniform(*self._sync_s) * SECOND), self._end, self._writing)

    def _end(self, records: list[fx.Record]) -> None:
        if self._writing is not records:  # the process is gone
            return
        self._disk.write(records)
        self._written += 1
        self._writing = None
        if self.waiting:
            self._begin()
        for core, lane in enumerate(self._lanes):
            while lane and lane[0][1] <= self._written:
                effects, _ = lane.pop(0)
                for effect in effects:
                    self._perform(core, effect)

    def crash(self) -> None:
        """The process is gone: what waits is lost; of the transaction under way everything or nothing is there."""
        if self._writing and self._draws.random() < 0.5:
            self._disk.write(self._writing)
        self._writing = None
        self._buffer = []
        for lane in self._lanes:
            lane.clear()
