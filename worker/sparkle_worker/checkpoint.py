"""What a unit has come to, in a file, so that another process can carry on.

::

    "SPRKCKP2" ‖ keyed BLAKE2b-256 of the rest ‖ share of the unit that is done, float64 ‖ state

The key says whose state it is: kernel, version, parameters of the unit, and the names of its tiles. So a checkpoint
of another unit, and one that a crash of the machine has torn, are never taken for this unit's: it begins anew.
"""

import hashlib
import hmac
import os
import struct
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgpack

_MAGIC = b"SPRKCKP2"
_DIGEST_BYTES = 32
_SHARE = struct.Struct("<d")
HEAD_BYTES = len(_MAGIC) + _DIGEST_BYTES + _SHARE.size  # before the state
_NEW = ".new"


def owner_of(kernel: str, version: int, unit: Mapping[str, Any], inputs: Sequence[bytes]) -> bytes:
    """Key of a unit's checkpoints; a tile is known by the last part of its path, which names the blob."""
    names = [os.path.basename(path) for path in inputs]
    said: bytes = msgpack.packb([kernel, version, sorted(unit.items()), names])
    return hashlib.blake2b(said, digest_size=_DIGEST_BYTES, person=b"sparkle checkpt").digest()


class Checkpoint:
    """One unit's checkpoint on disk.

    Args:
        path: where it is; need not exist.
        owner: ``owner_of`` the unit.
        every_s: how long after the beginning, and after the last one, a new one is worth its writing.
    """

    def __init__(self, path: Path, owner: bytes, every_s: float) -> None:
        self._path = path
        self._owner = owner
        self._every_s = every_s
        self._due = time.monotonic() + every_s

    def load(self) -> tuple[float, bytes] | None:
        """The share that is done and the state to go on from; None if there is none that is whole and this unit's."""
        try:
            data = self._path.read_bytes()
        except OSError:
            return None
        rest, state = data[HEAD_BYTES - _SHARE.size : HEAD_BYTES], data[HEAD_BYTES:]
        if not hmac.compare_digest(data[: HEAD_BYTES - _SHARE.size], self._head(rest, state)):
            return None
        return _SHARE.unpack(rest)[0], state

    def save(self, share: float, state: bytes) -> None:
        """Replace the one on disk, if that is due. A full disk costs the checkpoint, not the unit."""
        if time.monotonic() < self._due:
            return
        new = self._path.with_name(self._path.name + _NEW)
        try:
            with new.open("wb") as file:
                packed = _SHARE.pack(share)
                file.write(self._head(packed, state) + packed)
                file.write(state)
            new.replace(self._path)
        except OSError as error:
            sys.stderr.write(f"a checkpoint could not be written: {error.strerror}\n")
            _remove(new)
        self._due = time.monotonic() + self._every_s

    def remove(self) -> None:
        """It is not needed any more."""
        _remove(self._path)

    def _head(self, share: bytes, state: bytes) -> bytes:
        digest = hashlib.blake2b(share, digest_size=_DIGEST_BYTES, key=self._owner)
        digest.update(state)
        return _MAGIC + digest.digest()


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        sys.stderr.write(f"a checkpoint could not be removed: {error.strerror}\n")
