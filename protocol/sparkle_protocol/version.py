"""The one place that holds the version; the build, the CLI and the handshake read it."""

__version__ = "0.1.0"
