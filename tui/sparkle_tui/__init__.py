"""The terminal screen of a node.

``SparkleApp`` lives in ``sparkle_tui.app``: importing this package alone does not load textual.
"""
