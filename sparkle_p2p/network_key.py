"""The key of a private network: whoever has it is a member, whoever has it not hears nothing.

The file is the ``swarm.key`` of other libp2p programs::

    /key/swarm/psk/1.0.0/
    /base16/
    64 hexadecimal digits

The 32 bytes themselves protect connections (``net.libp2p.private``). Whatever else is needed is derived from them,
each thing for its own purpose, so that none says anything about another.
"""

import os
import re
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sparkle_protocol.errors import ConfigError

KEY_BYTES = 32
_FILE = re.compile(r"\s*/key/swarm/psk/1\.0\.0/\s+/base16/\s+([0-9A-Fa-f]{64})\s*")
_FILE_LIMIT = 4096
_FINGERPRINT = b"sparkle/network-key/fingerprint/1"


@dataclass(frozen=True, slots=True, repr=False)
class NetworkKey:
    """The secret of a private network. It is never shown or logged; ``fingerprint`` may be."""

    secret: bytes

    def __repr__(self) -> str:
        return f"<NetworkKey {self.fingerprint}>"

    @classmethod
    def generate(cls) -> Self:
        """A new one."""
        return cls(secrets.token_bytes(KEY_BYTES))

    @property
    def fingerprint(self) -> str:
        """Eight bytes in hex by which people see whether two nodes have the same key."""
        return self.derive(_FINGERPRINT, 8).hex()

    def derive(self, purpose: bytes, size: int, salt: bytes = b"") -> bytes:
        """Key material for one purpose (HKDF with SHA-256, RFC 5869).

        Args:
            purpose: names it; no other use has the same.
            size: how many bytes.
            salt: sets apart what is alike otherwise.
        """
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        return HKDF(algorithm=SHA256(), length=size, salt=salt or None, info=purpose).derive(self.secret)

    def text(self) -> str:
        """The content of the key file."""
        return f"/key/swarm/psk/1.0.0/\n/base16/\n{self.secret.hex()}\n"


def read_network_key(path: Path) -> NetworkKey:
    """The key in a file.

    Raises:
        ValueError: with what is wrong with the file, to follow "but ".
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not block us
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ValueError("that is not a regular file")
            content = os.read(descriptor, _FILE_LIMIT)
        finally:
            os.close(descriptor)
    except FileNotFoundError as error:
        raise ValueError("there is no such file; 'sparkle network-key FILE' makes a new key") from error
    except OSError as error:
        raise ValueError(f"the file cannot be read: {(error.strerror or str(error)).lower()}") from error
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ValueError(f"others may read the file (mode {stat.S_IMODE(status.st_mode):04o}); run 'chmod 600' on it")
    match = _FILE.fullmatch(content.decode("utf-8", "replace"))
    if match is None:
        raise ValueError(
            "that is no network key: a file of three lines, /key/swarm/psk/1.0.0/, /base16/ and 64 hexadecimal digits"
        )
    return NetworkKey(bytes.fromhex(match[1]))


def make_network_key(path: Path) -> NetworkKey:
    """A new key in a new file that only its owner can read; a file that is there stays as it is.

    Raises:
        ConfigError: the file is there already, or cannot be written.
    """
    key = NetworkKey.generate()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise ConfigError(
            f"{path} is there already and stays as it is; choose another file, or remove it if no node uses it"
        ) from error
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {(error.strerror or str(error)).lower()}") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(key.text().encode("ascii"))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)
        raise ConfigError(f"cannot write {path}: {(error.strerror or str(error)).lower()}") from error
    return key
