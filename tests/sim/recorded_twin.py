"""The simulated twin of ``run.py record``: as many peers do what the real hosts did, on wires as of one machine.

All real hosts shared its cores. So do the threads of the simulated ones: that a lookup took longer there than its
questions cost the asker comes out of the model, and is not fitted.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from sparkle_sim.costs import Threads
from sparkle_sim.kernel import SECOND, Kernel
from sparkle_sim.lookups import RoutingParameters
from sparkle_sim.network import Conditions
from tests.unit.sim.wired import Wired

LOOPBACK = Conditions(round_trip_ms=((0.06,),), jitter=0.2)
CONNECTED_AT_MOST = 300  # py-libp2p keeps the connections of lookups, which only matters in so small a network
LEAST_SHARE = 0.2  # of the machine that was left, however busy it was
LINKS, K = 4, 8
EVERY_S, HEALING_S, MESHED_S, IN_TIME_S = 1.0, 20.0, 75.0, 1.0


class SharedCores(Threads):
    """The threads of all peers on a few cores of one machine."""

    def __init__(self, kernel: Kernel, peers: int, cores: int) -> None:
        super().__init__(kernel, peers)
        self.share = 1.0  # that other programs leave
        self._cores = [0] * cores

    def take(self, peer: int, work_ns: int) -> int:
        """Also wait for a core."""
        now = self._kernel.now
        core = min(range(len(self._cores)), key=self._cores.__getitem__)
        begin = max(now, self._free[peer], self._cores[core])
        self._free[peer] = self._cores[core] = done = begin + int(work_ns / self.share)
        return done - now


class Twin:
    """Samples (in milliseconds) and shares by the names that the recording has."""

    def __init__(self, recording: dict[str, Any], seed: int = 1) -> None:
        made = recording["recorded"]
        self.samples: dict[str, list[float]] = defaultdict(list)
        self.shares: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        self._hosts = made["hosts"]
        # py-libp2p splits full buckets, so that its tables have everybody in a network of fifty.
        rules = RoutingParameters(kept_links=CONNECTED_AT_MOST, bucket_room=self._hosts, primed=False, refresh_s=0.0)
        self._world = world = Wired(self._hosts, seed, conditions=LOOPBACK, routing=rules)
        world.network.threads = self._cores = SharedCores(world.kernel, self._hosts, made["cores"])
        self._others: dict[str, float] = recording["processor_share_of_others"]
        self._random = world.random
        self._well = list(range(self._hosts))
        self._keys: list[bytes] = []
        self._number = 0
        self._killed, self._stopped = made["killed"], made["stopped"]

    def run(self) -> None:
        """Everything, in the order of the recording."""
        self._during("dial", self._dial)
        self._during("calm", self._gossip, "calm", 30)
        self._during("fresh", self._lookups, "fresh", self._well[::2])
        self._during("provide", self._provide, 20)
        self._during("well", self._providers, "well", 60)
        self._during("later", self._lookups, "later", self._well[1::2])
        self._connect_all()
        self._during("warm", self._lookups, "warm", [*self._well, *self._well[::2]])
        self._during("busy", self._lookups, "busy", [self._any() for _ in range(100)])
        self._during("dense", self._gossip, "dense", 10)
        self._during("healing", self._heal)
        self._during("killed", self._lookups, "killed", self._well)
        self._during("killed_providers", self._providers, "killed", 40)
        for host in self._well[-self._stopped :]:
            self._world.network.suspend(host)
        self._well = self._well[: -self._stopped]
        self._during("frozen", self._lookups, "frozen", self._well, 4)
        self._during("frozen_again", self._lookups, "frozen_again", self._well, 4)
        self._during("frozen_providers", self._providers, "frozen", 40, 4)
        self._during("frozen_gossip", self._gossip, "frozen", 10)

    def _during(self, phase: str, act: Callable[..., None], *arguments: Any) -> None:
        """Do something with as much of the machine as the hosts had in that phase."""
        self._cores.share = max(LEAST_SHARE, 1.0 - self._others[phase])
        act(*arguments)

    def _any(self) -> int:
        return self._well[self._random.below(len(self._well))]

    def _until(self, done: Callable[[], bool], limit_s: float = 30.0) -> None:
        """Let the run go on until something has happened."""
        end = self._world.kernel.now + int(limit_s * SECOND)
        while not done() and self._world.kernel.now < end:
            self._world.run(0.0002)
        assert done(), "what was begun ends in time"

    def _dial(self) -> None:
        world = self._world
        for number in range(self._hosts * LINKS):
            dialler = number % self._hosts
            others = [one for one in range(self._hosts) if one != dialler and one not in world.network.links[dialler]]
            began, worked = world.kernel.now, list[tuple[bool, int]]()
            other = others[self._random.below(len(others))]
            world.network.dial(dialler, other, lambda ok, to=worked: to.append((ok, world.kernel.now)))
            self._until(lambda to=worked: bool(to))
            self.samples["dial"].append((worked[0][1] - began) / 1e6)
            world.run(0.05)
        world.run(5.0)

    def _connect_all(self) -> None:
        """So it was recorded: py-libp2p pings, and so dials, the oldest of a full bucket for each newcomer."""
        for host in range(self._hosts):
            for other in range(host):
                self._world.network.dial(host, other, lambda _: None)
            self._world.run(5.0)

    def _gossip(self, name: str, count: int) -> None:
        world, said = self._world, list[tuple[bytes, int, int]]()
        messages = world.gossip.messages
        for _ in range(count):
            said.append(self._publish(IN_TIME_S))
        world.run(2.0)
        delivered = 0
        for payload, author, began in said:
            heard = {peer: at for at, peer, what in world.heard if what == payload}
            for host in self._well:
                if host != author:
                    self._count(f"{name}_delivered", host in heard)
                    delivered += host in heard
                    if host in heard:
                        self.samples[f"{name}_spread"].append((heard[host] - began) / 1e6)
        self.samples[f"{name}_copies"].append((world.gossip.messages - messages) / delivered)

    def _publish(self, then_s: float) -> tuple[bytes, int, int]:
        self._number += 1
        payload, author, began = b"message %d" % self._number, self._any(), self._world.kernel.now
        self._world.gossip.publish(author, "recording", payload)
        self._world.run(then_s)
        return payload, author, began

    def _heal(self) -> None:
        world = self._world
        for host in self._well[-self._killed :]:
            world.stop(host)
        self._well = self._well[: -self._killed]
        killed, meshed_s = world.kernel.now, 0.0
        said = []
        for _ in range(int(HEALING_S / EVERY_S)):
            said.append(self._publish(EVERY_S))
            if min(len(world.gossip.mesh(host)) for host in self._well) < world.gossip.parameters.low:
                meshed_s = (world.kernel.now - killed) / SECOND
        while meshed_s < MESHED_S:
            world.run(EVERY_S)
            if min(len(world.gossip.mesh(host)) for host in self._well) >= world.gossip.parameters.low:
                break
            meshed_s = (world.kernel.now - killed) / SECOND
        healed_s = 0.0
        for payload, author, began in said:
            early = {peer for at, peer, what in world.heard if what == payload and at - began < IN_TIME_S * SECOND}
            missed = sum(host not in early for host in self._well if host != author)
            if missed:
                healed_s = (began - killed) / SECOND + EVERY_S
            self.shares["healing_delivered"][0] += len(self._well) - 1 - missed
            self.shares["healing_delivered"][1] += len(self._well) - 1
        self.samples["healed_s"].append(healed_s)
        self.samples["meshed_s"].append(meshed_s)

    def _lookups(self, name: str, hosts: list[int], at_once: int = 1) -> None:
        world, left, under_way = self._world, list(reversed(hosts)), [0]

        def begin(host: int) -> None:
            self._number += 1
            key, began, queries = b"key %d" % self._number, world.kernel.now, world.routing.lookups.queries
            there = world.nearest(key, self._well, K)
            under_way[0] += 1

            def found(near: list[int]) -> None:
                under_way[0] -= 1
                self.samples[f"{name}_lookup"].append((world.kernel.now - began) / 1e6)
                if at_once == 1:
                    self.samples[f"{name}_questions"].append(world.routing.lookups.queries - queries)
                for one in there:
                    self._count(f"{name}_recall", one in near)

            world.routing.closest(host, key, K, found)

        self._as_many(left, under_way, begin, at_once)

    def _as_many(self, left: list[int], under_way: list[int], begin: Callable[[int], None], at_once: int) -> None:
        """So many at a time, until all are over."""
        while left or under_way[0]:
            while left and under_way[0] < at_once:
                begin(left.pop())
            self._until(lambda before=under_way[0]: under_way[0] < before)

    def _provide(self, count: int) -> None:
        for _ in range(count):
            self._number += 1
            self._keys.append(b"work %d" % self._number)
            self._world.routing.provide(self._any(), self._keys[-1])
            self._world.run(4.0)

    def _providers(self, name: str, count: int, at_once: int = 1) -> None:
        world, under_way = self._world, [0]

        def begin(host: int) -> None:
            began = world.kernel.now
            under_way[0] += 1

            def found(providers: list[int]) -> None:
                under_way[0] -= 1
                self._count(f"{name}_providers_found", bool(providers))
                self.samples[f"{name}_providers"].append((world.kernel.now - began) / 1e6)

            world.routing.providers(host, self._keys[self._random.below(len(self._keys))], found)

        self._as_many([self._any() for _ in range(count)], under_way, begin, at_once)

    def _count(self, name: str, hit: bool) -> None:
        self.shares[name][0] += hit
        self.shares[name][1] += 1
