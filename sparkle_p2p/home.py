"""A node's home directory: one owner at a time, a private key that nobody else can read.

Files are described in ``sparkle_p2p.runtime.locate``, plus ``identity.key``: one line, ``sparkle-key-1``, a
space and the base64 of the 32-byte Ed25519 seed, mode 0600. Whoever copies it *is* this node.
"""

import base64
import binascii
import errno
import fcntl
import json
import os
import secrets
import stat
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from sparkle_p2p.runtime.locate import LOCK_FILE, NODE_FILE, TOKEN_FILE
from sparkle_protocol.errors import ConfigError, HomeInUse
from sparkle_protocol.identity import Identity

KEY_FILE = "identity.key"
_KEY_TAG = "sparkle-key-1 "
_KEY_FILE_LIMIT = 4096
# A client's look at the lock holds it for microseconds; a node that starts in that instant tries again.
_LOCK_TRIES = 10
_LOCK_PAUSE_S = 0.02


class HomeDir:
    """An open home directory: nobody else can open it until ``close`` or the end of the process."""

    def __init__(self, path: Path, lock: int, identity: Identity, token: str, *, is_new: bool = False) -> None:
        self.path = path
        self.identity = identity
        self.is_new = is_new  # the key was made just now, so nobody can have signed anything with it
        self.token = token
        self._lock: int | None = lock

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Create the directory if needed, own it, and load (or make) its key.

        Raises:
            HomeInUse: another node owns it.
            ConfigError: the directory or the key file cannot be used; one sentence says why.
        """
        home = Path(path).expanduser().absolute()
        _make_directory(home)
        lock = _take_lock(home)
        try:
            identity, is_new = _load_or_make_key(home / KEY_FILE)
            (home / NODE_FILE).unlink(missing_ok=True)  # of a node that was killed
            token = secrets.token_urlsafe(32)
            _write_private(home / TOKEN_FILE, token + "\n")
        except BaseException:
            os.close(lock)
            raise
        return cls(home, lock, identity, token, is_new=is_new)

    def announce(self, api_url: str) -> None:
        """Tell clients on this machine where the API answers."""
        document = {"pid": os.getpid(), "api": api_url, "started": round(time.time(), 3)}
        _write_private(self.path / NODE_FILE, json.dumps(document) + "\n")

    def retract(self) -> None:
        """Clients find no API here any more."""
        if self._lock is not None:  # a later owner's file is not ours to remove
            (self.path / NODE_FILE).unlink(missing_ok=True)

    def close(self) -> None:
        """Give the directory free. Idempotent."""
        if self._lock is None:
            return
        try:
            self.retract()
            (self.path / TOKEN_FILE).unlink(missing_ok=True)
        finally:
            os.close(self._lock)  # the lock file stays: removing it would let two nodes lock two inodes
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _make_directory(home: Path) -> None:
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = home.stat()
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigError(f"{home} is not a directory; choose another with --home") from error
    except OSError as error:
        raise ConfigError(_cannot("create the home directory", home, error)) from error
    if status.st_uid != os.geteuid():
        raise ConfigError(
            f"{home} belongs to another user (uid {status.st_uid}); "
            "run as that user or choose another directory with --home"
        )
    if status.st_mode & stat.S_IWOTH:
        raise ConfigError(f"everybody may write into {home}; run 'chmod 700 {home}' first")


def _take_lock(home: Path) -> int:
    path = home / LOCK_FILE
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(_cannot("write into the home directory", home, error)) from error
    try:
        for attempt in range(_LOCK_TRIES):
            if _try_lock(descriptor):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
                return descriptor
            if attempt < _LOCK_TRIES - 1:
                time.sleep(_LOCK_PAUSE_S)
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
        raise HomeInUse(
            f"another node (process {holder or 'unknown'}) already runs in {home}; "
            "stop it, use 'sparkle-node attach', or choose another directory with --home"
        )
    except BaseException as error:
        os.close(descriptor)
        if isinstance(error, OSError):
            raise ConfigError(_cannot("lock the home directory", home, error)) from error
        raise


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _load_or_make_key(path: Path) -> tuple[Identity, bool]:
    """The identity of a home, and whether it is new."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not block us
    except FileNotFoundError:
        identity = Identity.generate()
        _write_private(path, _KEY_TAG + base64.b64encode(identity.private_bytes()).decode("ascii") + "\n")
        return identity, True
    except OSError as error:
        raise ConfigError(_cannot("read the key file", path, error)) from error
    try:
        _check_key_file(path, os.fstat(descriptor))
        content = os.read(descriptor, _KEY_FILE_LIMIT)
    except OSError as error:
        raise ConfigError(_cannot("read the key file", path, error)) from error
    finally:
        os.close(descriptor)
    return _parse_key(path, content), False


def _check_key_file(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"the key file {path} is not a regular file; move it away to get a new identity")
    if status.st_uid != os.geteuid():
        raise ConfigError(
            f"the key file {path} belongs to another user (uid {status.st_uid}); a node only uses its own key"
        )
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        mode = stat.S_IMODE(status.st_mode)
        raise ConfigError(f"others may read the key file {path} (mode {mode:04o}); run 'chmod 600 {path}'")


def _parse_key(path: Path, content: bytes) -> Identity:
    advice = "restore it from a backup, or move it away to get a new identity"
    if not content.startswith(_KEY_TAG.encode("ascii")):
        raise ConfigError(f"{path} is not a Sparkle key file; {advice}")
    try:
        seed = base64.b64decode(content[len(_KEY_TAG) :].strip(), validate=True)
        return Identity.from_private_bytes(seed)
    except (binascii.Error, ValueError) as error:
        raise ConfigError(f"the key in {path} is damaged; {advice}") from error
    except ConfigError as error:
        raise ConfigError(f"the key in {path} is damaged ({error}); {advice}") from error


def _write_private(path: Path, text: str) -> None:
    """Replace ``path`` as a whole, durably, readable by its owner only; an old file survives any failure."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(text.encode("utf-8"))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_directory(path.parent)
    except OSError as error:
        raise ConfigError(_cannot("write", path, error)) from error


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_ADVICE = {
    errno.EACCES: "check its permissions or choose another directory with --home",
    errno.EPERM: "check its permissions or choose another directory with --home",
    errno.EROFS: "choose a writable directory with --home",
    errno.ENOSPC: "free some space or choose another directory with --home",
    errno.EDQUOT: "free some space or choose another directory with --home",
    errno.EFBIG: "raise the file size limit or choose another directory with --home",
}


def _cannot(action: str, path: Path, error: OSError) -> str:
    advice = _ADVICE.get(error.errno or 0, "choose another directory with --home")
    return f"cannot {action} {path}: {(error.strerror or str(error)).lower()}; {advice}"
