"""What an adversary is: a peer whose production cores run as always, with something of it replaced.

Its node (``hostile_peer.py``) stands between the cores and their shell. What its cores are told passes ``event``,
what they want done passes ``effects``; what its machine computes is its ``behaviour``. An honest peer is a plain
``Peer`` and pays for none of this.
"""

from typing import TYPE_CHECKING, ClassVar

from sparkle_protocol import effects as fx
from sparkle_protocol.errors import LocalProtocolError
from sparkle_protocol.facts import JobSpec
from sparkle_protocol.ids import JobId, digest
from sparkle_sim.adversaries.hostile_peer import HostilePeer
from sparkle_sim.computing import Behaviour, Honest, result_size, true_result
from sparkle_sim.draws import draws
from sparkle_sim.peer import Machine, Peer
from sparkle_sim.scenario import Scenario
from sparkle_sim.signing import CheapIdentity

if TYPE_CHECKING:
    from sparkle_sim.world import World


class Group:
    """Those who act together: all peers of one entry of the scenario.

    Args:
        seed: of the run.
        name: of the entry; what is drawn for it depends on no other entry.
        rate: of the occasions at which they do what they do.
        scenario: what they know of the run, which is all of it.
    """

    __slots__ = ("members", "name", "rate", "salt", "scenario", "seed")

    def __init__(self, seed: int, name: str, rate: float, scenario: Scenario) -> None:
        self.seed = seed
        self.name = name
        self.rate = rate
        self.scenario = scenario
        self.salt = digest(f"{seed}/{name}".encode())
        self.members: dict[int, Adversary] = {}  # by peer

    @property
    def identities(self) -> list[CheapIdentity]:
        """Their keys: whoever has one of them may sign with all."""
        return [member.identity for member in self.members.values()]


class Adversary:
    """One peer that breaks rules. By itself it breaks none: a kind overrides what it does otherwise."""

    kind: ClassVar[str] = ""
    rated: ClassVar[bool] = True  # a rate other than 1 means something
    keeps: ClassVar[bool] = True  # jobs, as a keeper should
    of_credit: ClassVar[bool] = False  # it does something only where there is credit

    def __init__(self, number: int, group: Group) -> None:
        self.number = number
        self.group = group
        self.salt = digest(group.salt, number.to_bytes(8, "big"))
        self.random = draws(group.seed, number, "adversary", group.name)
        self.identity = self.make_identity()
        self._peer: HostilePeer | None = None

    @property
    def peer(self) -> "HostilePeer":
        """The node that it has."""
        if self._peer is None:
            raise LocalProtocolError(f"adversary {self.number} has no node yet")
        return self._peer

    def join(self, world: "World", number: int, machine: Machine, *, works: bool = True) -> Peer:
        """Its node; it does not live yet."""
        self._peer = HostilePeer(world, number, self.machine(machine), self, works=works)
        return self._peer

    # --- what a kind may replace ------------------------------------------------------------------------------

    def make_identity(self) -> CheapIdentity:
        """Its key."""
        return CheapIdentity(self.group.seed, self.number)

    def network(self) -> int:
        """In whose network it lives, as a peer's number: others see that its address is of the same /24."""
        return self.number

    def machine(self, machine: Machine) -> Machine:
        """What it says that it runs on."""
        return machine

    def behaviour(self) -> Behaviour:
        """What it makes of units."""
        return Honest()

    def begin(self) -> None:
        """Its node starts a life."""

    def event(self, core: int, event: object) -> object | None:
        """What one of its cores is told instead of an event; None: nothing."""
        return event

    def effects(self, core: int, effects: fx.Effects) -> fx.Effects:
        """What is done instead of what one of its cores wants done."""
        return effects

    # --- chance -----------------------------------------------------------------------------------------------

    def does(self, *what: bytes) -> bool:
        """Whether it does it on this occasion: at its rate, and the same whenever it is asked."""
        return happens(self.group.rate, self.salt, *what)


class Lies:
    """Results that are wrong at a rate.

    Args:
        whose: decides at which units.
        what: decides which wrong result; whoever has the same agrees.
        rate: of the units.
    """

    __slots__ = ("_rate", "_what", "_whose")

    def __init__(self, whose: bytes, what: bytes, rate: float) -> None:
        self._whose = whose
        self._what = what
        self._rate = rate

    def result(self, spec: JobSpec, job: JobId, unit: int) -> bytes | None:
        """The right one, or a wrong one."""
        if happens(self._rate, self._whose, job, unit.to_bytes(4, "big")):
            return wrong_result(self._what, spec, job, unit)
        return true_result(job, unit, result_size(spec))


def wrong_result(what: bytes, spec: JobSpec, job: JobId, unit: int) -> bytes:
    """One that is of the right form and nothing else."""
    return true_result(digest(b"wrong/", what, job), unit, result_size(spec))


def happens(rate: float, *what: bytes) -> bool:
    """A chance that is the same whenever it is asked for."""
    return int.from_bytes(digest(b"chance/", *what)[:8], "big") < rate * 2**64
