"""Reads a network's genesis record from the TOML file that its nodes are given.

Amounts in it are credits with up to six decimals. They never pass through a float: two nodes would not agree about
the last micro-credit.
"""

import difflib
import tomllib
from collections.abc import Callable, Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

from sparkle_ledger.economy import MICRO
from sparkle_ledger.entries import MAX_MICRO
from sparkle_ledger.genesis import MAX_FOUNDERS, MAX_LAMBDA_PERCENT, MAX_PAYER_SHARE, GenesisRecord
from sparkle_protocol.errors import RemoteProtocolError
from sparkle_protocol.ids import PeerId, key_from_peer_id, peer_id_from_key

FILE_LIMIT = 1 << 18  # with the most founders it is half of that
MAX_CREDITS = MAX_MICRO // MICRO
DECIMALS = 6  # a micro-credit is the least there is
ROLES = ("trusted", "unlimited")


def read_genesis(path: Path, check_net: Callable[[Any], str]) -> GenesisRecord:
    """The record in a file.

    Args:
        path: of the file.
        check_net: returns a network's name, or raises ValueError with what is wrong with it.

    Raises:
        ValueError: with what is wrong with the file, to follow "but ".
    """
    table = _table_in(path)
    _refuse_unknown(table, ("network", "economy", "founders"), "a genesis record")
    if "network" not in table:
        raise ValueError("it does not name its network; begin it with network = 'NAME'")
    try:
        network = check_net(table["network"])
    except ValueError as error:
        raise ValueError(f"its network {error}, not {_shown(table['network'])}") from error
    economy, founders = _part(table, "economy"), _part(table, "founders")
    _refuse_unknown(economy, _TERMS, "[economy]")
    terms: dict[str, Any] = {
        name: read(economy[key], f"economy.{key}") for key, (name, read) in _TERMS.items() if key in economy
    }
    return GenesisRecord(network, **terms, **_founders(founders))


def _table_in(path: Path) -> dict[str, Any]:
    try:
        if path.exists() and not path.is_file():  # a pipe would block us
            raise ValueError("that is not a regular file")
        with path.open("rb") as file:
            content = file.read(FILE_LIMIT + 1)
    except FileNotFoundError as error:
        raise ValueError("there is no such file") from error
    except OSError as error:
        raise ValueError(f"the file cannot be read: {(error.strerror or str(error)).lower()}") from error
    if len(content) > FILE_LIMIT:
        raise ValueError(f"it is larger than the {FILE_LIMIT >> 10} KiB that a genesis record may have")
    try:
        return tomllib.loads(content.decode("utf-8"), parse_float=_decimal)
    except UnicodeDecodeError as error:
        raise ValueError("it is not UTF-8 text") from error
    except (ValueError, RecursionError) as error:  # the latter: brackets in brackets in brackets
        raise ValueError(f"it is not valid TOML: {_plain(error)[:120]}") from error


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except ArithmeticError:  # an exponent beyond all numbers
        return Decimal("nan")


def _part(table: dict[str, Any], key: str) -> dict[str, Any]:
    part = table.get(key, {})
    if not isinstance(part, dict):
        raise ValueError(f"its {key} must be a table that begins with [{key}], not {_shown(part)}")
    return part


def _refuse_unknown(table: Iterable[str], known: Iterable[str], where: str) -> None:
    names = list(known)
    for key in table:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"the keys are {', '.join(names)}"
            raise ValueError(f"there is no key '{_plain(key)}' in {where}; {hint}")


def _micro(value: Any, where: str) -> int:
    """Credits as whole micro-credits."""
    wrong = ValueError(
        f"its {where} must be credits from 0 to {MAX_CREDITS} with at most {DECIMALS} decimals, not {_shown(value)}"
    )
    if type(value) is int:
        value = Decimal(value)
    if not isinstance(value, Decimal) or not value.is_finite() or not 0 <= value <= MAX_CREDITS:
        raise wrong
    exponent = value.as_tuple().exponent  # of a finite number
    if not isinstance(exponent, int) or exponent < -DECIMALS:
        raise wrong
    return int(value.scaleb(DECIMALS))  # at most 16 digits: nothing is rounded


def _whole(least: int, most: int) -> Callable[[Any, str], int]:
    def read(value: Any, where: str) -> int:
        if type(value) is not int or not least <= value <= most:
            raise ValueError(f"its {where} must be a whole number from {least} to {most}, not {_shown(value)}")
        return value

    return read


_TERMS: dict[str, tuple[str, Callable[[Any, str], int]]] = {
    "limit_max_credits": ("limit_max_micro", _micro),
    "starter_credits": ("starter_micro", _micro),
    "lambda_percent": ("lambda_percent", _whole(0, MAX_LAMBDA_PERCENT)),
    "payer_share": ("payer_share", _whole(1, MAX_PAYER_SHARE)),
}


def _founders(table: dict[str, Any]) -> dict[str, Any]:
    """Who is trusted and who unlimited, in the one spelling that peers are known by."""
    if len(table) > MAX_FOUNDERS:
        raise ValueError(f"its [founders] may be at most {MAX_FOUNDERS}, not {len(table)}")
    roles: dict[PeerId, list[str]] = {}
    for name, words in table.items():
        try:
            peer = peer_id_from_key(key_from_peer_id(PeerId(name)))
        except RemoteProtocolError as error:
            raise ValueError(
                f"its founders.{_plain(name)} must be named by a whole peer id, as 12D3KooW…; "
                "'sparkle status' on that node shows it"
            ) from error
        if peer in roles:
            raise ValueError(f"its [founders] name {peer} twice")
        roles[peer] = _roles(words, f"founders.{peer}")
    return {role: tuple(sorted(peer for peer, has in roles.items() if role in has)) for role in ROLES}


def _roles(words: Any, where: str) -> list[str]:
    if isinstance(words, list) and words and all(word in ROLES for word in words):
        return words
    strange = [word for word in words if word not in ROLES] if isinstance(words, list) else []
    near = difflib.get_close_matches(str(strange[0])[:20], ROLES, n=1) if strange else []
    hint = f"; did you mean '{near[0]}'?" if near else ""
    if words in ROLES:
        hint = "; put it into brackets"
    wrong = _shown(strange[0] if strange else words)
    raise ValueError(f'its {where} must be ["trusted"], ["unlimited"] or both in one list, not {wrong}{hint}')


def _shown(value: Any) -> str:
    """A value of the file, short and on one line."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    return f"'{_plain(value)}'"


def _plain(value: object) -> str:
    try:
        text = str(value)
    except ValueError:  # Python does not write numbers with thousands of digits
        text = "a number of thousands of digits"
    return "".join(letter if letter.isprintable() else " " for letter in text)[:80]
