"""``sparkle-node`` that writes a checkpoint several times a second, so that tests need not wait for one."""

import sys


def main() -> int:
    from sparkle_p2p.cli.node import main as node
    from sparkle_p2p.node import node as module
    from sparkle_worker.executor import Executor

    module.local_executor = lambda memory_mb: Executor(memory_mb=memory_mb, checkpoint_seconds=0.2)
    return node(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
