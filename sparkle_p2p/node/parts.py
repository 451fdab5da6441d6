"""What a node is made of unless it is told otherwise: the network over libp2p, and worker processes."""

import platform
from collections.abc import Callable
from typing import TYPE_CHECKING

from sparkle_p2p.config import NodeConfig
from sparkle_p2p.home import HomeDir
from sparkle_p2p.net.overlay import Overlay
from sparkle_p2p.node.computing import UnitExecutor
from sparkle_protocol.version import __version__

if TYPE_CHECKING:
    from sparkle_worker.executor import Executor

OverlayFactory = Callable[[NodeConfig, HomeDir], Overlay]
ExecutorFactory = Callable[[], UnitExecutor]


def libp2p_overlay(config: NodeConfig, home: HomeDir) -> Overlay:
    """The production network. libp2p itself loads in its own thread when it starts."""
    from sparkle_p2p.net.libp2p import Libp2pOverlay

    agent = f"sparkle/{__version__}"
    return Libp2pOverlay(
        home.identity,
        net=config.net,
        listen=config.listen,
        agent=agent,
        mdns=config.mdns,
        network_key=config.network_key,
        genesis=config.record.digest,
    )


def local_executor(memory_mb: int) -> "Executor":
    """One spawned worker process whose units may use so much memory."""
    from sparkle_worker.executor import Executor

    return Executor(memory_mb=memory_mb)


def local_checker(memory_mb: int) -> "Executor":
    """The same for the checks of other workers' results."""
    from sparkle_worker.executor import Executor

    return Executor(memory_mb=memory_mb, checks=True)


def device_class() -> str:
    """What units are computed on here: keepers tell by it which failures are a device's fault."""
    return f"cpu/{platform.machine().lower() or 'unknown'}"[:64]
