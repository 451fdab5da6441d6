"""What a unit costs, fixed in the job before anybody computes it: by its reference work, never by claimed time.

One credit is an hour of a typical laptop core, 3600 s at ``CORE_OPERATIONS_PER_S``. Kernels that are plain loops do
between 0.8 and 7 thousand million reference operations a second on one core; two is near the middle, and what the
fair queue takes for a second of a worker (``leasing.WORKER``). A byte that is moved counts as two operations: a core
that receives, decrypts, hashes, stores and reads data gets through about a thousand million bytes in a second.

Prices are whole micro-credits, rounded up, at least one. Who multiplies matrices earns more in an hour than who
sieves primes, since a core does fifty times as many operations of that kind; the price says what a unit is worth to
its submitter, not how long it took somebody.

A job's price is what its submitter signs. Nobody need ask for more than the reference price; a job that offers less,
or nothing, is in the *free lane*: workers may compute it, and it earns them no credit. So whoever offers a little
cannot buy more than who offers nothing.
"""

from math import ceil, floor, log10

from sparkle_protocol.errors import ConfigError
from sparkle_protocol.facts import Policy, Resources

CREDIT = 1_000_000  # micro-credits
HOUR_S = 3600
CORE_OPERATIONS_PER_S = 2_000_000_000
OPERATIONS_PER_BYTE = 2
OPERATIONS_PER_MICRO = HOUR_S * CORE_OPERATIONS_PER_S // CREDIT
MAX_AMOUNT = 10**24  # of operations or of bytes, as in ``facts.Amount``
MAX_MICRO = (1 << 53) - 1  # of one price or hold: a reader in any language takes it exactly


def unit_price_micro(resources: Resources) -> int:
    """The reference price of a unit that needs this, in micro-credits: from 1 to ``MAX_MICRO``.

    In integers, so that every machine finds the same.
    """
    operations = _whole(resources.flops) + OPERATIONS_PER_BYTE * _whole(resources.bytes)
    return min(MAX_MICRO, max(1, -(-operations // OPERATIONS_PER_MICRO)))


def _whole(amount: float) -> int:
    """Rounded up; 0 for what is no amount."""
    return ceil(min(amount, float(MAX_AMOUNT))) if amount > 0 else 0


def is_paid(price_micro: int, resources: Resources) -> bool:
    """Whether a job with this price per unit is paid for; otherwise it is in the free lane.

    ``resources``: what a unit needs by the reader's own reckoning, where it can reckon: a submitter may declare
    little.
    """
    return price_micro >= unit_price_micro(resources)


def job_hold_micro(units: int, price_micro: int, policy: Policy) -> int:
    """What a submitter sets aside for a job: its price if all replicas that its policy allows are needed everywhere.

    As a rule that is some times what it comes to cost. What nobody earned comes back when the job is over.

    Raises:
        ConfigError: more than can be set aside at once.
    """
    micro = units * price_micro * policy.max_replicas
    if micro > MAX_MICRO:
        raise ConfigError(f"this job would cost {in_credits(micro)}; cut it into several smaller jobs")
    return micro


def exactly(micro: int) -> str:
    """``12.354321``: credits to the last micro-credit, however many they are."""
    whole, part = divmod(abs(micro), CREDIT)
    return f"{'-' if micro < 0 else ''}{whole}.{part:06d}"


def in_credits(micro: int) -> str:
    """``0.42 credits``: three figures, or all those before the point; nothing is rounded away to zero."""
    return ("−" if micro < 0 else "") + _counted(_figures(abs(micro), 6), "credit")


def in_words(micro: int) -> str:
    """``0.42 credits (25 minutes of a laptop core)``."""
    if micro == 0:
        return in_credits(micro)
    return f"{in_credits(micro)} ({core_time(abs(micro))} of a laptop core)"


def core_time(micro: int) -> str:
    """How long a typical laptop core computes for this: ``3.6 ms``, ``25 minutes``, ``1.5 hours``."""
    micros = micro * HOUR_S  # microseconds
    if micros < 999_500:
        return f"{_figures(micros, 3, 2)} ms"
    for seconds, name, limit in ((1, "second", 60), (60, "minute", 60), (HOUR_S, "hour", 48)):
        if micros < seconds * limit * 10**6 * 0.995:
            return _counted(_figures(micros // seconds, 6, 2), name)
    return _counted(_figures(micros // (24 * HOUR_S), 6, 2), "day")


def _counted(number: str, name: str) -> str:
    return f"{number} {name}{'' if number == '1' else 's'}"


def _figures(value: int, places: int, figures: int = 3) -> str:
    """``value`` / 10^places with so many significant figures, all before the point, and no trailing zeros."""
    if value == 0:
        return "0"
    drop = max(0, min(places, floor(log10(value)) + 1 - figures))
    kept = (value + 10**drop // 2) // 10**drop
    text = str(kept).rjust(places - drop + 1, "0")
    whole, part = (text[: len(text) - (places - drop)], text[len(text) - (places - drop) :].rstrip("0"))
    return f"{whole}.{part}" if part else whole
