"""``sparkle-node``: contribute this computer, with a screen in a terminal or as a quiet daemon."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sparkle_p2p import __version__
from sparkle_p2p.cli.parser import Parser, add_home, whole_number
from sparkle_p2p.config import (
    LOG_LEVELS,
    MAX_BLOBS_MB,
    MAX_MEMORY_MB,
    MAX_SLOTS,
    MIN_BLOBS_MB,
    MIN_MEMORY_MB,
    NodeConfig,
    load_config,
)
from sparkle_p2p.runtime.locate import home_path
from sparkle_p2p.runtime.program import guarded
from sparkle_protocol.errors import ConfigError


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``sparkle-node`` and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["attach"]:
        return guarded(lambda: _attach(arguments[1:]), "sparkle-node attach")
    return guarded(lambda: run(arguments), "sparkle-node")


def run(arguments: Sequence[str], executor_factory: Callable[[], Any] | None = None) -> int:
    """Run the node that the arguments describe until it is stopped.

    Raises:
        SparkleError: it cannot run.
    """
    parsed = _parser().parse_args(arguments)
    if parsed.json and not parsed.headless:
        raise ConfigError("--json prints what a daemon does; add --headless")
    if not parsed.headless and not has_terminal():
        raise ConfigError("there is no terminal to draw on; use 'sparkle-node --headless'")
    home = Path(home_path(parsed.home, os.environ))
    config = load_config(home, _flags(parsed), os.environ)
    return _run_headless(config, parsed.json, executor_factory) if parsed.headless else _run_screen(config)


def _run_headless(config: NodeConfig, as_json: bool, executor_factory: Callable[[], Any] | None) -> int:
    from sparkle_p2p.cli.headless import run_headless

    return run_headless(config, as_json=as_json, executor_factory=executor_factory)


def _run_screen(config: NodeConfig) -> int:
    from sparkle_p2p.cli.screen import run_screen

    return run_screen(config)


def _attach(arguments: Sequence[str]) -> int:
    parser = Parser(prog="sparkle-node attach", description="Open the screen of a node that already runs.")
    add_home(parser)
    parsed = parser.parse_args(arguments)
    if not has_terminal():
        raise ConfigError("there is no terminal to draw on; 'sparkle status' needs none")
    from sparkle_p2p.cli.screen import attach

    return attach(home_path(parsed.home, os.environ))


def has_terminal() -> bool:
    """Whether a screen can be drawn and keys can be read."""
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def _parser() -> Parser:
    parser = Parser(
        prog="sparkle-node",
        description="Contribute this computer to a Sparkle network. 'sparkle-node attach' opens the screen of "
        "a node that already runs.",
    )
    parser.add_argument("--version", action="version", version=f"sparkle-node {__version__}")
    parser.add_argument("--headless", action="store_true", help="run as a daemon, without a screen")
    parser.add_argument("--json", action="store_true", help="with --headless: print events as JSON lines")
    add_home(parser)
    parser.add_argument("--net", metavar="NAME", help="the network to join (default: main)")
    parser.add_argument(
        "--network-key", metavar="FILE", help="the key of a private network; 'sparkle network-key' makes one"
    )
    parser.add_argument(
        "--genesis", metavar="FILE", help="the genesis record of the network: terms of credit, and founders"
    )
    parser.add_argument(
        "--listen", metavar="MULTIADDR", action="append", help="where to listen (default: any TCP port)"
    )
    parser.add_argument(
        "--bootstrap", metavar="MULTIADDR", action="append", help="a peer to connect to first, with /p2p/ID"
    )
    parser.add_argument(
        "--trust", metavar="PEER_ID", dest="trusted", action="append",
        help="a peer whose results you vouch for, as of the members of a private network",
    )  # fmt: skip
    parser.add_argument(
        "--api", metavar="HOST:PORT", help="where the local API answers (default: 127.0.0.1, any port)"
    )
    parser.add_argument(
        "--slots", metavar="N", type=whole_number(1, MAX_SLOTS), help="units to compute at once (default 1)"
    )
    parser.add_argument(
        "--memory-mb", metavar="N", type=whole_number(MIN_MEMORY_MB, MAX_MEMORY_MB),
        help="memory that one unit may use, in MiB (default 4096)",
    )  # fmt: skip
    parser.add_argument(
        "--blobs-mb", metavar="N", type=whole_number(MIN_BLOBS_MB, MAX_BLOBS_MB),
        help="disk that arrays may take, in MiB (default 20480)",
    )  # fmt: skip
    parser.add_argument(
        "--bulk-port", metavar="PORT", type=whole_number(0, 65535), help="where arrays are served (default: any port)"
    )
    # None, not False, when absent: the configuration file decides then.
    parser.add_argument("--no-work", dest="work", action="store_const", const=False, help="submit and keep work only")
    parser.add_argument(
        "--bootstrap-only", action="store_const", const=True, help="only introduce peers to each other"
    )
    parser.add_argument(
        "--no-mdns", dest="mdns", action="store_const", const=False, help="do not look for peers on the LAN"
    )
    parser.add_argument("--log-level", metavar="LEVEL", help=f"one of {', '.join(LOG_LEVELS)} (default info)")
    return parser


def _flags(parsed: argparse.Namespace) -> dict[str, Any]:
    flags = dict(vars(parsed))
    for name in ("home", "headless", "json"):
        del flags[name]
    return flags


if __name__ == "__main__":
    sys.exit(main())
