"""What the small protocols of the laws share."""

from sparkle_sim.draws import draws
from sparkle_sim.network import Conditions


class Everybody:
    """The ends of a network whose peers are always there."""

    def is_up(self, peer: int) -> bool:
        """Always."""
        return True

    def link_up(self, peer: int, other: int) -> None:
        """Nobody minds."""

    def link_down(self, peer: int, other: int) -> None:
        """Nobody minds."""


def wires() -> Conditions:
    """A round trip takes 40 ms between any two peers, and nothing is lost."""
    return Conditions(((40.0,),), jitter=0.0)


def seed_of(seed: int, *purpose: str | int) -> int:
    """The seed of one of many runs."""
    return draws(seed, *purpose).bits()
