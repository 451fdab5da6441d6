"""A node of one's own in a child process, for programs that find none running.

The child (``sparkle_p2p.cli.embedded_node``) reads its standard input and leaves when that ends: by ``stop``, or
because this process has gone, however that happened. It leads a process group of its own, so that Ctrl-C in the
terminal reaches the program alone.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO

from sparkle_protocol import errors
from sparkle_protocol.errors import ConfigError, HomeInUse, SparkleError

LOG_FILE = "embedded.log"
STOP_TIMEOUT_S = 12.0  # a node leaves within ten
_MODULE = "sparkle_p2p.cli.embedded_node"
_PROGRAM = "sparkle-node: "  # how it begins the sentence that says why it ended
_LOG_TAIL_BYTES = 4096
_FIRST_LINE_BYTES = 1024 * 1024
_BY_EXIT_CODE = {2: ConfigError, 3: HomeInUse}


class EmbeddedNode:
    """One child process with a node in ``home``.

    Args:
        home: its directory, made if needed.
        net: the network to join; None: as the directory's configuration says.
    """

    def __init__(self, home: str, net: str | None) -> None:
        self._home = home
        self._net = net
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False
        self._turn = threading.Lock()  # so that a stop finds the process that a start is making
        self._told = threading.Event()  # it said that it is ready, or its output has ended
        self._is_ready = False

    def start(self, timeout_s: float) -> None:
        """Return once the node can be used.

        Raises:
            HomeInUse: another node was faster.
            ConfigError: the directory or the configuration cannot work.
            SparkleError: it ended, or was not ready in time; nothing is left running.
        """
        until = time.monotonic() + timeout_s
        try:
            with self._turn:
                if self._stopped:
                    raise SparkleError(f"the node in {self._home} was stopped before it started")
                self._process = self._spawn()
            self._told.wait(max(until - time.monotonic(), 0))
            if not self._is_ready:
                raise self._failure(timeout_s)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it: politely, then by force. Idempotent; may be called from another thread while it starts."""
        with self._turn:
            self._stopped, process = True, self._process
        if process is None:
            return
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _spawn(self) -> "subprocess.Popen[bytes]":
        if not sys.executable:
            raise ConfigError("this Python does not know its own program; start a node with 'sparkle-node' first")
        command = [sys.executable, "-P", "-m", _MODULE, "--headless", "--json", "--home", self._home]
        command += ["--net", self._net] if self._net is not None else []
        try:
            Path(self._home).mkdir(mode=0o700, parents=True, exist_ok=True)
            log = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ConfigError(
                f"no node can start in {self._home}: {reason}; choose another home directory"
            ) from error
        try:
            process = subprocess.Popen(
                command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True
            )
        except OSError as error:
            raise SparkleError(f"no process could be started: {(error.strerror or str(error)).lower()}") from error
        finally:
            os.close(log)
        reader = threading.Thread(target=self._read, args=(process.stdout,), name="sparkle-embedded", daemon=True)
        reader.start()
        return process

    def _read(self, stdout: IO[bytes]) -> None:
        """The first line says that the node is ready; the rest is read so that a full pipe does not stop it."""
        head = b""
        with stdout:
            while part := stdout.read(64 * 1024):
                if not self._told.is_set():
                    head += part
                    self._is_ready = _says_ready(head)
                    if b"\n" in head or len(head) > _FIRST_LINE_BYTES:
                        self._told.set()
        self._told.set()

    def _failure(self, timeout_s: float) -> SparkleError:
        """Why it is not ready, as an error of the kind that its exit code stands for."""
        process = self._process
        if process is None or not self._told.is_set():
            return SparkleError(f"the node in {self._home} was not ready within {timeout_s:.0f} s; see {self._log}")
        try:
            code = process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return SparkleError(f"the node in {self._home} said nothing that can be understood; see {self._log}")
        kind = _BY_EXIT_CODE.get(code, errors.SparkleError)
        return kind(self._last_words() or f"the node in {self._home} ended with code {code}; see {self._log}")

    def _last_words(self) -> str:
        """The sentence with which the node ended, if it said one."""
        try:
            tail = self._log.read_bytes()[-_LOG_TAIL_BYTES:].decode("utf-8", "replace")
        except OSError:
            return ""
        sentences = [line for line in tail.splitlines() if line.startswith(_PROGRAM)]
        return sentences[-1].removeprefix(_PROGRAM) if sentences else ""

    @property
    def _log(self) -> Path:
        return Path(self._home) / LOG_FILE


def _says_ready(head: bytes) -> bool:
    line, newline, _ = head.partition(b"\n")
    try:
        return bool(newline) and json.loads(line)["event"] == "ready"
    except (ValueError, KeyError, TypeError):
        return False
