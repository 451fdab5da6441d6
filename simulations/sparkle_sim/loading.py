"""Classes of a researcher's own, named in a scenario: ``own.py:Class``, or ``package.module:Class``.

A file is run when it is named, once in a process, with all that this process may do: a scenario that names one is to
be trusted like a program.
"""

import importlib
import importlib.util
import inspect
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from sparkle_protocol.errors import ConfigError

Base = TypeVar("Base")


def is_reference(text: str) -> bool:
    """The text names a class of somebody's own, and no kind that we know."""
    return ":" in text


def located(text: str, folder: Path) -> str:
    """The same reference, with a path that means the same everywhere; a relative one is seen from the folder."""
    place, _, name = text.rpartition(":")
    return f"{(folder / Path(place).expanduser()).resolve()}:{name}" if place.endswith(".py") else text


def load(text: str, base: type[Base]) -> type[Base]:
    """The class that a reference names.

    Raises:
        ConfigError: there is none, it is none of this base, or its module does not run; to follow the key.
    """
    place, _, name = text.rpartition(":")
    if not place or not name.isidentifier():
        raise ConfigError(f"names no class with '{text}'; write FILE.py:CLASS or MODULE:CLASS")
    module = _of_file(Path(place)) if place.endswith(".py") else _of_name(place)
    found = getattr(module, name, None)
    if not inspect.isclass(found):
        raise ConfigError(f"names {text}, but {Path(place).name} has no class '{name}'")
    if not issubclass(found, base):
        raise ConfigError(f"names {text}, which is no {base.__name__}: derive it from {_public(base)}")
    return found


def _public(base: type) -> str:
    """Where a class is imported from."""
    return f"{base.__module__.removesuffix('.base')}.{base.__name__}"


def _of_file(path: Path) -> ModuleType:
    path = path.expanduser().resolve()
    key = f"sparkle_sim.own.{path}"  # two files of one name are two modules
    if key in sys.modules:
        return sys.modules[key]
    spec = importlib.util.spec_from_file_location(key, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ConfigError(f"names {path}, and there is no such file")
    module = sys.modules[key] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever somebody's file may do
        del sys.modules[key]
        raise ConfigError(f"names {path}, which does not run: {_told(error, str(path))}") from error
    return module


def _of_name(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"names the module {name}, which cannot be found; for a file write FILE.py:CLASS"
        ) from error
    except Exception as error:  # whatever somebody's module may do
        raise ConfigError(f"names the module {name}, which does not run: {_told(error, name)}") from error


def _told(error: Exception, path: str) -> str:
    """What went wrong and in which line of the file."""
    if isinstance(error, SyntaxError):
        return f"{error.msg} (line {error.lineno})"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    where = f" (line {lines[-1]})" if lines else ""
    return f"{type(error).__name__}: {error}{where}"
