"""What a key of a scenario file may hold, in words: for messages and for the reference page alike."""

import difflib
import re
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import inspect

_CHOICE = re.compile(r"\^\(([a-z|_-]+)\)\$")


def expected(annotation: Any) -> str:
    """What a value of this type is, to follow "must be"."""
    kind = inspect.type_info(annotation)
    while isinstance(kind, inspect.Metadata):
        kind = kind.type
    return _words(kind)


def choices(annotation: Any) -> list[str]:
    """The words that a value may be, if there are only so many."""
    kind = inspect.type_info(annotation)
    match = _CHOICE.fullmatch(kind.pattern or "") if isinstance(kind, inspect.StrType) else None
    return match[1].split("|") if match else []


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """A clause that names the nearest known word, or nothing."""
    near = difflib.get_close_matches(given, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else ""


def in_words(words: Iterable[str]) -> str:
    """``a, b or c``."""
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def shown(value: object) -> str:
    """A value of a file as it is repeated in a message."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a table"
    text = f"'{value}'" if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def struct_fields(annotation: Any) -> dict[str, msgspec.structs.FieldInfo]:
    """Keys of a table by name."""
    return {field.encode_name: field for field in msgspec.structs.fields(annotation)}


def _words(kind: inspect.Type) -> str:
    if isinstance(kind, inspect.StrType):
        match = _CHOICE.fullmatch(kind.pattern or "")
        return f"one of {in_words(match[1].split('|'))}" if match else "text in quotes"
    if isinstance(kind, inspect.BoolType):
        return "true or false"
    if isinstance(kind, inspect.IntType | inspect.FloatType):
        return ("a whole number" if isinstance(kind, inspect.IntType) else "a number") + _bounds(kind)
    if isinstance(kind, inspect.ListType):
        size = f"{kind.min_length} " if kind.min_length == kind.max_length and kind.min_length else ""
        if isinstance(kind.item_type, inspect.StructType):
            return f"a list of {size}tables"
        return f"a list of {size}{'whole numbers' if isinstance(kind.item_type, inspect.IntType) else 'texts'}"
    return "a table"


def _bounds(kind: inspect.IntType | inspect.FloatType) -> str:
    if kind.gt is not None:
        return f" above {_number(kind.gt)}" + (f", at most {_number(kind.le)}" if kind.le is not None else "")
    if kind.ge is None:
        return ""
    if kind.le is not None:
        return f" from {_number(kind.ge)} to {_number(kind.le)}"
    if kind.lt is not None:
        return f" from {_number(kind.ge)} to less than {_number(kind.lt)}"
    return f" of at least {_number(kind.ge)}"


def _number(value: float) -> str:
    return f"{value:_d}" if isinstance(value, int) else f"{value:g}"
