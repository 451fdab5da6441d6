"""A node for a Python program that found none running: it leaves when its standard input ends.

``python -m sparkle_p2p.cli.embedded_node SPARKLE-NODE-ARGUMENTS``

The system closes that pipe when the program is gone, whatever ended it, and it is bound to the program rather than
to the thread that started us, as a signal on the parent's death would be.
"""

import os
import signal
import sys
import threading
from collections.abc import Sequence

from sparkle_p2p.cli.node import run
from sparkle_p2p.runtime.program import guarded


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    threading.Thread(target=_leave_with_parent, name="watch the parent", daemon=True).start()
    return guarded(lambda: run(arguments), "sparkle-node")


def _leave_with_parent() -> None:
    while os.read(0, 4096):  # nothing is expected; the end is what counts
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
