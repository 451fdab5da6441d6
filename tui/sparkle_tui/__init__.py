"""The terminal screen of a node."""
