"""Sparkle: pool the devices people already have into one compute network with no central server.

Importing this package is cheap: nothing heavy (libp2p, textual, numpy) loads until it is used.
"""

from sparkle_protocol.version import __version__

__all__ = ["__version__"]
