"""All laws, and what becomes of them when they are measured."""

from collections.abc import Callable, Sequence
from typing import Any

from sparkle_protocol.errors import NotFound
from sparkle_sim.laws import (
    adaptive,
    availability,
    kademlia,
    queueing,
    rumours,
    spot_checks,
    voting,
)
from sparkle_sim.laws.law import Law, Outcome, Point

LAWS: tuple[Law, ...] = (
    rumours.PUSH,
    rumours.PUSH_PULL,
    kademlia.LAW,
    voting.LAW,
    spot_checks.LAW,
    adaptive.LAW,
    availability.LAW,
    queueing.LAW,
)


def find(names: Sequence[str]) -> list[Law]:
    """The laws of these names, without names all. Raises NotFound."""
    known = {law.name: law for law in LAWS}
    for name in names:
        if name not in known:
            raise NotFound(f"there is no law '{name}'; those that are known: {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(names)] if names else list(LAWS)


def nothing(*_: Any) -> None:
    """Watch no progress."""


def validate(
    names: Sequence[str],
    quick: bool,
    on_progress: Callable[[Law, Point | None], None] = nothing,
    seed: int = 1,
) -> list[Outcome]:
    """Hold the simulator against the laws of these names (without names: all).

    Args:
        names: of laws.
        quick: fewer runs and peers, so that less is seen.
        on_progress: told when a law's turn comes (None), and of each of its figures.
        seed: decides all figures.
    """
    outcomes = []
    for law in find(names):
        on_progress(law, None)
        points = []
        for point in law.measure(seed, quick):
            points.append(point)
            on_progress(law, point)
        outcomes.append(Outcome(law, points))
    return outcomes
