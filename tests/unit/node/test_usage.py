"""The figures of a node's own cost: of the process and of its children, whatever those do meanwhile."""

import os
import subprocess
import sys
import time

from sparkle_p2p.node import usage as usage_module
from sparkle_p2p.node.usage import Usage

BUSY = "import sys\nsys.stdout.write('x')\nsys.stdout.flush()\nwhile True: pass"


def test_a_busy_child_counts() -> None:
    usage = Usage()
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            child.stdout.read(1)
            began = time.monotonic()
            usage.sample(began)
            alone = usage.pss_bytes
            while time.monotonic() - began < usage_module.SHORTEST_S:
                os.sched_yield()
            usage.sample(time.monotonic())
        finally:
            child.kill()
    assert 0 < usage.cpu_percent <= 100
    assert alone > 5_000_000
    usage.sample(time.monotonic() + usage_module.SHORTEST_S)  # it is gone by now
    assert usage.cpu_percent >= 0


def test_memory_is_weighed_seldom() -> None:
    usage = Usage()
    usage.sample(0.0)
    usage.pss_bytes = 1
    usage.sample(usage_module.MEMORY_EVERY_S / 2)
    assert usage.pss_bytes == 1
    usage.sample(usage_module.MEMORY_EVERY_S + 0.1)
    assert usage.pss_bytes > 5_000_000


def test_two_looks_at_once_give_the_same_figure() -> None:
    usage = Usage()
    usage.sample(0.0)
    usage.cpu_percent = 12.5
    usage.sample(usage_module.SHORTEST_S / 2)
    assert usage.cpu_percent == 12.5
