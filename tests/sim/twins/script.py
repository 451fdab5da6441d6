"""What happens in a run, as data that says the same to the real shell and to the simulator.

Times are seconds from the beginning. A node is there from its first ``start`` to a ``kill``, and again from the next
``start`` on, with the disk that it had. All nodes know the first one's address.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sparkle_p2p.node.results import needed
from sparkle_protocol.errors import ComputeError
from sparkle_protocol.facts import JobSpec
from sparkle_worker.kernels.base import Kernel
from sparkle_worker.kernels.registry import KERNELS

KERNEL = KERNELS["prime_count"]
VERSIONED = f"{KERNEL.name}@{KERNEL.version}"
DEVICE = "cpu/twin"
FAILS = "this kernel gives up here"
ROUND_TRIP_S = 0.02
SYNC_S = 0.005  # of a transaction
Level = Literal["fast", "final", "critical"]


@dataclass(frozen=True, slots=True)
class Machine:
    """A node. ``lies``: every result that it computes is wrong; ``works``: it computes at all."""

    works: bool = True
    lies: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """A job, by the number up to which primes are counted; every machine's kernel fails in its ``broken`` units."""

    stop: int
    units: int
    verify: Level
    broken: tuple[int, ...] = ()

    @property
    def params(self) -> dict[str, int]:
        """Of the whole job."""
        return KERNEL.validate({"stop": self.stop})

    @property
    def flops(self) -> float:
        """Reference work of a unit, as the node puts it into the spec."""
        return needed(KERNEL, self.params, self.units).flops

    @property
    def answer(self) -> list[bytes]:
        """The right results, unit by unit."""
        return [compute(KERNEL.unit(self.params, self.units, unit)) for unit in range(self.units)]


@dataclass(frozen=True, slots=True)
class Act:
    """``start`` or ``kill`` a node, or have it ``submit``, ``cancel`` or ``requeue`` a job."""

    at_s: float
    what: Literal["start", "kill", "submit", "cancel", "requeue"]
    node: int
    job: str = ""


@dataclass(frozen=True, slots=True)
class Script:
    """A run.

    Args:
        machines: the nodes, by number.
        jobs: by the names that acts give them.
        acts: what happens, in order of time.
        length_s: when it is over.
        unit_s: how long a unit takes.
        everybody: each unit needs every worker's vote, so that who says what is decided too.
    """

    machines: tuple[Machine, ...]
    jobs: Mapping[str, Job]
    acts: tuple[Act, ...]
    length_s: float
    unit_s: float = 2.0
    everybody: bool = False

    @property
    def flops_per_s(self) -> float:
        """How fast all machines are: as the first job's units take ``unit_s``."""
        return next(iter(self.jobs.values())).flops / self.unit_s

    def place(self, unit: Mapping[str, object]) -> tuple[Job, int]:
        """Which unit of which job has these parameters."""
        return next(
            (job, number)
            for job in self.jobs.values()
            for number in range(job.units)
            if unit == KERNEL.unit(job.params, job.units, number)
        )

    def seconds(self, unit: Mapping[str, object]) -> float:
        """How long a unit takes: as its job's spec says of all its units."""
        return self.place(unit)[0].flops / self.flops_per_s

    def outcome(self, machine: Machine, unit: Mapping[str, object]) -> bytes:
        """What a machine makes of a unit. Raises ComputeError."""
        job, number = self.place(unit)
        if number in job.broken:
            raise ComputeError(FAILS)
        right = compute(unit)
        return right if not machine.lies else (int.from_bytes(right, "little") + 1).to_bytes(8, "little")


def starts(count: int, every_s: float = 0.2) -> tuple[Act, ...]:
    """All nodes come, one after the other."""
    return tuple(Act(number * every_s, "start", number) for number in range(count))


def compute(unit: Mapping[str, object]) -> bytes:
    """The right result of a unit."""
    kernel: Kernel = KERNEL
    return kernel.compute(unit, lambda _: None)


def unit_of(spec: JobSpec, unit: int) -> dict[str, object]:
    """The parameters of one unit."""
    return KERNEL.unit(KERNEL.validate(spec.params), spec.units, unit)
