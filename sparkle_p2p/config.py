"""A node's configuration: one frozen tree, built once from defaults, ``config.toml``, environment and flags."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """How a node runs. Every field has a flag of ``sparkle-node`` and a key in ``config.toml``."""

    home: Path
    net: str = "main"
    listen: tuple[str, ...] = ("/ip4/0.0.0.0/tcp/0",)
    bootstrap: tuple[str, ...] = ()
    api: str = "127.0.0.1:0"
    slots: int = 1
    work: bool = True
    bootstrap_only: bool = False
    mdns: bool = True
    log_level: str = "info"
