"""What is measured with real hosts, phase by phase; ``record_hosts`` says in which order."""

import asyncio
import random
import signal
import sys
import time
from collections import defaultdict
from typing import Any

from sparkle_p2p.net.distance import nearest
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import PeerId
from tests.bench.host_fleet import Fleet
from tests.bench.processes import pause

LINKS = 4  # that each host dials in the beginning
K = 8  # peers that a node asks for
LOW = 4  # mesh peers that gossipsub wants at least
IN_TIME_S = 1.0  # a message that comes later came by a heartbeat and not through the mesh
PAYLOAD = 200  # bytes, about the size of a heartbeat
EVERY_S = 1.0  # messages while a mesh heals; more at a time would measure how busy the machine is
HEALING_S = 20.0
MESHED_S = 75.0  # back-off of a minute is over by then
STEADY = ("busy", "killed", "frozen")  # lookups without dials, whose asker's thread has little else to do
BATCH = 10  # of what is too short to be measured alone
NOTICING_S = 100.0
AT_ONCE = 4  # lookups that mostly wait


class Phases:
    """Samples and shares by their names; times in milliseconds unless the name says otherwise."""

    def __init__(self, fleet: Fleet, seed: int, less: int) -> None:
        self.samples: dict[str, list[float]] = defaultdict(list)
        self.shares: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        self._fleet = fleet
        self._random = random.Random(seed)
        self._less = less  # a trial does so many times less of everything
        self._numbers: dict[str, int] = {peer: host for host, peer in enumerate(fleet.peers)}
        self.killed = 0
        self.stopped = 0
        self._frozen: list[int] = []
        self._frozen_at = 0.0
        self._idle_ms = 0.0  # processor time of all hosts that run, for each second
        self._keys: list[str] = []
        self._copies: dict[int, list[tuple[str, str, int]]] = defaultdict(list)

    # --- connections and requests -----------------------------------------------------------------------------

    async def pair(self) -> None:
        """One connection, nothing else: what a gossip message takes from one end to the other."""
        fleet = self._fleet
        await fleet.do(0, "connect", address=fleet.addresses[1])
        await _pause(3.0)  # a heartbeat or two: both are in the other's mesh
        for batch in self._turns("gossip of a pair", 12):
            before = await self._cpu_ms(0, 1)
            for number in range(BATCH):
                await fleet.do(number % 2, "publish", payload=f"pair {batch} {number}".ljust(PAYLOAD))
                await _pause(0.02)
            self.samples["hop_path"].append((await self._cpu_ms(0, 1) - before) / BATCH)
        said = {text: at for host in (0, 1) for text, by, at in self._copies[host] if self._numbers[by] == host}
        for host in (0, 1):
            for text, forwarder, at in self._copies[host]:
                if self._numbers[forwarder] != host and text in said:
                    self.samples["hop"].append((at - said[text]) / 1e6)

    async def dial(self) -> None:
        """Each host dials some others, one after the other; and where nobody is."""
        fleet = self._fleet
        for number in self._turns("dialling", len(fleet.peers) * LINKS):
            host = number % len(fleet.peers)
            links = (await self._collect())[host]["links"]
            other = self._random.choice(
                [one for one, peer in enumerate(fleet.peers) if one != host and peer not in links]
            )
            before = await self._cpu_ms(host, other)
            done = await fleet.do(host, "connect", address=fleet.addresses[other])
            path_ms = await self._cpu_ms(host, other) - before
            await _pause(0.05)  # both ends go on a little while it can be used already
            if done["ok"]:
                self.samples["dial"].append(done["ms"])
                self.samples["dial_path"].append(path_ms)
                self.samples["dial_work"].append((await self._cpu_ms(host, other) - before) / 2)
        where = fleet.addresses[0].split("/tcp/")[0]
        nobody = f"{where}/tcp/1/p2p/{Identity.generate().peer_id}"
        for _ in self._turns("dialling nobody", 40):
            done = await fleet.do(1, "connect", address=nobody)
            self.samples["dial_refused"].append(done["ms"])
            self.samples["refused_work"].append(done["cpu_ms"])

    async def idle(self, name: str) -> None:
        """Processor time of hosts that only keep their connections."""
        self._tell("idling")
        before, began = await self._cpu_ms(), time.monotonic()
        await _pause(5.0)
        took_s = time.monotonic() - began
        self._idle_ms = (await self._cpu_ms() - before) / took_s
        self.samples[f"{name}_idle_per_s"].append(self._idle_ms / len(self._fleet.well))
        states = await self._fleet.states()
        for host in self._fleet.well:
            self.samples[f"{name}_links"].append(len(states[host]["links"]))
            self.samples[f"{name}_table"].append(states[host]["table"])
            self.samples[f"{name}_mesh"].append(states[host]["mesh"])

    async def request(self) -> None:
        """Small requests, one after the other, over connections that stand."""
        states = await self._collect()
        for _ in self._turns(f"asking, {BATCH} times each", 30):
            host = self._random.choice([one for one in self._fleet.well if states[one]["links"]])
            peer = self._random.choice(states[host]["links"])
            ends = host, self._numbers[peer]
            before = await self._cpu_ms(*ends)
            for _ in range(BATCH):
                done = await self._fleet.do(host, "request", peer=peer, payload="x" * PAYLOAD)
                self.samples["request"].append(done["ms"])
            self.samples["request_work"].append((await self._cpu_ms(*ends) - before) / BATCH)

    # --- gossip -----------------------------------------------------------------------------------------------

    async def gossip(self, name: str, count: int) -> None:
        """Messages one after the other: who gets them, over how many hops, how often."""
        await self._collect()
        self._copies.clear()
        authors: dict[str, int] = {}
        for number in self._turns(f"gossip ({name})", max(3, count // self._less)):
            payload, author = f"{name} {number}", self._random.choice(self._fleet.well)
            authors[payload] = author
            before, began = await self._cpu_ms(), time.monotonic()
            await self._fleet.do(author, "publish", payload=payload.ljust(PAYLOAD))
            await _pause(IN_TIME_S)
            work_ms = await self._cpu_ms() - before - self._idle_ms * (time.monotonic() - began)
            if name == "calm":
                self.samples["hop_work"].append(work_ms / (len(self._fleet.well) - 1))
        await _pause(2.0)
        await self._collect()
        for payload, author in authors.items():
            self._spread(name, payload, author)

    def _spread(self, name: str, payload: str, author: int) -> None:
        """What became of one message."""
        first: dict[int, tuple[int, int]] = {}  # by host: when it came, and from whom
        for host in self._fleet.well:
            seen = [(at, forwarder) for text, forwarder, at in self._copies[host] if text == payload]
            if seen:
                at, forwarder = min(seen)
                first[host] = at, self._numbers[forwarder]
                if host != author:
                    self.samples[f"{name}_copies"].append(len(seen))
        if author not in first:
            return
        began = first[author][0]
        others = [host for host in self._fleet.well if host != author]
        for host in others:
            self._count(f"{name}_delivered", host in first)
            if host not in first:
                continue
            at, source = first[host]
            self.samples[f"{name}_spread"].append((at - began) / 1e6)
            if source in first:
                self.samples[f"{name}_hop"].append((at - first[source][0]) / 1e6)
                self.samples[f"{name}_hops"].append(_hops(first, host, author))

    async def heal(self, processes: int) -> None:
        """Some processes are killed: until when do messages miss hosts, and meshes lack peers?"""
        fleet = self._fleet
        self._tell(f"killing the hosts of {processes} processes")
        await self._collect()
        self._copies.clear()
        self.killed = len(fleet.signal(processes, signal.SIGKILL))
        killed = time.monotonic_ns()
        published: dict[str, tuple[int, int]] = {}
        meshed_s = 0.0
        for number in self._turns("gossip while the mesh heals", int(HEALING_S / EVERY_S / self._less)):
            payload, author = f"heal {number}", self._random.choice(fleet.well)
            published[payload] = time.monotonic_ns(), author
            await fleet.do(author, "publish", payload=payload.ljust(PAYLOAD))
            await _pause(EVERY_S)
            states = await self._collect()
            if min(states[host]["mesh"] for host in fleet.well) < LOW:
                meshed_s = (time.monotonic_ns() - killed) / 1e9
        self._tell("waiting until all have mesh peers enough")
        while meshed_s < MESHED_S / self._less:
            await _pause(EVERY_S)
            states = await self._collect()
            if min(states[host]["mesh"] for host in fleet.well) >= LOW:
                break
            meshed_s = (time.monotonic_ns() - killed) / 1e9
        reached_s = 0.0
        for payload, (at, author) in published.items():
            before = [
                {text for text, _, when in self._copies[host] if when - at < IN_TIME_S * 1e9}
                for host in fleet.well
                if host != author
            ]
            missed = sum(payload not in texts for texts in before)
            self.shares["healing_delivered"][0] += len(before) - missed
            self.shares["healing_delivered"][1] += len(before)
            if missed:
                reached_s = (at - killed) / 1e9 + EVERY_S
        self.samples["healed_s"].append(reached_s)
        self.samples["meshed_s"].append(meshed_s)

    # --- lookups ----------------------------------------------------------------------------------------------

    async def lookups(self, name: str, hosts: list[int], *, at_once: int = 1) -> None:
        """Each of these looks up a key of its own."""
        turns = iter(self._turns(f"lookups ({name})", len(hosts)))
        gate = asyncio.Semaphore(at_once)

        async def one(host: int) -> None:
            async with gate:
                next(turns, None)
                await self._look_up(name, host)

        async with asyncio.TaskGroup() as group:
            for host in hosts:
                group.create_task(one(host))

    async def question_work(self) -> None:
        """Processor time of questions, at either end, while all are connected."""
        fleet, own_idle_ms = self._fleet, self._idle_ms / len(self._fleet.well)
        for _ in self._turns(f"lookups, {BATCH} at a time, for their work", max(2, 10 // self._less)):
            before, began = await self._cpu_ms(), time.monotonic()
            asked, own_ms = 0, 0.0
            for _ in range(BATCH):
                done = await self._look_up("busy", self._random.choice(fleet.well))
                work_ms = done["cpu_ms"] - own_idle_ms * done["ms"] / 1e3
                asked, own_ms = asked + len(done["questions"]), own_ms + work_ms
                if done["questions"]:
                    self.samples["question_work"].append(work_ms / len(done["questions"]))
            all_ms = await self._cpu_ms() - before - self._idle_ms * (time.monotonic() - began)
            if asked:
                self.samples["answer_work"].append((all_ms - own_ms) / asked)

    async def _look_up(self, name: str, host: int) -> dict[str, Any]:
        fleet, key = self._fleet, f"key {self._random.getrandbits(64)}"
        done = await fleet.do(host, "closest", key=key, k=K)
        self._note_questions(name, done)
        if done["ok"]:
            self.samples[f"{name}_lookup"].append(done["ms"])
            there = nearest(key.encode(), [PeerId(fleet.peers[one]) for one in fleet.well], K)
            for peer in there:
                self._count(f"{name}_recall", peer in done["found"])
        return done

    async def provide(self, name: str, count: int) -> None:
        """Some hosts announce a key each."""
        for _ in self._turns(f"announcing ({name})", max(2, count // self._less)):
            key = f"work {self._random.getrandbits(64)}"
            done = await self._fleet.do(self._random.choice(self._fleet.well), "provide", key=key)
            self._note_questions(name, done)
            if done["ok"]:
                self._keys.append(key)
                self.samples[f"{name}_provide"].append(done["ms"])

    async def providers(self, name: str, count: int, *, at_once: int = 1) -> None:
        """Some hosts look for who announced these keys."""
        turns = iter(self._turns(f"asking for providers ({name})", max(2, count // self._less)))
        gate = asyncio.Semaphore(at_once)

        async def one() -> None:
            async with gate:
                next(turns, None)
                done = await self._fleet.do(
                    self._random.choice(self._fleet.well), "providers", key=self._random.choice(self._keys)
                )
                self._note_questions(name, done)
                self._count(f"{name}_providers_found", bool(done.get("found")))
                if done["ok"]:
                    self.samples[f"{name}_providers"].append(done["ms"])

        async with asyncio.TaskGroup() as group:
            for _ in range(max(2, count // self._less)):
                group.create_task(one())

    def _note_questions(self, name: str, done: dict[str, Any]) -> None:
        self.samples[f"{name}_questions"].append(len(done["questions"]))
        for peer, connected, answered, took_ms in done["questions"]:
            there = self._numbers[peer] in self._fleet.well
            self._count(f"{name}_connected", connected)
            self._count(f"{name}_unanswered_by_{'well' if there else 'gone'}", not answered)
            if there:
                self._count("unanswered_connected" if connected else "unanswered_dialled", not answered)
                if connected and name in STEADY:
                    self._count("hung", not answered)
            if not answered:
                self.samples[f"{name}_until_given_up"].append(took_ms)

    # --- hosts that hang --------------------------------------------------------------------------------------

    async def freeze(self, processes: int) -> None:
        """Stop some processes: their hosts keep their connections and say nothing."""
        fleet = self._fleet
        self._tell(f"stopping the hosts of {processes} processes")
        self._frozen = fleet.signal(processes, signal.SIGSTOP)
        self._frozen_at = time.monotonic()
        self.stopped = len(self._frozen)

    async def dial_frozen(self) -> None:
        """A dial to a host that hangs, where no connection is."""
        self._tell("dialling hosts that hang")
        fleet = self._fleet
        states = await fleet.states()
        pairs = [(one, other) for one in fleet.well for other in self._frozen]
        free = [(one, other) for one, other in pairs if fleet.peers[other] not in states[one]["links"]]
        for done in await asyncio.gather(
            *(fleet.do(one, "connect", address=fleet.addresses[other]) for one, other in free[:8])
        ):
            self.samples["dial_frozen"].append(done["ms"])

    async def notice(self) -> None:
        """How long hosts keep a connection to one that hangs."""
        fleet = self._fleet
        there = {fleet.peers[host] for host in self._frozen}
        held = {(host, peer) for host in fleet.well for peer in there}
        self._tell(f"waiting until hosts give up those that hang, {NOTICING_S / self._less:.0f} s at most")
        first = True
        while held and time.monotonic() < self._frozen_at + NOTICING_S / self._less:
            states = await fleet.states()
            now = {(host, peer) for host in fleet.well for peer in states[host]["links"] if peer in there}
            if not first:
                took_s = time.monotonic() - self._frozen_at
                self.samples["noticed_s"] += [took_s] * len(held - now)
            held, first = held & now, False
            await _pause(0.5)

    # --- inside -----------------------------------------------------------------------------------------------

    async def _cpu_ms(self, *hosts: int) -> float:
        """Processor time of the threads of these hosts so far, or of all that run."""
        states = await self._collect()
        return float(sum(states[host]["cpu_ms"] for host in hosts or self._fleet.well))

    async def _collect(self) -> dict[int, dict[str, Any]]:
        """States; the copies that were seen are kept."""
        states = await self._fleet.states()
        for host, state in states.items():
            self._copies[host] += [(text, forwarder, at) for text, forwarder, at in state["copies"]]
        return states

    def _count(self, name: str, hit: bool) -> None:
        self.shares[name][0] += hit
        self.shares[name][1] += 1

    def _turns(self, what: str, count: int) -> Any:
        """Numbers, with the progress shown."""
        for number in range(count):
            if sys.stderr.isatty():
                print(f"\r\033[Krecord: {what} {number + 1} of {count}", end="", file=sys.stderr, flush=True)
            elif number == 0:
                self._tell(what)
            yield number
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    @staticmethod
    def _tell(what: str) -> None:
        print(f"record: {what} ...", file=sys.stderr, flush=True)


def _hops(first: dict[int, tuple[int, int]], host: int, author: int) -> int:
    """From the author to a host, by whoever was first to tell each on the way."""
    hops = 0
    while host != author and host in first and hops < len(first):
        host, hops = first[host][1], hops + 1
    return hops


async def _pause(seconds: float) -> None:
    """Let the hosts run."""
    await asyncio.to_thread(pause, seconds)
