"""What the small protocols of the laws share."""

from sparkle_sim.draws import draws


class Everybody:
    """The ends of a network whose peers are always there."""

    def is_up(self, peer: int) -> bool:
        """Always."""
        return True

    def link_up(self, peer: int, other: int) -> None:
        """Nobody minds."""

    def link_down(self, peer: int, other: int) -> None:
        """Nobody minds."""


def seed_of(seed: int, *purpose: str | int) -> int:
    """The seed of one of many runs."""
    return draws(seed, *purpose).bits()
