"""Uses the installed commands as a user would: a node of its own, a question, a small job, a clean end.

Run by ``.ci/run`` with the Python of an environment outside the repository.
"""

import asyncio
import json
import signal
import sys
import tempfile
from asyncio.subprocess import PIPE
from pathlib import Path

PROGRAMS = Path(sys.executable).parent
START_S, COMMAND_S, STOP_S = 60.0, 120.0, 15.0
KERNELS = {"prime_count", "collatz", "mandelbrot"}


async def run(*command: str, expect: int = 0) -> str:
    """What a command prints; it must end in time and with the expected exit code."""
    process = await asyncio.create_subprocess_exec(PROGRAMS / command[0], *command[1:], stdout=PIPE, stderr=PIPE)
    try:
        async with asyncio.timeout(COMMAND_S):
            output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode != expect:
        sys.exit(f"{' '.join(command)}: exit code {process.returncode}, not {expect}: {errors.decode()}")
    return output.decode()


async def main() -> None:
    """Try everything in order; the first thing that does not hold ends the program with a sentence."""
    for program in ("sparkle", "sparkle-node"):
        await run(program, "--help")
    with tempfile.TemporaryDirectory() as home:
        await run("sparkle", "status", "--home", home, expect=4)  # no node is running yet
        flags = ["--headless", "--json", "--home", home, "--listen", "/ip4/127.0.0.1/tcp/0", "--no-mdns"]
        node = await asyncio.create_subprocess_exec(PROGRAMS / "sparkle-node", *flags, stdout=PIPE)
        assert node.stdout is not None
        try:
            async with asyncio.timeout(START_S):
                first = json.loads(await node.stdout.readline())
            assert first["event"] == "ready", first
            drain = asyncio.create_task(node.stdout.read())  # or a full pipe would stop the node
            known = {
                kernel["name"] for kernel in json.loads(await run("sparkle", "kernels", "--json", "--home", home))
            }
            assert known >= KERNELS, known
            job = ["submit", "prime_count", "-p", "start=0", "-p", "stop=1000000", "--wait", "--json", "--home", home]
            document = json.loads(await run("sparkle", *job))
            assert document["state"] == "done", document
            assert document["result"] == 78498, document
            node.send_signal(signal.SIGTERM)
            async with asyncio.timeout(STOP_S):
                assert await node.wait() == 0, f"the node ended with {node.returncode}"
                await drain
        finally:
            if node.returncode is None:
                node.kill()
                await node.wait()


asyncio.run(main())
