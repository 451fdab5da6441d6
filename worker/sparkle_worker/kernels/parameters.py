"""Reads a kernel's parameters from a command line, a JSON document or the network.

Validated parameters hold only ``str``, ``int`` and ``bool`` values, so that their msgpack encoding is the
same on every machine. Whatever arrives is hostile: types are compared exactly, text is bounded before it
is parsed, and nothing from the sender is repeated at length in a message.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from math import prod
from typing import Any

from sparkle_protocol.errors import ConfigError

MAX_TEXT = 64  # characters of a number written as text; the longest sensible one has about 20
_SHOWN = 40
_SHAPE = re.compile(r"[1-9]\d{0,11}( x [1-9]\d{0,11})*", re.ASCII)
_NUMBER = re.compile(r"[+-]?\d+(_\d+)*(\.\d+)?([eE][+-]?\d{1,3})?", re.ASCII)


def check_names(kernel: str, params: Mapping[str, Any], known: Iterable[str]) -> None:
    """Refuse parameters that the kernel does not have.

    Raises:
        ConfigError: ``params`` is no mapping, or a name is unknown.
    """
    names = list(known)
    if not isinstance(params, Mapping):
        raise ConfigError(f"the parameters of {kernel} must be a table of names and values")
    for name in params:
        if name not in names:
            takes = ", ".join(names) or "none, only arrays as inputs"
            raise ConfigError(f"{kernel} has no parameter {show(name)}; it takes {takes}")


def whole_number(kernel: str, params: Mapping[str, Any], name: str, default: int | None, low: int, high: int) -> int:
    """The integer parameter ``name``, within ``low..high``; text such as "1e9" or "1_000_000" is read.

    Raises:
        ConfigError: it is missing without a default, not a whole number, or out of range.
    """
    value = params.get(name, default)
    if value is None:
        raise ConfigError(f"{kernel} needs the parameter '{name}'")
    if type(value) is int:
        number = value
    else:
        exact = _decimal(kernel, name, value)
        if exact.adjusted() > 30 or exact != exact.to_integral_value():
            raise ConfigError(f"'{name}' of {kernel} must be a whole number, not {show(value)}")
        number = int(exact)
    if not low <= number <= high:
        raise ConfigError(f"'{name}' of {kernel} must lie between {low} and {high}, not {show(number)}")
    return number


def decimal_text(kernel: str, params: Mapping[str, Any], name: str, default: str, low: int, high: int) -> str:
    """The decimal parameter ``name`` within ``low..high`` as its one canonical text ("-0.75", "12").

    The text is exact: no binary fraction stands between what was asked for and what is computed.
    Reading the result again gives the same text.

    Raises:
        ConfigError: it is not a finite decimal number, is too finely written, or is out of range.
    """
    value = params.get(name, default)
    exact = Decimal(value) if type(value) is int and abs(value) < 10**30 else _decimal(kernel, name, value)
    if not low <= exact <= high:
        raise ConfigError(f"'{name}' of {kernel} must lie between {low} and {high}, not {show(value)}")
    _, digits, exponent = exact.as_tuple()
    if not isinstance(exponent, int) or exponent < -40 or len(digits) > 40:
        raise ConfigError(f"'{name}' of {kernel} has more than 40 decimals; write fewer")
    text = format(exact, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if exact == 0 else text


def _decimal(kernel: str, name: str, value: Any) -> Decimal:
    """The exact value of a number given as text or float."""
    # repr gives the shortest decimal that reads back as the same float: what the user typed
    text = repr(value) if type(value) is float else value
    if type(text) is not str or len(text) > MAX_TEXT or not _NUMBER.fullmatch(text.strip()):
        raise ConfigError(f"'{name}' of {kernel} must be a number such as 250 or 1e9, not {show(value)}")
    return Decimal(text.strip().replace("_", ""))


def show(value: object) -> str:
    """A short quotation of anything, safe to print on a terminal."""
    if type(value) is int and value.bit_length() > 128:
        return "a far larger number"
    if type(value) not in (str, int, float, bool, bytes):
        return f"a value of type {type(value).__name__[:_SHOWN]}"
    text = ascii(value[:_SHOWN] if isinstance(value, str | bytes) else value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def choice(kernel: str, params: Mapping[str, Any], name: str, default: str | None, allowed: Sequence[str]) -> str:
    """The parameter ``name``, one of a few words.

    Raises:
        ConfigError: it is missing without a default, or another word.
    """
    value = params.get(name, default)
    if value is None:
        raise ConfigError(f"{kernel} needs the parameter '{name}'")
    if type(value) is not str or value not in allowed:
        raise ConfigError(f"'{name}' of {kernel} is one of {', '.join(allowed)}, not {show(value)}")
    return value


def sizes(kernel: str, params: Mapping[str, Any], name: str, most: int, limit: int) -> tuple[int, ...]:
    """The parameter ``name``: a shape such as "4 x 5" with at most ``most`` sizes and ``limit`` elements.

    Raises:
        ConfigError: it is no such text.
    """
    value = params.get(name)
    if type(value) is not str or len(value) > 20 * most or not _SHAPE.fullmatch(value):
        raise ConfigError(f"'{name}' of {kernel} must be a shape such as '4 x 5', not {show(value)}")
    shape = tuple(int(size) for size in value.split(" x "))
    if len(shape) > most or prod(shape) > limit:
        raise ConfigError(f"'{name}' of {kernel} has more than {most} sizes or {limit} elements")
    return shape
