"""From a TOML file to a ``Scenario``; whatever is wrong ends as one sentence that names the file and the key.

Keys are written with dots, parts of lists by their number from 0: ``peers.churn.kind``, ``faults.0.at_s``. Values
given on the command line stand in for those of the file and are checked in the same way.
"""

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec

from sparkle_protocol.errors import ConfigError
from sparkle_sim.consistency import mistakes
from sparkle_sim.expected import choices, did_you_mean, expected, shown, struct_fields
from sparkle_sim.loading import located
from sparkle_sim.scenario import Part, Scenario

_OWN_CLASS = re.compile(r"[^\n]+\.py:\w+")
MAX_FILE_BYTES = 1 << 20  # a scenario has some hundred lines; larger is another file given by mistake


@dataclass(frozen=True, slots=True)
class Override:
    """A value that stands in for the file's.

    Args:
        key: where, as ``peers.count``.
        value: as TOML has it.
        flag: what the user typed it behind.
    """

    key: str
    value: Any
    flag: str = "--set"


def parse_override(text: str) -> Override:
    """``key.path=value``; the value as in TOML, but short words need no quotes. Raises ConfigError."""
    key, given, value = text.partition("=")
    if not given or not key.strip():
        raise ConfigError(f"--set takes KEY=VALUE, as peers.count=200, not '{text}'")
    return Override(key.strip(), parse_value(value.strip()))


def parse_value(text: str) -> Any:
    """A TOML value; what is none is a word."""
    try:
        document = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return document["value"] if len(document) == 1 else text


def read_scenario(path: Path, overrides: Sequence[Override] = (), *, seconds: float | None = None) -> Scenario:
    """The scenario of a file.

    Args:
        path: the TOML file.
        overrides: values that stand in for the file's, in their order.
        seconds: ends the run then: what is planned for later does not happen, and that is no mistake.

    Raises:
        ConfigError: in one sentence, which file or flag, which key, what is wrong and what would be right.
    """
    document = _load(path)
    flags: dict[str, str] = {}
    for override in overrides:
        _set(document, override)
        flags[override.key] = override.flag
    try:
        _check(document, Scenario, "")
        scenario = msgspec.convert(_resolved(document, path.parent), Scenario)
        _refuse_mistakes(scenario, document, seconds)
    except _Wrong as wrong:
        raise ConfigError(wrong.told(path, flags)) from None
    except msgspec.ValidationError as error:  # a rule of the types that the check above does not know
        raise ConfigError(f"{path}: {error}") from error
    return scenario if seconds is None else msgspec.structs.replace(scenario, seconds=seconds)


class _Wrong(Exception):
    """A key and what is wrong with it."""

    def __init__(self, key: str, text: str) -> None:
        super().__init__(text)
        self.key = key
        self.text = text

    def told(self, path: Path, flags: dict[str, str]) -> str:
        """The sentence, with where the value stands."""
        for key, flag in flags.items():
            if self.key == key or self.key.startswith(f"{key}."):
                return f"{flag}: {self.key} {self.text}"
        changed = " with " + ", ".join(f"{flag} {key}" for key, flag in flags.items()) if flags else ""
        return f"{path}{changed}: {self.key} {self.text}"


def _load(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError as error:
        raise ConfigError(f"there is no scenario file {path}; simulations/scenarios has some") from error
    except IsADirectoryError as error:
        raise ConfigError(f"{path} is a directory; name a scenario file in it") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from error
    if len(raw) > MAX_FILE_BYTES:
        raise ConfigError(f"{path} has more than {MAX_FILE_BYTES >> 20} MiB, so it is no scenario file")
    try:
        return tomllib.loads(raw.decode())
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no text in UTF-8, so it is no scenario file") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error


# --- one key ----------------------------------------------------------------------------------------------------


def _check(value: Any, annotation: Any, key: str) -> None:
    """Return if a value is of its type, with all that is in it. Raises _Wrong."""
    if isinstance(annotation, type) and issubclass(annotation, Part):
        _check_table(value, annotation, key)
        return
    parts = _part_type(annotation)
    if parts is not None and isinstance(value, list):
        for number, one in enumerate(value):
            _check(one, parts, f"{key}.{number}")
        return
    try:
        msgspec.convert(value, annotation)
    except msgspec.ValidationError:
        near = did_you_mean(value, choices(annotation)) if isinstance(value, str) else ""
        raise _Wrong(key, f"must be {expected(annotation)}, not {shown(value)}{near}") from None
    if isinstance(value, float) and not isfinite(value):
        raise _Wrong(key, f"must be {expected(annotation)}, not {value}")


def _part_type(annotation: Any) -> Any:
    """What a list of tables is made of; None for all else."""
    if get_origin(annotation) is not list:
        return None
    (item,) = get_args(annotation)
    return item if isinstance(item, type) and issubclass(item, Part) else None


def _check_table(value: Any, part: type[Part], key: str) -> None:
    if not isinstance(value, dict):
        raise _Wrong(key, f"must be a table, not {shown(value)}")
    fields = struct_fields(part)
    inside = f"{key}." if key else ""
    for name in value:
        if name not in fields:
            raise _Wrong(f"{inside}{name}", f"is not known{did_you_mean(name, fields) or _known(fields)}")
    for name, field in fields.items():
        if name in value:
            _check(value[name], field.type, f"{inside}{name}")
        elif field.required:
            raise _Wrong(f"{inside}{name}", f"is missing: {expected(field.type)}")


def _known(names: Sequence[str] | dict[str, Any]) -> str:
    return f"; there are {', '.join(names)}"


# --- values from the command line -------------------------------------------------------------------------------


def _set(document: dict[str, Any], override: Override) -> None:
    """Put a value where its key says; tables on the way that the file leaves out are made."""
    value = _seen_from(Path.cwd(), override.value)
    *way, last = override.key.split(".")
    place: Any = document
    for number, name in enumerate(way):
        place = _step(place, name, ".".join(way[: number + 1]), override.flag)
    if isinstance(place, list):
        place[_position(place, last, override.key, override.flag)] = value
    else:
        place[last] = value


def _step(place: Any, name: str, key: str, flag: str) -> Any:
    inner = place[_position(place, name, key, flag)] if isinstance(place, list) else place.setdefault(name, {})
    if not isinstance(inner, dict | list):
        raise ConfigError(f"{flag}: {key} is {shown(inner)}, so it has no keys of its own")
    return inner


def _position(place: list[Any], name: str, key: str, flag: str) -> int:
    number = int(name) if name.isascii() and name.isdigit() and len(name) <= 6 else -1
    if 0 <= number < len(place):
        return number
    has = "no part" if not place else "only part 0" if len(place) == 1 else f"parts 0 to {len(place) - 1}"
    raise ConfigError(f"{flag}: {key} names no part of this list of the file, which has {has}")


# --- all keys together ------------------------------------------------------------------------------------------


def _resolved(document: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Paths in a file are seen from the file."""
    document = dict(_seen_from(folder, document))
    trace = document.get("peers", {}).get("churn", {}).get("trace", "")
    if not trace:
        return document
    churn = {**document["peers"]["churn"], "trace": str(folder / Path(trace).expanduser())}
    return {**document, "peers": {**document["peers"], "churn": churn}}


def _seen_from(folder: Path, value: Any) -> Any:
    """The same value, in which references to classes in files say where these are."""
    if isinstance(value, dict):
        return {key: _seen_from(folder, one) for key, one in value.items()}
    if isinstance(value, list):
        return [_seen_from(folder, one) for one in value]
    return located(value, folder) if isinstance(value, str) and _OWN_CLASS.fullmatch(value) else value


def _refuse_mistakes(scenario: Scenario, document: dict[str, Any], seconds: float | None) -> None:
    longest = max(scenario.seconds, seconds or 0.0)
    for key, text in mistakes(msgspec.structs.replace(scenario, seconds=longest), document):
        raise _Wrong(key, text)
    first_s = min((plan.at_s for plan in scenario.jobs), default=0.0)
    if seconds is not None and first_s >= seconds:
        raise ConfigError(f"--seconds {seconds:g} ends the run before its first job, at {first_s:g} s")
