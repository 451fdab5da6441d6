"""Cuts a range of work into units that cover it exactly once."""

from sparkle_protocol.errors import ConfigError
from sparkle_worker.kernels.parameters import show

UNIT_LIMIT = 2**20  # units of one job, a limit of the job format
FAIR_UNITS = 64  # enough for a handful of peers to share evenly and to see progress


def check_unit(kernel: str, units: int, index: int, most: int) -> None:
    """Refuse an impossible cut.

    Raises:
        ConfigError: ``units`` is not in ``1..most`` or ``index`` is not one of them.
    """
    if type(units) is not int or not 1 <= units <= most:
        raise ConfigError(f"this {kernel} job can be cut into 1 to {most} units, not {show(units)}")
    if type(index) is not int or not 0 <= index < units:
        raise ConfigError(f"a job of {units} units has no unit {show(index)}")


def cut(start: int, stop: int, units: int, index: int) -> tuple[int, int]:
    """The ``index``-th of ``units`` consecutive half-open pieces of ``[start, stop)``, equal within one."""
    size = stop - start
    return start + size * index // units, start + size * (index + 1) // units


def sensible_units(size: int, seconds_worth: int, smallest: int) -> int:
    """Units of about ``seconds_worth`` items; small jobs still get 64 as long as each keeps ``smallest``."""
    by_time = -(-size // seconds_worth)
    by_share = min(FAIR_UNITS, -(-size // smallest))
    return max(1, min(max(by_time, by_share), UNIT_LIMIT))
