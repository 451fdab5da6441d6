"""Sparkle: pool the devices people already have into one compute network with no central server.

::

    import sparkle_p2p as sparkle

    with sparkle.connect() as mesh:
        primes = mesh.submit("prime_count", stop=10**9).result()
        product = mesh.gemm(a, b)

Importing this package is cheap: nothing heavy (libp2p, textual, numpy) loads until it is used.
"""

from sparkle_protocol.version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sparkle_p2p.api.amesh import AsyncJob, AsyncMesh, aconnect
    from sparkle_p2p.api.mesh import Job, Mesh, connect
    from sparkle_protocol.errors import SparkleError

__all__ = ["AsyncJob", "AsyncMesh", "Job", "Mesh", "SparkleError", "__version__", "aconnect", "connect"]

_HOMES = {
    "AsyncJob": "sparkle_p2p.api.amesh",
    "AsyncMesh": "sparkle_p2p.api.amesh",
    "aconnect": "sparkle_p2p.api.amesh",
    "Job": "sparkle_p2p.api.mesh",
    "Mesh": "sparkle_p2p.api.mesh",
    "connect": "sparkle_p2p.api.mesh",
    "SparkleError": "sparkle_protocol.errors",
}


def __getattr__(name: str) -> "Any":
    """What is only loaded when it is used (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'sparkle_p2p' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> "list[str]":
    """Names for completion, loaded or not."""
    return sorted({*globals(), *__all__})
