"""A whole node that says where its processor time goes: ``timed_node KERNEL_SECONDS SPARKLE-NODE-ARGUMENTS``.

It prints what ``sparkle-node --headless --json`` prints, and besides answers every line on stdin with the processor
seconds of this process so far: by kind (``spent``) and in all. Its worker processes append what their kernel took to
the file KERNEL_SECONDS (``timed_kernels.TimedGemm``).
"""

from tests.bench import spent

CLOCK = spent.install()  # before the node is imported

import functools  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402

from sparkle_p2p.cli.node import run  # noqa: E402
from sparkle_worker.executor import Executor  # noqa: E402
from tests.bench import timed_kernels  # noqa: E402


def answer() -> None:
    """Until stdin ends."""
    for _ in sys.stdin:
        document = {"spent": dict(CLOCK.spent), "cpu_s": time.process_time()}
        os.write(1, json.dumps(document).encode() + b"\n")  # at once: others print too


if __name__ == "__main__":
    os.environ[timed_kernels.SECONDS_FILE] = sys.argv[1]
    threading.Thread(target=answer, daemon=True).start()
    factory = functools.partial(Executor, kernels=f"{timed_kernels.__file__}:PRODUCTS")
    sys.exit(run(sys.argv[2:], executor_factory=factory))
