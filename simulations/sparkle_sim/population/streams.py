"""Random numbers by the million: one PCG64 for each seed and purpose, so that no part's draws shift another's."""

from numpy.random import PCG64, Generator

from sparkle_protocol.ids import digest


def stream(seed: int, *purpose: str | int) -> Generator:
    """The generator of a purpose; NumPy's global one is never used."""
    name = "/".join(map(str, ("population", seed, *purpose)))
    return Generator(PCG64(int.from_bytes(digest(name.encode()), "big")))
