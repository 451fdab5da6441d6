"""The node of an adversary, which stands between the cores and their shell."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from sparkle_protocol import effects as fx
from sparkle_protocol import messages
from sparkle_protocol.facts import Fact, Payload
from sparkle_sim.kernel import SECOND
from sparkle_sim.peer import Machine, Peer
from sparkle_sim.requests import SUBMITTER

if TYPE_CHECKING:
    from sparkle_sim.adversaries.base import Adversary
    from sparkle_sim.world import World


class HostilePeer(Peer):
    """The node of an adversary."""

    __slots__ = ("adversary",)

    def __init__(
        self, world: "World", number: int, machine: Machine, adversary: "Adversary", *, works: bool = True
    ) -> None:
        self.adversary = adversary
        super().__init__(world, number, machine, works=works, behaviour=adversary.behaviour())

    def start(self, bootstrap: Iterable[str] = ()) -> None:
        """Begin to live, with what its disk has."""
        super().start(bootstrap)
        self.adversary.begin()

    def tell(self, core: int, event: object) -> None:
        """Give a core what the adversary makes of an event."""
        told = self.adversary.event(core, event) if self.life is not None else None
        if told is not None:
            super().tell(core, told)
        elif isinstance(event, fx.Requested) and self.life is not None:
            self.life.requests.served.pop(event.token, None)  # nobody will answer that

    def _effects(self, core: int, effects: fx.Effects) -> None:
        super()._effects(core, self.adversary.effects(core, effects))

    # --- what adversaries do by themselves --------------------------------------------------------------------

    def sign(self, payload: Payload) -> Fact:
        """State something."""
        return self.world.codec.seal(self.identity, payload)

    def answer(self, token: int, message: messages.Reply) -> None:
        """Answer a request that no core was told of."""
        self.perform(SUBMITTER, fx.Reply(token, message))

    def say(self, target: int, message: messages.Request) -> None:
        """Send a request over a connection that there is, and never mind the answer."""
        self.say_raw(target, messages.encode_message(message))

    def say_raw(self, target: int, raw: bytes) -> None:
        """Send anything at all."""
        if self.life is not None:
            self.life.requests.say_raw(target, raw)

    def every(self, seconds: float, call: Callable[[], None]) -> None:
        """Have something done again and again as long as this life lasts, beginning at a random time."""
        life, kernel, random = self._running, self.world.kernel, self.adversary.random

        def again() -> None:
            if self.life is life:
                kernel.after(int(seconds * SECOND), again)
                call()

        kernel.after(int(random.uniform(0.0, seconds) * SECOND), again)

    def later(self, seconds: float, core: int, event: object) -> None:
        """Tell a core something in a while, if this life lasts till then."""
        self.world.kernel.after(int(seconds * SECOND), self._if_alive, self._running, self._tell_core, (core, event))

    def _tell_core(self, core: int, event: object) -> None:
        Peer.tell(self, core, event)
