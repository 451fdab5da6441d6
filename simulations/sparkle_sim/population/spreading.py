"""How long it takes until everybody has heard of a job, and until one who comes back has found it."""

from math import ceil, log2

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from sparkle_sim.population.order import grouped

MESH = 6  # peers that one forwards to: gossipsub's D
HEARTBEAT_S = 1.0  # gossipsub tells then, lazily, what was missed
STEP_S = 0.1  # with coarser ones whole rounds fall into one step, and the tail comes out 16 to 38 % wrong
BUCKET = 20  # Kademlia's k


def heard_s(
    regions: NDArray[np.int8], round_trip_s: NDArray[np.float64], jitter: float, loss: float, random: Generator
) -> NDArray[np.float32]:
    """When each peer hears of something that the first one says, in seconds after that.

    Push over a random mesh: who hears it for the first time forwards it to ``MESH`` peers drawn at random. Whom
    nobody reaches (a share of about e⁻⁶) hears it from a later heartbeat.

    Args:
        regions: of each peer.
        round_trip_s: between two regions.
        jitter: sigma of the logarithm of a delay.
        loss: share of messages that never come.
        random: its own.
    """
    count = len(regions)
    heard = np.full(count, np.inf, np.float32)
    told: dict[int, list[tuple[NDArray[np.int32], NDArray[np.float32]]]] = {}
    told[0] = [(np.zeros(1, np.int32), np.zeros(1, np.float32))]
    step = 0
    while told:
        messages = told.pop(step, None)
        if messages is not None:
            who, when = (np.concatenate(parts) for parts in zip(*messages, strict=True))
            fresh = np.isinf(heard[who])
            who, when = who[fresh], when[fresh]
            order = np.argsort(when, kind="stable")[::-1]
            heard[who[order]] = when[order]  # of several the earliest is written last
            new = np.zeros(count, np.bool_)
            new[who] = True
            who = np.flatnonzero(new).astype(np.int32)
            _tell(who, heard, regions, round_trip_s, jitter, loss, random, step, told)
        step += 1
    missed = np.isinf(heard)
    if missed.any():
        last = float(heard[~missed].max())
        heard[missed] = last + HEARTBEAT_S * random.random(int(missed.sum()), np.float32)
    return heard


def _tell(
    who: NDArray[np.int32],
    heard: NDArray[np.float32],
    regions: NDArray[np.int8],
    round_trip_s: NDArray[np.float64],
    jitter: float,
    loss: float,
    random: Generator,
    step: int,
    told: dict[int, list[tuple[NDArray[np.int32], NDArray[np.float32]]]],
) -> None:
    """Those who heard it forward it."""
    targets = random.integers(0, len(regions), (len(who), MESH), np.int32)
    delay = round_trip_s[regions[who][:, None], regions[targets]] / 2
    if jitter:
        delay = delay * np.exp(jitter * random.standard_normal(delay.shape, np.float32))
    when = (heard[who][:, None] + delay).astype(np.float32).ravel()
    flat = targets.ravel()
    wanted = np.isinf(heard[flat])
    if loss:
        wanted &= random.random(len(flat), np.float32) >= loss
    flat, when = flat[wanted], when[wanted]
    steps = np.maximum((when / STEP_S).astype(np.int64), step + 1)
    for at, one in grouped(np.arange(len(flat), dtype=np.int32), steps):
        told.setdefault(one, []).append((flat[at], when[at]))


def lookup_hops(count: int, bucket: int = BUCKET) -> float:
    """Hops of a Kademlia lookup among so many peers (Cai and Devroye 2013): log2 N over the bits that one hop gains.

    A hop to the nearest of ``bucket`` random peers of the right half gains one bit and the leading zeros of the
    nearest: the sum over j of 1 − (1 − 2⁻ʲ)ᵏ. That is 1 / 0.176 bits for k = 20.
    """
    gained = sum(1.0 - (1.0 - 2.0**-zeros) ** bucket for zeros in range(80))
    return log2(max(2, count)) / gained


def lookup_s(count: int, round_trip_s: float) -> float:
    """How long that takes, a round trip for each hop that is begun."""
    return ceil(lookup_hops(count)) * round_trip_s
