"""What a kernel is: a named, versioned, deterministic function with its own cost, split and combine rules.

There are two kinds. A ``Kernel`` turns a few numbers into at most 64 kB of canonical bytes. An ``ArrayKernel``
(``arrays.py``) turns arrays into arrays: its inputs are cut into tiles, each of which is a blob of its own.

A kernel's description must be importable without NumPy: nodes that only submit or keep work never load it.
What computes runs in the executor process only and may import NumPy inside the function.

Results of the exact class are compared by hash, so their bytes must be canonical.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Progress = Callable[[float], None]  # called with 0..1, as often as convenient
Params = Mapping[str, Any]
Verification = Literal["exact", "algebraic", "tolerance", "homogeneous"]


@dataclass(frozen=True, slots=True)
class Cost:
    """Reference work of one unit: what it is priced and planned by, whatever machine runs it."""

    flops: float
    bytes: float
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Combined:
    """A job's combined result: a JSON value, and optionally a file of ``media_type``."""

    value: Any
    media_type: str = "application/json"
    data: bytes = b""


class Description(Protocol):
    """What every kernel says of itself, and how its jobs are cut and priced.

    All methods are pure; bad parameters raise ``ConfigError`` with one clear sentence.
    """

    name: str
    version: int
    summary: str
    parameters: Mapping[str, str]
    verification: Verification
    cost_law: str
    example: str

    def validate(self, params: Params) -> dict[str, Any]:
        """Parameters with defaults filled in and types checked; unknown names are refused.

        Values may arrive as text (from a command line) or as their own type.
        """
        ...

    def default_units(self, params: Params) -> int:
        """A sensible number of units: a few seconds of a laptop core each, at least one, at most 2**20."""
        ...

    def max_units(self, params: Params) -> int:
        """The most units the job can be cut into."""
        ...

    def unit(self, params: Params, units: int, index: int) -> dict[str, Any]:
        """Parameters of unit ``index`` of ``units``; the units cover the job exactly once."""
        ...

    def cost(self, unit: Params) -> Cost:
        """Reference cost of a unit."""
        ...


class Kernel(Description, Protocol):
    """A kernel without arrays."""

    def compute(self, unit: Params, progress: Progress) -> bytes:
        """Compute one unit and return its canonical result bytes (at most 64 kB unless stated)."""
        ...

    def check_result(self, unit: Params, result: bytes) -> None:
        """Cheap plausibility of a result's form (length, ranges). Raises VerificationError."""
        ...

    def combine(self, params: Params, units: int, results: Sequence[bytes]) -> Combined:
        """The job's result from all unit results, in index order."""
        ...
