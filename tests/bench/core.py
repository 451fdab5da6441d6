"""The work cores alone, without disk, network or clock: ``core.py UNITS`` takes one job from submission to its end.

One submitter that does not compute and two workers, driven as the node's shell does, with messages handed over as
objects and signatures that cost next to nothing. What is measured is the bookkeeping of the protocol: processor time
and memory per unit, which must not grow with the number of units.
"""

import gc
import json
import sys
import time
from collections import deque
from collections.abc import Callable
from random import Random

import psutil

from sparkle_protocol import effects as fx
from sparkle_protocol.facts import FactCodec
from sparkle_protocol.ids import PeerId
from sparkle_protocol.messages import Notice, Offer
from sparkle_protocol.work.submitter import Submitter
from sparkle_protocol.work.worker import WorkerAgent
from tests.property.world import KERNEL, NET, CheapIdentity, Core, check_form, spec, true_result, verify_cheap

WORKERS = 2  # as many as have to agree
WARM_UP = 1000
STEP_NS = 1_000_000  # that a round of messages takes
ENDS = ("job_done", "job_failed", "job_cancelled")


class Node:
    """The cores of one peer."""

    def __init__(self, seed: int, *, works: bool) -> None:
        identity, codec, rng = CheapIdentity(seed), FactCodec(NET, verify_cheap), Random(seed)
        self.id: PeerId = identity.peer_id
        self.submitter = Submitter(identity, codec, rng, check_form)
        self.worker = WorkerAgent(identity, codec, rng, [f"{KERNEL}@1"] if works else [])
        self.cores: tuple[Core, ...] = (self.submitter, self.worker)


class Nodes:
    """Peers that hear each other at once, in order, on a clock of their own."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.ended = False
        self.all = [Node(seed, works=seed > 0) for seed in range(WORKERS + 1)]
        self._by_id = {node.id: node for node in self.all}
        self._todo: deque[tuple[Node, Core, object]] = deque()  # as many as messages are under way
        self._asked: dict[int, tuple[Node, Core, int, PeerId]] = {}  # token -> who waits for the answer
        self._token = 0
        for node in self.all:
            for other in self.all:
                if other is not node:
                    self._tell(node, fx.PeerUp(other.id, ()))

    def run(self, units: int) -> None:
        """One job, from submission to its end."""
        self.ended, first = False, self.all[0]
        job_id, effects = first.submitter.submit(spec(units, Random(units)), self.now_ns)
        self._perform(first, first.submitter, effects)
        while not self.ended:
            if self._todo:
                self._round()
            else:
                due = [core.next_deadline() for node in self.all for core in node.cores]
                self.now_ns = max(self.now_ns, min(time for time in due if time is not None))
                for node in self.all:
                    self._tell(node, fx.Tick())
        if len(first.submitter.jobs[job_id].state.final_units) != units:
            raise RuntimeError("the job ended before all its units were final")

    def _round(self) -> None:
        self.now_ns += STEP_NS
        for _ in range(len(self._todo)):
            node, core, event = self._todo.popleft()
            self._perform(node, core, core.handle(event, self.now_ns))

    def _tell(self, node: Node, event: object) -> None:
        for core in node.cores:
            self._todo.append((node, core, event))

    def _perform(self, node: Node, core: Core, effects: fx.Effects) -> None:
        for effect in effects:
            if isinstance(effect, fx.Send):
                self._token += 1
                self._asked[self._token] = (node, core, effect.tag, effect.peer)
                target = self._by_id[effect.peer]
                serving: Core = target.worker if isinstance(effect.message, Offer | Notice) else target.submitter
                self._todo.append((target, serving, fx.Requested(self._token, node.id, effect.message)))
            elif isinstance(effect, fx.Reply):
                asker, asking, tag, peer = self._asked.pop(effect.token)
                self._todo.append((asker, asking, fx.Replied(tag, peer, effect.message)))
            elif isinstance(effect, fx.Compute):
                done = fx.Computed(effect.job, effect.unit, effect.epoch, true_result(effect.unit))
                self._todo.append((node, core, done))
            elif isinstance(effect, fx.Notify) and effect.event in ENDS:
                self.ended = True


def measured(call: Callable[[], None]) -> tuple[float, int]:
    """Processor seconds of a call, and by how many bytes the process has grown after it."""
    gc.collect()
    memory = psutil.Process().memory_info().rss
    began = time.process_time()
    call()
    took = time.process_time() - began
    gc.collect()
    return took, psutil.Process().memory_info().rss - memory


def main(units: int) -> None:
    """Print microseconds and bytes per unit as one JSON line."""
    Nodes().run(WARM_UP)
    nodes = Nodes()
    took_s, grown = measured(lambda: nodes.run(units))
    print(json.dumps({"units": units, "us": took_s / units * 1e6, "bytes": grown / units}), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
