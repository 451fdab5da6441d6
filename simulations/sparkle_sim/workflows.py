"""The programs of a run: each is a coroutine function that is given the client of a peer.

A program begins when its node does for the first time, and ends with what it raises, as a real one would: an error
of ``sparkle_protocol.errors`` is what it came to, and the run goes on. Anything else is a mistake in the program and
ends the run.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from sparkle_protocol.effects import Notify, Violation
from sparkle_protocol.errors import ConfigError, LocalProtocolError, SparkleError
from sparkle_protocol.ids import JobId
from sparkle_sim.client import Client
from sparkle_sim.loop import VirtualLoop
from sparkle_sim.peer import Peer
from sparkle_sim.scenario import JobPlan, Scenario
from sparkle_sim.world import World

Workflow = Callable[[Client], Awaitable[object]]

SETTLED = ("job_published", "job_done", "job_failed", "job_cancelled")


class Workflows:
    """All programs of a run, on one loop.

    Args:
        world: where they run.
        scenario: its rules.
        clients: peers, and the program of each.
        on_submit: told of each job that a node took from a program.
        on_end: told when one of them ended.
    """

    def __init__(
        self,
        world: World,
        scenario: Scenario,
        clients: Sequence[tuple[int, Workflow]],
        on_submit: Callable[[JobId, JobPlan], None],
        on_end: Callable[[], None],
    ) -> None:
        check_clients(clients, len(world.peers))
        for number, _ in clients:
            if number in world.adversaries:
                raise ConfigError(f"peer {number} is an adversary; give the client another peer")
        self.loop = VirtualLoop(world.kernel)
        self.running = len(clients)
        self._world = world
        self._on_end = on_end
        self._by_peer: dict[int, list[Client]] = {}
        self._entries: list[dict[str, object]] = []
        self._tasks: list[asyncio.Task[None]] = []
        for place, (number, workflow) in enumerate(clients):
            client = Client(world, scenario, number, f"{place}", on_submit)
            self._by_peer.setdefault(number, []).append(client)
            name = getattr(workflow, "__name__", type(workflow).__name__)
            self._entries.append({"peer": number, "name": name, "outcome": "running", "ended_s": None})
            self.loop.call_soon(self._begin, client, workflow, self._entries[-1])
        world.watchers.append(self)

    def summary(self) -> list[dict[str, object]]:
        """What became of each: ``running``, ``done``, or the error that it ended with."""
        return self._entries

    def _begin(self, client: Client, workflow: Workflow, entry: dict[str, object]) -> None:
        task = self.loop.create_task(self._conduct(client, workflow, entry))
        task.add_done_callback(self._over)
        self._tasks.append(task)

    async def _conduct(self, client: Client, workflow: Workflow, entry: dict[str, object]) -> None:
        await client.running()
        self._world.note(client.number, "client", f"{entry['name']} begins")
        try:
            await workflow(client)
            entry["outcome"] = "done"
        except LocalProtocolError:
            raise
        except SparkleError as error:
            entry["outcome"] = f"{type(error).__name__}: {error}"
        except asyncio.CancelledError:
            entry["outcome"] = "cancelled"
        entry["ended_s"] = client.now_s
        self._world.note(client.number, "client", f"{entry['name']} ends: {entry['outcome']}")

    def _over(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self.loop.call_exception_handler({"message": "a client failed", "exception": task.exception()})
        self.running -= 1
        self._on_end()

    # --- watching ---------------------------------------------------------------------------------------------

    def heard(self, peer: Peer, effect: Notify) -> None:
        """Whoever waits for a job to be published is told."""
        if peer.number in self._by_peer and effect.event in SETTLED:
            job = JobId(bytes.fromhex(str(effect.fields["job"])))
            for client in self._by_peer[peer.number]:
                client.heard(job)

    def violated(self, peer: Peer, effect: Violation) -> None:
        """Nothing follows from it here."""


def check_clients(clients: Sequence[tuple[int, Workflow]], peers: int) -> None:
    """Raise ConfigError for a client of a peer that there is not."""
    for number, _ in clients:
        if not 0 <= number < peers:
            raise ConfigError(f"a client is at peer {number}, but the peers are 0 to {peers - 1}")
