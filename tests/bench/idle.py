"""What a node costs that has nothing to do: memory, processor, gossip.

Three nodes know each other. The first is the one a user runs; the second is the same node with a counter in
front of its gossip; beside them stands py-libp2p alone (host, gossipsub, Kademlia), which no node can undercut.
"""

import secrets
import statistics
import time
from pathlib import Path

from sparkle_p2p.api.client import LocalClient
from tests.bench.processes import cpu_s, headless, module, pause, pss_mb, scratch
from tests.bench.rows import Row, median_row

SETTLE_S = 20.0  # greetings, first pings, first announcements, peer exchange
WINDOW_S = 30.0


def idle_node(repeat: int) -> list[Row]:
    """Memory, processor share and gossip deliveries of a connected idle node, over windows of half a minute."""
    net = f"bench-{secrets.token_hex(4)}"  # mDNS is on, and another bench may run on this network
    with scratch() as folder, headless(folder / "first", net) as first:
        address = first.read()["addrs"][0]
        with (
            headless(folder / "second", net, "--bootstrap", address) as second,
            module("counting_node", folder / "third.log", str(folder / "third"), net, address) as third,
            module("bare_libp2p", folder / "bare.log") as bare,
        ):
            for child in (second, third, bare):
                child.read()
            pause(SETTLE_S)
            _check_connected(folder / "first")
            pids = first.process.pid, bare.process.pid
            cpu: tuple[list[float], list[float]] = ([], [])
            memory: tuple[list[float], list[float]] = ([], [])
            gossip = []
            for _ in range(repeat):
                heard = third.ask("gossip")["gossip"]
                before, began = [cpu_s(pid) for pid in pids], time.monotonic()
                pause(WINDOW_S)
                elapsed = time.monotonic() - began
                gossip.append((third.ask("gossip")["gossip"] - heard) / elapsed)
                for each, pid in enumerate(pids):
                    cpu[each].append(100 * (cpu_s(pid) - before[each]) / elapsed)
                    memory[each].append(pss_mb(pid))
            _check_connected(folder / "first")
    return [
        median_row("idle_memory", "MB", *memory, bar=150, stretch=110, against="py-libp2p alone"),
        median_row("idle_cpu", "% of a core", *cpu, bar=1, against="py-libp2p alone")
        if statistics.median(cpu[1])
        else median_row("idle_cpu", "% of a core", cpu[0], bar=1),
        median_row("idle_gossip", "deliveries/s", gossip, bar=1),
    ]


def _check_connected(home: Path) -> None:
    status = LocalClient(home).status()
    if status["peers"] != 2 or status["state"] != "idle":
        raise RuntimeError(f"expected an idle node with 2 peers, it is {status['state']} with {status['peers']}")
