"""``sparkle-node`` on a machine whose clock is off: ``python shifted_node.py SECONDS SPARKLE-NODE-ARGUMENTS``."""

import sys
import time

_time, _time_ns = time.time, time.time_ns


def main() -> int:
    shift_s = int(sys.argv[1])
    time.time = lambda: _time() + shift_s
    time.time_ns = lambda: _time_ns() + shift_s * 1_000_000_000
    from sparkle_p2p.cli.node import main as node

    return node(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
