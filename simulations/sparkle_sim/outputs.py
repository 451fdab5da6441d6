"""The folder of a run: what can be read, plotted and compared afterwards.

==================  ================================================================================================
``manifest.json``   what run it was: seed, peers, engine, version, the scenario with all its values, the trace's
                    hash, how long it took; ``"interrupted": true`` while it runs and if it was stopped
``metrics.csv``     a row for each sample of virtual time, written while it runs
``summary.json``    the whole run in figures; the same for the same seed
``latency.csv``     how many units were final within which time
``trace.mpk.zst``   with ``--trace``: all that happened (``trace_file``)
==================  ================================================================================================
"""

import csv
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import msgspec

from sparkle_protocol.errors import ConfigError, StorageError
from sparkle_protocol.version import __version__
from sparkle_sim.compiled import in_use
from sparkle_sim.scenario import Scenario

MANIFEST, METRICS, SUMMARY, LATENCY = "manifest.json", "metrics.csv", "summary.json", "latency.csv"


def new_folder(path: Path) -> Path:
    """The folder, empty and writable; it is made if it is not there.

    Raises:
        ConfigError: something is in it, or it cannot be made or written.
    """
    try:
        if path.is_dir() and next(path.iterdir(), None) is not None:
            raise ConfigError(f"{path} holds files already; name another folder with --out, or remove this one")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {_why(error)}; choose another --out") from error
    return folder(path)


def folder(path: Path) -> Path:
    """The folder, writable; it is made if it is not there. Raises ConfigError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigError(f"{path} cannot be a folder: there is a file of this name; choose another --out") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be made: {_why(error)}; choose another --out") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise ConfigError(f"{path} may not be written; choose another --out")
    return path


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a whole file; who reads it meanwhile sees the old one. Raises StorageError."""
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_text(json.dumps(document, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise refused(path, error) from error


def read_json(path: Path) -> dict[str, Any]:
    """A document of a run's folder. Raises ConfigError."""
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {_why(error)}; name the folder of a run (--out)") from error
    except ValueError as error:
        raise ConfigError(f"{path} is damaged: {error}") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{path} is no document of a run")
    return document


class Table:
    """A CSV file that grows row by row; each row is on disk, as far as the system goes, when ``add`` returns.

    Args:
        path: a new file.
        columns: its first line.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._path = path
        try:
            self._file: TextIO = path.open("x", newline="", encoding="utf-8")
        except OSError as error:
            raise refused(path, error) from error
        self._rows = csv.writer(self._file, lineterminator="\n")
        self.add(columns)

    def add(self, values: Iterable[object]) -> None:
        """One more row. Raises StorageError."""
        try:
            self._rows.writerow([_cell(value) for value in values])
            self._file.flush()
        except OSError as error:
            raise refused(self._path, error) from error

    def close(self) -> None:
        """No more rows come."""
        self._file.close()


def _cell(value: object) -> object:
    """Numbers as short as can be without losing what a plot could show; nothing for None."""
    if isinstance(value, float):
        return f"{value:.9g}"
    return "" if value is None else value


def manifest(scenario: Scenario, seed: int) -> dict[str, Any]:
    """What is known of a run before it begins; it counts as interrupted until somebody says otherwise."""
    return {
        "name": scenario.name,
        "seed": seed,
        "peers": scenario.peers.count,
        "engine": scenario.engine,
        "version": __version__,
        "compiled": in_use(),
        "interrupted": True,
        "trace_hash": None,
        "events": None,
        "virtual_seconds": None,
        "wall_seconds": None,
        "scenario": msgspec.to_builtins(scenario),
    }


def read_columns(path: Path) -> dict[str, list[float]]:
    """The columns of a CSV file of numbers; a cell without one is NaN. Raises ConfigError."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.reader(file)
            names = next(rows, [])
            columns: dict[str, list[float]] = {name: [] for name in names}
            for row in rows:
                if len(row) != len(names):  # the last one of a run that was killed
                    break
                for name, cell in zip(names, row, strict=True):
                    columns[name].append(_number(cell))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {_why(error)}; name the folder of a run (--out)") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} is damaged: {error}") from error
    return columns


def write_parquet(path: Path) -> Path:
    """A CSV file once more as Parquet, beside it.

    Raises:
        ConfigError: pyarrow is not installed.
        StorageError: the disk does not take it.
    """
    csv_module, parquet = parquet_modules()
    target = path.with_suffix(".parquet")
    try:
        parquet.write_table(csv_module.read_csv(path), target)
    except OSError as error:
        raise refused(target, error) from error
    return target


def parquet_modules() -> tuple[Any, Any]:
    """What writes Parquet. Raises ConfigError where it is not installed."""
    import importlib

    try:
        return importlib.import_module("pyarrow.csv"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise ConfigError("--parquet needs pyarrow: install it with 'pip install pyarrow'") from error


def refused(path: Path, error: OSError) -> StorageError:
    """The disk does not take a file."""
    return StorageError(f"cannot write {path}: {_why(error)}")


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")


def _why(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
