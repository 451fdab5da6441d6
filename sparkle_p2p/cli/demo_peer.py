"""A peer of the local demo: a whole ``sparkle-node``, tied to its parent's life, that may be made to lie.

``python -m sparkle_p2p.cli.demo_peer [--parent PID] [--lie] [--bootstrap-from-stdin] -- SPARKLE-NODE-ARGUMENTS``

A liar is a node like any other, except that its executor alters every result. It is no switch of
``sparkle-node``, where it could only do harm.
"""

import argparse
import ctypes
import os
import select
import signal
import sys
from collections.abc import Sequence

from sparkle_p2p.cli.node import run
from sparkle_p2p.runtime.program import guarded
from sparkle_protocol.errors import ConfigError

STDIN_TIMEOUT_S = 120.0
_PR_SET_PDEATHSIG = 1  # prctl(2)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one peer of the demo and return its exit code."""
    parser = argparse.ArgumentParser(prog="demo_peer")
    parser.add_argument("--parent", type=int)
    parser.add_argument("--lie", action="store_true")
    parser.add_argument("--bootstrap-from-stdin", action="store_true")
    parser.add_argument("node", nargs="*")
    parsed = parser.parse_args(argv)
    if parsed.parent is not None:
        die_with(parsed.parent)
    return guarded(lambda: _run(parsed), "demo peer")


def _run(parsed: argparse.Namespace) -> int:
    node = list(parsed.node)
    if parsed.bootstrap_from_stdin:
        _load_network()
        node += ["--bootstrap", _read_address()]
    if not parsed.lie:
        return run(node)
    from sparkle_p2p.cli.liar import LyingExecutor

    return run(node, executor_factory=LyingExecutor)


def die_with(parent: int) -> None:
    """Have the kernel send SIGTERM when the parent dies; end now if it has already."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(1)


def _load_network() -> None:
    """Do the slow part of the start while the first peer is still starting itself."""
    import sparkle_p2p.cli.headless
    import sparkle_p2p.net.libp2p.service
    import sparkle_p2p.web.server  # noqa: F401


def _read_address() -> str:
    if not select.select([sys.stdin], [], [], STDIN_TIMEOUT_S)[0]:
        raise ConfigError(f"no bootstrap address came within {STDIN_TIMEOUT_S:.0f} s")
    address = sys.stdin.readline(1024).strip()
    if not address:
        raise ConfigError("the demo ended before it gave a bootstrap address")
    return address


if __name__ == "__main__":
    sys.exit(main())
