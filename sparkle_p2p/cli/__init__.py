"""The commands ``sparkle`` and ``sparkle-node``. Each loads only what it needs."""
