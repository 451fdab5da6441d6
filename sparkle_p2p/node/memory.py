"""What units may use of workers' memory, as far as this node knows: how large they may be made, and what is refused.

Connected peers say what they allow (``messages.PeersReply``). Some may not have said it yet, and a node without peers
knows nothing of those that will come: then a job is taken as long as this node could check it.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from sparkle_protocol import messages
from sparkle_protocol.errors import ConfigError
from sparkle_protocol.facts import JobSpec
from sparkle_protocol.ids import PeerId
from sparkle_protocol.work.memory import fits

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class UnitMemory:
    """How many bytes a unit should take, so that most workers can compute it, and how many it must not exceed."""

    good: int
    most: int


class WorkerMemory:
    """The limits of the workers that are known.

    Args:
        own_bytes: what a unit, or the check of one, may use here.
        works: whether this node computes units.
        links: who is connected.
        said: what connected peers allow, if they have said so.
    """

    def __init__(
        self,
        own_bytes: int,
        works: bool,
        links: Callable[[], Collection[PeerId]],
        said: Callable[[], Mapping[PeerId, int]],
    ) -> None:
        self._own_bytes = own_bytes
        self._works = works
        self._links = links
        self._said = said

    def of_units(self) -> UnitMemory:
        """What to cut a job to whose results this node checks."""
        limits = self._limits()
        if limits is None:
            return UnitMemory(self._own_bytes, self._own_bytes)
        most = min(self._own_bytes, limits[-1])
        return UnitMemory(min(most, limits[(len(limits) - 1) // 2]), most)

    def check(self, spec: JobSpec) -> None:
        """Refuse a job whose units no known worker could take. Raises ConfigError."""
        text = self.lacking(spec)
        if text:
            raise ConfigError(f"{text}; start a node with a larger --memory-mb")

    def lacking(self, spec: JobSpec) -> str:
        """Why no known worker can take units of the job; empty if one can, or may."""
        limits = self._limits()
        if limits is None or fits(spec, limits[-1]):
            return ""
        needed = spec.resources.memory_bytes
        return f"a unit of this {spec.kernel} job needs {mib(needed)} MB, {says_most(limits[-1])}"

    def _limits(self) -> list[int] | None:
        """All limits of workers, in order; None when there is, or may be, one that is not known."""
        said = self._said()
        if any(said.get(peer, messages.UNSAID) == messages.UNSAID for peer in self._links()):
            return None
        limits = [*said.values(), self._own_bytes if self._works else 0]
        return sorted(limit for limit in limits if limit > 0) or None


def says_most(limit: int) -> str:
    """The clause on what workers allow."""
    return f"but no worker that is known here allows more than {mib(limit, down=True)} MB"


def mib(size: int, *, down: bool = False) -> int:
    """Bytes in the unit of ``--memory-mb``; up, or down, to whole ones."""
    return size // MIB if down else -(-size // MIB)
