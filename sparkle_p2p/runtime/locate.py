"""Find the node that runs for a home directory, without importing anything slow.

``sparkle status`` starts, asks and leaves within a few milliseconds, so this module (and the client built on
it) stays clear of ``typing``, ``pathlib``, ``json``, ``re`` and everything that pulls them in.

Files in the home directory that concern clients:

==============  ====================================================================================
``lock``        held with an exclusive flock while a node lives; contains its process id
``node.json``   ``{"pid": …, "api": "http://127.0.0.1:…", "started": …}``, removed when the node leaves
``api.token``   0600, made anew at every start: whoever can read it may command the node
==============  ====================================================================================
"""

from __future__ import annotations

import fcntl
import os

from sparkle_protocol.errors import ConfigError, NodeNotRunning

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

LOCK_FILE = "lock"
NODE_FILE = "node.json"
TOKEN_FILE = "api.token"  # noqa: S105 - a file name
_SMALL_FILE_BYTES = 4096


class RunningNode:
    """A live node of this home directory: where its API answers and the token it wants."""

    __slots__ = ("home", "host", "pid", "port", "token")

    def __init__(self, home: str, pid: int, host: str, port: int, token: str) -> None:
        self.home = home
        self.pid = pid
        self.host = host
        self.port = port
        self.token = token


def home_path(flag: str | None, environ: Mapping[str, str]) -> str:
    """The home directory meant: ``--home``, else ``SPARKLE_HOME``, else ``~/.sparkle``; absolute."""
    chosen = flag or environ.get("SPARKLE_HOME") or os.path.join("~", ".sparkle")
    return os.path.abspath(os.path.expanduser(chosen))


def find_node(home: str) -> RunningNode:
    """The node that lives in ``home`` now.

    The lock decides, not the files: a killed node leaves ``node.json`` behind, but never its lock.

    Raises:
        NodeNotRunning: none does, or it has not opened its API yet.
        ConfigError: the files belong to somebody else.
    """
    if not is_locked(home):
        elsewhere = "" if home == home_path(None, os.environ) else f" --home {home}"
        raise NodeNotRunning(f"no node is running in {home}; start one with 'sparkle-node{elsewhere}'")
    text = _read_small(os.path.join(home, NODE_FILE))
    token = _read_small(os.path.join(home, TOKEN_FILE))
    # Written by HomeDir.announce with exactly this spacing; importing json would double the time of 'status'.
    _, found, rest = (text or "").partition('"api": "http://')
    host, colon, port = rest.partition('"')[0].rpartition(":")
    if not (found and colon and port.isdecimal() and token):
        raise NodeNotRunning(f"the node in {home} is still starting; try again in a moment")
    pid = (text or "").partition('"pid": ')[2].partition(",")[0]
    return RunningNode(home, int(pid) if pid.isdecimal() else 0, host.strip("[]"), int(port), token.strip())


def is_locked(home: str) -> bool:
    """Whether a living process holds this home directory."""
    try:
        descriptor = os.open(os.path.join(home, LOCK_FILE), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    except NotADirectoryError as error:
        raise ConfigError(f"{home} is not a directory; choose another with --home") from error
    except PermissionError as error:
        raise ConfigError(f"{home} belongs to another user; choose another with --home") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _read_small(path: str) -> str | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise ConfigError(f"{path} belongs to another user; run this command as the node's owner") from error
    try:
        return os.read(descriptor, _SMALL_FILE_BYTES).decode("utf-8", "replace")
    finally:
        os.close(descriptor)
