"""Kinds of cheaters. Whoever is found out comes back with a new key, as a newcomer: keys cost nothing."""

from dataclasses import dataclass

from sparkle_protocol.errors import NotFound


@dataclass(frozen=True, slots=True)
class Cheater:
    """How a kind of peers cheats.

    Args:
        name: in tables.
        title: for people.
        lies: share of wrong results once it cheats.
        from_the_start: as a newcomer too; else it is honest until it is trusted.
        patience: it begins when no more than this share of its results is audited; 0: when it cannot be less.
        conspire: all of them tell the same lie about a unit, and pass each other's audits.
        accuse: as auditors they say that right results of others are wrong.
        large_only: they lie about large units only and earn their trust on small ones.
    """

    name: str
    title: str
    lies: float
    from_the_start: bool = False
    patience: float = 1.0
    conspire: bool = False
    accuse: bool = False
    large_only: bool = False


HONEST = Cheater("honest", "nobody cheats", 0.0)
KINDS = (
    Cheater("always", "always wrong", 1.0, from_the_start=True),
    Cheater("occasional", "wrong one time in ten, from the start", 0.1, from_the_start=True),
    Cheater("wasters", "wrong every second time, from the start", 0.5, from_the_start=True),
    Cheater("sleeper", "honest until trusted, then always wrong", 1.0),
    Cheater("slow sleeper", "honest until trusted, then wrong one time in twenty", 0.05),
    Cheater("halfway", "honest until a fifth is audited, then wrong one time in five", 0.2, patience=0.2),
    Cheater("patient", "honest until audited least, then always wrong", 1.0, patience=0.0),
    Cheater("patient slow", "honest until audited least, then wrong one time in ten", 0.1, patience=0.0),
    Cheater("gang", "tell one lie from the start, pass each other's audits", 1.0, from_the_start=True, conspire=True),
    Cheater("sleeping gang", "as slow sleepers, pass each other's audits", 0.05, conspire=True),
    Cheater("patient gang", "as patient slow ones, pass each other's audits", 0.1, patience=0.0, conspire=True),
    Cheater("accusers", "a gang that, trusted, calls right results wrong", 0.05, conspire=True, accuse=True),
    Cheater("triflers", "earn trust on small units, spoil large ones", 1.0, patience=0.0, large_only=True),
)


def kind(name: str) -> Cheater:
    """The kind of this name. Raises NotFound."""
    for one in (HONEST, *KINDS):
        if one.name == name:
            return one
    raise NotFound(f"there are no cheaters called '{name}'; known: {', '.join(one.name for one in KINDS)}")
