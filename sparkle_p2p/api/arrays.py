"""Arrays on their way to and from the node on this machine: as .npy files, never through the API.

Inputs are written into a private directory under the home (0700, files 0600), which is removed once the node has
read them; what a killed program left is removed by the next one. Results are files that the node wrote and keeps.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparkle_protocol.errors import ConfigError, StorageError
from sparkle_worker.kernels.arrays import array_type

if TYPE_CHECKING:
    from numpy.typing import NDArray

ARRAY_MEDIA_TYPE = "application/x-npy"
_FOLDER = "inputs"


@contextlib.contextmanager
def input_files(home: str, inputs: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Absolute paths of the inputs by name, while the block runs.

    Args:
        home: the node's directory.
        inputs: by name, NumPy arrays of any strides and byte order, or paths of .npy and .png files.

    Raises:
        ConfigError: an input cannot be sent; nothing has been written.
        StorageError: the disk refused.
    """
    paths = {name: input_path(name, value) for name, value in inputs.items() if isinstance(value, str | os.PathLike)}
    arrays = {name: value for name, value in inputs.items() if name not in paths}
    for name, array in arrays.items():
        array_type(name, array)
    if not arrays:
        yield paths
        return
    folder = _private_folder(Path(home) / _FOLDER)
    try:
        for number, (name, array) in enumerate(arrays.items()):
            paths[name] = _write(folder / f"{number}.npy", array)
        yield paths
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def input_path(name: str, value: "str | os.PathLike[str]") -> str:
    """The absolute path of an input's file; what is in it, the node finds out.

    Raises:
        ConfigError: there is no such file.
    """
    path = os.path.abspath(os.path.expanduser(os.fspath(value)))
    if not os.path.isfile(path):
        raise ConfigError(f"the input '{name}' cannot be read: there is no file {path}")
    return path


def load_array(value: Mapping[str, Any], *, copy: bool = True) -> "NDArray[Any]":
    """The array that a result's ``value`` describes: ``dtype``, ``shape`` and the ``path`` of its .npy file.

    Args:
        value: as the node gave it.
        copy: True: an array of its own, writable; False: the file, mapped read-only.

    Raises:
        StorageError: the file is gone or damaged.
    """
    import numpy as np

    path = str(value.get("path"))
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        return np.array(mapped) if copy else mapped
    except (OSError, ValueError, EOFError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise StorageError(f"cannot read the result {path}: {reason}; submit the job again") from error


def _private_folder(parent: Path) -> Path:
    """A new directory for this process alone; those of processes that have gone are removed."""
    try:
        parent.mkdir(mode=0o700, exist_ok=True)
        for left in parent.iterdir():
            process = left.name.partition("-")[0]
            if process.isdecimal() and not os.path.exists(f"/proc/{process}"):
                shutil.rmtree(left, ignore_errors=True)
        return Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=parent))  # 0700
    except OSError as error:
        raise _refused("make a directory for the inputs in", parent, error) from error


def _write(path: Path, array: "NDArray[Any]") -> str:
    from numpy.lib import format as npy

    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            npy.write_array(file, array, allow_pickle=False)
    except OSError as error:
        raise _refused("write the input", path, error) from error
    return str(path)


def _refused(action: str, path: Path, error: OSError) -> StorageError:
    reason = (error.strerror or str(error)).lower()
    return StorageError(f"cannot {action} {path}: {reason}; free some space or choose another home directory")
