"""How large the blobs of a job are. Only kernels know; whoever runs the cores tells them by these functions."""

from collections.abc import Callable
from dataclasses import dataclass

from sparkle_protocol.errors import ConfigError
from sparkle_protocol.facts import JobSpec


@dataclass(frozen=True, slots=True)
class BlobSizes:
    """Sizes in bytes that follow from a job's spec.

    Args:
        inputs: of each input, in order. Raises ConfigError when that cannot be told.
        result: of the blob that a unit's result names; 0 when results are no names of blobs. Raises ConfigError.
    """

    inputs: Callable[[JobSpec], tuple[int, ...]]
    result: Callable[[JobSpec, int], int]

    def input_bytes(self, spec: JobSpec) -> int:
        """What the inputs take together, each blob once. Raises ConfigError."""
        return sum(dict(zip(spec.inputs, self.inputs(spec), strict=False)).values())

    def result_bytes(self, spec: JobSpec, unit: int) -> int:
        """``result``, and 0 for a job that is not acceptable here."""
        try:
            return self.result(spec, unit)
        except ConfigError:
            return 0


NO_BLOBS = BlobSizes(lambda _spec: (), lambda _spec, _unit: 0)
