"""The worker process never outlives its node."""

import os
import select
import subprocess
import sys
from pathlib import Path

from sparkle_worker import frames

ODD_KERNELS = f"{Path(__file__).parent / 'odd_kernels.py'}:ODD"

NODE = """
import asyncio, sys
from sparkle_worker.executor import Executor

async def main():
    executor = Executor(kernels=sys.argv[1], idle_priority=False)
    tell = lambda _share: print(executor.pid, flush=True)
    await executor.run("spin", 1, {}, tell)

asyncio.run(main())
"""


def ended(descriptor, seconds=20):
    """Whether the process of a pidfd ends in time."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def start_child(parent):
    command = [
        sys.executable,
        "-P",
        "-m",
        "sparkle_worker.child",
        "--parent",
        str(parent),
        "--normal-priority",
    ]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def test_a_killed_node_takes_its_computing_process_with_it():
    node = subprocess.Popen([sys.executable, "-c", NODE, ODD_KERNELS], stdout=subprocess.PIPE, text=True)
    with node:
        child = os.pidfd_open(int(node.stdout.readline()))
        try:
            node.kill()
            node.wait(timeout=20)
            assert ended(child)
        finally:
            os.close(child)


def test_a_node_that_died_during_the_start_leaves_nothing_behind():
    with start_child(parent=2**22) as child:
        assert child.wait(timeout=30) == 1
        assert child.stdout.read() == b""


def test_the_end_of_its_input_ends_the_process():
    with start_child(parent=os.getpid()) as child:
        (length,) = frames.HEADER.unpack(child.stdout.read(frames.HEADER.size))
        assert frames.decode(child.stdout.read(length), frames.REPLY_LIMIT)[0] == "ready"
        child.stdin.close()
        assert child.wait(timeout=30) == 0
