"""Results in files that the user names: JSON, the kernel's own file, an array as .npy, or as a picture."""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from sparkle_p2p.api.arrays import ARRAY_MEDIA_TYPE, load_array
from sparkle_p2p.cli import output
from sparkle_protocol.errors import ConfigError

ARRAY_ENDINGS = ("", ".npy", ".png")
OTHER_PICTURES = (".bmp", ".gif", ".jpeg", ".jpg", ".tif", ".tiff", ".webp")  # no result is written as any of these


def check_writable(target: str | None) -> None:
    """Return if a file can be written there: better known before long work than after it.

    Raises:
        ConfigError: it cannot.
    """
    if not target or target == "-":
        return
    path = Path(target)
    if path.is_dir():
        raise ConfigError(f"{target} is a directory; name a file in it")
    if not path.parent.is_dir():
        raise ConfigError(f"the directory {path.parent} does not exist; make it first")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ConfigError(f"{target} may not be written; choose another file")


def check_result(target: str | None, *, for_array: bool = False) -> None:
    """Return if a result can be written there, in the format that the file's name promises.

    Raises:
        ConfigError: it cannot.
    """
    check_writable(target)
    ending = Path(target or "-").suffix
    if ending.lower() in OTHER_PICTURES:
        raise ConfigError(f"pictures are written as .png, not as {ending}; name such a file")
    if for_array and ending.lower() not in ARRAY_ENDINGS:
        raise ConfigError(f"an array is written as .npy or .png, not as {ending}; name such a file")


def is_array(document: dict[str, Any]) -> bool:
    """Whether a result is an array, in a file of the node."""
    return document.get("media_type") == ARRAY_MEDIA_TYPE


def size_of(document: dict[str, Any]) -> int:
    """Bytes of the result's file."""
    if not is_array(document):
        return len(document["data"])
    try:
        return os.stat(document["value"]["path"]).st_size
    except OSError:  # whoever saves it is told
        return 0


def save(document: dict[str, Any], target: str) -> None:
    """Write a result to a file, or to stdout if ``target`` is ``-``.

    Raises:
        ConfigError: the file may not be written, or the array is no picture.
        StorageError: the node's file is gone.
    """
    check_result(target, for_array=is_array(document))
    if is_array(document) and Path(target).suffix.lower() != ".png":
        load_array(document["value"], copy=False)  # a file that is gone or damaged is said before ours is touched
        return _copy(document["value"]["path"], target)
    if is_array(document):
        from sparkle_p2p.api.pictures import png_of

        content = png_of(load_array(document["value"], copy=False))
    else:
        content = document["data"] or (json.dumps(document["value"], ensure_ascii=False) + "\n").encode()
    if target == "-":
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
    else:
        write_file(Path(target), content)
        _tell_written(target, len(content))
    return None


def write_file(path: Path, content: bytes) -> None:
    """Write a whole file.

    Raises:
        ConfigError: the system refused.
    """
    try:
        path.write_bytes(content)
    except OSError as error:
        raise _refused(path, error) from error


def _copy(source: str, target: str) -> None:
    """The node's file as the user's own, whatever its size."""
    if target == "-":
        sys.stdout.flush()
        with open(source, "rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer, 1024 * 1024)
        return
    try:
        shutil.copyfile(source, target)
    except shutil.SameFileError:
        pass  # it is there already
    except OSError as error:
        raise _refused(Path(target), error) from error
    _tell_written(target, os.stat(target).st_size)


def _refused(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"cannot write {path}: {(error.strerror or str(error)).lower()}")


def _tell_written(target: str, size: int) -> None:
    sys.stderr.write(f"wrote {target} ({output.size(size)})\n")
